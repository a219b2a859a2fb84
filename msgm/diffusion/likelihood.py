r"""Exact likelihood by the probability-flow ODE, in bits/dim for images of levels and in nats for vectors.

In sigma-space (``samplers``) the flow is dy/d rho = eps(y, rho), so along it d log p(y)/d rho = -div eps. From a point
x at t_min, with y = x / a and rho running up from rho(t_min) to rho(T) at the process's top T,

    log p(x) = log N(x_T; 0, prior_std^2 I) + D (ln a(T) - ln a(t_min)) + int div_y eps(y, rho) d rho

(Song et al., arXiv 2011.13456, appendix D.2, after the change of variables); ``augmented`` integrates it. By default
steps are fixed, even in ln rho, so that items and models are compared by the same arithmetic; ``dopri5`` chooses each
item's own steps. Either way the value of an image does not depend on its batch mates. For fixed steps the error is
estimated: with r_n and r_(n/2) the values by n and by n/2 steps, |r_n - r_(n/2)| is reported beside the likelihood.
Richardson's estimate divides it by 2^order - 1, which claims too little on rough networks (.007 bits/dim where .22 is
true and .10 is printed here). The estimate costs half as many passes again, so it is made for ``error_items`` items
only.

The divergence is exact (D vector-Jacobian products) in few dimensions, else Hutchinson's estimate with Rademacher
probes. The draws of item n in repeat r depend on (seed, n, r) alone: models and sets are compared with common probes
and common dequantisation.

Images: with x = 2 (k + u) / L - 1 the bits/dim of the levels k are at most
``-log2 p(x) / D + log2(L) - log2(2)`` (uniform dequantisation; 7 is added at 256 levels).
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msgm.data.pixels import DATA_RANGE, dequantise
from msgm.devices import precise
from msgm.diffusion.augmented import (
    basis_probes,
    integrate_adaptive,
    integrate_fixed,
    rademacher_probes,
)
from msgm.diffusion.conditions import Asked, Condition
from msgm.diffusion.likelihood_settings import STEPS, LikelihoodSettings
from msgm.diffusion.model import ScoreModel
from msgm.diffusion.samplers import ratio_grid, sigma_space
from msgm.diffusion.shards import log_mixed
from msgm.processes import sharing, spread
from msgm.seeding import generator

Watch = Callable[[float], None]


@dataclass(frozen=True)
class Likelihoods:
    """Negative log-likelihoods, and how they were measured.

    Attributes:
        values: (B, repeats) float64 on the CPU; a column is one draw of dequantisation noise and of probes.
        evaluations: (B,) network evaluations that an item took, the mean over repeats.
        solver_error: (m,) float64, the first items' |r_n - r_(n/2)| in ``unit``; empty where it was not measured.
        unit: ``bits/dim`` or ``nats``.
        protocol: dequantisation, solver, evaluations, divergence, repeats, time limit and seed in a sentence.
    """

    values: Tensor
    evaluations: Tensor
    solver_error: Tensor
    unit: str
    protocol: str

    @property
    def per_item(self) -> Tensor:
        """Return each item's mean over its repeats, (B,)."""
        return self.values.mean(1)

    @property
    def standard_error(self) -> float:
        """Return the standard error of the mean, the items being draws from their distribution; NaN for one item."""
        items = len(self.values)
        return float(self.per_item.std()) / math.sqrt(items) if items > 1 else math.nan

    @property
    def draw_error(self) -> float:
        """Return the standard error due to dequantisation and probes for the given items; NaN for one repeat."""
        items, repeats = self.values.shape
        return math.sqrt(float(self.values.var(1).sum()) / repeats) / items if repeats > 1 else math.nan

    @property
    def largest_solver_error(self) -> float:
        """Return the largest estimate of an item's integration error; NaN where it was not measured."""
        return float(self.solver_error.max()) if len(self.solver_error) else math.nan

    def summary(self) -> dict[str, Any]:
        """Return mean, errors, n, unit and protocol as plain JSON; what is not finite is None."""
        numbers = {
            "mean": float(self.per_item.mean()),
            "standard_error": self.standard_error,
            "draw_error": self.draw_error,
            "solver_error": self.largest_solver_error,
        }
        finite = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
        return finite | {"n": len(self.values), "unit": self.unit, "protocol": self.protocol}


