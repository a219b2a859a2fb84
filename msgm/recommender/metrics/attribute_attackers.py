"""Attribute attackers: how well fresh attackers infer users' attributes from a model's outputs or embeddings.

Attackers (logistic regression, a multi-layer perceptron, boosted trees) are trained and judged by stratified
cross-validation over users, anew for every model. Within the training folds alone, users of rarer classes are repeated
until all classes are as large; inputs are standardised by the training folds. The number is the balanced accuracy, the
mean over classes of the share guessed right, of all users at once, each guessed while held out. Chance is 1 / C.

An erasure fitted to the same users can leave attackers well below chance: where it made the class means of these very
users equal, those of the training folds differ by just the opposite of those of the fold held out. That is not safe: an
attacker who knows some users' values notices it and inverts his guesses. So ``leak`` is the balanced accuracy after
each guess is replaced by the class that makes it likeliest,

    leak = 1 / C sum over guesses g of max over classes c of P(g | c)  >= 1 / C,

as this replacement is chosen on the evaluated users, it is slightly above chance where there is nothing to learn.

Three surfaces can be attacked: embeddings, scores of all items, and recommended lists. Anyone who sees the lists can
mount the attack on lists.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.recommender.attributes.labels import Labels, chosen, encode
from msgm.recommender.metrics.base import METRICS, Case, Metric, Number
from msgm.recommender.models.base import Recommender
from msgm.seeding import derive_seed
from msgm.solves import ITERATIONS, fitted

Surface = Literal["embeddings", "scores", "lists"]
ATTACKERS = ("logistic", "mlp", "gbdt")
WIDTH = 128
"""Wider features are given as that many principal components, which need no label."""
ROUNDING = 1e-6
"""Components below this share of the first one's deviation are rounding errors: scores have the rank of the factors.

