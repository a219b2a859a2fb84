"""``check_recommender``: what comparisons, the service and ``recommend`` rely on in every recommender.

Rules are tried on 40 users and 24 items with ratings and times, and with every kind of request: users, items and single
interactions. A model that needs more than that before it is fitted comes with ``prepare``.
"""

import copy
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.base import clone

from msgm.errors import UserError
from msgm.recommender.models import EXACTNESS, MODELS, Answer, Recommender, load_recommender
from msgm.recommender.requests import Deletion
from msgm.testing.rules import Refused, check_settings, check_texts, made, repeated, require

USERS, ITEMS = 40, 24
EVERYBODY: NDArray[np.int64] = np.arange(USERS)
ROUNDING = 1e-6
"""By how much scores may differ, relative to their largest, where an answer is exact up to rounding."""
Prepare = Callable[[Any], object]


def check_recommender(model: Recommender | type[Recommender], prepare: Prepare = lambda model: None) -> None:
    """Check that a recommender keeps every rule that comparisons, the service and ``recommend`` rely on.

    - It is a registered dataclass whose settings round-trip through a config, wrong settings are UserErrors, and
      scikit-learn's ``clone`` gives the same model unfitted.
    - A fit is a function of the cells and the seed, draws nothing from a global generator, leaves the matrix as it is,
      and gives every item a score that is a number.
    - ``recommend`` lists nothing that a user has seen or that was forgotten, best first by ``score``.
    - An answer to a request says how exact it is, and where it says exact, scores are those of a model fitted anew to
      the rest; what was forgotten is gone from the cells that the model knows. A request that is refused changes
      nothing.
    - A copy by ``fork`` forgets while the model itself stays as it is.
    - A model that was saved and loaded gives the same scores, before and after another request.

    Example:
        >>> from msgm.testing import check_recommender
        >>> check_recommender(msgm.recommender.EASE)

    Args:
        model: a recommender with its settings, or a class, which is tried with its defaults.
        prepare: called with each new model before it is fitted, to give it what it needs beside the matrix.

    Raises:
        Refused: a rule is broken; the message says which in one sentence.
    """
    found = made(model, Recommender)
    name = type(found).__name__
    check_settings(found)
    check_texts(name, type(found), "name", "__doc__")
    registered = MODELS.entries.get(found.name) is type(found)
    require(registered, f"{name} is not registered, so no folder that holds one can be read.")
    trial = _Trial(found, prepare)
    _check_parameters(found)
    _check_fit(trial)
    _check_lists(trial)
    for kind, deletion in _requests().items():
        _check_answer(trial, kind, deletion)
    _check_refusal(trial)
    _check_saving(trial)


@cache
def _matrix() -> csr_array:
    """Return ratings 1 to 5 of a third of all pairs; every user and item has some."""
    draws = np.random.default_rng(0)
    cells = np.where(draws.random((USERS, ITEMS)) < 0.33, draws.integers(1, 6, (USERS, ITEMS)), 0)
    cells[EVERYBODY, EVERYBODY % ITEMS] = 3
    return csr_array(cells.astype(np.float32))


def _requests() -> dict[str, Deletion]:
    rows, columns = _matrix().nonzero()
    cells: NDArray[np.int64] = np.stack([rows, columns], axis=1).astype(np.int64)
    return {
        "users": Deletion(users=np.array([3, 17])),
        "items": Deletion(items=np.array([5])),
        "single interactions": Deletion(cells=cells[[2, 60, 61]]),
    }


class _Trial:
    """A recommender with what it is tried on."""

    def __init__(self, model: Recommender, prepare: Prepare) -> None:
        self.model, self.prepare, self.name = model, prepare, type(model).__name__
        self.matrix = _matrix()
        self.times: NDArray[np.int64] = np.random.default_rng(1).permutation(self.matrix.nnz).astype(np.int64)

    def fitted(self, seed: int = 1) -> Recommender:
        model = copy.deepcopy(self.model)
        self.prepare(model)
        return model.fit(self.matrix, seed, self.times)


def _check_parameters(model: Recommender) -> None:
    name, settings = type(model).__name__, model.settings()
    try:
        again = clone(model)
    except (RuntimeError, TypeError) as error:
        raise Refused(f"{name}: scikit-learn's clone fails: {' '.join(str(error).split())}") from error
    require(again.settings() == settings, f"{name}: a clone has other settings.")
    require(not hasattr(again, "seen"), f"{name}: a clone is fitted.")
    require(again.set_params(**again.get_params()) is again, f"{name}.set_params does not return the model.")


def _check_fit(trial: _Trial) -> None:
    before = trial.matrix.copy()

    def scores() -> dict[str, torch.Tensor]:
        return {"scores": torch.from_numpy(np.array(trial.fitted().score(EVERYBODY)))}

    found = repeated(f"{trial.name}.fit", scores)["scores"].numpy()
    same = np.array_equal(before.toarray(), trial.matrix.toarray())
    require(same, f"{trial.name}.fit changes the matrix that it was given.")
    _check_scores(trial.name, found)
    model = copy.deepcopy(trial.model)
    trial.prepare(model)
    require(model.fit(trial.matrix, 1, trial.times) is model, f"{trial.name}.fit does not return the model.")
    few = np.array([7, 2])
    same = np.allclose(model.score(few), found[few], rtol=1e-4, atol=1e-5)
    require(same, f"{trial.name}.score: a user's scores depend on which users are asked for.")