def measure_likelihood(
    model: ScoreModel,
    items: Tensor,
    levels: int | None,
    settings: LikelihoodSettings | None = None,
    seed: int = 0,
    watch: Watch | None = None,
    condition: Asked = None,
) -> Likelihoods:
    """Return the negative log-likelihoods of raw items, every repeat of them, with the protocol.

    Args:
        model: the model; evaluation mode is used.
        items: (B, *shape); integer levels 0 .. ``levels`` - 1, or vectors.
        levels: grey levels of the data set, which are dequantised uniformly and answered in bits/dim; None for vectors,
            which are answered in nats an item.
        settings: solver, probes and repeats; one repeat where nothing is drawn.
        seed: of the probes and of the dequantisation noise; item n has its own in every repeat.
        watch: called with the share of finished work, in (0, 1], after each step of a batch (``dopri5``: each batch).
        condition: given which the items' density is asked for: a label for all, a label for each, or a ``Condition``.

    Raises:
        RunError: ``dopri5`` could not keep its tolerance.
    """
    return measure_likelihoods(model, [items], levels, settings, seed, watch, [condition])[0]


def measure_likelihoods(
    model: ScoreModel,
    sets: Sequence[Tensor],
    levels: int | None,
    settings: LikelihoodSettings | None = None,
    seed: int = 0,
    watch: Watch | None = None,
    conditions: Sequence[Asked] | None = None,
) -> list[Likelihoods]:
    """Return ``measure_likelihood`` of each of several sets, computed in common passes, which take less time.

    Example:
        >>> points = torch.randn(5, 2)
        >>> model = msgm.ScoreModel.new("mlp", "vp", shape=(2,))
        >>> first, second = measure_likelihoods(model, [points[:3], points[3:]], None)
        >>> first.values.shape, second.values.shape
        (torch.Size([3, 1]), torch.Size([2, 1]))

    Args:
        model: the model; evaluation mode is used.
        sets: tensors as ``items`` of ``measure_likelihood``; item n of each has the draws of item n.
        levels: as there, as all that follows.
        settings: solver, probes and repeats.
        seed: of the draws.
        watch: called with the share of finished work.
        conditions: ``condition`` of each of the sets; by default none.

    Raises:
        RunError: ``dopri5`` could not keep its tolerance.
    """
    settings = settings or LikelihoodSettings()
    items, numbers = torch.cat(list(sets)), [n for part in sets for n in range(len(part))]
    sizes = [len(part) for part in sets]
    given = [model.asked(c, n) for c, n in zip(conditions or [None] * len(sets), sizes, strict=True)]
    asked = Condition.cat(given, sizes)
    dims = items[0].numel()
    repeats = settings.repeats if settings.is_drawn(dims, levels) else 1
    checked = [k for k, n in enumerate(numbers) if settings.halved and n < settings.error_items]
    parts = len(list(model.parts()))
    tell = _shares(watch, settings, parts * len(items), parts * len(checked), repeats)

    def measured(chosen: Sequence[int], how: LikelihoodSettings, repeat: int) -> tuple[Tensor, Tensor]:
        part, names = items[chosen], [numbers[k] for k in chosen]
        x = part if levels is None else dequantise(part.cpu(), levels, _uniform(part, seed, names, repeat))
        own = None if asked is None else asked[list(chosen)]
        density, count = _log_density(model, x, how, seed, names, repeat, own, tell)
        return -density if levels is None else -density / (dims * math.log(2)) + bits_offset(levels), count

    whole = range(len(items))
    each, evaluations = zip(*(measured(whole, settings, repeat) for repeat in range(repeats)), strict=True)
    values, counts = torch.stack(each, 1), torch.stack(evaluations, 1).double().mean(1)
    error = torch.full((len(items),), math.nan, dtype=torch.float64)
    if settings.halved:
        error[checked] = (values[checked, 0] - measured(checked, settings.halved, 0)[0]).abs()
    return [
        Likelihoods(
            of_set,
            taken,
            off[: settings.error_items if settings.halved else 0],
            "nats" if levels is None else "bits/dim",
            _protocol(model, settings, dims, levels, float(taken.mean()), seed),
        )
        for of_set, taken, off in zip(values.split(sizes), counts.split(sizes), error.split(sizes), strict=True)
    ]


