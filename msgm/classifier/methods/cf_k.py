"""CF-k, catastrophic forgetting of the last k blocks: fine-tuning of these alone.

theta_{last k} <- theta_{last k} - lr grad CE(D_r);   the blocks before them, buffers included, stay as they are.
"""

from dataclasses import dataclass

from torch import nn

from msgm.checks import at_least
from msgm.classifier.data import Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.blocks import last_blocks
from msgm.classifier.methods.steps import AS_TRAINED, Descent, GradientMethod, cross_entropy, passes
from msgm.classifier.training import norms


@METHODS.register("cf-k")
@dataclass(frozen=True)
class CFk(GradientMethod):
    """CF-k.

    Example:
        >>> made = msgm.classifier.CFk(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes over the retain set.
        lr_share: learning rate over the original training's; ``lr`` itself wins.
        k: number of last blocks that move.
    """

    epochs: int = 10
    lr_share: float = 1.0
    k: int = 1

    card = Card(
        formula="descend CE on the retain items in the last k blocks, from the original weights",
        source="Goel et al., arXiv 2201.06640, section 3; 10 epochs at lr 0.01 in later comparisons",
        needs=("retain",),
        family="approximate update",
        touches="last k blocks",
        deviations=f"blocks, not single layers, are counted; {AS_TRAINED}",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "methods", "k")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        batches = passes(split.retain, self.epochs, settings, self.name)
        last = last_blocks(model, self.k)
        moving = set(last.parameters())
        learnt = [p for p in model.parameters() if p.requires_grad]
        still = [module for module in norms(model) if module not in set(last.modules())]
        for p in model.parameters():
            p.requires_grad_(p in moving and p.requires_grad)
        try:
            return Descent(model, self.rate(settings), settings, ledger, still).run(batches, cross_entropy(model))
        finally:
            for p in learnt:
                p.requires_grad_()