def _check_scores(name: str, scores: NDArray[Any]) -> None:
    require(
        np.shape(scores) == (USERS, ITEMS),
        f"{name}.score gives shape {np.shape(scores)} for {USERS} users and {ITEMS} items.",
    )
    numbers = not np.isnan(scores).any() and not np.isposinf(scores).any()
    require(numbers, f"{name}.score gives an item no score that is a number.")


def _check_lists(trial: _Trial) -> None:
    model = trial.fitted()
    ids, scores = model.recommend(EVERYBODY, N=ITEMS)
    seen = trial.matrix.toarray() != 0
    rows, places = np.nonzero(ids >= 0)
    require(not seen[rows, ids[rows, places]].any(), f"{trial.name}.recommend lists an item that the user has seen.")
    own = np.asarray(model.score(EVERYBODY), dtype=np.float64)[rows, ids[rows, places]]
    agree = np.allclose(scores[rows, places], own) and (np.diff(np.nan_to_num(scores, neginf=-1e30)) <= 0).all()
    require(bool(agree), f"{trial.name}.recommend does not list items best first by score.")


def _check_answer(trial: _Trial, kind: str, deletion: Deletion) -> None:
    name, original, reference = trial.name, trial.fitted(), trial.fitted()
    model, before = original.fork(), np.array(original.score(EVERYBODY))
    rest = deletion.without(trial.matrix).toarray()
    answer = model.forget(deletion)
    known = ", ".join(EXACTNESS)
    require(answer.exactness in EXACTNESS, f"{name} answers {answer.exactness!r}; expected one of {known}.")
    cost = answer.seconds >= 0 and answer.touched >= 0
    require(cost, f"{name}: an answer took {answer.seconds} seconds and touched {answer.touched} rows.")
    same = np.array_equal(before, original.score(EVERYBODY)) and original.seen.nnz == trial.matrix.nnz
    require(same, f"{name}.fork: a copy that forgets changes the model itself.")
    gone = np.array_equal(model.seen.toarray(), rest)
    require(gone, f"{name}: after a request for {kind} the model does not know the cells that are left, and no others.")
    _check_scores(name, np.asarray(model.score(EVERYBODY)))
    users = np.setdiff1d(EVERYBODY, deletion.users)
    listed = model.recommend(users, N=ITEMS)[0]
    require(not np.isin(listed, deletion.items).any(), f"{name}.recommend lists an item that was forgotten.")
    reference.refit(deletion)
    _check_exactness(name, kind, answer, *(np.asarray(one.score(users)) for one in (model, reference)))


def _check_exactness(name: str, kind: str, answer: Answer, scores: NDArray[Any], expected: NDArray[Any]) -> None:
    """Compare with a model fitted anew where the answer says that it is exact."""
    finite = np.isfinite(expected)
    if answer.exactness == "bit-exact":
        exact = np.array_equal(scores, expected)
    elif answer.exactness == "exact up to rounding":
        largest = float(np.abs(expected[finite]).max(initial=0))
        exact = np.array_equal(finite, np.isfinite(scores)) and bool(
            (np.abs(scores[finite] - expected[finite]) <= ROUNDING * largest).all()
        )
    else:
        return
    require(exact, f"{name} says {answer.exactness} on a request for {kind}, and a model fitted anew scores otherwise.")


def _check_refusal(trial: _Trial) -> None:
    model = trial.fitted()
    before, cells = np.array(model.score(EVERYBODY)), model.seen.nnz
    row, column = np.argwhere(trial.matrix.toarray() == 0)[0]
    for what, deletion in {
        "an interaction that the model never saw": Deletion(cells=np.array([[row, column]])),
        "everything": Deletion(users=EVERYBODY),
    }.items():
        try:
            model.forget(deletion)
        except UserError:
            kept = np.array_equal(before, model.score(EVERYBODY)) and model.seen.nnz == cells
            require(kept, f"{trial.name}: a refused request for {what} changes the model.")
        else:
            raise Refused(f"{trial.name} answers a request for {what}, where a UserError is expected.")


def _check_saving(trial: _Trial) -> None:
    requests, name = list(_requests().values()), trial.name
    model = trial.fitted()
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        again = load_recommender(Path(folder))
    require(again.get_params() == model.get_params(), f"{name}: a model that was saved has other settings.")
    for deletion, when in ((None, "that was saved"), (requests[0], "that was saved, and then asked to forget,")):
        if deletion is not None:
            model.forget(deletion)
            again.forget(deletion)
        same = np.allclose(model.score(EVERYBODY), again.score(EVERYBODY), rtol=1e-5, atol=1e-6)
        require(same, f"{name}: a model {when} scores otherwise.")
