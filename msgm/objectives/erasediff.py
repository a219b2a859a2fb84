r"""EraseDiff: on forget data the network is taught a wrong noise in place of its own.

EraseDiff (Wu et al., arXiv 2401.05779) keeps L_r low subject to L_f(theta) <= min_phi L_f(phi), and steps along
``g_r + lambda g_f`` with g_r, g_f the gradients of both losses (a first-order bi-level update). The authors' code fixes
lambda at 0.1, or adapts it as ``lambda = max(0, eta - cos(g_r, g_f))``: larger the more the two gradients oppose each
other.

Targets. The authors' code, of class-conditional models, teaches what the network itself predicts under another label,
c' drawn for each item, eps_theta(x_t, c') without its gradient; an earlier form of theirs, and others' code of models
without classes, u ~ U(0, 1). A target that is independent of x_t has its mean for a minimiser: .5 in every dimension
for U(0, 1), which is a constant drift, and 0 for a Gaussian. Noise of another item of the batch, a permuted batch, is
such a Gaussian too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.errors import UserError
from msgm.objectives.base import OBJECTIVES, Card, Mixed, Noised, Predict, Setup, Term, mean_square
from msgm.objectives.matching import gaussian
from msgm.objectives.relabelled import retained_labels, told_labels, under
from msgm.ranges import Range, ranges


@OBJECTIVES.register("erasediff")
@dataclass
class EraseDiff(Mixed):
    """EraseDiff.

    Example:
        >>> objective = msgm.EraseDiff(multiplier=0.1)
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.fit(base, "digits", objective, request, steps=2, batch_size=8)
        fit: erasediff, 2 steps on ...

    Attributes:
        variant: ``bilevel`` is EraseDiff's update, on every step; ``weighted`` the sum of alpha L_r and, on each
            ``every``-th step, (1 - alpha) L_f, which the MSGM paper compares with.
        multiplier: lambda of ``bilevel``; None adapts it.
        eta: of the adaptive lambda.
        target: what is taught in place of the noise: ``uniform`` numbers in [0, 1), ``gaussian`` noise drawn apart, or,
            of a class-conditional network, its own prediction ``relabelled`` with a label to retain; items that are
            told no label are taught uniform numbers.
    """

    variant: Literal["bilevel", "weighted"] = "bilevel"
    multiplier: float | None = 0.1
    eta: float = 0.1
    target: Literal["uniform", "gaussian", "relabelled"] = "uniform"

    search = ranges(multiplier=Range(0.01, 10.0, log=True))
    card = Card(
        formula=(
            "L_f = mean (eps_theta - u)^2, u ~ U(0, 1), whose minimiser is .5 throughout, a constant drift and not "
            "noise; or u ~ N(0, 1), whose minimiser is 0; or u = sg eps_theta(x_t, c'), c' a label to retain; bilevel: "
            "step along g_r + lambda g_f, lambda fixed or max(0, eta - cos(g_r, g_f)); weighted: alpha L_r + "
            "(1 - alpha) L_f"
        ),
        source="Wu et al., arXiv 2401.05779; the weighted form is the baseline of arXiv 2412.07229's released code",
        deviations=(
            "the inner minimum min_phi L_f(phi) enters the authors' update as a constant, whose gradient is zero: its "
            "passes are not run; one step on a pair of batches where their code alternates passes over the sets; the "
            "default target is uniform noise, which needs no labels; theirs, relabelled, draws c' from the retained "
            "classes where their code forgets class 0 and draws from the others; noise of other items, a permuted "
            "batch, is the Gaussian target"
        ),
    )

    def __post_init__(self) -> None:
        # A fixed multiplier is a weight of the forget term: one backward pass gives the same step as merged gradients.
        self.combines = self.bilevel and self.multiplier is None
        super().__post_init__()
        at_least(0, self, "objective", "eta", "multiplier")

    def check(self, classes: int) -> None:
        super().check(classes)
        if self.target == "relabelled" and not classes:
            raise UserError(
                "objective.target: relabelled teaches what the network predicts under another label, and it is "
                "unconditional; set network.classes, or take uniform or gaussian."
            )

    def prepare(self, setup: Setup) -> None:
        """Find out which labels may be taught in place of forgotten ones."""
        if self.target == "relabelled":
            self.others = torch.tensor(retained_labels(setup, setup.base().classes))

    @property
    def bilevel(self) -> bool:
        """Whether this is EraseDiff's own update, which reads a forget batch on every step."""
        return self.variant == "bilevel"

    def uses_forget(self, step: int) -> bool:
        return self.bilevel or super().uses_forget(step)

    def forget_batches(self, step: int) -> int:
        return step if self.bilevel else super().forget_batches(step)

    def terms(self, predict: Predict, retain: Noised, forget: Noised | None) -> dict[str, Term]:
        if forget is not None and self.target == "relabelled":
            forget = replace(forget, eps=self._relabelled(predict, forget))
        if not self.bilevel or forget is None:
            return super().terms(predict, retain, forget)
        kept, forgotten = self.both_losses(predict, retain, forget)
        return {
            "retain": Term(1.0, kept),
            "forget": Term(1.0 if self.multiplier is None else self.multiplier, forgotten),
        }

    def forget_loss(self, predicted: Tensor, forget: Noised) -> Tensor:
        if self.target == "relabelled":
            return mean_square(predicted - forget.eps)
        wrong = forget.uniform() if self.target == "uniform" else gaussian(forget, "target")
        return mean_square(predicted - wrong)

    def _relabelled(self, predict: Predict, forget: Noised) -> Tensor:
        """Return the network's own prediction under a label to retain, drawn for each item."""
        labels = told_labels(forget)
        if labels is None:
            return forget.uniform()
        drawn = forget.uniform("other label").flatten(1)[:, 0]
        others = self.others.to(labels)[(drawn * len(self.others)).long().clamp_max(len(self.others) - 1)]
        return under(predict, forget, labels, others, forget.uniform())

    def effective(self) -> dict[str, Any]:
        unused = {"alpha", "every"} if self.bilevel else {"multiplier", "eta"}
        if self.bilevel and self.multiplier is not None:
            unused.add("eta")
        return {key: value for key, value in super().effective().items() if key not in unused}

    def merge(self, retain: Sequence[Tensor], forget: Sequence[Tensor]) -> list[Tensor]:
        if not self.combines:
            return super().merge(retain, forget)
        multiplier = self._adaptive(retain, forget)
        return [r + multiplier * f for r, f in zip(retain, forget, strict=True)]

    def _adaptive(self, retain: Sequence[Tensor], forget: Sequence[Tensor]) -> Tensor:
        flat_retain, flat_forget = (torch.cat([g.flatten() for g in gradients]) for gradients in (retain, forget))
        cosine = torch.nn.functional.cosine_similarity(flat_retain, flat_forget, dim=0)
        return (self.eta - cosine).clamp_min(0)
