"""The U-Net that reads prompts, of Stable Diffusion's kind: diffusers' UNet2DConditionModel with its text encoders."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.diffusion.conditions import Condition
from msgm.diffusion.networks.base import NETWORKS, NetworkSettings
from msgm.diffusion.networks.text import TextNetwork, check_installed
from msgm.diffusion.networks.unet import groups_of, levels_of
from msgm.errors import UserError

BEGIN, END, UNKNOWN = "<begin>", "<end>", "<unknown>"


class TextUNet(TextNetwork):
    """diffusers' UNet2DConditionModel, as in StableDiffusionPipeline and StableDiffusionXLPipeline.

    Example:
        >>> network = TextUNetSettings(channels=[8], words=16).build((1, 8, 8))
        >>> network.set_prompts(["seven", "a slanted seven"])
        >>> asked = network.encode(["a seven", ""])
        >>> asked.embedding.shape, asked.mask.sum(1).tolist(), asked.null.tolist()
        (torch.Size([2, 12, 32]), [2, 0], [False, True])
        >>> network(torch.zeros(2, 1, 8, 8), torch.tensor([10.0, 10.0]), asked).shape
        torch.Size([2, 1, 8, 8])
    """

    name, part, kind = "text-unet", "unet", "UNet2DConditionModel"
    pipelines = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")

    def __init__(self, parts: Any, pipeline: str, options: Any, prompts: Sequence[str] = ()) -> None:
        super().__init__(parts, pipeline, options, prompts)
        self.body.to(memory_format=torch.channels_last)  # in which convolutions of a CPU take less time

    def forward(self, x: Tensor, label: Tensor, condition: Condition | None = None) -> Tensor:
        embedding, pooled = self.texts(condition, len(x))
        added = None
        if self.body.config.addition_embed_type == "text_time":
            size = [side * self.scale for side in x.shape[2:]]
            sizes = torch.tensor([*size, 0, 0, *size], dtype=x.dtype, device=x.device)
            added = {"text_embeds": pooled, "time_ids": sizes.expand(len(x), -1)}
        out: Tensor = self.body(x, label, embedding, added_cond_kwargs=added).sample
        return out

    def set_prompts(self, prompts: Sequence[str]) -> None:
        """Let label i ask for ``prompts[i]``; a network without words learns those of the prompts.

        Raises:
            UserError: a prompt twice, an empty one, or more words than the network has embeddings for.
        """
        super().set_prompts(prompts)
        tokenizer = self.standing.parts["tokenizer"]
        if len(tokenizer) > 3 or not prompts:
            return
        words = sorted({word for prompt in prompts for word in _words(tokenizer, prompt)})
        encoder: Any = self.text_encoder
        most = encoder.config.vocab_size - 3
        if len(words) > most:
            raise UserError(f"network.words: the prompts have {len(words)} words, and there is room for {most}.")
        self.standing = self.standing.with_part("tokenizer", word_tokenizer(words, tokenizer.model_max_length))


@NETWORKS.register("text-unet")
@dataclass
class TextUNetSettings(NetworkSettings):
    """A small U-Net of pixels with cross-attention to the words of a prompt, and its text encoder.

    It is the denoiser of latent diffusion (Rombach et al., arXiv 2112.10752) without an autoencoder, and with a text
    encoder of CLIP's kind (Radford et al., arXiv 2103.00020) that learns with it. Its words are those of the prompts
    that ``set_prompts`` gives it first.

    Example:
        >>> model = msgm.ScoreModel.new("text-unet", "vp", shape=(1, 8, 8), channels=[8])
        >>> model.network.set_prompts(["seven", "three"])
        >>> model.sample(2, steps=3, condition=["three", "seven three"]).shape
        torch.Size([2, 1, 8, 8])

    Attributes:
        channels: width of each level; every level halves the size.
        layers: residual blocks a level.
        attention: heights at which levels attend to themselves and to the text; None: at all of them.
        heads: heads of the attention.
        groups: groups of the normalisation; None takes the smaller of 32 and a quarter of the first width.
        text_width: width of the text encoder.
        text_layers: layers of the text encoder.
        places: words of the longest prompt that is read whole, and two.
        words: words that there is room for.
    """

    channels: list[int] = field(default_factory=lambda: [32, 64])
    layers: int = 1
    attention: list[int] | None = None
    heads: int = 4
    groups: int | None = None
    text_width: int = 32
    text_layers: int = 2
    places: int = 12
    words: int = 256

    def __post_init__(self) -> None:
        if not self.channels:
            raise UserError("network.channels must hold the width of at least one level, got [].")
        at_least(1, self, "network", "channels", "layers", "heads", "groups", "text_width", "text_layers", "words")
        at_least(3, self, "network", "places")
        if self.text_width % 2:
            raise UserError(
                f"network.text_width must be even, for the text encoder's two heads; got {self.text_width}."
            )

    def build(self, shape: tuple[int, ...]) -> TextUNet:
        """Return a network for images of ``shape`` (C, H, W)."""
        check_installed("network.name: text-unet")
        from diffusers import DDIMScheduler

        if len(shape) != 3:
            raise UserError(f"network.name: a text-unet needs images, and the data has shape {shape}.")
        parts = {"vae": None, "text_encoder": self._encoder(), "tokenizer": word_tokenizer([], self.places)}
        parts |= {"unet": self._unet(shape), "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False)}
        parts |= {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
        return TextUNet(parts, "StableDiffusionPipeline", {"requires_safety_checker": False})

    def _encoder(self) -> Any:
        from transformers import CLIPTextConfig, CLIPTextModel

        return CLIPTextModel(
            CLIPTextConfig(
                vocab_size=self.words + 3,
                hidden_size=self.text_width,
                intermediate_size=4 * self.text_width,
                num_hidden_layers=self.text_layers,
                num_attention_heads=2,
                max_position_embeddings=self.places,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )

    def _unet(self, shape: tuple[int, ...]) -> Any:
        from diffusers import UNet2DConditionModel

        groups = groups_of(self.channels, self.groups)
        heights = [shape[1] // 2**level for level in range(len(self.channels))]
        attends = [self.attention is None or height in self.attention for height in heights]
        halved = len(self.channels) - 1
        if any(side % 2**halved for side in shape[1:]):
            raise UserError(f"network.channels: images of {shape[1]}x{shape[2]} do not halve {halved} times.")
        if any(width % groups or width % self.heads for width in self.channels):
            raise UserError(
                f"network.channels: {self.channels} must be multiples of network.groups, {groups}, and of "
                f"network.heads, {self.heads}."
            )
        return UNet2DConditionModel(
            **levels_of(shape, self.channels, self.layers, groups, attends, "CrossAttn"),
            cross_attention_dim=self.text_width,
            attention_head_dim=self.heads,  # diffusers reads the number of heads here
        )


def word_tokenizer(words: Sequence[str], places: int) -> Any:
    """Return a tokenizer of whole words, lower case, that marks begin and end and pads with the end to ``places``."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = {word: number for number, word in enumerate([BEGIN, END, UNKNOWN, *words])}
    made = Tokenizer(models.WordLevel(known, unk_token=UNKNOWN))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [(BEGIN, known[BEGIN]), (END, known[END])]
    made.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A {END}", special_tokens=marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        unk_token=UNKNOWN,
        model_max_length=places,
    )


def _words(tokenizer: Any, prompt: str) -> list[str]:
    """Return the words of a prompt as the tokenizer cuts them."""
    rust = tokenizer.backend_tokenizer
    return [word for word, _ in rust.pre_tokenizer.pre_tokenize_str(rust.normalizer.normalize_str(prompt))]
