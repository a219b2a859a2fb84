"""Base of recommenders: ``fit``, ``score``, ``forget``, ``save`` and ``load``; the user-facing part is ``estimator``.

A file that registers a subclass of ``Recommender`` makes it known to the command line and to comparisons.
"""

import copy
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, NotRequired, Self, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.folders import write_bytes
from msgm.plugins import Plugin, load_recorded, note_changed, plugins_of, refuse_foreign
from msgm.reading import read_headed_arrays
from msgm.recommender.journal import Seal
from msgm.recommender.models.estimator import Estimator, Ids, canonical, deletion_of
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import dropped, without
from msgm.registry import Registry, plain
from msgm.shapes import Count, Positive, Rule

EXACTNESS = ("bit-exact", "exact up to rounding", "exact at convergence", "approximate", "none")
"""What an answer to a request equals, from a model fitted anew on the rest, bit by bit, to nothing of the kind."""


@dataclass(frozen=True)
class Answer:
    """Cost and exactness of an answered forget request.

    Example:
        >>> answer = msgm.recommender.EASE().fit(matrix).forget(users=[3])
        >>> answer.exactness
        'exact up to rounding'

    Attributes:
        seconds: from request to answer.
        touched: rows of the model's tables that were written.
        exactness: one of ``EXACTNESS``.
        facts: further facts, as JSON values.
    """

    seconds: float
    touched: int
    exactness: str
    facts: dict[str, Any] = field(default_factory=dict)


FILE = "recommender.safetensors"


class Header(TypedDict):
    """Header of the model file."""

    settings: dict[str, Any]
    shape: Annotated[list[Positive], Rule("the numbers of users and items", lambda value: len(value) == 2)]
    seed: Count
    applied: Count
    seal: NotRequired[Seal]
    plugins: NotRequired[list[Plugin]]


