"""Feature extractors of FID, KID, the Inception score, precision, recall and CLIP distance.

An extractor maps raw items, as the data set holds them, to (B, F) features, and to class probabilities where it has
classes. The judge is the default, as it needs no download and is trained on the data. Numbers from its features do not
compare across data sets or judges, so every row names its extractor.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.data import Dataset, dequantise
from msgm.errors import placed
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.vision.classifiers import ClassifierSettings, load_classifier
from msgm.evaluation.vision.clip import check_clip, load_clip
from msgm.evaluation.vision.images import check_images, to_rgb
from msgm.evaluation.vision.inception import Implementation, check_inception, load_inception
from msgm.fields import Settings
from msgm.processes import spread
from msgm.registry import Registry

BATCH = 256
CHUNK = 16 * BATCH
SECTION = "extractor"


@dataclass(frozen=True)
class Extracted:
    """Features and class probabilities of some items.

    Attributes:
        features: (N, F) float32 on the CPU.
        probabilities: (N, K) float32 on the CPU, rows summing to 1; None of an extractor without classes.
    """

    features: Tensor
    probabilities: Tensor | None

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Features:
    """A loaded extractor.

    Attributes:
        name: the registered name.
        text: what it is, with the checksum of weights that were not trained here.
        digest: a hash of everything its features depend on.
        see: maps a batch of raw items to (B, F) features and (B, K) logits, or None for these.
    """

    name: str
    text: str
    digest: str
    see: Callable[[Tensor], tuple[Tensor, Tensor | None]]

    def __call__(self, items: Tensor) -> Extracted:
        """Extract from (N, *shape) raw items; N may be 0."""

        def seen(part: Tensor) -> tuple[Tensor, Tensor | None]:
            features, logits = self.see(part)
            return features.float().cpu(), None if logits is None else logits.float().softmax(1).cpu()

        parts = spread(items.split(BATCH), seen)
        probabilities = [found for _, found in parts if found is not None]
        return Extracted(
            torch.cat([features for features, _ in parts]), torch.cat(probabilities) if probabilities else None
        )

    def stream(self, dataset: Dataset, indices: NDArray[np.int64]) -> Iterator[Extracted]:
        """Extract from items of a data set, so many at a time that a streaming set need not fit into memory."""
        for start in range(0, len(indices), CHUNK):
            yield self(dataset.take(indices[start : start + CHUNK]))


class Extractor(ABC):
    """A kind of extractor. Subclasses are dataclasses whose fields are its settings.

    Attributes:
        classifies: whether it has class probabilities.
    """

    name: ClassVar[str]
    classifies: ClassVar[bool] = False

    @abstractmethod
    def load(self, bench: Bench) -> Features:
        """Return the loaded extractor.

        Raises:
            UserError: weights are missing, cannot be fetched, or do not fit.
        """

    def check(self, dataset: Dataset) -> None:  # noqa: B027 - judge and pixels need nothing
        """Raise a UserError if it is not available or cannot read this data; called before anything is written."""


EXTRACTORS: Registry[Extractor] = Registry(SECTION)


def check_extractor(settings: Settings, place: str, dataset: Dataset) -> None:
    """Refuse an extractor that is unknown, not available, or cannot read this data.

    Args:
        settings: its name and its own settings.
        place: where they stand in the config, for errors.
        dataset: what it is to read.

    Raises:
        UserError: it is.
    """
    with placed(SECTION, place):
        EXTRACTORS.build(settings).check(dataset)


def device_of(bench: Bench) -> torch.device:
    """Return the device that measuring uses."""
    return bench.reality.bank.device


def load_features(bench: Bench, settings: dict[str, Any]) -> Features:
    """Return the extractor that ``settings`` (its name and its own settings) pick; a bench loads each of them once."""
    key = f"extractor/{json.dumps(settings, sort_keys=True)}"
    if key not in bench.memory:
        bench.memory[key] = EXTRACTORS.build(settings).load(bench)
    features: Features = bench.memory[key]
    return features


def sample_features(subject: Subject, features: Features) -> Extracted:
    """Return the features of all samples of a model; computed once and shared by all metrics."""
    key = f"features/{features.digest}"
    if key not in subject.memory:
        subject.memory[key] = features(subject.items)
    found: Extracted = subject.memory[key]
    return found


@EXTRACTORS.register("judge")
@dataclass(frozen=True)
class JudgeFeatures(Extractor):
    """The judge's features below its last layer, and its classes.

    Example:
        >>> seen = JudgeFeatures().load(subject.bench)(subject.items)
        >>> len(seen), seen.probabilities.shape
        (20, torch.Size([20, 10]))
    """

    classifies = True

    def load(self, bench: Bench) -> Features:
        return Features(self.name, f"the judge ({bench.judge.kind})", bench.judge.digest, bench.judge.outputs)


@EXTRACTORS.register("pixels")
@dataclass(frozen=True)
class Pixels(Extractor):
    """The items themselves: levels scaled to [-1, 1], or plain vectors.

    Example:
        >>> Pixels().load(subject.bench)(subject.items).features.shape
        torch.Size([20, 64])
    """

    def load(self, bench: Bench) -> Features:
        levels = bench.dataset.levels

        def see(items: Tensor) -> tuple[Tensor, None]:
            return (items.float() if levels is None else dequantise(items, levels)).flatten(1), None

        text = "plain vectors" if levels is None else "pixels in [-1, 1]"
        return Features(self.name, text, self.name, see)


@EXTRACTORS.register("inception")
@dataclass(frozen=True)
class InceptionFeatures(Extractor):
    """Inception v3's 2048 pooled features, and its classes.

    Example:
        >>> EXTRACTORS.build({"name": "inception", "implementation": "torchvision"})
        InceptionFeatures(implementation='torchvision', weights=None)

    Attributes:
        implementation: ``torch-fidelity`` has the TF port that published FIDs stand on, ``torchvision`` other weights
            of the same network; None takes the former where it is installed.
        weights: a file in place of the published one.
    """

    classifies = True
    implementation: Implementation | None = None
    weights: str | None = None

    def check(self, dataset: Dataset) -> None:
        check_images(dataset, SECTION, self.name)
        check_inception(self.implementation, self.weights, SECTION)

    def load(self, bench: Bench) -> Features:
        network = load_inception(self.implementation, self.weights, SECTION, device_of(bench))
        return Features(self.name, network.text, network.digest, _seen_in_colour(bench, network.outputs))


@EXTRACTORS.register("clip")
@dataclass(frozen=True)
class ClipFeatures(Extractor):
    """CLIP's image embeddings, not normalised.

    Example:
        >>> EXTRACTORS.build({"name": "clip", "weights": "ViT-B-32.pt"})
        ClipFeatures(model='ViT-B/32', weights='ViT-B-32.pt')

    Attributes:
        model: OpenAI's name, such as ``ViT-B/32``; it says what to fetch when no file is given.
        weights: OpenAI's archive, or a state dict as .safetensors or by ``torch.save``; None takes OpenAI's.
    """

    model: str = "ViT-B/32"
    weights: str | None = None

    def check(self, dataset: Dataset) -> None:
        check_images(dataset, SECTION, self.name)
        check_clip(self.model, self.weights, SECTION)

    def load(self, bench: Bench) -> Features:
        clip = load_clip(self.model, self.weights, SECTION, device_of(bench))
        return Features(
            self.name, clip.text, clip.digest, _seen_in_colour(bench, lambda rgb: (clip.embed_images(rgb), None))
        )


@EXTRACTORS.register("torchvision")
@dataclass
class TorchvisionFeatures(ClassifierSettings, Extractor):
    """The features below the last linear layer of any of torchvision's classifiers, and its classes.

    Example:
        >>> import torchvision
        >>> torch.save(torchvision.models.shufflenet_v2_x0_5(num_classes=10).state_dict(), "classifier.pt")
        >>> names = [f"class {k}" for k in range(10)]
        >>> settings = TorchvisionFeatures("shufflenet_v2_x0_5", "classifier.pt", names, size=32)
        >>> settings.load(subject.bench)(subject.items).features.shape
        torch.Size([20, 1024])
    """

    classifies = True

    def check(self, dataset: Dataset) -> None:
        check_images(dataset, SECTION, self.name)
        self.check_weights(SECTION)

    def load(self, bench: Bench) -> Features:
        classifier = load_classifier(self, SECTION, device_of(bench))
        return Features(self.name, classifier.text, classifier.digest, _seen_in_colour(bench, classifier.outputs))


def _seen_in_colour(
    bench: Bench, network: Callable[[Tensor], tuple[Tensor, Tensor | None]]
) -> Callable[[Tensor], tuple[Tensor, Tensor | None]]:
    """Return ``network`` preceded by the conversion of raw items to RGB images; ``check`` has refused vectors."""
    levels = bench.dataset.levels or 0
    return lambda items: network(to_rgb(items.to(device_of(bench)), levels))
