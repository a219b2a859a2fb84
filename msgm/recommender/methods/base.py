"""Base of unlearning methods for recommenders: ``unlearn(model, deletion, seed) -> model, answer, preparation``.

A model's own ``forget`` is the method ``native``; the other files here hold methods that work from outside the model.
"""

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from msgm.errors import UserError
from msgm.recommender.models.base import Answer, Recommender
from msgm.recommender.requests import Deletion
from msgm.registry import Registry


@dataclass(frozen=True)
class Card:
    """Facts on a method that a user needs before relying on it.

    Example:
        >>> METHODS.entries["retrain"].card.exactness
        'bit-exact'

    Attributes:
        formula: what it does, in one line.
        source: paper and section.
        exactness: one of ``models.EXACTNESS``, or ``the model's own``.
        models: names of the models that it is for; empty for all.
        needs: the data that it reads.
        deviations: from the source.
    """

    formula: str
    source: str
    exactness: str
    models: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("forget",)
    deviations: str = "none"


@dataclass
class Ledger:
    """Records what a method spends and keeps beside answering the request.

    Attributes:
        preparation_seconds: wall time of preparation, such as fitting shards.
        storage_bytes: kept between requests.
        facts: further numbers, by name.
    """

    preparation_seconds: float = 0.0
    storage_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Count the time inside this context as preparation (shards, partitions, importances), also when it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.preparation_seconds += time.perf_counter() - start


@dataclass(frozen=True)
class Unlearned:
    """Result of a method: a new model, the answer, and the cost of preparation.

    Example:
        >>> model = msgm.recommender.EASE().fit(matrix)
        >>> made = METHODS.build({"name": "retrain"}).unlearn(model, deletion, seed=0)
        >>> made.answer.exactness, made.storage_bytes
        ('bit-exact', 0)
    """

    model: Recommender
    answer: Answer
    preparation_seconds: float
    storage_bytes: int


class Method(ABC):
    """A way to forget. Subclasses are frozen dataclasses whose fields are their settings.

    Example:
        >>> model = msgm.recommender.EASE().fit(matrix)
        >>> METHODS.build({"name": "native"}).unlearn(model, deletion, seed=0).model is model
        False

    In their examples ``deletion`` is ``Deletion(users=np.array([3]))``.
    """

    name: ClassVar[str]
    card: ClassVar[Card]

    def unlearn(self, model: Recommender, deletion: Deletion, seed: int) -> Unlearned:
        """Return a copy of ``model`` that was made to forget; ``model`` is not changed.

        Raises:
            UserError: the method is not for this model, or the request is not one for it.
        """
        if self.card.models and model.name not in self.card.models:
            raise UserError(f"{self.name} is for {', '.join(self.card.models)}, not for {model.name}.")
        deletion.check(model.seen)
        ledger, working = Ledger(), copy.deepcopy(model)
        start = time.perf_counter()
        found, touched, exactness = self.forget(working, deletion, seed, ledger)
        seconds = time.perf_counter() - start - ledger.preparation_seconds
        answer = Answer(seconds, touched, exactness, ledger.facts)
        return Unlearned(found, answer, ledger.preparation_seconds, ledger.storage_bytes)

    @abstractmethod
    def forget(self, model: Recommender, deletion: Deletion, seed: int, ledger: Ledger) -> tuple[Recommender, int, str]:
        """Make ``model``, the method's own copy, forget, cells of ``seen`` included; return it or another one.

        Returns:
            the model, the rows of its tables that were written, and one of ``models.EXACTNESS``.
        """

    @classmethod
    def describe(cls) -> str:
        """Return the card as lines of text, with the defaults of the settings."""
        defaults = ", ".join(f"{f.name} {getattr(cls(), f.name)}" for f in fields(cls)) or "no settings"  # type: ignore[arg-type]
        facts = {key: ", ".join(v) if isinstance(v, tuple) else v for key, v in asdict(cls.card).items()}
        facts["models"] = facts["models"] or "all"
        return "\n".join(f"{key}: {value}" for key, value in (facts | {"defaults": defaults}).items())


METHODS: Registry[Method] = Registry("methods")
