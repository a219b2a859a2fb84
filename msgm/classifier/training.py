"""Training a classifier: cross-entropy by SGD or Adam, the same on any number of processes, deterministic by its seed.

Every epoch's order is drawn for the whole set from (seed, epoch) and each batch is sliced by rank, so that losses do
not depend on the number of processes; batch normalisation's statistics and dropout's masks do, as each process has its
own.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from msgm.checks import at_least, below_one, positive
from msgm.classifier.data import Examples
from msgm.devices import note_slow_bf16
from msgm.errors import RunError, UserError
from msgm.seeding import derive_seed, generator

CHUNK = 2000


@dataclass
class TrainingSettings:
    """How to train a classifier.

    Attributes:
        epochs: passes over the data.
        batch_size: items a step, over all processes.
        optimiser: ``sgd`` (with momentum) or ``adam``.
        lr: peak learning rate.
        momentum: of SGD.
        weight_decay: L2 penalty in the gradient.
        schedule: ``constant``, ``cosine`` to zero, or ``steps``: a tenth from each of ``milestones`` on.
        milestones: shares of the training at which ``steps`` lowers the rate.
        augment: ``none``, ``flip`` (left-right) or ``crop-flip`` (also shifted by up to 4 pixels), of images.
        precision: ``fp32``, or ``bf16`` for the network's passes.
    """

    epochs: int = 20
    batch_size: int = 64
    optimiser: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["constant", "cosine", "steps"] = "cosine"
    milestones: list[float] = field(default_factory=lambda: [0.5, 0.75])
    augment: Literal["none", "flip", "crop-flip"] = "none"
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        at_least(1, self, "training", "epochs", "batch_size")
        at_least(0, self, "training", "weight_decay")
        positive(self, "training", "lr")
        below_one(self, "training", "momentum")
        if not all(0 <= share <= 1 for share in self.milestones):
            raise UserError(f"training.milestones must be shares of the training, 0 to 1, got {self.milestones}.")

    def optimiser_of(self, model: nn.Module, lr: float | None = None) -> torch.optim.Optimizer:
        """Return a fresh optimiser of all parameters, at ``lr`` or the setting's own rate."""
        rate, decay = self.lr if lr is None else lr, self.weight_decay
        if self.optimiser == "adam":
            return torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay, foreach=True)
        return torch.optim.SGD(model.parameters(), lr=rate, momentum=self.momentum, weight_decay=decay, foreach=True)

    def rate_at(self, progress: float) -> float:
        """Return the learning rate when a share ``progress`` in [0, 1) of the steps is done."""
        if self.schedule == "cosine":
            return 0.5 * self.lr * (1 + math.cos(math.pi * progress))
        if self.schedule == "steps":
            return self.lr * 0.1 ** sum(progress >= share for share in self.milestones)
        return self.lr


@dataclass(frozen=True)
class Step:
    """One optimiser step as a watcher sees it, after it was taken.

    Attributes:
        number: from 0.
        positions: (B,) positions of its items in the examples.
        model: the model in training.
    """

    number: int
    positions: Tensor
    model: nn.Module


@runtime_checkable
class Fitted(Protocol):
    """A module that reads statistics of its own training inputs before the first step."""

    def fit_inputs(self, examples: Examples) -> None: ...


