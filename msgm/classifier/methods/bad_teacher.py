r"""Bad-T: distil from a network of random weights on the forget set and from the original on the retain set.

With l = 1 on forget items and 0 on retain items, the target is l softmax(T_bad / tau) + (1 - l) softmax(T_good / tau),
and the student, which starts from the original, minimises tau^2 KL(target || student) on a shuffled mixture of both.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from msgm.checks import positive
from msgm.classifier.data import Examples, Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.distillation import divergence, frozen, soft
from msgm.classifier.methods.steps import AS_TRAINED, HELD, Descent, GradientMethod, passes
from msgm.classifier.training import norms
from msgm.errors import UserError
from msgm.ranges import Range, ranges
from msgm.seeding import derive_seed


@METHODS.register("bad-teacher")
@dataclass(frozen=True)
class BadTeacher(GradientMethod):
    """Bad-T, also called blindspot unlearning.

    Example:
        >>> made = msgm.classifier.BadTeacher(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes over the mixture.
        lr_share: learning rate over the original training's; ``lr`` itself wins.
        temperature: tau.
        retain_share: share of the retain set in the mixture, in (0, 1], drawn once.
    """

    epochs: int = 1
    lr_share: float = 0.1
    temperature: float = 1.0
    retain_share: float = 0.3

    search = ranges(temperature=Range(0.5, 5.0), retain_share=Range(0.1, 1.0))
    card = Card(
        formula="KL(l softmax(T_bad / tau) + (1 - l) softmax(T_good / tau) || student), l = 1 on forget, 0 on retain",
        source="Chundawat et al., AAAI 2023; published code: Adam 1e-4, 1 epoch, batches of 256",
        needs=("forget", "retain"),
        family="distillation",
        deviations=(
            f"{AS_TRAINED}; {HELD}; the divergence is summed over classes, published code divides it by their number "
            "too, so that its rates mean less; multiplied by tau^2; lr_share chosen on "
            "digits' tuning items"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "methods", "temperature")
        if not 0 < self.retain_share <= 1:
            raise UserError(f"methods.retain_share must lie in (0, 1], got {self.retain_share}.")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        untrained = settings.untrained(model, split.retain, derive_seed(settings.seed, self.name))
        good, bad = frozen(model), frozen(untrained)

        def loss(x: Tensor, gone: Tensor) -> Tensor:
            return divergence(model(x), target(good, bad, x, gone, self.temperature), self.temperature)

        descent = Descent(model, self.rate(settings), settings, ledger, norms(model))
        return descent.run(passes(self._mixture(split, settings.seed), self.epochs, settings, self.name), loss)

    def _mixture(self, split: Split, seed: int) -> Examples:
        """Return the forget items and a share of the retain items, labelled 1 and 0."""
        count = max(1, round(self.retain_share * len(split.retain)))
        both = split.forget.join(split.retain.drawn(count, seed, self.name, "retain"))
        return both.relabelled((torch.arange(len(both)) < len(split.forget)).long())


def target(good: nn.Module, bad: nn.Module, x: Tensor, gone: Tensor, temperature: float) -> Tensor:
    """Return (B, C) probabilities: the bad teacher's where ``gone`` (B,) is 1, the good one's where it is 0."""
    return torch.where(gone.bool()[:, None], soft(bad, x, temperature), soft(good, x, temperature))
