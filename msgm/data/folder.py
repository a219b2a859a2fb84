"""Any folder of images, with sub-folders as classes when there are any."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msgm.checks import at_least
from msgm.data.base import DATASETS, Dataset, DataSettings
from msgm.data.images import ImageFiles
from msgm.errors import UserError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"}


@DATASETS.register("folder")
@dataclass
class Folder(DataSettings):
    """Images below ``root``; when they lie in sub-folders, the first sub-folder's name is the class.

    Items are numbered by sorted path, so that an index file stays valid.

    Attributes:
        root: the folder.
        size: side of the square images that the model sees.
        channels: 1 or 3.
        crop: centre crop taken before resizing; None takes the largest centred square.
    """

    root: str | None = None
    size: int = 32
    channels: int = 3
    crop: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "data", "size", "crop")
        if self.channels not in (1, 3):
            raise UserError(f"data.channels must be 1 or 3, got {self.channels}.")

    def load(self) -> Dataset:
        """List the images, and read them when they fit into memory.

        Raises:
            UserError: no folder given, no such folder, or no image in it.
        """
        if not self.root or not Path(self.root).is_dir():
            raise UserError(f"data.root: say where the images are; {self.root!r} is no folder.")
        root = Path(self.root)
        paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise UserError(f"data.root: no image in {root}; read are {', '.join(sorted(SUFFIXES))}.")
        owners = [path.relative_to(root).parts[0] if path.parent != root else "" for path in paths]
        classes = sorted(set(owners))
        labelled = "" not in classes
        files = ImageFiles(paths, self.size, self.channels, self.crop)
        return Dataset(
            name=self.name,
            items=files.gather(self.resident_mb, self.workers),
            shape=(self.channels, self.size, self.size),
            levels=256,
            labels=np.array([classes.index(owner) for owner in owners]) if labelled else None,
            classes=classes if labelled else [],
            flip=self.flip,
            workers=self.workers,
        )
