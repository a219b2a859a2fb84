r"""Dormand and Prince's adaptive Runge-Kutta method for a batch of initial-value problems, each with its own steps.

A step of width h from (s, y) takes slopes k_1 .. k_7 and gives a fifth-order solution and, against the embedded
fourth-order one, an estimate of its error:

    k_i = f(s + c_i h, y + h sum_j a_ij k_j),   y' = y + h sum_i b_i k_i,   e = h sum_i (b_i - b*_i) k_i

(Dormand & Prince, "A family of embedded Runge-Kutta formulae", 1980). With the norm ``max over tensors of
RMS(e / (atol + rtol max(|y|, |y'|)))`` a step is accepted where the norm is at most 1, and the next one is
``0.9 norm^(-1/5)`` times as wide, within [0.2, 10], or [0.2, 1] after a refusal. As k_7 = f(s + h, y') is the next
step's k_1 ("first same as last"), a step costs six evaluations. The first width is Hairer's (Hairer, Norsett & Wanner,
"Solving Ordinary Differential Equations I", section II.4).

Solvers of a flattened batch (scipy's ``solve_ivp``, torchdiffeq) take one norm over all of it, so that an item's result
depends on its batch mates and all items take the steps of the hardest. Here norm, acceptance, width and end are per
item: one network pass holds items at different times, and finished items are replaced by new ones.

Kernels of float32 round differently at different batch sizes, by 1e-6, which is enough to tip an acceptance and so to
move an answer by the method's whole error. So all arithmetic is done on exactly ``PASS`` items, the last of them
repeated where there are fewer: an item's answer is the same to the bit, whichever items stand beside it.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from msgm.diffusion.model import per_item
from msgm.errors import RunError

State = tuple[Tensor, ...]
Derivative = Callable[[State, Tensor, Tensor], State]
Norm = Callable[[State, State, State], Tensor]

NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
PASS = 32
"""Items of every evaluation of the derivative. A single item costs as much as this many."""
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0


def dormand_prince(
    derivative: Derivative,
    state: State,
    start: float,
    end: float,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    limit: int = 10_000,
) -> tuple[State, Tensor]:
    """Integrate d state / ds = derivative from ``start`` to ``end``, which may lie below ``start``.

    Args:
        derivative: maps (state, times, items) to the state's derivative. ``state`` holds ``PASS`` items that are still
            under way, ``times`` (PASS,) float64 is where each of them stands, and ``items`` (PASS,) their places in the
            batch that was passed in, to index what belongs to an item; an item may stand there several times.
        state: tensors (B, ...) with one item a row; float64 keeps small steps from drowning in rounding, whatever
            precision the derivative is computed in.
        start: where all items begin.
        end: where they end.
        rtol: relative tolerance of a step's error.
        atol: absolute tolerance, in the units of the state.
        limit: evaluations that an item may take.

    Returns:
        The state at ``end`` and the evaluations of each item, (B,) int64. An item's answer does not depend on its
        batch mates, to the bit where ``derivative`` treats the rows of a pass alike.

    Raises:
        RunError: an item took more than ``limit`` evaluations, or its step fell to the spacing of floats, as it does
            where the derivative is not finite.
    """
    norm = functools.partial(_norm, rtol=rtol, atol=atol)
    state, device = tuple(part.clone() for part in state), state[0].device
    times = torch.full((len(state[0]),), float(start), dtype=torch.float64, device=device)
    widths, ceiling = torch.zeros_like(times), torch.full_like(times, GROW)
    slope = tuple(torch.zeros_like(part) for part in state)
    evaluations = torch.full_like(times, 2, dtype=torch.long)
    for chunk in torch.arange(len(times), device=device).split(PASS):
        items = _filled(chunk)
        here, then = _rows(state, items), times[items]
        found = derivative(here, then, items)
        _put(slope, items, found)
        widths[items] = _first_widths(derivative, norm, here, then, items, found, end)
    while (waiting := (times != end).nonzero()[:PASS, 0]).numel():
        items = _filled(waiting)
        now, width, before, rate = times[items], widths[items], _rows(state, items), _rows(slope, items)
        _refuse_endless(items, now, width, evaluations[items], limit)
        left = end - now
        width = torch.where(width.abs() < left.abs(), width, left)
        proposal, last, error = _step(derivative, before, now, items, rate, width)
        evaluations[items] += 6
        size = norm(error, before, proposal)
        accepted = size <= 1
        arrived = torch.where(width == left, end, now + width)
        times[items] = torch.where(accepted, arrived, now)
        _put(state, items, _where(accepted, proposal, before))
        _put(slope, items, _where(accepted, last, rate))
        widths[items] = width * (SAFETY * size**-0.2).clamp(min=SHRINK).minimum(ceiling[items])
        ceiling[items] = torch.where(accepted, GROW, 1.0).to(ceiling)
    return state, evaluations


def _filled(items: Tensor) -> Tensor:
    """Return ``PASS`` places: those of ``items``, the last of them repeated."""
    return torch.cat([items, items[-1:].expand(PASS - len(items))])


def _put(whole: State, items: Tensor, rows: State) -> None:
    """Write the rows of items into every tensor."""
    for part, row in zip(whole, rows, strict=True):
        part[items] = row.to(part)


def _refuse_endless(items: Tensor, times: Tensor, widths: Tensor, evaluations: Tensor, limit: int) -> None:
    """Stop where an item ran out of evaluations or its step vanishes beside its time."""
    spent = evaluations + 6 > limit
    stuck = widths.abs() < 10 * torch.finfo(torch.float64).eps * times.abs().clamp(min=1e-3)
    if not (spent | stuck).any():
        return
    which = int((spent | stuck).nonzero()[0])
    reason = f"took more than {limit} evaluations" if spent[which] else "needs steps below the spacing of floats"
    raise RunError(
        f"adaptive solver: item {int(items[which])} {reason} at {float(times[which]):.6g}; "
        "its derivative is not finite, or the tolerance is too tight for its precision."
    )


def _step(
    derivative: Derivative, state: State, times: Tensor, items: Tensor, slope: State, widths: Tensor
) -> tuple[State, State, State]:
    """Return the state after a step of each item's width, the slope there, and the estimate of the error."""
    slopes, point = [slope], state
    for node, weights in zip(NODES, STAGES, strict=True):
        point = _plus(state, widths, _combine(weights, slopes))
        slopes.append(derivative(point, times + node * widths, items))
    error = tuple(per_item(widths, part) * part for part in _combine(ERROR, slopes))
    return point, slopes[-1], error


