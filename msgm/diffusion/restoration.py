r"""Restoring given items with a score model: inpainting, reconstruction by the PF-ODE, and SDEdit.

**Inpainting.** With y = x / a and rho = sigma / a (``samplers.space``) an item's known part at level rho is
y_k = x_k + rho z. The projector (Song et al., arXiv 2011.13456, appendix I.2) walks all of y down the grid and puts a
fresh y_k in after every step. It does not sample the conditional distribution: the unknown part is drawn given y_k,
which carries less information on x_k as rho grows, and is not updated again at that level. For x ~ N(0, [[1, r], [r,
1]]) and the first coordinate known to be 1, infinitely many steps give

=====  ==================  ===================  ==============
r      exact mean, var     projector            10 resamples
=====  ==================  ===================  ==============
.5     .50, .75            .27, .82             .46, .76
.8     .80, .36            .50, .49             .77, .37
.95    .95, .10            .72, .19             .94, .10
=====  ==================  ===================  ==============

Resampling (RePaint, Lugmayr et al., arXiv 2201.09865, algorithm 1) repairs this: y is noised back from ``then`` to
``now`` and the step repeated, U times in all, which is a Langevin walk at that level. The error falls as 1 / U and the
limit is exact for a fine grid, as p(y_u | y_k) is p(y_u | x_k) where rho is small.

**Reconstruction.** The PF-ODE is invertible: ``encode`` walks it from t_min to the process's top and ``decode`` back,
so that their composition is the identity up to the integration error *whatever the model learnt*. Forgetting shows only
if noise is added in between: ``reconstruct`` at the latent, as arXiv 2412.07229 does, or ``sdedit`` on the item itself
(Meng et al., arXiv 2108.01073).
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from msgm.diffusion.conditions import Asked, Condition
from msgm.diffusion.model import ScoreModel
from msgm.diffusion.samplers.base import Noise, State
from msgm.diffusion.samplers.ode import ProbabilityFlow
from msgm.diffusion.samplers.sampling import SamplingSettings, solve
from msgm.diffusion.samplers.space import Grid, ratio_grid, sigma_space
from msgm.errors import UserError


def inpainting_settings() -> SamplingSettings:
    """Return the default: 100 steps of score_sde's predictor for inpainting (RePaint: 250 ancestral ones).

    Resampled ancestral steps are too narrow: on a Gaussian whose exact variance is .64, 30 resamples leave .46.
    """
    return SamplingSettings("reverse-diffusion", 100)


@torch.no_grad()
def inpaint(
    model: ScoreModel,
    x: Tensor,
    known: Tensor,
    settings: SamplingSettings | None = None,
    resamples: int = 10,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    condition: Asked = None,
) -> Tensor:
    """Fill in the unknown part of items: the projector of the module's text, with RePaint's resampling.

    Deviations: the last step denoises the unknown part and pastes the exact data (score_sde rebuilds its last mean from
    the noisy state, so that its denoising never reaches the unknown pixels); RePaint jumps back by 10 levels at a time
    where this goes back by one, which on Gaussians costs and gives the same; ``predictor-corrector`` has the known part
    put in after its predictor only, not after its corrector as well. A multi-step sampler starts anew at every level:
    ``dpm++2m`` is then DDIM, and ``heun`` spends its whole churn at each.

    Args:
        model: the model; its network is used in evaluation mode.
        x: (B, *shape) items, images in [-1, 1]; what lies in the unknown part is not read.
        known: bool mask, true where the item is known: (H, W), (1, H, W) or (C, H, W) for images, (D,) for vectors.
        settings: sampler, steps and batch size; by default ``inpainting_settings``.
        resamples: RePaint's U, how often a step is taken; 1 is the plain projector.
        seed: of the noise.
        numbers: of the items, which name their noise: what becomes of an item depends on (seed, number) and neither on
            the batch size nor on its batch mates. By default 0 .. B - 1.
        condition: of the items: a label for all, a label for each, or a ``Condition``.

    Returns:
        (B, *shape) float32 on the CPU; x itself in the known part.

    Raises:
        UserError: a mask of another size than the items, or ``resamples`` below 1.
    """
    check_resamples(resamples)
    settings = settings or inpainting_settings()
    known = fitting_mask(known, model.shape).to(model.device)

    def restore(part: Tensor, ids: Sequence[int], asked: Condition | None) -> Tensor:
        return _inpaint(model, part, known, settings, resamples, seed, ids, asked)

    return _in_batches(model, x, numbers, settings.batch_size, restore, condition)


def inpainting_evaluations(settings: SamplingSettings, resamples: int) -> int | None:
    """Return the network evaluations an item takes to inpaint; None when the sampler adapts them."""
    last, both = (settings.build().evaluations(steps) for steps in (1, 2))
    if last is None or both is None:
        return None
    return (settings.steps - 1) * resamples * (both - last) + last


def check_resamples(resamples: int) -> None:
    """Raise a UserError if ``resamples`` is below 1."""
    if resamples < 1:
        raise UserError(f"resamples must be at least 1, got {resamples}.")


def fitting_mask(known: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a mask as a bool tensor of an item's ``shape``.

    Raises:
        UserError: it has another size.
    """
    plane = shape[1:]
    if known.shape not in ({shape, plane, (1, *plane)} if plane else {shape}):
        found, wanted = ("x".join(map(str, size)) for size in (known.shape, plane or shape))
        raise UserError(f"the mask has size {found}, but the items have {wanted}.")
    return known.bool().expand(shape)


