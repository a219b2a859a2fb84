"""torchvision's classifiers: any of them, with the user's weights or the published ones."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msgm.checks import at_least
from msgm.digests import file_digest
from msgm.errors import UserError, nearest
from msgm.evaluation.vision.images import fit, normalise
from msgm.evaluation.vision.weights import Download, fill, find_weights, hub_place, name_file, read_state

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
PORTED = ("googlenet", "inception_v3")
"""Networks whose published weights were trained on images in [-1, 1]: they undo ImageNet's mean and std themselves."""


@dataclass(frozen=True)
class Classifier:
    """A classifier that also shows the features below its last linear layer.

    Attributes:
        network: maps (B, 3, size, size) to (B, classes) logits.
        head: its last linear layer.
        classes: names of its classes, as many as it has logits.
        size: side of its images.
        mean: of its channels, in [0, 1].
        std: of its channels.
        text: what it is, with the checksum of its weights.
        digest: a hash of weights and preparation.
    """

    network: nn.Module
    head: nn.Linear
    classes: list[str]
    size: int
    mean: list[float]
    std: list[float]
    text: str
    digest: str

    @torch.no_grad()
    def outputs(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, F) features and (B, classes) logits of (B, 3, H, W) images in [0, 1]."""
        seen: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = self.network(normalise(fit(rgb, self.size, "bilinear"), self.mean, self.std))
        finally:
            handle.remove()
        return seen[0].flatten(1), logits


@dataclass
class ClassifierSettings:
    """Which classifier.

    Attributes:
        network: torchvision's name of it, such as ``resnet18``.
        weights: its state dict, as .safetensors or by ``torch.save``; None takes torchvision's published weights.
        classes: names of its classes in the order of its logits; with published weights these are known.
        size: side that images are scaled to (shorter side, then the centre is cropped).
        mean: of its channels, for images in [0, 1].
        std: of its channels.
    """

    network: str = "resnet18"
    weights: str | None = None
    classes: list[str] = field(default_factory=list)
    size: int = 224
    mean: list[float] = field(default_factory=lambda: list(IMAGENET_MEAN))
    std: list[float] = field(default_factory=lambda: list(IMAGENET_STD))

    section: ClassVar[str] = "torchvision"

    def __post_init__(self) -> None:
        at_least(1, self, "torchvision", "size")
        for key in ("mean", "std"):
            if len(getattr(self, key)) != 3:
                raise UserError(f"torchvision.{key} needs three numbers, got {getattr(self, key)}.")
        if min(self.std) <= 0:
            raise UserError(f"torchvision.std must be positive, got {self.std}.")
        if (self.weights is None) == bool(self.classes):
            raise UserError("torchvision.weights: own ones need the list of their classes; give both, or neither.")

    def check_weights(self, key: str) -> None:
        """Raise what ``load_classifier`` would raise for an unknown network or missing weights."""
        find_weights(self.weights, _published(self.network, key), f"{key}.weights")


def load_classifier(settings: ClassifierSettings, key: str, device: torch.device | str) -> Classifier:
    """Load a torchvision classifier.

    Args:
        settings: which one.
        key: the setting that holds them, for errors.
        device: where it runs.

    Raises:
        UserError: an unknown network, or weights that are missing, cannot be fetched, or do not fit.
    """
    import torchvision

    path = find_weights(settings.weights, _published(settings.network, key), f"{key}.weights")
    classes = settings.classes or _default(settings.network).meta["categories"]
    extra = {"init_weights": False} if settings.network in PORTED else {}
    if settings.network in PORTED and settings.weights is None:
        extra["transform_input"] = True
    with torch.random.fork_rng(devices=[]):
        empty = torchvision.models.get_model(settings.network, weights=None, num_classes=len(classes), **extra)
    what = f"torchvision's {settings.network} with {len(classes)} classes"
    network = fill(empty, read_state(path, f"{key}.weights"), f"{key}.weights", path.name, what).to(device)
    text = f"torchvision {settings.network}, {name_file(path)}, images scaled to {settings.size}"
    parts = [settings.network, file_digest(path)[:16], str(settings.size), *map(str, settings.mean + settings.std)]
    head = _head(network, settings.network, key)
    return Classifier(network, head, list(classes), settings.size, settings.mean, settings.std, text, "-".join(parts))


def _default(network: str) -> Any:
    import torchvision

    return torchvision.models.get_model_weights(network).DEFAULT


def _published(network: str, key: str) -> Download:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if network not in known:
        raise UserError(
            f"{key}.network: torchvision has no classifier {network!r}; it has {', '.join(known[:5])}, "
            f"... ({len(known)}).{nearest(network, known)}"
        )
    published = _default(network)
    url = published.url
    return Download(url, hub_place(url), url.rsplit("-", 1)[-1].split(".")[0], published.meta["_file_size"])


def _head(network: nn.Module, name: str, key: str) -> nn.Linear:
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise UserError(f"{key}.network: {name} has no linear layer whose input could serve as features.")
    return layers[-1]
