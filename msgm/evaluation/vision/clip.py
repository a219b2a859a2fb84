"""CLIP (Radford et al., arXiv 2103.00020) through clip-anytorch: embeddings of images and of prompts.

Deviations from its own loader: weights stay in float32 where the file has them so (its loader rounds them to half
precision), files are read as tensors alone (it would run any TorchScript archive; here only OpenAI's own, by checksum),
and images are scaled as tensors, not as 8-bit pictures, which moves pixels by less than a grey level.
"""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.digests import file_digest
from msgm.errors import UserError, nearest
from msgm.evaluation.vision.images import fit, normalise
from msgm.evaluation.vision.weights import Download, fill, find_weights, name_file, read_state

MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
CACHE = Path("~/.cache/clip")
MEGABYTES = {
    "RN50": 244,
    "RN101": 278,
    "RN50x4": 402,
    "RN50x16": 630,
    "RN50x64": 1260,
    "ViT-B/32": 338,
    "ViT-B/16": 335,
    "ViT-L/14": 890,
    "ViT-L/14@336px": 891,
}
"""Sizes of OpenAI's archives."""
SIZES = ("input_resolution", "context_length", "vocab_size")
"""Numbers, not weights, that archives hold besides."""


@dataclass(frozen=True)
class Clip:
    """A loaded CLIP.

    Attributes:
        network: clip-anytorch's model, in float32, an ``nn.Module`` without types.
        text: what it is, with the checksum of its weights.
        digest: a hash of its weights.
    """

    network: Any
    text: str
    digest: str

    @property
    def size(self) -> int:
        """Side of the images it reads."""
        return int(self.network.visual.input_resolution)

    @property
    def features(self) -> int:
        """Length of an embedding."""
        return int(self.network.text_projection.shape[1])

    @torch.no_grad()
    def embed_images(self, rgb: Tensor) -> Tensor:
        """Return (B, features) embeddings, not normalised, of (B, 3, H, W) images in [0, 1]."""
        images = normalise(fit(rgb, self.size, "bicubic"), MEAN, STD)
        embeddings: Tensor = self.network.encode_image(images)
        return embeddings

    @torch.no_grad()
    def embed_class(self, prompts: list[str]) -> Tensor:
        """Return the normalised mean of the prompts' normalised embeddings, (features,)."""
        length = int(self.network.context_length)
        tokens = import_clip().tokenize(prompts, context_length=length)
        device = next(self.network.parameters()).device
        embeddings = F.normalize(self.network.encode_text(tokens.to(device)), dim=1)
        return F.normalize(embeddings.mean(0), dim=0)

    def logits(self, embeddings: Tensor, classes: Tensor) -> Tensor:
        """Return (B, K) scaled cosines between (B, F) image embeddings and (K, F) normalised class embeddings."""
        scale: Tensor = self.network.logit_scale.exp()
        return scale * F.normalize(embeddings, dim=1) @ classes.T


def check_clip(model: str, weights: str | None, key: str) -> None:
    """Raise what ``load_clip`` would raise for an unknown model or missing weights."""
    find_weights(weights, _published(model, key), f"{key}.weights")


def load_clip(model: str, weights: str | None, key: str, device: torch.device | str) -> Clip:
    """Load a CLIP.

    Args:
        model: OpenAI's name, such as ``ViT-B/32``; it says what to fetch when no file is given.
        weights: one of OpenAI's archives (known by checksum), or a state dict as .safetensors or by ``torch.save``;
            None takes OpenAI's.
        key: the setting that holds both, for errors.
        device: where it runs.

    Raises:
        UserError: an unknown model, or weights that are missing, cannot be fetched or read, or are no CLIP's.
    """
    path = find_weights(weights, _published(model, key), f"{key}.weights")
    digest = file_digest(path)
    name = _openai().get(digest)
    state = _archive(path, key) if name else read_state(path, f"{key}.weights")
    network = _build(state, path, key).to(device)
    return Clip(network, f"CLIP {name or 'of a file'}, {name_file(path)}", digest[:16])


def import_clip() -> Any:
    """Import clip-anytorch.

    It takes ``packaging`` from ``pkg_resources``, which setuptools 70 broke and 82 removed: a stand-in holds it.
    """
    if "clip" in sys.modules:
        return sys.modules["clip"]
    stand_in, before = ModuleType("pkg_resources"), sys.modules.get("pkg_resources")
    importlib.import_module("packaging.version")
    stand_in.packaging = importlib.import_module("packaging")  # type: ignore[attr-defined]
    sys.modules["pkg_resources"] = stand_in
    try:
        return importlib.import_module("clip")
    finally:
        del sys.modules["pkg_resources"]
        if before is not None:
            sys.modules["pkg_resources"] = before


def _urls() -> dict[str, str]:
    """Return OpenAI's addresses by model; their last folder is the file's checksum."""
    import_clip()
    return dict(importlib.import_module("clip.clip")._MODELS)


def _openai() -> dict[str, str]:
    """Return OpenAI's models by the checksum of their archive."""
    return {url.split("/")[-2]: model for model, url in _urls().items()}


def _published(model: str, key: str) -> Download:
    urls = _urls()
    if model not in urls:
        known = list(urls)
        raise UserError(f"{key}.model: unknown CLIP {model!r}; known: {', '.join(known)}.{nearest(model, known)}")
    url = urls[model]
    return Download(url, CACHE.expanduser() / url.rsplit("/", 1)[-1], url.split("/")[-2], MEGABYTES.get(model, 1000))


def _archive(path: Path, key: str) -> dict[str, Tensor]:
    """Return the weights of OpenAI's own TorchScript archive; the caller has checked its checksum."""
    try:
        return dict(torch.jit.load(path, map_location="cpu").state_dict())
    except RuntimeError as error:
        raise UserError(f"{key}.weights: cannot read {path.name} as a TorchScript archive.") from error


def _build(state: dict[str, Tensor], path: Path, key: str) -> nn.Module:
    """Build the network that the weights' shapes describe, and give it the weights as they are."""
    build = importlib.import_module("clip.model").build_model
    kept = {name: value for name, value in state.items() if name not in SIZES}
    try:
        with torch.random.fork_rng(devices=[]):
            network = build(dict(kept)).float()
    except (KeyError, RuntimeError, AssertionError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{key}.weights: {path.name} holds no weights of a CLIP.") from error
    return fill(network, kept, f"{key}.weights", path.name, "CLIP")
