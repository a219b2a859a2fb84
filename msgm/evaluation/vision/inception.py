"""Inception v3, whose features FID, KID and the Inception score were defined on.

The published numbers stand on the TensorFlow port of 2015; torch-fidelity carries it. torchvision's own Inception v3 is
another set of weights of the same network: its FIDs do not compare with published ones, and its text says so.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from torch import Tensor

from msgm.digests import file_digest
from msgm.errors import UserError
from msgm.evaluation.vision.classifiers import ClassifierSettings, load_classifier
from msgm.evaluation.vision.weights import Download, find_weights, hub_place, name_file, read_state

Implementation = Literal["torch-fidelity", "torchvision"]
PORT = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
PORT_SHA256 = "6726825d"
PORT_MEGABYTES = 91
FEATURES = 2048


@dataclass(frozen=True)
class Inception:
    """A loaded Inception: ``outputs`` maps (B, 3, H, W) images in [0, 1] to (B, 2048) features and (B, K) logits."""

    outputs: Callable[[Tensor], tuple[Tensor, Tensor]]
    text: str
    digest: str


def chosen(implementation: Implementation | None) -> Implementation:
    """Return the default implementation: torch-fidelity's if it is installed, else torchvision's."""
    if implementation is not None:
        return implementation
    return "torch-fidelity" if importlib.util.find_spec("torch_fidelity") else "torchvision"


def check_inception(implementation: Implementation | None, weights: str | None, key: str) -> None:
    """Raise what ``load_inception`` would raise for a missing package or missing weights."""
    _find(chosen(implementation), weights, key)


def load_inception(
    implementation: Implementation | None, weights: str | None, key: str, device: torch.device | str
) -> Inception:
    """Load Inception v3.

    Args:
        implementation: whose; None takes torch-fidelity's when it is installed, else torchvision's.
        weights: a file in place of the published one.
        key: the setting that holds them, for errors.
        device: where it runs.

    Raises:
        UserError: torch-fidelity is asked for and not installed, or weights are missing, cannot be fetched or do not
            fit.
    """
    kind = chosen(implementation)
    path = _find(kind, weights, key)
    if kind == "torch-fidelity":
        return _port(path, key, device)
    classifier = load_classifier(_torchvision(path), key, device)
    text = f"{classifier.text}; torchvision's Inception v3, not the TF port: FIDs do not compare with published ones"
    return Inception(classifier.outputs, text, classifier.digest)


def _torchvision(path: Path) -> ClassifierSettings:
    """Return torchvision's Inception v3 as a classifier; its weights want images in [-1, 1]."""
    from torchvision.models import Inception_V3_Weights

    classes = list(Inception_V3_Weights.DEFAULT.meta["categories"])
    return ClassifierSettings("inception_v3", str(path), classes, 299, [0.5] * 3, [0.5] * 3)


def _find(kind: Implementation, weights: str | None, key: str) -> Path:
    if kind == "torchvision":
        from torchvision.models import Inception_V3_Weights

        published = Inception_V3_Weights.DEFAULT
        download = Download(published.url, hub_place(published.url), "0cc3c7bd", published.meta["_file_size"])
        return find_weights(weights, download, f"{key}.weights")
    if importlib.util.find_spec("torch_fidelity") is None:
        raise UserError(f"{key}.implementation: torch-fidelity is not installed; run pip install torch-fidelity.")
    return find_weights(weights, Download(PORT, hub_place(PORT), PORT_SHA256, PORT_MEGABYTES), f"{key}.weights")


def _port(path: Path, key: str, device: torch.device | str) -> Inception:
    """Load torch-fidelity's port: it takes 8-bit images, scales them as TensorFlow 1 did, and its logits lack a bias.

    It unpickles its weights without ``weights_only``, so they are checked here first.
    """
    read_state(path, f"{key}.weights")
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    layers = [str(FEATURES), "logits_unbiased"]
    try:
        network = module.FeatureExtractorInceptionV3(
            "inception-v3-compat", layers, feature_extractor_weights_path=str(path)
        )
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise UserError(f"{key}.weights: {path.name} does not fit torch-fidelity's Inception v3.") from error
    network = network.to(device)

    @torch.no_grad()
    def outputs(rgb: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = network((255 * rgb).round().to(torch.uint8))
        return features, logits

    return Inception(outputs, f"torch-fidelity's Inception v3 (TF port), {name_file(path)}", file_digest(path)[:16])