@torch.no_grad()
def encode(model: ScoreModel, x: Tensor, steps: int = 100, batch_size: int = 500, condition: Asked = None) -> Tensor:
    """Return the latents of items: the PF-ODE from t_min to the top, a classical Runge-Kutta step in ln rho at a time.

    Args:
        model: the model; its network is used in evaluation mode.
        x: (B, *shape) items, images in [-1, 1], taken as x at t_min.
        steps: fixed steps, of 4 network evaluations each.
        batch_size: items at a time; it does not change the latents.
        condition: of the items, as in ``inpaint``.

    Returns:
        (B, *shape) float32 on the CPU, at the process's top: about N(0, prior_std^2 I) for items that the model knows.
    """
    return _walked(model, x, _times(model), steps, batch_size, condition)


@torch.no_grad()
def decode(
    model: ScoreModel, latents: Tensor, steps: int = 100, batch_size: int = 500, condition: Asked = None
) -> Tensor:
    """Return the items of latents: ``encode``'s walk backwards, down to t_min.

    No denoising step follows, or the round trip would not give the item back; arguments as in ``encode``.
    """
    return _walked(model, latents, _times(model)[::-1], steps, batch_size, condition)


def check_time(t: float, above: float) -> None:
    """Raise a UserError when t lies outside (``above``, 1]."""
    if not above < t <= 1:
        raise UserError(f"t must lie in ({above:g}, 1], got {t:g}.")


def perturb(
    model: ScoreModel,
    x: Tensor,
    t: float,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    purpose: str = "perturb",
) -> Tensor:
    """Return a(t) x + sigma(t) z, the process's noise up to time t, each item's by its number; (B, *shape) on the CPU.

    Times above the process's top mean the top, from which every walk starts.

    Raises:
        UserError: t outside (0, 1].
    """
    check_time(t, 0.0)
    noise = Noise(seed, range(len(x)) if numbers is None else numbers, model.shape, torch.device("cpu"), purpose)
    time = torch.tensor(min(t, model.process.top), dtype=torch.float64)
    return float(model.process.signal(time)) * x.cpu() + float(model.process.noise(time)) * noise()


def reconstruct(
    model: ScoreModel,
    x: Tensor,
    t: float = 0.02,
    steps: int = 100,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    batch_size: int = 500,
    condition: Asked = None,
) -> Tensor:
    """Encode items, noise the latents, decode: the reconstruction of arXiv 2412.07229, section 5 and released code.

    The released code applies the process's forward noise of time t to the *latent*, a(t) latent + sigma(t) z, and so
    does this; beside a VE latent of scale 100 that noise is nothing. As encoding and decoding undo each other, a model
    scores well here on items that it would never generate.

    Args:
        model: the model; its network is used in evaluation mode.
        x: (B, *shape) items, images in [-1, 1].
        t: time whose noise the latents get, in (0, 1].
        steps: Runge-Kutta steps each way.
        seed: of the noise.
        numbers: of the items, as in ``inpaint``.
        batch_size: items at a time.
        condition: of the items, as in ``inpaint``, both ways.

    Returns:
        (B, *shape) float32 on the CPU.
    """
    latents = encode(model, x, steps, batch_size, condition)
    return decode(model, perturb(model, latents, t, seed, numbers), steps, batch_size, condition)


