"""MNIST, FashionMNIST, CIFAR-10, CIFAR-100, SVHN, STL-10 and CelebA through torchvision.

Files are looked for below ``data.root``, else below the folder that the variable MSGM_DATA names, and downloaded only
when ``data.download`` asks for it. torchvision verifies checksums before it reads CIFAR's pickles.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msgm.checks import at_least
from msgm.data.base import DATASETS, Dataset, DataSettings
from msgm.data.images import ImageFiles
from msgm.downloads import announce
from msgm.errors import RunError, UserError

HOSTS = {
    "mnist": ("ossci-datasets.s3.amazonaws.com", 11),
    "fashion-mnist": ("fashion-mnist.s3-website.eu-central-1.amazonaws.com", 31),
    "cifar10": ("www.cs.toronto.edu", 170),
    "cifar100": ("www.cs.toronto.edu", 169),
    "svhn": ("ufldl.stanford.edu", 246),
    "stl10": ("ai.stanford.edu", 2640),
    "celeba": ("drive.google.com", 1440),
}
"""Where torchvision fetches the files from, and their size in MB."""


@dataclass
class Published(DataSettings):
    """A data set with a published test set.

    Attributes:
        root: folder of the files; None reads the variable MSGM_DATA.
        download: fetch missing files.
        size: side to resize to; None keeps the published size.
    """

    root: str | None = None
    download: bool = False
    size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "data", "size")

    def open(self, torchvision_class: Callable[..., Any], **options: Any) -> Any:
        """Construct a torchvision data set, with one clear sentence when its files are missing."""
        root = self.root or os.environ.get("MSGM_DATA")
        if not root:
            raise UserError(f"data.root: say where the {self.name} files are, or set the variable MSGM_DATA.")
        try:
            return torchvision_class(root=root, download=False, **options)
        except RuntimeError:  # torchvision's word for files that are missing or damaged
            host, megabytes = HOSTS[self.name]
            instead = f"set data.download=true, or say where the files are: there are none in data.root, {root}"
            announce(f"{self.name} into {root}", host, megabytes, "data.download", instead, self.download)
        except OSError as error:
            raise RunError(f"could not read {self.name} in {root}: {error}") from error
        try:
            return torchvision_class(root=root, download=True, **options)
        except (RuntimeError, OSError) as error:
            raise RunError(f"could not download {self.name} into {root}: {error}") from error

    def dataset(self, train: Tensor, test: Tensor, labels: list[Any], classes: list[str]) -> Dataset:
        """Join the published train and test images, resized."""
        images = resize(torch.cat([train, test]), self.size)
        is_test = np.arange(len(images)) >= len(train)
        numbers = np.concatenate([np.asarray(part, dtype=np.int64) for part in labels])
        shape = tuple(images.shape[1:])
        return Dataset(self.name, images, shape, 256, numbers, classes, test=is_test, flip=self.flip)


def resize(images: Tensor, size: int | None, chunk: int = 1000) -> Tensor:
    """Resize (N, C, H, W) uint8 images to ``size`` pixels a side, antialiased."""
    if size is None or size == images.shape[-1]:
        return images
    from torchvision.transforms import functional

    return torch.cat([functional.resize(part, [size, size], antialias=True) for part in images.split(chunk)])


@DATASETS.register("mnist")
@dataclass
class MNIST(Published):
    """MNIST: 60,000 + 10,000 grey digits of 28x28.

    Example:
        >>> MNIST(root="data", size=32).load().shape  # where ``data`` holds the published files
        (1, 32, 32)
    """

    torchvision_name = "MNIST"

    def load(self) -> Dataset:
        """Read both published parts."""
        from torchvision import datasets

        cls = getattr(datasets, self.torchvision_name)
        train, test = self.open(cls, train=True), self.open(cls, train=False)
        classes = [name.split(" - ")[0] for name in train.classes]
        return self.dataset(train.data[:, None], test.data[:, None], [train.targets, test.targets], classes)


@DATASETS.register("fashion-mnist")
@dataclass
class FashionMNIST(MNIST):
    """FashionMNIST: 60,000 + 10,000 grey garments of 28x28.

    Example:
        >>> FashionMNIST(root="data").load().shape  # where ``data`` holds the published files
        (1, 28, 28)
    """

    torchvision_name = "FashionMNIST"


@DATASETS.register("cifar10")
@dataclass
class CIFAR10(Published):
    """CIFAR-10: 50,000 + 10,000 colour images of 32x32.

    Example:
        >>> CIFAR10(root="data", flip=True).load().shape  # where ``data`` holds the published files
        (3, 32, 32)
    """

    torchvision_name = "CIFAR10"

    def load(self) -> Dataset:
        """Read both published parts."""
        from torchvision import datasets

        parts = [self.open(getattr(datasets, self.torchvision_name), train=flag) for flag in (True, False)]
        train, test = (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in parts)
        return self.dataset(train, test, [part.targets for part in parts], list(parts[0].classes))


@DATASETS.register("cifar100")
@dataclass
class CIFAR100(CIFAR10):
    """CIFAR-100: 50,000 + 10,000 colour images of 32x32 in 100 fine classes.

    Example:
        >>> CIFAR100(root="data").load().shape  # where ``data`` holds the published files
        (3, 32, 32)
    """

    torchvision_name = "CIFAR100"


@DATASETS.register("svhn")
@dataclass
class SVHN(Published):
    """SVHN: 73,257 + 26,032 colour images of 32x32, street numbers' digits; the extra part is left out.

    Example:
        >>> SVHN(root="data").load().shape  # where ``data`` holds the published files
        (3, 32, 32)
    """

    def load(self) -> Dataset:
        """Read both published parts."""
        from torchvision import datasets

        train, test = (self.open(datasets.SVHN, split=name) for name in ("train", "test"))
        images, more = torch.from_numpy(train.data), torch.from_numpy(test.data)
        return self.dataset(images, more, [train.labels, test.labels], [str(k) for k in range(10)])


@DATASETS.register("stl10")
@dataclass
class STL10(Published):
    """STL-10: 5,000 + 8,000 labelled colour images of 96x96; the unlabelled part is left out.

    Example:
        >>> STL10(root="data", size=64).load().shape  # where ``data`` holds the published files
        (3, 64, 64)
    """

    def load(self) -> Dataset:
        """Read both published parts."""
        from torchvision import datasets

        parts = [self.open(datasets.STL10, split=name) for name in ("train", "test")]
        train, test = (torch.from_numpy(part.data) for part in parts)
        return self.dataset(train, test, [part.labels for part in parts], list(parts[0].classes))


@DATASETS.register("celeba")
@dataclass
class CelebA(Published):
    """CelebA: 202,599 aligned faces with 40 attributes, centre-cropped and resized.

    Example:
        >>> faces = CelebA(root="data", size=64).load()  # where ``data`` holds the published files
        >>> faces.shape, faces.attributes["Smiling"].dtype
        ((3, 64, 64), dtype('bool'))

    Attributes:
        crop: side of the centre crop (score_sde: 140).
        identities: read whose face each is as the group ``identity``, so that a request may name persons
            (``request.group: {identity: [1, 2]}``). Attacks on membership then compare faces of the same person alone.
    """

    size: int | None = 64
    crop: int = 140
    identities: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "data", "crop")

    def load(self) -> Dataset:
        """List the files; the published validation part counts as training data, the test part as test."""
        from torchvision import datasets

        faces = self.open(datasets.CelebA, split="all", target_type="attr")
        folder = Path(faces.root) / faces.base_folder
        paths = [folder / "img_align_celeba" / name for name in faces.filename]
        files = ImageFiles(paths, self.size or self.crop, 3, self.crop)
        partition = (folder / "list_eval_partition.txt").read_text().split()[1::2]
        names = [name for name in faces.attr_names if name]
        attributes = {name: faces.attr[:, i].numpy().astype(bool) for i, name in enumerate(names)}
        groups = {"identity": faces.identity[:, 0].numpy().astype(str)} if self.identities else {}
        return Dataset(
            name=self.name,
            items=files.gather(self.resident_mb, self.workers),
            shape=(3, files.size, files.size),
            levels=256,
            attributes=attributes,
            groups=groups,
            names=list(faces.filename),
            files=files,
            test=np.array(partition) == "2",
            flip=self.flip,
            workers=self.workers,
        )