def negative_log_likelihood(
    model: ScoreModel,
    items: Tensor,
    levels: int | None,
    settings: LikelihoodSettings | None = None,
    seed: int = 0,
    condition: Asked = None,
) -> Tensor:
    """Return the mean over repeats of ``measure_likelihood``, which has the same arguments: (B,) float64 on the CPU.

    Example:
        >>> levels = msgm.load_dataset("digits").items[:3]
        >>> settings = msgm.diffusion.LikelihoodSettings(steps=2)
        >>> msgm.diffusion.negative_log_likelihood(base, levels, 17, settings).shape
        torch.Size([3])
    """
    return measure_likelihood(model, items, levels, settings, seed, condition=condition).per_item


def log_likelihood(
    model: ScoreModel,
    x: Tensor,
    settings: LikelihoodSettings | None = None,
    seed: int = 0,
    first: int = 0,
    condition: Asked = None,
) -> Tensor:
    """Return log p_{t_min}(x), given a condition if there is one, in nats.

    Example:
        >>> msgm.log_likelihood(base, torch.zeros(3, 1, 8, 8), msgm.diffusion.LikelihoodSettings(steps=2)).shape
        torch.Size([3])

    Args:
        model: the model; evaluation mode is used.
        x: (B, *shape) items, images in [-1, 1].
        settings: solver, probes, and repeats, which draw new probes here.
        seed: of the probes.
        first: number of the first item, which names its probes.
        condition: of the items: a label for all, a label for each, or a ``Condition``.

    Returns:
        (B,) float64 on the CPU.

    Raises:
        RunError: ``dopri5`` could not keep its tolerance.
    """
    settings = settings or LikelihoodSettings()
    repeats = 1 if settings.is_exact(x[0].numel()) else settings.repeats
    numbers, asked = range(first, first + len(x)), model.asked(condition, len(x))
    each = [_log_density(model, x, settings, seed, numbers, r, asked)[0] for r in range(repeats)]
    return torch.stack(each, 1).mean(1)


def bits_offset(levels: int) -> float:
    """Return the offset from bits/dim of a density over [-1, 1] to bits/dim of levels: log2(levels) - log2(2)."""
    return math.log2(levels) - math.log2(DATA_RANGE)


def _shares(
    watch: Watch | None, settings: LikelihoodSettings, items: int, checked: int, repeats: int
) -> Callable[[int], None]:
    """Return a callback that takes the number of items of every step and passes ``watch`` the share of work done.

    ``checked`` of the items are integrated by half the steps, too.
    """
    halved = settings.halved
    total = items * repeats * settings.passes
    if halved is not None:
        total += checked * halved.passes
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count * sharing()
        if watch is not None:
            watch(min(1.0, done / total))

    return tell


def _log_density(
    model: ScoreModel,
    x: Tensor,
    settings: LikelihoodSettings,
    seed: int,
    numbers: Sequence[int],
    repeat: int,
    condition: Condition | None,
    tell: Callable[[int], None] = lambda count: None,
) -> tuple[Tensor, Tensor]:
    """Return log p(x) in nats, (B,) float64, and the evaluations, (B,), of one repeat, both on the CPU.

    ``numbers`` name the items' draws. ``tell`` is called with the number of items of a batch after every step of it.
    The density of a mixture is that of its parts, which share their draws.
    """
    counts: list[Tensor] = []

    def of_part(part: ScoreModel) -> Tensor:
        def integrated(start: int) -> tuple[Tensor, Tensor]:
            batch = slice(start, start + settings.batch_size)
            items, named = x[batch], numbers[batch]
            watch = functools.partial(tell, len(items))
            own = None if condition is None else condition[batch]
            density, count = _integrate(part, items.to(part.device), settings, seed, named, repeat, own, watch)
            return density.cpu(), count.cpu()

        densities, evaluations = zip(*spread(range(0, len(x), settings.batch_size), integrated), strict=True)
        counts.append(torch.cat(evaluations))
        return torch.cat(densities)

    with _frozen(model):
        found = log_mixed(model, of_part)
    return found, torch.stack(counts).sum(0)


