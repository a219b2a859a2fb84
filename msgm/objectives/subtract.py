r"""Subtraction: descend on one set and ascend on the forget set, L_x - beta L_f. NegGrad, GradDiff and SISS are of it.

With pi_f the forget set's share of the training items and pi_r = 1 - pi_f, the losses' expectations satisfy

    L_all - pi_f L_f = pi_r L_r,

so descending on all items with beta = pi_f has the minimiser of training on the retain set alone. That is the default
("calibrated"). In general the pointwise minimiser is, with densities p and mean noises e at x_t,

    x = all:     (pi_r p_r e_r + (pi_f - beta) p_f e_f) / (pi_r p_r + (pi_f - beta) p_f)
    x = retain:  (p_r e_r - beta p_f e_f) / (p_r - beta p_f)

Where the denominator is zero this has a pole (for x = retain where p_r = beta p_f), and where it is negative the loss
has no minimum at all. A larger beta than the calibrated one is therefore refused unless the forget gradient is bounded:
by ``ceiling``, or beside the other one by ``combine``.

Importance sampling (SISS) draws one batch from the mixture (1 - lam) x + lam a of pairs of an item x and a forget item
a, which have their time and noise in common, and weighs it for both losses. With e_x = (x_t - a_t x) / sigma, e_a alike
and d = |e|^2 / 2:

    log w_x = -log((1 - lam) + lam exp(d_x - d_a)),  log w_a = log w_x + d_x - d_a,
    E[w_x |eps_theta - e_x|^2] = L_x,  E[w_a |eps_theta - e_a|^2] = L_f   for every lam in [0, 1].
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from msgm.checks import at_most_one, positive
from msgm.devices import precise
from msgm.diffusion.model import per_item
from msgm.errors import UserError
from msgm.objectives.base import (
    OBJECTIVES,
    Card,
    Data,
    Noised,
    Objective,
    Predict,
    Setup,
    Term,
    mean_square,
    predict_both,
)
from msgm.objectives.surgery import Cap
from msgm.ranges import Range, ranges

Descent = Literal["all", "retain", "nothing"]
NO_CONDITION = "items of a mixture have no condition in common; null takes two batches."


@OBJECTIVES.register("subtract")
@dataclass
class Subtract(Objective):
    """Subtraction: the loss on all items, on retain items or on nothing, minus a multiple of the loss on forget items.

    NegGrad is ``descent: nothing``, GradDiff ``descent: retain``, both with a weight and a ceiling; SISS has
    ``importance: 0.5`` and ``combine: {name: cap, ratio: 0.1, exactly: true}``, without importance sampling the latter
    alone.

    Example:
        >>> objective = msgm.Subtract()
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: subtract, 2 steps on ...

    Attributes:
        descent: items that the model goes on learning: ``all``, the forget set among them, ``retain`` or ``nothing``.
        weight: beta; ``calibrated`` is the forget set's share of all items, with which the loss is the retain loss.
            A factor of a whole loss cancels in Adam, but for clipping: with ``descent: nothing`` and no anchor it is
            not searched. Beside a cap that is met exactly it cancels altogether.
        ceiling: a forget sample whose loss is above it gives no gradient; a prediction of zero has loss 1.
        importance: lam of importance sampling, in [0, 1]; None takes a batch of each set.
    """

    descent: Descent = "all"
    weight: float | Literal["calibrated"] = "calibrated"
    ceiling: float | None = None
    importance: float | None = None

    search = ranges(weight=Range(0.01, 10.0, log=True), ceiling=Range(0.1, 4.0, log=True))
    data = "all+forget"
    card = Card(
        formula=(
            "L_x - beta L_f, L = mean (eps_theta - eps)^2, x all (default), retain or nothing; beta = pi_f (default) "
            "gives pi_r L_r; importance: both from one batch of the mixture (1 - lam) x + lam a, with weights "
            "p_x / mixture and p_a / mixture"
        ),
        source=(
            "NegGrad: Golatkar et al., arXiv 1911.04933; GradDiff: Maini et al., arXiv 2401.06121; SISS: Alberti et "
            "al., ICLR 2025, OpenReview SuHScQv5gP; the calibrated weight is an identity of the losses"
        ),
        deviations=(
            "losses are means over dimensions where SISS sums them; weights of importance are taken in logarithms, "
            "which are finite at lam 0 and 1, where the released code gives NaN; SISS's x is all items, as its "
            "derivation has it, where its configs leave the forget set out; the cap is a ratio of both gradients' "
            "lengths, where SISS sets the forget gradient's length itself; the ceiling is ours; an uncalibrated beta "
            "without a bound is refused"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_values()
        self._refuse_pole()
        self.beta = math.nan if self.weight == "calibrated" else float(self.weight)

    def _refuse_values(self) -> None:
        if self.weight != "calibrated" and not 0 <= self.weight < math.inf:
            raise UserError(f"objective.weight must be calibrated or a number of at least 0, got {self.weight}.")
        positive(self, "objective", "ceiling")
        at_most_one(self, "objective", "importance")
        if self.importance is not None and self.descent == "nothing":
            raise UserError("objective.importance: it shares a batch between two losses, and descent: nothing has one.")

        if self.importance is not None and self.anchor is not None and self.anchor.by == "base":
            raise UserError(
                "objective.anchor.by: base changes the noise that importance makes its mixture from; take another "
                "anchor, or importance: null."
            )
        prepared = [part for part in (self.mask, self.anchor) if part is not None and part.reads_retain]
        if self.replay and self.descent == "nothing" and not prepared:
            raise UserError(
                "objective.replay: descent: nothing reads no replays, and neither does the mask or the anchor; those "
                "by fisher do."
            )

    def _refuse_pole(self) -> None:
        if self.weight == "calibrated":
            if self.descent != "all":
                raise UserError(
                    f"objective.weight: calibrated is for descent: all, whose loss holds the forget set's share; give "
                    f"descent: {self.descent} a number."
                )
        elif self.descent != "all" and self.weight and not self.bounded:
            where = "at every point" if self.descent == "nothing" else f"wherever p_r < {self.weight} p_f"
            raise UserError(
                f"objective.weight: with descent: {self.descent} the loss has no minimum {where}; bound the forget "
                "gradient by objective.ceiling" + (", or by objective.combine." if self.descent == "retain" else ".")
            )

    @property
    def bounded(self) -> bool:
        """Whether the forget gradient is."""
        return self.ceiling is not None or self.combine is not None

    @property
    def unsearched(self) -> tuple[str, ...]:
        """Settings that are not searched: a weight of the whole loss."""
        return ("weight",) if self.descent == "nothing" and self.anchor is None else ()

    @property
    def needs(self) -> Data:
        """What ``descent`` comes to: forget items alone where nothing is descended on."""
        return "forget" if self.descent == "nothing" else "retain+forget" if self.descent == "retain" else "all+forget"

    def prepare(self, setup: Setup) -> None:
        """Take over the forget set's share.

        Raises:
            UserError: nothing bounds the forget gradient, and the weight is above the share, or forget batches leave
                labels out more or less often than the others, so that the losses do not cancel; or importance pairs
                batches of different sizes, or items of a class-conditional model.
        """
        if self.importance is not None and not setup.sizes_alike:
            raise UserError(
                "objective.importance: it pairs the items of both batches, so that training.forget_batch_size must be "
                "training.batch_size; leave it out."
            )
        if self.importance is not None and setup.base().classes:
            raise UserError(f"objective.importance: {NO_CONDITION}")
        if self.descent == "all" and not setup.labels_alike and not self.bounded:
            raise UserError(
                "objective.weight: without a bound of the forget gradient, subtraction needs batches that leave labels "
                "out equally often; take request.means: items, or give objective.ceiling or objective.combine."
            )
        if self.weight == "calibrated":
            self.beta = setup.forget_share
        elif self.descent == "all" and self.beta > setup.forget_share and not self.bounded:
            raise UserError(
                f"objective.weight: the forget set is {setup.forget_share:.4g} of the items, and above that the loss "
                f"has no minimum where forget items are dense, got {self.weight}; take calibrated, or bound the forget "
                "gradient by objective.ceiling or objective.combine."
            )

    def found(self) -> dict[str, float]:
        return {"beta": self.beta} if self.weight == "calibrated" else {}

    def effective(self) -> dict[str, Any]:
        unused = {"importance"} if self.importance is None else set()
        if isinstance(self.surgery, Cap) and self.surgery.exactly and self.weight != 0:
            unused.add("weight")
        return {key: value for key, value in super().effective().items() if key not in unused}

    def terms(self, predict: Predict, retain: Noised | None, forget: Noised | None) -> dict[str, Term]:
        assert forget is not None
        if retain is None:
            loss = mean_square(predict(forget.x, forget.t, forget.condition) - forget.eps)
            return {"forget": Term(-self.beta, _below(self.ceiling, loss))}
        if self.importance is not None:
            kept, forgotten = shared_losses(predict, retain, forget, self.importance, self.ceiling)
        else:
            on_retain, on_forget = predict_both(predict, retain, forget)
            kept = mean_square(on_retain - retain.eps)
            forgotten = _below(self.ceiling, mean_square(on_forget - forget.eps))
        return {self.descent: Term(1.0, kept), "forget": Term(-self.beta, forgotten)}


def _below(ceiling: float | None, loss: Tensor) -> Tensor:
    return loss if ceiling is None else loss.clamp_max(ceiling)


def shared_losses(
    predict: Predict, first: Noised, second: Noised, share: float, ceiling: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return the weighted losses (B,) of both sets from one pass over a batch of their mixture.

    Items are paired by their places; of batches that differ in size, the larger one's other items are not used. An item
    of the mixture is the second of its pair with probability ``share``. A loss of the second set is at most
    ``ceiling``, before it is weighted.

    Raises:
        UserError: the items have conditions, of which a mixture of two has none.

    Example:
        >>> model = msgm.ScoreModel.new("mlp", "vp", shape=(2,))
        >>> points, times = torch.randn(8, 2), torch.linspace(0.1, 1.0, 8)
        >>> one = msgm.objectives.noised(model.process, points, times, torch.randn(8, 2))
        >>> two = msgm.objectives.noised(model.process, points + 3, times, torch.randn(8, 2))
        >>> [loss.shape for loss in msgm.objectives.shared_losses(model.eps, one, two, 0.5)]
        [torch.Size([8]), torch.Size([8])]
    """
    if first.condition is not None or second.condition is not None:
        raise UserError(f"objective.importance: {NO_CONDITION}")
    count = min(len(first.x), len(second.x))
    t, eps, signal, noise = first.t[:count], first.eps[:count], first.signal[:count], first.noise[:count]
    one, two = first.clean[:count], second.clean[:count]
    drawn = first.uniform().flatten(1)[:count, 0]
    of_second = drawn < share if share < 1 else torch.ones_like(drawn, dtype=torch.bool)
    x = signal * torch.where(per_item(of_second, one), two, one) + noise * eps
    eps_one, eps_two = (x - signal * one) / noise, (x - signal * two) / noise
    log_one, log_two = _log_weights(eps_one, eps_two, share)
    predicted = predict(x, t, None)
    loss_one, loss_two = mean_square(predicted - eps_one), _below(ceiling, mean_square(predicted - eps_two))
    return log_one.exp() * loss_one, log_two.exp() * loss_two


@torch.no_grad()
def _log_weights(eps_one: Tensor, eps_two: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return log p_one / p and log p_two / p, (B,), with p = (1 - share) p_one + share p_two."""
    one, two = (0.5 * precise(eps).flatten(1).square().sum(1) for eps in (eps_one, eps_two))
    log_share = [torch.full_like(one, math.log(s) if s > 0 else -math.inf) for s in (1 - share, share)]
    log_mixture = torch.logaddexp(log_share[0] - one, log_share[1] - two)
    return (-one - log_mixture).to(eps_one), (-two - log_mixture).to(eps_one)
