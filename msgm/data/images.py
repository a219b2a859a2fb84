"""Reading image files: crop, resize, to uint8 tensors; in memory when they fit, else one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from msgm.data.reading import read
from msgm.errors import UserError


@dataclass
class ImageFiles:
    """Image files read when asked for.

    Attributes:
        paths: the files.
        size: side of the square image that comes out.
        channels: 1 (grey) or 3 (RGB).
        crop: side of the centre crop taken before resizing; None takes the largest centred square.
    """

    paths: Sequence[Path]
    size: int
    channels: int = 3
    crop: int | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return image ``index`` as a (channels, size, size) uint8 tensor.

        Raises:
            UserError: the file is no readable image.
        """
        from PIL import Image
        from torchvision.transforms import functional

        path = self.paths[index]
        try:
            with Image.open(path) as file:
                image = file.convert("L" if self.channels == 1 else "RGB")
        except Exception as error:  # of any kind: whatever Pillow's parsers meet in a damaged file
            raise UserError(f"cannot read the image {path}: {error}.") from error
        image = functional.center_crop(image, [self.crop or min(image.size)] * 2)
        return functional.pil_to_tensor(functional.resize(image, [self.size, self.size], antialias=True))

    def __repr__(self) -> str:
        names = ",".join(f"{path.name}:{path.stat().st_size}" for path in self.paths)
        return f"ImageFiles({self.size},{self.channels},{self.crop},{names})"

    def gather(self, limit_mb: int, workers: int = 0) -> "Tensor | ImageFiles":
        """Return all images as one tensor, read by ``workers`` processes, if they fit into ``limit_mb``, else self."""
        if len(self) * self.channels * self.size**2 > limit_mb * 2**20:
            return self
        return read(self, np.arange(len(self)), (self.channels, self.size, self.size), workers)