def _integrate(
    model: ScoreModel,
    x: Tensor,
    settings: LikelihoodSettings,
    seed: int,
    numbers: Sequence[int],
    repeat: int,
    condition: Condition | None,
    watch: Callable[[], None],
) -> tuple[Tensor, Tensor]:
    process, dims, eps = model.process, x[0].numel(), sigma_space(model, condition)
    ratios = ratio_grid(process, settings.steps + 1, "log", process.t_min)[::-1]
    low, high = ratios[0], ratios[-1]
    start, end = (process.signal(torch.tensor([t], dtype=torch.float64)).item() for t in (process.t_min, process.top))
    probes = _probes(x, settings, seed, numbers, repeat)
    z = x / (start * math.hypot(1, low))
    if settings.solver == "dopri5":
        z, gain, evaluations = integrate_adaptive(eps, z, low, high, probes, settings.tolerance)
        watch()
    else:
        step, cost = STEPS[settings.solver]
        z, gain = integrate_fixed(eps, z, ratios, probes, step, watch)
        evaluations = torch.full((len(x),), settings.steps * cost)
    final = precise(end * math.hypot(1, high) * z).flatten(1)
    # Row by row: a sum over a batch may round differently at another batch size.
    squares = torch.stack([row.square().sum() for row in final / process.prior_std])
    prior = -0.5 * squares - dims * math.log(process.prior_std * math.sqrt(2 * math.pi))
    return prior + dims * (math.log(end) - math.log(start)) + gain, evaluations


@contextlib.contextmanager
def _frozen(model: ScoreModel) -> Iterator[None]:
    """Context with the network in evaluation mode and without gradients of its weights, which are not needed."""
    was_training = model.network.training
    weights = [p for p in model.network.parameters() if p.requires_grad]
    model.network.eval()
    for p in weights:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in weights:
            p.requires_grad_(True)
        model.network.train(was_training)


def _probes(x: Tensor, settings: LikelihoodSettings, seed: int, numbers: Sequence[int], repeat: int) -> list[Tensor]:
    """Return vectors whose quadratic forms sum to the trace: the basis, or scaled Rademacher draws."""
    if settings.is_exact(x[0].numel()):
        return basis_probes(x)
    streams = [_stream(seed, "probe", number, repeat) for number in numbers]
    return rademacher_probes(x, settings.probes, streams)


def _uniform(items: Tensor, seed: int, numbers: Sequence[int], repeat: int) -> Tensor:
    """Return the dequantisation noise in [0, 1) of the items with these numbers, shaped like ``items``."""
    streams = [_stream(seed, "dequantise", number, repeat) for number in numbers]
    return torch.stack([torch.rand(items.shape[1:], generator=stream) for stream in streams])


def _stream(seed: int, purpose: str, item: int, repeat: int) -> torch.Generator:
    """Return the generator of an item's draws in a repeat; repeat 0 goes unnamed, as before there were more."""
    return generator(seed, purpose, item, *([repeat] if repeat else []))


def _protocol(
    model: ScoreModel, settings: LikelihoodSettings, dims: int, levels: int | None, evaluations: float, seed: int
) -> str:
    noise = f"uniform dequantisation of {levels} levels, " if levels else ""
    cost = "" if settings.evaluations else f", {evaluations:.0f} evaluations in the mean"
    halved = settings.halved
    check = f", error |r_{settings.steps} - r_{halved.steps}| on the first {settings.error_items}" if halved else ""
    ends = f"from t = {model.process.t_min:g}; {model.process.describe_top()}"
    parts = len(list(model.parts()))
    mixed = f", of the mixture of {parts} models by the logarithm of their weighted densities' sum" if parts > 1 else ""
    return f"{noise}{settings.describe(dims, levels)}{cost}{check}, {ends}{mixed}; seed {seed}"
