"""Reading image files: crop, resize, to uint8 tensors; in memory when they fit, else one by one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from msgm.data.pictures import open_picture
from msgm.data.reading import read
from msgm.errors import UserError


@dataclass
class ImageFiles:
    """Image files that are decoded on demand, as they appear in a viewer.

    Attributes:
        paths: the files.
        size: side of the square image that comes out.
        channels: 1 (grey) or 3 (RGB).
        crop: side of the centre crop taken before resizing; None takes the largest centred square.
        background: the colour behind transparent pixels.
        frame: which picture of an animation or of a file of several pages, from 0.
    """

    paths: Sequence[Path]
    size: int
    channels: int = 3
    crop: int | None = None
    background: str | None = "white"
    frame: int = 0
    _digests: dict[int, tuple[tuple[int, int], bytes]] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return image ``index`` as a (channels, size, size) uint8 tensor.

        Raises:
            UserError: the file is no readable image, or smaller than the crop.
        """
        from torchvision.transforms import functional

        path = self.paths[index]
        image = open_picture(path, self.background, self.frame).convert("L" if self.channels == 1 else "RGB")
        crop = self.crop or min(image.size)
        if crop > min(image.size):
            raise UserError(
                f"{path} has {image.width}x{image.height} pixels, fewer than data.crop {crop}; set a smaller one, or "
                "null to take the largest centred square."
            )
        image = functional.center_crop(image, [crop, crop])
        return functional.pil_to_tensor(functional.resize(image, [self.size, self.size], antialias=True))

    def __repr__(self) -> str:
        return f"ImageFiles({self.size},{self.channels},{self.crop},{self.background},{self.frame})"

    def content(self, index: int) -> bytes:
        """Return the bytes of file ``index``.

        Raises:
            UserError: it cannot be read.
        """
        try:
            return self.paths[index].read_bytes()
        except OSError as error:
            raise UserError(f"cannot read the image {self.paths[index]}: {error.strerror}.") from error

    def digest(self, index: int) -> bytes:
        """Return the SHA-256 of file ``index``, cached until the file's size or modification time changes.

        Raises:
            UserError: it cannot be read.
        """
        try:
            found = self.paths[index].stat()
        except OSError as error:
            raise UserError(f"cannot read the image {self.paths[index]}: {error.strerror}.") from error
        state = (found.st_size, found.st_mtime_ns)
        if self._digests.get(index, (None,))[0] != state:
            self._digests[index] = (state, hashlib.sha256(self.content(index)).digest())
        return self._digests[index][1]

    def gather(self, limit_mb: int, workers: int = 0) -> "Tensor | ImageFiles":
        """Return all images as one tensor, read by ``workers`` processes, if they fit into ``limit_mb``, else self.

        Raises:
            UserError: an image cannot be read; if images are read later, only the first one is tried.
        """
        if len(self) * self.channels * self.size**2 > limit_mb * 2**20:
            self[0]
            return self
        return read(self, np.arange(len(self)), (self.channels, self.size, self.size), workers)
