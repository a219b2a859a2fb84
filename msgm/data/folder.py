"""Any folder of images, with sub-folders as classes when there are any."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from msgm.checks import at_least
from msgm.data.base import DATASETS, Dataset, DataSettings
from msgm.data.images import ImageFiles
from msgm.data.listing import ENDINGS, Listing, list_pictures, said
from msgm.data.pictures import check_background
from msgm.data.reading import complaints
from msgm.errors import UserError


@DATASETS.register("folder")
@dataclass
class Folder(DataSettings):
    """Images below ``root``; when they lie in sub-folders, the first sub-folder's name is the class.

    Items are numbered by sorted path, and their paths below ``root`` are their names. ``msgm.data.listing`` states
    which files are left out: hidden names, other endings, empty files, repeats by links, and pictures beside class
    folders. ``msgm.data.pictures`` states how a file is decoded.

    Example:
        >>> from PIL import Image
        >>> (out / "photos" / "cat").mkdir(parents=True)
        >>> Image.new("RGB", (60, 40), "orange").save(out / "photos" / "cat" / "one.png")
        >>> photos = Folder(root="photos", size=16).load()
        >>> photos.items.shape, photos.classes, photos.names
        (torch.Size([1, 3, 16, 16]), ['cat'], ['cat/one.png'])

    Attributes:
        root: the folder; a relative one that is not here is looked for below the folder of the variable MSGM_DATA.
        size: side of the square images that the model sees.
        channels: 1 or 3.
        crop: side of the centre crop taken before resizing, which no image may be smaller than; None takes the largest
            centred square.
        classes: ``folders`` takes the first sub-folder's name as the class when there are any; ``none`` takes all
            images without classes.
        background: the colour behind transparent pixels, by name or as ``#rrggbb``; null refuses such pictures.
        frame: which picture of an animation or of a file of several pages, from 0.
        broken: ``refuse`` stops at a file that cannot be read; ``skip`` reads all files first and leaves those out, so
            that they have no position.
    """

    root: str | None = None
    size: int = 32
    channels: int = 3
    crop: int | None = None
    classes: Literal["folders", "none"] = "folders"
    background: str | None = "white"
    frame: int = 0
    broken: Literal["refuse", "skip"] = "refuse"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "data", "size", "crop")
        at_least(0, self, "data", "frame")
        check_background(self.background, "data.background")
        if self.channels not in (1, 3):
            raise UserError(f"data.channels must be 1 or 3, got {self.channels}.")

    def load(self) -> Dataset:
        """List the images, and read them when they fit into memory.

        Raises:
            UserError: no folder given, no such folder, no image in it, or one that cannot be read as asked.
        """
        listing = list_pictures(self._found())
        if self.classes == "folders":
            listing.leave_strays_out()
        if self.broken == "skip":
            listing.leave_broken_out(complaints(self._files(listing), self.workers))
        if not listing.kept:
            found = "; ".join(said(listing.left_out)) or "it is empty"
            raise UserError(f"data.root: no image in {self.root}: {found}; read are {', '.join(ENDINGS)}.")
        classes = listing.classes() if self.classes == "folders" else []
        files = self._files(listing)
        return Dataset(
            name=self.name,
            items=files.gather(self.resident_mb, self.workers),
            shape=(self.channels, self.size, self.size),
            levels=256,
            labels=np.array([classes.index(name.split("/")[0]) for name in listing.kept]) if classes else None,
            classes=classes,
            names=listing.kept,
            files=files,
            left_out=listing.left_out,
            flip=self.flip,
            workers=self.workers,
        )

    def _found(self) -> Path:
        """Return the folder of the images; a relative one is looked for here, then below ``MSGM_DATA``."""
        if self.root:
            for folder in (Path(self.root), Path(os.environ.get("MSGM_DATA", ""), self.root)):
                if folder.is_dir():
                    return folder
        raise UserError(f"data.root: say where the images are; {self.root!r} is no folder.")

    def _files(self, listing: Listing) -> ImageFiles:
        paths = [listing.root / name for name in listing.kept]
        return ImageFiles(paths, self.size, self.channels, self.crop, self.background, self.frame)
