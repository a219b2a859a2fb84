"""Networks that read prompts: the denoiser of a text-to-image pipeline, with the pipeline's other parts.

A prompt is a class: ``prompts`` is a table, label i asks for its entry i, and -1 for the empty prompt. What is no entry
is asked for as a text, whose embedding the condition holds. Embeddings are what the pipeline of diffusers itself makes
of a prompt, all of its places; the mask of a condition says which of them hold words, for methods that read them.
"""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from msgm.diffusion.conditions import Condition
from msgm.diffusion.networks.library import Library, only_variant, read_body, read_whole
from msgm.errors import UserError
from msgm.reading import read_json

PROMPTS = "prompts.json"
"""File beside the denoiser's weights with the table of prompts, which diffusers does not read."""
MOST = 1024
"""Embeddings of prompts that are kept while the text encoders do not change."""


class Standing:
    """Parts of a pipeline that no method changes, shared by all copies of a network: tokenizers, the autoencoder."""

    def __init__(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.parts, self.options = dict(parts), dict(options)

    def __deepcopy__(self, memo: object) -> "Standing":
        return self

    def with_part(self, name: str, part: Any) -> "Standing":
        """Return these parts with another one of a name."""
        return Standing(self.parts | {name: part}, self.options)


class Kept:
    """Embeddings of prompts by these very weights of the text encoders; a copy of a network begins without any."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Tensor, Tensor | None]] = {}
        self.by: tuple[object, ...] = ()

    def __deepcopy__(self, memo: object) -> "Kept":
        return Kept()

    def of(self, weights: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Return the embeddings that ``weights`` gave; those of other weights, or of other values, are forgotten."""
        by = tuple(entry for p in weights for entry in (id(p), p._version, p.device))
        if by != self.by or len(self.rows) > MOST:
            self.rows, self.by = {}, by
        return self.rows


class TextNetwork(Library):
    """A denoiser with the other parts of its text-to-image pipeline.

    The text encoders are parts of the network, ``text_encoder`` and so on, always in eval mode; the autoencoder, the
    tokenizers and a safety checker are kept as they are.

    Attributes:
        prompts: the prompts that labels ask for.
        reads_alone: whether the text encoders read, and are never trained: those that came with a pipeline.
        pipeline: name of diffusers' class of the pipeline.
    """

    own_null = True
    pipelines: ClassVar[tuple[str, ...]] = ()

    prompts: tuple[str, ...] = ()

    def __init__(
        self, parts: Mapping[str, Any], pipeline: str, options: Mapping[str, Any], prompts: Sequence[str] = ()
    ) -> None:
        """Take the parts of a pipeline under diffusers' names, its ``options`` being its other settings."""
        super().__init__(parts[self.part], has_null=True)
        self.pipeline = pipeline
        standing = {}
        for name, part in parts.items():
            if name.startswith("text_encoder") and part is not None:
                setattr(self, name, part.eval())
            elif name != self.part:
                standing[name] = part
        self.standing = Standing(standing, options)
        self.reads_alone = not any(p.requires_grad for part in self.encoders.values() for p in part.parameters())
        self._kept = Kept()
        self.set_prompts(prompts)

    def embeddings(self) -> int:
        return len(self.prompts) + 1

    def set_prompts(self, prompts: Sequence[str]) -> None:
        """Let label i ask for ``prompts[i]``.

        Raises:
            UserError: a prompt twice, or an empty one, which label -1 asks for.
        """
        if len(set(prompts)) != len(prompts) or not all(prompt.strip() for prompt in prompts):
            raise UserError("prompts: each must stand there once and hold a word; label -1 asks for the empty prompt.")
        self.prompts, self.classes = tuple(prompts), len(prompts)

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """The text encoders, by name."""
        return {name: part for name, part in self.named_children() if name.startswith("text_encoder")}

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the denoiser; the text encoders stay in eval mode, in which their pipeline reads them."""
        super().train(mode)
        for encoder in self.encoders.values():
            encoder.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let the weights be trained, or none; text encoders that came with a pipeline stand still for ever."""
        super().requires_grad_(requires_grad)
        if not self.reads_alone:
            return self
        for encoder in self.encoders.values():
            encoder.requires_grad_(False)
        return self

    def check_condition(self, condition: Condition) -> None:
        if condition.labels is not None and self.classes:
            super().check_condition(condition)
        elif condition.labels is not None and bool((condition.labels >= 0).any()):
            raise UserError("condition: this model has no table of prompts, so ask for a prompt by its words.")

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Return prompts as a condition; its mask is True where there are words, and the empty prompt is the null one.

        Raises:
            UserError: no prompt.
        """
        if not prompts:
            raise UserError("condition: expected at least one prompt.")
        embedding, pooled = self._embedded(list(prompts))
        mask = torch.zeros(embedding.shape[:2], dtype=torch.bool, device=embedding.device)
        words = self._words(list(prompts)).to(mask.device)
        mask[:, : words.shape[1]] = words
        return Condition(None, embedding, mask, pooled)

    def _words(self, prompts: list[str]) -> Tensor:
        """Return which places of the first tokenizer's hold words, (B, L) bool."""
        tokenizer = self.standing.parts["tokenizer"]
        length = tokenizer.model_max_length
        found = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        marks = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
        return ~torch.isin(found.input_ids, torch.tensor(sorted(marks)))

    def texts(self, condition: Condition | None, count: int) -> tuple[Tensor, Tensor | None]:
        """Return what the denoiser is given for ``count`` items: embeddings and, where there are, pooled ones."""
        if condition is None:
            embedding, pooled = self._embedded([""])
            return embedding.expand(count, -1, -1), None if pooled is None else pooled.expand(count, -1)
        if condition.labels is not None:
            self.check_condition(condition)
            labels, where = torch.unique(condition.labels, return_inverse=True)
            embedding, pooled = self._embedded([self.prompts[k] if k >= 0 else "" for k in labels.tolist()])
            return embedding[where], None if pooled is None else pooled[where]
        assert condition.embedding is not None
        if not bool(condition.null.any()):
            return condition.embedding, condition.pooled
        nothing, unpooled = self._embedded([""])
        null = condition.null
        embedding = torch.where(null[:, None, None], nothing.to(condition.embedding), condition.embedding)
        if condition.pooled is None or unpooled is None:
            return embedding, condition.pooled
        return embedding, torch.where(null[:, None], unpooled.to(condition.pooled), condition.pooled)

    def _embedded(self, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
        """Return the prompts' embeddings, kept from an earlier call where no gradient flows to the encoders."""
        weights = [p for encoder in self.encoders.values() for p in encoder.parameters()]
        if torch.is_grad_enabled() and any(p.requires_grad for p in weights):
            return self._read_anew(prompts)
        kept = self._kept.of(weights)
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in kept]
        if missing:
            with torch.no_grad(), torch.autocast(weights[0].device.type, enabled=False):
                embedding, pooled = self._read_anew(missing)
            rows = [None] * len(missing) if pooled is None else list(pooled)
            kept |= dict(zip(missing, zip(embedding, rows, strict=True), strict=True))
        found = [kept[prompt] for prompt in prompts]
        whole = torch.stack([row for row, _ in found])
        return whole, None if found[0][1] is None else torch.stack([row for _, row in found])  # type: ignore[misc]

    def _read_anew(self, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
        """Return what diffusers' pipeline makes of prompts, of the empty one as where no negative prompt is given."""
        pipeline, where = self.as_pipeline(), next(self.parameters()).device
        several = {"prompt_2": None, "prompt_3": None} if "tokenizer_3" in self.standing.parts else {}
        given = [prompt or " " for prompt in prompts]
        found = pipeline.encode_prompt(
            prompt=given, device=where, num_images_per_prompt=1, do_classifier_free_guidance="" in prompts, **several
        )
        pooled = found[2:] if len(found) == 4 else (None, None)
        empty = torch.tensor([not prompt for prompt in prompts], device=where)
        return _chosen(empty, *found[:2]), None if pooled[0] is None else _chosen(empty, *pooled)

    def parts(self) -> dict[str, Any]:
        """Return the pipeline's parts by diffusers' names, the scheduler that it came with among them."""
        return {self.part: self.body, **self.encoders, **self.standing.parts}

    def as_pipeline(self, **others: Any) -> Any:
        """Return diffusers' pipeline of these very parts, ``others`` in the place of those of the same name."""
        import diffusers

        return getattr(diffusers, self.pipeline)(**self.parts() | self.standing.options | others)

    def cross_attention(self) -> dict[str, nn.Linear]:
        """Return the layers that read the text, by name: the keys and values of every cross-attention.

        Raises:
            UserError: there is none, as in a transformer that reads text and picture together.
        """
        ends = (".attn2.to_k", ".attn2.to_v")
        found = {name: layer for name, layer in self.body.named_modules() if name.endswith(ends)}
        if not found:
            raise UserError(f"the {self.kind} has no cross-attention of its own for texts, which closed forms edit.")
        return found

    @property
    def scale(self) -> int:
        """Pixels of an image beside one of its latents."""
        vae = self.standing.parts.get("vae")
        return 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images, (B, 3, H, W) about [-1, 1], of latents; the latents themselves without an autoencoder."""
        vae = self.standing.parts.get("vae")
        if vae is None:
            return latents
        with torch.no_grad():
            return vae.to(latents.device).decode(latents / vae.config.scaling_factor + _shift(vae)).sample

    def encode_images(self, images: Tensor) -> Tensor:
        """Return the mean latents of images (B, 3, H, W) in [-1, 1]; the images themselves without an autoencoder."""
        vae = self.standing.parts.get("vae")
        if vae is None:
            return images
        with torch.no_grad():
            found = vae.to(images.device).encode(images).latent_dist.mean
        return (found - _shift(vae)) * vae.config.scaling_factor

    def save(self, folder: Path) -> None:
        """Write the folders of all parts, as diffusers' pipeline reads them, and the table of prompts."""
        super().save(folder)
        for name, part in self.parts().items():
            if name not in (self.part, "scheduler") and part is not None:
                part.save_pretrained(folder / name)
        (folder / self.part / PROMPTS).write_text(json.dumps(list(self.prompts), indent=1) + "\n")

    def listed(self) -> dict[str, Any]:
        """Return the pipeline's parts and settings as ``model_index.json`` names them."""
        found: dict[str, Any] = {name: _listed(part) for name, part in self.parts().items() if name != "scheduler"}
        return found | self.standing.options

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls.of(read_pipeline(folder), _stored_prompts(folder / cls.part / PROMPTS))

    @classmethod
    def of(cls, pipeline: Any, prompts: Sequence[str] = ()) -> Self:
        """Return the network of a pipeline's own parts, with float32 weights; its text encoders are not trained."""
        parts, options = dict(pipeline.components), {}
        for name, value in pipeline.config.items():
            if not name.startswith("_") and name not in parts:
                options[name] = value
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                part.float().requires_grad_(name == cls.part)
        return cls(parts, type(pipeline).__name__, options, prompts)

    @abstractmethod
    def forward(self, x: Tensor, label: Tensor, condition: Condition | None = None) -> Tensor:
        """Map x (B, C, H, W), label (B,) and conditions (B) to (B, C, H, W)."""


def _shift(vae: Any) -> float:
    """Return what an autoencoder's latents are shifted by before they are scaled; most know none."""
    return getattr(vae.config, "shift_factor", None) or 0.0


def _chosen(empty: Tensor, asked: Tensor, null: Tensor | None) -> Tensor:
    """Return the rows of ``asked``, and those of ``null`` where the prompt is empty."""
    return asked if null is None else torch.where(empty.view(-1, *[1] * (asked.dim() - 1)), null, asked)


def _listed(part: Any) -> list[str | None]:
    """Return the library and the class of a pipeline's part."""
    if part is None:
        return [None, None]
    kind = type(part)
    library = "diffusers" if kind.__module__.startswith("diffusers.") else "transformers"
    return ["stable_diffusion" if "safety_checker" in kind.__module__ else library, kind.__name__]


def _stored_prompts(file: Path) -> list[str]:
    return read_json(file, list[str]) if file.is_file() else []


def check_installed(what: str) -> None:
    """Raise a UserError where the package that reads text is not installed; ``what`` begins the sentence."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{what} reads text with transformers, which is not installed: pip install 'msgm[text]'."
        ) from error


def read_pipeline(folder: Path) -> Any:
    """Read a text-to-image pipeline's folder, in float32.

    Raises:
        UserError: transformers is not installed, a pipeline that msgm does not use, or weights that are missing.
    """
    check_installed(f"the pipeline in {folder}")
    import diffusers

    index = read_json(folder / "model_index.json", dict[str, Any])
    kind = text_kind(str(index.get("_class_name")))
    if kind is None:
        raise UserError(f"{folder} holds a {index.get('_class_name')}, which msgm does not read.")
    parts = {name: of for name, of in index.items() if isinstance(of, list)}
    given = {name: _read_network(folder / name, *of) for name, of in parts.items() if _is_read(folder / name, *of)}
    return getattr(diffusers, index["_class_name"]).from_pretrained(
        folder,
        variant=only_variant(folder / "safety_checker"),  # the one network that is left to diffusers
        local_files_only=True,
        use_safetensors=True,
        **given,
    )


def _is_read(folder: Path, library: str | None, kind: str | None) -> bool:
    """Return whether a pipeline's part is a network of a library, or is left out."""
    return library is None or (library in ("diffusers", "transformers") and (folder / "config.json").is_file())


def _read_network(folder: Path, library: str | None, kind: str | None) -> Any:
    """Read a pipeline's network, None where it is left out; errors as in ``read_whole``."""
    if library is None or kind is None:
        return None
    if library == "diffusers":
        return read_body(folder, kind)
    import transformers

    return read_whole(getattr(transformers, kind), folder)


def text_kind(pipeline: str) -> type[TextNetwork] | None:
    """Return the network of a pipeline of diffusers, by the pipeline's name; None where it reads no text."""
    kinds = _below(TextNetwork)  # type: ignore[type-abstract]
    return next((kind for kind in kinds if pipeline in kind.pipelines), None)


def _below(kind: type[TextNetwork]) -> list[type[TextNetwork]]:
    return [one for direct in kind.__subclasses__() for one in (direct, *_below(direct))]