def _first_widths(
    derivative: Derivative, norm: Norm, state: State, times: Tensor, items: Tensor, slope: State, end: float
) -> Tensor:
    """Return Hairer's first step of each item, signed as the integration is; costs one evaluation."""
    direction, room = torch.sign(end - times), (end - times).abs()
    size, speed = norm(state, state, state), norm(slope, state, state)
    guess = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed).minimum(room)
    ahead = derivative(_plus(state, direction * guess, slope), times + direction * guess, items)
    change = norm(tuple(b - a for a, b in zip(slope, ahead, strict=True)), state, state)
    bend = torch.maximum(speed, change / guess)
    width = torch.where(bend <= 1e-15, (1e-3 * guess).clamp(min=1e-6), (0.01 / bend) ** 0.2)
    return direction * torch.minimum(100 * guess, width)


def _norm(error: State, before: State, after: State, rtol: float, atol: float) -> Tensor:
    """Return each item's error in units of the tolerance, (n,) float64: the largest RMS of its tensors, NaN as inf."""
    sizes = []
    for part, low, high in zip(error, before, after, strict=True):
        scaled = part / (atol + rtol * torch.maximum(low.abs(), high.abs()))
        sizes.append(scaled.double()[:, None].flatten(1).square().mean(1).sqrt())
    return torch.stack(sizes).amax(0).nan_to_num(nan=torch.inf)


def _combine(weights: Sequence[float], slopes: Sequence[State]) -> State:
    """Return the weighted sum of the slopes."""
    pairs = [(w, slope) for w, slope in zip(weights, slopes, strict=True) if w]
    return tuple(torch.stack([w * slope[i] for w, slope in pairs]).sum(0) for i in range(len(slopes[0])))


def _plus(state: State, widths: Tensor, slope: State) -> State:
    """Return the state moved along ``slope`` by each item's width."""
    return tuple((part + per_item(widths, part) * rate).to(part) for part, rate in zip(state, slope, strict=True))


def _rows(state: State, chosen: Tensor) -> State:
    """Return the chosen items of every tensor."""
    return tuple(part[chosen] for part in state)


def _where(chosen: Tensor, yes: State, no: State) -> State:
    """Take the chosen items from ``yes``, the others from ``no``."""
    return tuple(torch.where(per_item(chosen, a), a, b) for a, b in zip(yes, no, strict=True))
