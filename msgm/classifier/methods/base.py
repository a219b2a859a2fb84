"""Base of unlearning methods: ``unlearn(model, split, settings) -> model, cost, artefacts``.

A file that registers a subclass of ``Method`` makes it known to the command line and to every comparison.
"""

import copy
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from msgm.classifier.data import Examples, Split
from msgm.classifier.modules import Labelled, asked, fresh_weights
from msgm.classifier.networks import reinitialised
from msgm.classifier.training import TrainingSettings, check_outputs, finite, fit_inputs
from msgm.devices import finish
from msgm.errors import Interrupted, RunError, UserError
from msgm.registry import Registry
from msgm.requests import ForgetRequest


@dataclass(frozen=True)
class Settings:
    """Run context of a method: training settings, seed, device and network factory.

    Example:
        >>> settings = Settings(training, seed=0, device=torch.device("cpu"), build=build, original_seed=0)
        >>> settings.fresh(network, seed=1) is network
        False

    Attributes:
        training: how the original model was trained.
        seed: of the method's own draws.
        device: where to compute.
        build: returns the network with fresh weights of a given seed.
        original_seed: the seed that the original model was trained with, for methods that replay its training.
        folder: where a method may store state for answering the next request, and finds earlier state; None stores
            nothing.
    """

    training: TrainingSettings
    seed: int
    device: torch.device
    build: Callable[[int], nn.Module]
    original_seed: int
    folder: Path | None = None

    def fresh(self, trained: nn.Module, seed: int) -> nn.Module:
        """Return a network of fresh weights that shares none with ``trained``; errors as in ``reinitialised``."""
        return reinitialised(trained, self.build(seed)).to(self.device)

    def untrained(self, trained: nn.Module, retain: Examples, seed: int) -> nn.Module:
        """Return ``fresh`` in eval mode, reading inputs on the scale of ``retain``, as a retrained model does."""
        network = self.fresh(trained, seed)
        fit_inputs(network, retain)
        return network.eval()


@dataclass
class Cost:
    """Cost of a run of a method.

    Example:
        >>> Cost(seconds=2.0, examples=64).preparation_seconds
        0.0

    Attributes:
        seconds: from request to answer, evaluation excluded.
        preparation_seconds: spent before any request, or once for all of them: importances, shards, stored updates.
        examples: items passed forward and backward in answering.
        storage_bytes: kept between requests beyond one model.
    """

    seconds: float = 0.0
    preparation_seconds: float = 0.0
    examples: int = 0
    storage_bytes: int = 0