class Recommender(Estimator, ABC):
    """A recommender of items to users. Subclasses are dataclasses whose init fields are their settings.

    Example:
        >>> model = msgm.recommender.EASE().fit(matrix)
        >>> model.listed(np.array([0]), k=5).shape
        (1, 5)

    Attributes:
        exact: whether every answer gives what a fit to the rest gives, up to rounding, and no draw has part in either.
        seen: (U, I) the training cells that the model knows; it shrinks with every request.
        gone_users: (U,) users that were forgotten; they are served nothing.
        gone_items: (I,) items that were forgotten; they are served to nobody.
        times: seconds since 1970 of the cells in the order of ``seen.data``; None if not given.
        seed: of the fit.
        applied: number of the last request of a service that is in the model; it is saved with it.
        seal: state of the service's journal when the model was written; saved with it.
    """

    name: ClassVar[str]
    explicit: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    applied: int = 0
    seal: Seal = {"lines": 0, "chain": ""}  # noqa: RUF012 - replaced, never changed

    seen: csr_array
    times: NDArray[np.int64] | None
    gone_users: NDArray[np.bool_]
    gone_items: NDArray[np.bool_]
    seed: int

    def fit(self, matrix: Any, seed: int = 0, times: NDArray[np.int64] | None = None) -> Self:
        """Fit to the (U, I) cells of users and items, by ``seed`` alone; return self.

        Args:
            matrix: sparse, as ``canonical`` reads it; it is not modified.
            seed: of all random draws of the fit.
            times: (nnz,) seconds since 1970 of the stored cells, rows first and columns sorted, which sessions need.

        Raises:
            UserError: nothing to fit to, a value that is not finite, or times that are not those of the cells.
        """
        seen = canonical(matrix)
        if not seen.nnz:
            raise UserError("there is no interaction to fit a recommender to.")
        if times is not None and len(times) != seen.nnz:
            raise UserError(f"times: expected {seen.nnz}, one for each cell, got {len(times)}.")
        self.seen, self.times, self.seed = seen, times, seed
        self.gone_users = np.zeros(seen.shape[0], dtype=bool)
        self.gone_items = np.zeros(seen.shape[1], dtype=bool)
        self._fit()
        return self

    @abstractmethod
    def _fit(self) -> None:
        """Fit to ``seen`` with ``seed``."""

    @abstractmethod
    def score(self, users: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return (len(users), I) scores of all items, larger for better liked; items seen are scored too."""

    def score_rows(self, rows: csr_array) -> NDArray[np.floating[Any]]:
        """Return (n, I) scores of n users by their (n, I) cells alone: users folded in, whom the model need not know.

        A row without a cell says nothing: its scores are the same whoever has it.

        Raises:
            UserError: the model has no way to.
        """
        able = ", ".join(sorted(name for name, made in MODELS.entries.items() if folds_in(made)))
        raise UserError(f"{self.name} cannot score users that it was not fitted to. Models that can: {able}.")

    def offers(self, users: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (len(users), I) scores with -inf for what ``recommend`` never lists: items seen and forgotten."""
        return self.scores_of_unseen(users, self.seen[users])

    def listed(self, users: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """Return (len(users), k) items, best first, -1 where fewer are left: the ids of ``recommend``.

        Items of equal scores stand in an order drawn for each user: the same at every call, and no item is preferred
        over all users.

        Raises:
            UserError: a user was forgotten, or k is below 1.
        """
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}.")
        return self.recommend(users, N=k)[0]

    def forget(
        self, deletion: Deletion | None = None, *, users: Ids = (), items: Ids = (), interactions: Any = ()
    ) -> Answer:
        """Forget in place by the model's own method, and return cost and exactness.

        Args:
            deletion: the request in numbers; or, in its place:
            users: rows to forget; they are served nothing from then on.
            items: columns to forget; they are recommended to nobody.
            interactions: pairs (row, column), or a sparse matrix whose stored cells are to be forgotten.

        Raises:
            UserError: numbers out of range, cells that the model never saw, or all of them; the model is then as
                before.
        """
        shape = self.seen.shape
        asked = deletion_of(shape, users, items, interactions) if deletion is None else deletion
        asked.check(self.seen)
        start = time.perf_counter()
        touched, exactness, facts = self._forget(asked)
        self.mark(asked)
        return Answer(time.perf_counter() - start, touched, exactness, facts)

    def mark(self, deletion: Deletion) -> None:
        """Drop the cells from ``seen`` and mark users and items as gone."""
        places = deletion.places(self.seen)
        self.seen, self.times = dropped(self.seen, places), None if self.times is None else without(self.times, places)
        self.gone_users[deletion.users] = True
        self.gone_items[deletion.items] = True

    @abstractmethod
    def _forget(self, deletion: Deletion) -> tuple[int, str, dict[str, Any]]:
        """Update the model; ``seen`` is still the old one. Return rows touched, exactness, facts."""

    def fork(self) -> Self:
        """Return a copy, which may forget while this model stays as it is; the cells are shared, as none is written."""
        return copy.deepcopy(self, {id(shared): shared for shared in (self.seen, self.times)})

    def placebo(self, deletion: Deletion) -> None:
        """Do what answering a request does beside forgetting: the same steps, in place, with nothing forgotten.

        Raises:
            UserError: these are a training, of which two differ by their draws.
        """
        able = ", ".join(sorted(name for name, made in MODELS.entries.items() if _tells(made)))
        raise UserError(
            f"{self.name} cannot tell what a withdrawal would change: it forgets by being trained again, and what is "
            f"drawn in training changes a list by more than one user's items do. Models that can: {able}."
        )

    def refit(self, deletion: Deletion) -> Answer:
        """Fit again to the retained cells with the same seed: the reference for forgetting."""
        deletion.check(self.seen)
        start = time.perf_counter()
        self.mark(deletion)
        self._fit()
        return Answer(time.perf_counter() - start, sum(self.seen.shape), "bit-exact", {"refit": True})

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the fitted state as arrays by name."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the fitted state from ``arrays``; ``seen`` is set already."""

    def settings(self) -> dict[str, Any]:
        """Return the settings, with the name."""
        return {"name": self.name} | {key: plain(value) for key, value in asdict(self).items()}  # type: ignore[call-overload]

    def save(self, folder: Path) -> None:
        """Write ``recommender.safetensors``, whole or not at all; its header holds the settings."""
        from safetensors.numpy import save

        arrays = {f"fitted.{name}": np.ascontiguousarray(value) for name, value in self.arrays().items()}
        arrays |= {"seen.data": self.seen.data, "seen.indices": self.seen.indices, "seen.indptr": self.seen.indptr}
        arrays |= {"gone_users": self.gone_users, "gone_items": self.gone_items}
        arrays |= {} if self.times is None else {"times": self.times}
        facts: dict[str, Any] = {"settings": self.settings(), "shape": list(self.seen.shape)}
        facts |= {"seed": self.seed, "applied": self.applied, "seal": self.seal}
        facts |= {"plugins": _plugins(self.settings())}
        write_bytes(folder / FILE, save(arrays, {"msgm": json.dumps(facts)}))


MODELS: Registry[Recommender] = Registry("model")


def folds_in(model: type[Recommender]) -> bool:
    """Return whether models of a class can score users that they were not fitted to."""
    return model.score_rows is not Recommender.score_rows


def _tells(model: type[Recommender]) -> bool:
    """Return whether models of a class can tell what a request would change."""
    return model.exact or model.placebo is not Recommender.placebo


def load_recommender(folder: Path) -> Recommender:
    """Read a model that ``save`` wrote.

    Example:
        >>> model = msgm.recommender.EASE().fit(matrix)
        >>> model.save(out)
        >>> load_recommender(out).seen.nnz == matrix.nnz
        True

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no recommender; expected {FILE} in it.")
    arrays, facts = read_headed_arrays(path, "msgm", Header)
    plugins = facts.get("plugins", [])
    refuse_foreign(facts["settings"], path)
    if any(name not in MODELS.entries for name in _names(facts["settings"])):
        load_recorded(plugins, path)
    model = MODELS.build(facts["settings"])
    note_changed(plugins, _plugins(facts["settings"]), path)
    model.seed, model.applied = facts["seed"], facts["applied"]
    model.seal = facts.get("seal", model.seal)  # msgm 0.1 wrote no seal
    try:
        _restore_cells(model, arrays, tuple(facts["shape"]))
        model.restore({k.removeprefix("fitted."): v for k, v in arrays.items() if k.startswith("fitted.")})
        scores = model.score(np.array([0, facts["shape"][0] - 1]))
    except Exception as error:  # each model, a plugin's too, fails in its own way on arrays that are not its own
        detail = next(iter(str(error).splitlines()), "").rstrip(".")
        raise UserError(f"{path} is damaged: its arrays are not those of the model ({detail}).") from error
    if np.shape(scores) != (2, facts["shape"][1]) or np.isnan(scores).any() or np.isposinf(scores).any():
        raise UserError(f"{path} is damaged: the model gives some items no score that is a number.")
    return model


def _restore_cells(model: Recommender, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, int]) -> None:
    """Restore a model's seen cells, and its forgotten users and items."""
    parts = (arrays["seen.data"], arrays["seen.indices"], arrays["seen.indptr"])
    model.seen = csr_array(parts, shape=shape)
    model.seen.check_format()
    model.times = arrays.get("times")
    model.gone_users, model.gone_items = arrays["gone_users"], arrays["gone_items"]
    for name, gone, size in zip(("gone_users", "gone_items"), (model.gone_users, model.gone_items), shape, strict=True):
        if gone.shape != (size,) or gone.dtype != np.bool_:
            raise ValueError(f"{name} is no mask of {size}")
    if model.times is not None and model.times.shape != model.seen.data.shape:
        raise ValueError("times are not those of the cells")


def _names(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the models that settings pick, those that a model is made of included."""
    base = settings.get("base")
    return [str(settings.get("name")), *(_names(base) if isinstance(base, Mapping) else [])]


def _plugins(settings: Mapping[str, Any]) -> list[Plugin]:
    return plugins_of(*(MODELS.entries[name] for name in _names(settings) if name in MODELS.entries))