Standardised, they would be as large as the rest, and attackers would drown in them (ml-100k, ALS of 32 factors: a
logistic attacker on scores is at .63 with them and at .69 without)."""


@METRICS.register("attribute-attackers")
@dataclass(frozen=True)
class AttributeAttackers(Metric):
    """Balanced accuracy of every attacker on one attribute.

    Forgotten users and users without a value are left out. Every number is None where the data have no attribute,
    or the model nothing of the surface.

    Example:
        >>> AttributeAttackers(attribute="gender", surface="lists", k=5).attribute
        'gender'
        >>> features(case.target, np.array([2, 3]), "lists", k=5).sum(1)
        array([5., 5.])

    Attributes:
        attribute: its name; None for the first by name.
        surface: what is attacked.
        k: length of the lists.
        folds: of the cross-validation; every class needs as many users.
        seed: of folds, repeats and attackers.
    """

    costly = True

    attribute: str | None = None
    surface: Surface = "scores"
    k: int = 10
    folds: int = 5
    seed: int = 0

    numbers: ClassVar[dict[str, Number]] = {
        f"attribute_bacc_{name}": Number(f"balanced accuracy of a fresh {name} attacker", "privacy", "lower")
        for name in ATTACKERS
    } | {
        "attribute_leak": Number("attribute guessed by the best attacker who re-reads his guesses", "privacy", "lower"),
        "attribute_chance": Number("balanced accuracy of guessing the attribute blindly, 1 / classes", "privacy"),
    }

    def __post_init__(self) -> None:
        at_least(1, self, f"options.{self.name}", "k")
        at_least(2, self, f"options.{self.name}", "folds")

    def measure(self, case: Case) -> dict[str, float | None]:
        names = [self.attribute] if self.attribute else sorted(case.data.attributes)[:1]
        if not names or not shows(case.target, self.surface):
            return dict.fromkeys(self.numbers)
        (labels,) = encode(chosen(case.data.attributes, names), case.target.gone_users)
        shown = features(case.target, np.flatnonzero(labels.known), self.surface, self.k)
        attacks = {name: attack(shown, labels, name, self.folds, self.seed) for name in ATTACKERS}
        found: dict[str, float | None] = {f"attribute_bacc_{name}": each.accuracy for name, each in attacks.items()}
        leak = max(each.leak for each in attacks.values())
        return found | {"attribute_leak": leak, "attribute_chance": 1 / len(labels.values)}


def shows(model: Recommender, surface: Surface) -> bool:
    """Return whether the model has the surface: all models have scores and lists, not all have embeddings."""
    return surface != "embeddings" or hasattr(model, "user_factors") or hasattr(model, "encode")


def features(model: Recommender, users: NDArray[np.int64], surface: Surface, k: int = 10) -> NDArray[np.float64]:
    """Return (n, f) features of ``users`` on the attacked surface of ``model``.

    Embeddings are user factors, or the mean codes of an autoencoder; lists are indicators of the k items recommended.

    Raises:
        UserError: the model has no embeddings.
    """
    if surface == "lists":
        listed = model.listed(users, k)
        shown = np.zeros((len(users), model.seen.shape[1]))
        rows, places = np.nonzero(listed >= 0)
        shown[rows, listed[rows, places]] = 1
        return shown
    if surface == "scores":
        return np.asarray(model.score(users), dtype=np.float64)
    if not shows(model, surface):
        raise UserError(f"{model.name} has no user embeddings; attack its scores or its lists.")
    of: Any = model
    if hasattr(model, "user_factors"):
        return np.asarray(of.user_factors[users], dtype=np.float64)
    return np.asarray(of.encode(of.tables, of.rows(users))[0].numpy(), dtype=np.float64)


@dataclass(frozen=True)
class Attack:
    """Result of an attack.

    Attributes:
        accuracy: balanced, [0, 1].
        leak: balanced accuracy after each guess is replaced by its likeliest class, [1 / C, 1].
    """

    accuracy: float
    leak: float

    @classmethod
    def of(cls, guessed: NDArray[np.int64], codes: NDArray[np.int64]) -> "Attack":
        """Return the numbers of (n,) guesses at (n,) class numbers."""
        classes = int(codes.max()) + 1
        counts = np.zeros((classes, classes))
        np.add.at(counts, (codes, guessed), 1)
        rates = counts / counts.sum(1, keepdims=True)
        return cls(float(np.trace(rates)) / classes, float(rates.max(0).sum()) / classes)


def attack(shown: NDArray[np.floating[Any]], labels: Labels, attacker: str, folds: int = 5, seed: int = 0) -> Attack:
    """Train a fresh attacker by cross-validation and score its guesses at the held-out users.

    Args:
        shown: (n, f) features of the n users whose value is known, in the order of their numbers.
        labels: of all users.
        attacker: one of ``ATTACKERS``.
        folds: of the cross-validation.
        seed: of folds, repeats and attacker.

    Raises:
        UserError: a class has fewer users than there are folds.
    """
    codes = labels.codes[labels.known]
    check_sizes(labels, folds)
    inputs = _narrowed(shown, seed)
    guessed = np.empty_like(codes)
    for number, (train, held) in enumerate(balanced_folds(codes, folds, seed)):
        model = _fresh(attacker, derive_seed(seed, "attacker", attacker, number) % 2**32)
        # Standardised by every training user once: repeats would shift the mean to the rarer classes.
        once = inputs[np.unique(train)]
        scale = once.std(0)
        ready = (inputs - once.mean(0)) / np.where(scale > 0, scale, 1)
        if attacker == "logistic":
            learned = fitted(partial(model.fit, ready[train], codes[train]), "the logistic attacker")
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # The network is stopped early on purpose.
                learned = model.fit(ready[train], codes[train])
        guessed[held] = learned.predict(ready[held])
    return Attack.of(guessed, codes)


def balanced_folds(
    codes: NDArray[np.int64], folds: int, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield (training places, with repeats so that classes are as large; places held out) of stratified folds."""
    from sklearn.model_selection import StratifiedKFold

    state = derive_seed(seed, "attacker", "folds") % 2**32
    split = StratifiedKFold(folds, shuffle=True, random_state=state).split(codes[:, None], codes)
    for number, (train, held) in enumerate(split):
        draws = np.random.default_rng(derive_seed(seed, "attacker", "repeats", number))
        most = np.bincount(codes[train]).max()
        members = [train[codes[train] == code] for code in np.unique(codes)]
        repeats = [draws.choice(of, most - len(of)) for of in members]
        yield np.concatenate([*members, *repeats]), held


def utility_at(accuracy: float, measured: Sequence[tuple[float, float]]) -> float | None:
    """Return the best utility among settings of a method that leave attackers no more than ``accuracy``.

    Erasures trade hiding for utility, so they are compared at equal attacker accuracy.

    Args:
        accuracy: balanced accuracy that is allowed, [0, 1].
        measured: (balanced accuracy, utility) of each setting.

    Returns:
        None where no setting reaches that accuracy.
    """
    hidden = [utility for reached, utility in measured if reached <= accuracy]
    return max(hidden, default=None)


def check_sizes(labels: Labels, folds: int) -> None:
    """Refuse an attribute of which a class has fewer users than there are folds."""
    for value, members in zip(labels.values, labels.members(), strict=True):
        if len(members) < folds:
            raise UserError(
                f"attribute {labels.name!r}: the value {value!r} has {len(members)} users; {folds} folds need {folds}."
            )


def _narrowed(shown: NDArray[np.floating[Any]], seed: int) -> NDArray[Any]:
    """Return the features, or the leading principal components where they are wider than ``WIDTH``."""
    if min(shown.shape) <= WIDTH:
        return shown
    from sklearn.decomposition import PCA

    state = derive_seed(seed, "attacker", "components") % 2**32
    components = PCA(WIDTH, svd_solver="randomized", random_state=state).fit_transform(shown)
    deviations = components.std(0)
    return np.asarray(components[:, deviations >= ROUNDING * deviations.max()])


def _fresh(attacker: str, state: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    if attacker == "logistic":
        return LogisticRegression(C=0.1, max_iter=ITERATIONS)
    if attacker == "mlp":
        return MLPClassifier((64,), alpha=0.01, max_iter=60, random_state=state)
    return HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=state)