@torch.no_grad()
def sdedit(
    model: ScoreModel,
    x: Tensor,
    t: float = 0.3,
    settings: SamplingSettings | None = None,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    condition: Asked = None,
) -> Tensor:
    """Noise items to time t and sample down from there: SDEdit (Meng et al., arXiv 2108.01073, algorithm 1).

    Args:
        model: the model; its network is used in evaluation mode.
        x: (B, *shape) items, images in [-1, 1].
        t: in (t_sample, 1]; the larger, the less of the item is kept. Times above the process's top mean the top.
        settings: sampler, steps below t, and batch size.
        seed: of the noise.
        numbers: of the items, as in ``inpaint``.
        condition: of the items, as in ``inpaint``.

    Returns:
        (B, *shape) float32 on the CPU.

    Raises:
        UserError: t outside its range.
    """
    check_time(t, model.process.t_sample)
    settings = settings or SamplingSettings()

    def restore(part: Tensor, ids: Sequence[int], asked: Condition | None) -> Tensor:
        noise = Noise(seed, ids, model.shape, model.device, "sdedit")
        return solve(model, part, min(t, model.process.top), settings, noise, condition=asked)

    return _in_batches(model, perturb(model, x, t, seed, numbers), numbers, settings.batch_size, restore, condition)


def _inpaint(
    model: ScoreModel,
    x: Tensor,
    known: Tensor,
    settings: SamplingSettings,
    resamples: int,
    seed: int,
    numbers: Sequence[int],
    condition: Condition | None,
) -> Tensor:
    noise = Noise(seed, numbers, model.shape, model.device, "inpaint")
    eps = sigma_space(settings.guided(model, condition), condition, noise.seeds)
    process, sampler = model.process, settings.build()
    ratios = ratio_grid(process, settings.steps, settings.spacing)
    y = torch.where(known, x + ratios[0] * noise(), process.prior_std / _signal(model, process.top) * noise())
    for step, (now, then) in enumerate(itertools.pairwise(ratios)):
        for visit in range(resamples):
            # A stream of its own for every visit: samplers that seed a Brownian path must not walk the same one again.
            noise = Noise(seed, numbers, model.shape, model.device, f"inpaint/{step}/{visit}")
            if visit:
                y = y + math.sqrt(now**2 - then**2) * noise()
            y = sampler.run(eps, y, Grid(process, [now, then]), noise, _ignore)
            y = torch.where(known, x + then * noise(), y)
    y = sampler.run(eps, y, Grid(process, [ratios[-1], 0.0]), noise, _ignore)
    return torch.where(known, x, y)


def _times(model: ScoreModel) -> tuple[float, float]:
    return model.process.t_min, model.process.top


def _walked(
    model: ScoreModel, x: Tensor, times: tuple[float, float], steps: int, batch_size: int, condition: Asked
) -> Tensor:
    """Walk items along the PF-ODE from the first time to the second, either way."""

    def walk(part: Tensor, _: Sequence[int], asked: Condition | None) -> Tensor:
        return _flow(model, part, times, steps, asked)

    return _in_batches(model, x, None, batch_size, walk, condition)


def _flow(model: ScoreModel, x: Tensor, times: tuple[float, float], steps: int, condition: Condition | None) -> Tensor:
    start, end = times
    ratios = ratio_grid(model.process, steps + 1, "log", end, start)
    silent = Noise(0, (), model.shape, model.device)
    y = ProbabilityFlow().run(
        sigma_space(model, condition), x / _signal(model, start), Grid(model.process, ratios), silent, _ignore
    )
    return _signal(model, end) * y


def _signal(model: ScoreModel, t: float) -> float:
    return float(model.process.signal(torch.tensor(t, dtype=torch.float64)))


def _ignore(state: State) -> None:
    """Ignore the callback's arguments."""


def _in_batches(
    model: ScoreModel,
    x: Tensor,
    numbers: Sequence[int] | None,
    size: int,
    restore: Callable[[Tensor, Sequence[int], Condition | None], Tensor],
    condition: Asked,
) -> Tensor:
    """Restore items ``size`` at a time on the model's device, by a network in evaluation mode."""
    numbers = range(len(x)) if numbers is None else numbers
    asked = model.asked(condition, len(x))
    done = []
    with _evaluating(model):
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            own = None if asked is None else asked[rows]
            done.append(restore(x[rows].to(model.device), numbers[rows], own).cpu())
    return torch.cat(done)


@contextmanager
def _evaluating(model: ScoreModel) -> Iterator[None]:
    was_training = model.network.training
    model.network.eval()
    try:
        yield
    finally:
        model.network.train(was_training)