@dataclass
class Ledger:
    """Records a method's time, examples, bytes and artefacts; synchronises CUDA before reading the clock.

    Example:
        >>> ledger = Ledger(torch.device("cpu"))
        >>> with ledger.preparing():
        ...     ledger.stored(8)
        >>> ledger.cost.storage_bytes
        8

    Attributes:
        device: where the method computes.
        cost: the cost counted so far.
        artefacts: what the method leaves behind, by name.
    """

    device: torch.device
    cost: Cost = field(default_factory=Cost)
    artefacts: dict[str, Any] = field(default_factory=dict)

    def clock(self) -> float:
        """Return the time in seconds, once the device has finished all queued work."""
        finish(self.device)
        return time.perf_counter()

    def saw(self, count: int) -> None:
        """Count items passed forward and backward."""
        self.cost.examples += count

    def stored(self, size: int) -> None:
        """Count bytes kept between requests."""
        self.cost.storage_bytes += size

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Count what happens inside as preparation, not as answering."""
        start = self.clock()
        try:
            yield
        finally:
            self.cost.preparation_seconds += self.clock() - start


@dataclass(frozen=True)
class Unlearned:
    """Result of a method.

    Example:
        >>> settings = Settings(training, seed=0, device=torch.device("cpu"), build=build, original_seed=0)
        >>> split = asked(network, data, {"labels": ["2"]})
        >>> made = msgm.classifier.FineTune(epochs=1).unlearn(network, split, settings)
        >>> made.cost.examples
        200

    Attributes:
        model: in eval mode, sharing no storage with the model that was given.
        cost: its cost.
        artefacts: what else came out (a mask, the share of weights selected, an epsilon); JSON values, or tensors
            under keys that start with an underscore, which no report shows.
    """

    model: nn.Module
    cost: Cost
    artefacts: dict[str, Any]


@dataclass(frozen=True)
class Card:
    """Facts on a method that a user needs before relying on it.

    Example:
        >>> msgm.classifier.FineTune.card.needs
        ('retain',)

    Attributes:
        formula: what it does, in one line.
        source: paper and section.
        needs: the data that it reads: forget, retain, tuning.
        family: exact | approximate update | distillation | mask | edit | none.
        touches: weights | head only | mask of weights.
        deviations: from the source; ``none``.
        scopes: the requests that it is meant for: instances, class.
    """

    formula: str
    source: str
    needs: tuple[str, ...]
    family: str
    touches: str = "weights"
    deviations: str = "none"
    scopes: tuple[str, ...] = ("instances", "class")


class Method(ABC):
    """A way to forget. Subclasses are frozen dataclasses whose fields are their settings.

    Example:
        >>> made = msgm.classifier.FineTune(epochs=1).forget(network, data, {"labels": ["2"]}, training=training)
        >>> made is network
        False
    """

    name: ClassVar[str]
    card: ClassVar[Card]

    def __init_subclass__(cls) -> None:
        """Take a plugin's ``forget(model, split, settings, ledger)``, as it was named up to 0.2, for ``_forget``."""
        super().__init_subclass__()
        if "forget" in vars(cls):
            warnings.warn(f"{cls.__name__}.forget is named _forget since msgm 0.3.", DeprecationWarning, stacklevel=2)
            cls._forget = cls.forget  # type: ignore[method-assign, assignment]
            del cls.forget

    def forget(
        self,
        module: nn.Module,
        dataset: Labelled,
        request: ForgetRequest | Mapping[str, Any],
        held_out: Labelled | None = None,
        training: TrainingSettings | None = None,
        build: Callable[[int], nn.Module] | None = None,
        seed: int = 0,
        original_seed: int = 0,
    ) -> nn.Module:
        """Return a copy of ``module`` that was made to forget items of its training data; ``module`` is not changed.

        ``unlearn`` returns the cost too: ``method.unlearn(module, split, settings)``.

        Args:
            module: a classifier: (B, *shape) inputs to (B, C) logits. The copy stays on its device.
            dataset: its training data: pairs (input, class number), as the module reads them.
            request: which of these items to forget: a ``ForgetRequest``, or its settings by name.
            held_out: items like these that it was not trained on, for the methods that read such (``reads``).
            training: how the module was trained, from which methods take batch size, optimiser and a share of the rate.
            build: returns the network with fresh weights of a given seed; by default every layer of a copy is drawn
                anew by its ``reset_parameters``.
            seed: of the method's own draws.
            original_seed: the seed that the module was trained with, for methods that replay its training.

        Raises:
            UserError: data, a request or a module that do not fit together, or data that the method needs are missing.
            RunError: weights became non-finite, or the method itself failed in any other way.
        """
        if "tuning" in self.reads() and held_out is None:
            raise UserError(f"held_out: {self.name} reads items that the module was not trained on; give some.")
        split = asked(module, dataset, request, held_out)
        device = next(module.parameters()).device
        settings = Settings(training or TrainingSettings(), seed, device, build or fresh_weights(module), original_seed)
        return self.unlearn(module, split, settings).model

    def reads(self) -> tuple[str, ...]:
        """Return the parts of the data that it reads with these settings."""
        return self.card.needs

    def unlearn(self, model: nn.Module, split: Split, settings: Settings) -> Unlearned:
        """Return a copy of ``model`` that was made to forget ``split.forget``; ``model`` is not changed.

        Raises:
            UserError: the model does not fit the data, or the request is not one for this method.
            RunError: weights became non-finite, or the method itself failed in any other way.
        """
        ledger, working = Ledger(settings.device), copy.deepcopy(model).to(settings.device)
        check_outputs(working, split.retain)
        start = ledger.clock()
        with _failing(self.name):
            found = self._forget(working, split, settings, ledger).eval()
        found.zero_grad()
        ledger.cost.seconds = ledger.clock() - start - ledger.cost.preparation_seconds
        finite(found, self.name)
        return Unlearned(found, ledger.cost, ledger.artefacts)

    @abstractmethod
    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        """Make ``model``, which is the method's own copy, forget; return it or another one."""

    @classmethod
    def describe(cls) -> str:
        """Return the card as lines of text, with the defaults of the settings."""
        defaults = ", ".join(f"{f.name} {getattr(cls(), f.name)}" for f in fields(cls)) or "no settings"  # type: ignore[arg-type]
        facts = {key: ", ".join(v) if isinstance(v, tuple) else v for key, v in asdict(cls.card).items()}
        return "\n".join(f"{key}: {value}" for key, value in (facts | {"defaults": defaults}).items())


@contextmanager
def _failing(name: str) -> Iterator[None]:
    """Turn any exception of a method, which may be a plugin's, into a RunError of one sentence."""
    try:
        yield
    except (UserError, RunError, Interrupted):
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "").rstrip(".")
        raise RunError(f"{name} failed: {type(error).__name__}: {first}.") from error


METHODS: Registry[Method] = Registry("methods")
