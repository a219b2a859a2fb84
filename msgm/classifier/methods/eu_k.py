"""EU-k, exact unlearning of the last k blocks: these are trained anew on the retain set.

    theta_{last k} ~ the network's own initialisation, then as CF-k.

Exact for the last k blocks given the others, which still come from all of the training data.
"""

from dataclasses import dataclass

from torch import nn

from msgm.classifier.data import Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.blocks import last_blocks
from msgm.classifier.methods.cf_k import CFk
from msgm.classifier.methods.steps import AS_TRAINED
from msgm.seeding import derive_seed


@METHODS.register("eu-k")
@dataclass(frozen=True)
class EUk(CFk):
    """EU-k.

    Example:
        >>> made = msgm.classifier.EUk(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes over the retain set.
        lr_share: learning rate over the original training's; ``lr`` itself wins.
        k: number of last blocks that start from fresh weights.
    """

    epochs: int = 10
    lr_share: float = 0.5

    card = Card(
        formula="fresh weights in the last k blocks, then descend CE on the retain items in these alone",
        source="Goel et al., arXiv 2201.06640, section 3; trained as long as the original in the paper",
        needs=("retain",),
        family="approximate update",
        touches="last k blocks",
        deviations=f"fewer epochs than the original's; blocks, not single layers, are counted; {AS_TRAINED}",
    )

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        last = last_blocks(model, self.k)
        fresh = settings.fresh(model, derive_seed(settings.seed, self.name))
        last.load_state_dict(last_blocks(fresh, self.k).state_dict())
        return super()._forget(model, split, settings, ledger)
