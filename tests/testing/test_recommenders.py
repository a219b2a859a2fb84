"""The battery of recommenders: every registered model passes, and each rule refuses a faulty one."""

import copy
from dataclasses import dataclass, field

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.models import MODELS, Recommender
from msgm.testing import Refused, check_recommender

SETTINGS = {"lightgcn": {"epochs": 5}, "mult-vae": {"epochs": 5}, "adversarial-mult-vae": {"epochs": 5}}
PREPARED = {"adversarial-mult-vae": lambda model: model.hiding({"plan": np.array(["a", "b"] * 20)})}


@pytest.mark.parametrize("name", MODELS.entries)
def test_every_registered_model_passes(name):
    model = MODELS.build({"name": name, **SETTINGS.get(name, {})})
    check_recommender(model, PREPARED.get(name, lambda model: None))


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "als", "forgetting": "local"},
        {"name": "ease", "precision": "float32", "regularisation": 5.0},
        {"name": "sharded", "base": {"name": "als", "factors": 4}, "combiner": "mean", "shards": 3},
    ],
    ids=str,
)
def test_other_settings_pass(settings):
    check_recommender(MODELS.build(settings))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(MODELS, "entries", dict(MODELS.entries))
    for cls, _ in FAULTS:
        if cls is not Unregistered and cls is not int:
            MODELS.register(cls.__name__.lower())(cls)
    MODELS.register("popularity")(Popularity)


@dataclass
class Popularity(Recommender):
    """Scores are counts to a power, right in everything; the base of the faulty ones."""

    power: float = 1.0

    def __post_init__(self):
        if not 0 < self.power < 100:
            raise UserError(f"model.power must lie between 0 and 100, got {self.power}.")

    def _fit(self):
        self.counts = np.bincount(self.seen.indices, minlength=self.seen.shape[1])

    def score(self, users):
        return np.tile(self.counts**self.power, (len(users), 1))

    def _forget(self, deletion):
        gone = np.bincount(deletion.only(self.seen).indices, minlength=len(self.counts))
        self.counts = self.counts - gone
        return int((gone > 0).sum()), "bit-exact", {}

    def arrays(self):
        return {"counts": self.counts}

    def restore(self, arrays):
        self.counts = arrays["counts"]


@dataclass
class Unregistered(Popularity):
    """Stands in no registry."""

    name = "unregistered"


@dataclass
class CopiesSetting(Popularity):
    """Copies a setting, which scikit-learn's clone refuses."""

    weights: list[float] = field(default_factory=lambda: [1.0])

    def __post_init__(self):
        self.weights = list(self.weights)


@dataclass
class FittedAtOnce(Popularity):
    """Has cells before a fit."""

    def __post_init__(self):
        self.seen = None


@dataclass
class NotItself(Popularity):
    """Returns nothing from ``set_params``."""

    def set_params(self, **params):
        super().set_params(**params)


@dataclass
class NoReturn(Popularity):
    """Returns another model from ``fit``."""

    def fit(self, *arguments, **options):
        return copy.copy(super().fit(*arguments, **options))


@dataclass
class GlobalNoise(Popularity):
    """Draws from the global generator."""

    def _fit(self):
        super()._fit()
        self.counts = self.counts + np.random.rand(len(self.counts))


@dataclass
class Unseeded(Popularity):
    """Draws from a generator without a seed."""

    def _fit(self):
        super()._fit()
        self.counts = self.counts + np.random.default_rng().random(len(self.counts))


@dataclass
class InPlace(Popularity):
    """Writes into the matrix."""

    def _fit(self):
        super()._fit()
        self.seen.data[:] = 1


@dataclass
class Narrow(Popularity):
    """Has no score for the last item."""

    def score(self, users):
        return super().score(users)[:, :-1]


@dataclass
class Infinite(Popularity):
    """Gives the last item an infinite score."""

    def score(self, users):
        found = super().score(users).astype(float)
        found[:, -1] = np.inf
        return found


@dataclass
class Relative(Popularity):
    """Ranks users against each other."""

    def score(self, users):
        return super().score(users) + np.arange(len(users))[:, None]


@dataclass
class ListsSeen(Popularity):
    """Recommends what users have seen."""

    def recommend(self, users, user_items=None, N=10, filter_already_liked_items=True):
        return super().recommend(users, user_items, N, False)


@dataclass
class Upside(Popularity):
    """Lists the worst first."""

    def recommend(self, users, user_items=None, N=10, filter_already_liked_items=True):
        ids, scores = super().recommend(users, user_items, N, filter_already_liked_items)
        return ids[:, ::-1], scores[:, ::-1]