def fit(
    model: nn.Module,
    examples: Examples,
    settings: TrainingSettings,
    seed: int,
    device: torch.device | str = "cpu",
    watch: Callable[[Step], None] | None = None,
) -> nn.Module:
    """Train ``model`` in place from the weights that it has, and return it in eval mode.

    Args:
        model: maps (B, *shape) inputs to (B, C) logits.
        examples: what to train on.
        settings: how.
        seed: of the order of items and of augmentation.
        device: where.
        watch: called after every step.

    Raises:
        UserError: no examples, or logits of another number of classes than the labels need.
        RunError: weights became non-finite, which is looked for after every epoch.
    """
    if not len(examples):
        raise UserError("there is no example to train on.")
    check_outputs(model, examples)
    accelerator = _accelerator(settings, torch.device(device))
    fit_inputs(model, examples)
    model.to(accelerator.device)
    wrapped = accelerator.prepare_model(model) if accelerator.num_processes > 1 else model
    optimiser = settings.optimiser_of(model)
    steps = settings.epochs * -(-len(examples) // settings.batch_size)
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    with seeded(accelerator.device, seed, "dropout", accelerator.process_index):
        for number, positions in enumerate(_orders(len(examples), settings, seed)):
            for group in optimiser.param_groups:
                group["lr"] = settings.rate_at(number / steps)
            own = positions[share]
            x = examples.inputs(own, accelerator.device)
            x = augmented(x, settings.augment, seed, number, len(positions), share)
            training_mode(model, single=len(own) < 2)
            with accelerator.autocast():
                loss = F.cross_entropy(wrapped(x), examples.labels[own].to(x.device), reduction="sum") / len(positions)
            optimiser.zero_grad()
            accelerator.backward(loss * accelerator.num_processes)
            optimiser.step()
            if watch is not None:
                watch(Step(number, positions, model))
            if (number + 1) % (steps // settings.epochs) == 0:
                finite(model, f"training, step {number + 1}")
    return model.eval()


def fit_inputs(model: nn.Module, examples: Examples) -> None:
    """Compute the input statistics of ``examples`` for the modules of ``model`` that use them."""
    for module in model.modules():
        if isinstance(module, Fitted):
            module.fit_inputs(examples)


@contextmanager
def seeded(device: torch.device, *stream: int | str) -> Iterator[None]:
    """Seed torch's global generators, which dropout uses, by a stream's name; they are restored on exit."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(*stream))
        yield


def norms(model: nn.Module) -> list[nn.Module]:
    """Return the layers that keep running statistics of their inputs, such as batch normalisation."""
    return [module for module in model.modules() if getattr(module, "running_mean", None) is not None]


def training_mode(model: nn.Module, single: bool, still: Sequence[nn.Module] = ()) -> None:
    """Put a model into training mode, but ``still`` into eval mode, and norms before a batch of a single item or none.

    One item has no variance.
    """
    model.train()
    for module in [*still, *(norms(model) if single else [])]:
        module.eval()


def _accelerator(settings: TrainingSettings, device: torch.device) -> Accelerator:
    """Return an accelerator of the device and precision; resets accelerate's state, which keeps the first one's."""
    precision = "bf16" if settings.precision == "bf16" else "no"
    if precision == "bf16":
        note_slow_bf16(device)
    if AcceleratorState._shared_state:
        state = AcceleratorState()
        if state.num_processes == 1 and (state.device.type, state.mixed_precision) != (device.type, precision):
            AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device.type == "cpu", mixed_precision=precision)


def _orders(count: int, settings: TrainingSettings, seed: int) -> Iterator[Tensor]:
    for epoch in range(settings.epochs):
        order = torch.randperm(count, generator=generator(seed, "order", epoch))
        yield from order.split(settings.batch_size)


def augmented(
    x: Tensor, kind: str, seed: int, step: int, size: int | None = None, share: slice = slice(None)
) -> Tensor:
    """Return images mirrored left-right at random and, for ``crop-flip``, shifted by up to 4 pixels over zeros.

    Draws are seeded by (seed, step) and made for the global batch of ``size`` items; ``share`` is the slice in ``x``.
    Vectors and ``none`` come back as they are.
    """
    if kind == "none" or x.dim() < 4:
        return x
    draws, size = generator(seed, "augment", step), len(x) if size is None else size
    mirrored = torch.rand(size, generator=draws).lt(0.5)[share].to(x.device)
    x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    if kind == "flip":
        return x
    shifts = torch.randint(0, 9, (2, size), generator=draws)[:, share].to(x.device)
    height, width = x.shape[-2:]
    rows = shifts[0][:, None] + torch.arange(height, device=x.device)
    columns = shifts[1][:, None] + torch.arange(width, device=x.device)
    items = torch.arange(len(x), device=x.device)
    return (
        F.pad(x, [4, 4, 4, 4])
        .permute(0, 2, 3, 1)[items[:, None, None], rows[:, :, None], columns[:, None, :]]
        .permute(0, 3, 1, 2)
    )


def finite(model: nn.Module, what: str) -> None:
    """Raise a RunError when a weight is no finite number."""
    for name, value in model.named_parameters():
        if not torch.isfinite(value).all():
            raise RunError(f"{what}: the weights {name} became non-finite; lower the learning rate.")


def check_outputs(model: nn.Module, examples: Examples) -> None:
    """Refuse a model whose number of logits is not the number of classes, or that cannot read the inputs."""
    shape, classes = outputs_shape(model, examples.inputs(torch.arange(1))), len(examples.dataset.classes)
    if len(shape) != 1 or shape[0] != classes:
        raise UserError(f"the model puts out {shape} numbers an item; the data have {classes} classes.")


@torch.no_grad()
def outputs_shape(model: nn.Module, inputs: Tensor) -> tuple[int, ...]:
    """Return the shape of a model's outputs for one item, in eval mode; ``inputs`` are one or more items.

    Raises:
        UserError: the model cannot read them.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        return tuple(model.eval()(inputs.to(next(model.parameters()).device)).shape[1:])
    except RuntimeError as error:
        shape = "x".join(map(str, inputs.shape[1:]))
        raise UserError(f"the model cannot read inputs of shape {shape}: {str(error).splitlines()[0]}.") from error
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def logits(model: nn.Module, examples: Examples, device: torch.device | str = "cpu") -> Tensor:
    """Return (n, C) float32 logits on the CPU, in eval mode; the model's mode and bytes stay as they were."""
    mode = model.training
    model.eval().to(device)
    parts = [model(x).float().cpu() for x, _ in examples.batches(CHUNK, device=device)]
    model.train(mode)
    return torch.cat(parts)
