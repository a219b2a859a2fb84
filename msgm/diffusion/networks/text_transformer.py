"""The transformer that reads prompts and pictures together: diffusers' SD3Transformer2DModel, of flow matching."""

from dataclasses import dataclass

from torch import Tensor

from msgm.diffusion.conditions import Condition
from msgm.diffusion.networks.base import NETWORKS, NetworkSettings
from msgm.diffusion.networks.text import TextNetwork
from msgm.errors import UserError


class TextTransformer(TextNetwork):
    """diffusers' SD3Transformer2DModel, as in StableDiffusion3Pipeline; it is read and sampled, not made here."""

    name, part, kind = "text-transformer", "transformer", "SD3Transformer2DModel"
    pipelines = ("StableDiffusion3Pipeline",)

    def forward(self, x: Tensor, label: Tensor, condition: Condition | None = None) -> Tensor:
        embedding, pooled = self.texts(condition, len(x))
        out: Tensor = self.body(x, embedding, pooled, label).sample
        return out


@NETWORKS.register("text-transformer")
@dataclass
class TextTransformerSettings(NetworkSettings):
    """A transformer of Stable Diffusion 3's kind (Esser et al., arXiv 2403.03206), from its pipeline's folder alone.

    Example:
        >>> TextTransformerSettings().build((4, 8, 8))
        Traceback (most recent call last):
            ...
        msgm.errors.UserError: network.name: a text-transformer is read from a pipeline's folder, and none is made here.
    """

    def build(self, shape: tuple[int, ...]) -> TextTransformer:
        """Refuse to make one.

        Raises:
            UserError: always.
        """
        raise UserError("network.name: a text-transformer is read from a pipeline's folder, and none is made here.")
