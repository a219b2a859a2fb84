r"""UCE: the layers that read a text are solved anew, so that what is to be forgotten reads as something else.

With embeddings c_i of the prompts to forget, g_i of their guides and k_j of the prompts to keep, each key and value
projection of the cross-attention becomes

    W = (lam W_0 + e sum_i W_0 g_i c_i^T + p sum_j W_0 k_j k_j^T) (lam I + e sum_i c_i c_i^T + p sum_j k_j k_j^T)^-1.

Of one prompt without others, lam / (lam + e |c|^2) of the way to its guide is left: lam means something beside |c|^2
alone, and the edit's facts tell their ratio.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from msgm.checks import at_least, positive
from msgm.objectives.base import Card
from msgm.objectives.edits.base import EDITS
from msgm.objectives.edits.concepts import Texts, Tokens
from msgm.objectives.edits.cross_attention import Ridge, width_of
from msgm.objectives.edits.prompted import PromptEdit
from msgm.ranges import Range, ranges


@EDITS.register("uce")
@dataclass
class UCE(PromptEdit):
    """Unified concept editing: many prompts at once, in closed form.

    Example:
        >>> model = msgm.ScoreModel.new("text-unet", shape=(1, 8, 8), channels=[8])
        >>> model.network.set_prompts(["seven", "one", "two"])
        >>> edit = msgm.objectives.edits.UCE(lam=0.01)
        >>> wish = msgm.ForgetRequest(concept={"forget": ["seven"], "keep": ["two"], "anchor": "one"})
        >>> made = msgm.edit(model, None, edit, wish)
        edit: uce on ...
        >>> max(edit.facts["residual"].values()) < 0.01
        True

    Attributes:
        lam: weight of the distance to the weights as they were; the larger, the less is forgotten. What it does depends
            on the length of embeddings, and on their number.
        erase_scale: weight e of each place of a prompt to forget.
        preserve_scale: weight p of each place of a prompt to keep.
        tokens: which places of prompts are read. ``last``: the last word. ``words``: all words, each led to the guide's
            last. ``rest``: the last word of a prompt to forget and all behind it, the end and padding, which in most
            text encoders know the word too; and all places of a prompt to keep.
    """

    lam: float = 0.5
    erase_scale: float = 1.0
    preserve_scale: float = 1.0
    tokens: Tokens = "last"

    search = ranges(lam=Range(1e-3, 10.0, log=True))
    card = Card(
        formula=(
            "W = (lam W_0 + e sum W_0 g c^T + p sum W_0 k k^T)(lam I + e sum c c^T + p sum k k^T)^-1 for every key and "
            "value projection of the cross-attention; c to forget, g their guides, k to keep"
        ),
        source=(
            "Gandikota et al., WACV 2024, arXiv 2308.14761, equation 7; defaults and the last word's place as in its "
            "code of diffusers, tokens: rest as in its first code"
        ),
        deviations=(
            "solved in float64, once for all layers, as a change of the weights; a vector of the whole text that a "
            "denoiser reads besides, as of SDXL, is not edited"
        ),
    )

    def __post_init__(self) -> None:
        positive(self, "edit", "lam", "erase_scale")
        at_least(0, self, "edit", "preserve_scale")

    def solution(self, layers: Mapping[str, nn.Linear], texts: Texts) -> Tensor:
        ridge = Ridge(width_of(layers))
        for pairs in texts.erased(self.tokens):
            ridge.add(*pairs, self.erase_scale)
        for pairs in texts.kept(self.tokens):
            ridge.add(*pairs, self.preserve_scale)
        return ridge.solution(self.lam)