@dataclass
class OwnWord(Popularity):
    """Has a word of its own for exactness."""

    def _forget(self, deletion):
        return super()._forget(deletion)[0], "very exact", {}


@dataclass
class NegativeCost(Popularity):
    """Touches fewer rows than none."""

    def _forget(self, deletion):
        return -1, *super()._forget(deletion)[1:]


@dataclass
class Remembers(Popularity):
    """Keeps the cells that it was to forget."""

    def mark(self, deletion):
        self.gone_users[deletion.users] = True


@dataclass
class ListsGone(Popularity):
    """Recommends items that were forgotten."""

    def mark(self, deletion):
        super().mark(deletion)
        self.gone_items[:] = False


@dataclass
class Lazy(Popularity):
    """Changes nothing, and calls that bit-exact."""

    def _forget(self, deletion):
        return 0, "bit-exact", {}


@dataclass
class Rounds(Popularity):
    """Is off by more than rounding."""

    def _forget(self, deletion):
        touched, _, facts = super()._forget(deletion)
        self.counts = self.counts * 1.001
        return touched, "exact up to rounding", facts


@dataclass
class Spoils(Popularity):
    """Changes before it refuses."""

    def forget(self, deletion=None, **named):
        self.counts = self.counts + 1 if len(deletion.users) > 2 else self.counts
        return super().forget(deletion, **named)


@dataclass
class AnswersAll(Popularity):
    """Forgets interactions that it never saw."""

    def forget(self, deletion=None, **named):
        try:
            return super().forget(deletion, **named)
        except UserError:
            return None


@dataclass
class Shares(Popularity):
    """Is its own copy."""

    def fork(self):
        return self


@dataclass
class LosesSettings(Popularity):
    """Saves its defaults."""

    power: float = 0.5

    def settings(self):
        return super().settings() | {"power": 1.0}


@dataclass
class Forgetful(Popularity):
    """Comes back from its folder with other counts."""

    def restore(self, arrays):
        self.counts = arrays["counts"][::-1]


@dataclass
class LosesState(Popularity):
    """Needs for a request what its folder does not hold."""

    def _fit(self):
        super()._fit()
        self.step = 1

    def restore(self, arrays):
        super().restore(arrays)
        self.step = 2

    def _forget(self, deletion):
        found = super()._forget(deletion)
        self.counts = self.counts * self.step
        return found


FAULTS = [
    (int, "int is no subclass of Recommender"),
    (Unregistered, "Unregistered is not registered, so no folder that holds one can be read"),
    (CopiesSetting, "CopiesSetting: scikit-learn's clone fails"),
    (FittedAtOnce, "FittedAtOnce: a clone is fitted"),
    (NotItself, "NotItself.set_params does not return the model"),
    (NoReturn, "NoReturn.fit does not return the model"),
    (GlobalNoise, "draws from the global generator of NumPy"),
    (Unseeded, "gives another result when it is called again"),
    (InPlace, "InPlace.fit changes the matrix that it was given"),
    (Narrow, r"Narrow.score gives shape \(40, 23\) for 40 users and 24 items"),
    (Infinite, "gives an item no score that is a number"),
    (Relative, "a user's scores depend on which users are asked for"),
    (ListsSeen, "recommend lists an item that the user has seen"),
    (Upside, "recommend does not list items best first by score"),
    (OwnWord, "answers 'very exact'; expected one of bit-exact"),
    (NegativeCost, "seconds and touched -1 rows"),
    (Shares, "Shares.fork: a copy that forgets changes the model itself"),
    (Remembers, "the model does not know the cells that are left, and no others"),
    (ListsGone, "recommend lists an item that was forgotten"),
    (Lazy, "says bit-exact on a request for users, and a model fitted anew scores otherwise"),
    (Rounds, "says exact up to rounding on a request for users, and a model fitted anew scores otherwise"),
    (Spoils, "a refused request for everything changes the model"),
    (AnswersAll, "answers a request for an interaction that the model never saw, where a UserError is expected"),
    (LosesSettings, "a model that was saved has other settings"),
    (Forgetful, "a model that was saved scores otherwise"),
    (LosesState, "a model that was saved, and then asked to forget, scores otherwise"),
]


@pytest.mark.parametrize(("faulty", "sentence"), FAULTS, ids=[cls.__name__ for cls, _ in FAULTS])
def test_a_faulty_model_is_refused_in_one_sentence(faulty, sentence):
    with pytest.raises(Refused, match=sentence) as refused:
        check_recommender(faulty)
    assert "\n" not in str(refused.value)


def test_the_base_of_the_faulty_ones_is_right():
    check_recommender(Popularity)
