"""MovieLens 100K and 1M as GroupLens publishes them (Harper and Konstan, "The MovieLens Datasets", ACM TiiS 2015).

Files are looked for below ``data.root``, else below the folder that the variable MSGM_DATA names. Nothing is
downloaded.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError
from msgm.recommender.data.base import SOURCES, Interactions
from msgm.recommender.data.rating_rows import RatedSource, RatingRows, with_attributes
from msgm.tabular import read_delimited

AGES = [18, 25, 35, 45, 50, 56]
AGE_GROUPS = np.array(["under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+"])
"""The groups of ages of the 1M set, used for both."""
# fmt: off
GENRES_100K = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]
# fmt: on
"""The last 19 columns of ``u.item``, in their order."""


@dataclass
class MovieLens(RatedSource):
    """Base of both data sets.

    Attributes:
        root: folder of the files, or the one above it; None reads the variable MSGM_DATA.
    """

    root: str | None = None

    def _folder(self, ratings: str) -> Path:
        root = self.root or os.environ.get("MSGM_DATA")
        if not root:
            raise UserError(f"data.root: say where the {self.name} files are, or set the variable MSGM_DATA.")
        for folder in (Path(root) / self.name, Path(root)):
            if (folder / ratings).is_file():
                return folder
        raise UserError(
            f"data.root: found no {self.name}/{ratings} below {root}; unpack {self.name}.zip of "
            "https://grouplens.org/datasets/movielens/ there."
        )

    def _read(self, ratings: Path, users: Path, delimiter: str, columns: list[str]) -> Interactions:
        """Read user, item, rating and time, and the attributes of users, where their file is there."""
        table = read_delimited(ratings, delimiter, ["user", "item", "rating", "time"], quotes=False)
        found = RatingRows(
            table["user"].ids(),
            table["item"].ids(),
            table.where,
            table["rating"].numbers(),
            table["time"].seconds(),
        )
        data = self.rated(found)
        if not users.is_file():
            return data
        table = read_delimited(users, "|" if delimiter == "\t" else delimiter, columns, quotes=False)
        ages = AGE_GROUPS[np.digitize(table["age"].numbers(), AGES)].tolist()
        attributes = {"gender": table["gender"].texts(), "age": ages, "occupation": table["occupation"].texts()}
        return with_attributes(data, table["user"].ids(), attributes, table.where)


@SOURCES.register("ml-100k")
@dataclass
class MovieLens100K(MovieLens):
    """100,000 ratings of 943 users and 1,682 films; gender, group of age and occupation; genres as tags.

    Example:
        >>> films = MovieLens100K(root="data", feedback="explicit")  # ``data`` holds the unpacked folder ml-100k
        >>> data = films.load()
        >>> data.explicit, data.times is not None
        (True, True)
    """

    def load(self) -> Interactions:
        folder = self._folder("u.data")
        columns = ["user", "age", "gender", "occupation", "zip"]
        data = self._read(folder / "u.data", folder / "u.user", "\t", columns)
        if not (folder / "u.item").is_file():
            return data
        columns = ["item", "title", "released", "video", "url", *GENRES_100K]
        table = read_delimited(folder / "u.item", "|", columns, quotes=False, encoding="latin-1")
        marks = {name: np.array(table[name].texts()) == "1" for name in GENRES_100K}
        return _tagged(data, table["item"].ids(), marks)


@SOURCES.register("ml-1m")
@dataclass
class MovieLens1M(MovieLens):
    """1,000,209 ratings of 6,040 users and 3,706 films; attributes and tags as for the 100K set.

    Occupations are the published code numbers.

    Example:
        >>> films = MovieLens1M(root="data", feedback="explicit")  # ``data`` holds the unpacked folder ml-1m
        >>> data = films.load()
        >>> data.explicit, data.times is not None
        (True, True)
    """

    def load(self) -> Interactions:
        folder = self._folder("ratings.dat")
        columns = ["user", "gender", "age", "occupation", "zip"]
        data = self._read(folder / "ratings.dat", folder / "users.dat", "::", columns)
        if not (folder / "movies.dat").is_file():
            return data
        table = read_delimited(
            folder / "movies.dat", "::", ["item", "title", "genres"], quotes=False, encoding="latin-1"
        )
        genres = [text.split("|") for text in table["genres"].texts()]
        names = sorted({name for of in genres for name in of})
        marks = {name: np.array([name in of for of in genres]) for name in names}
        return _tagged(data, table["item"].ids(), marks)


def _tagged(data: Interactions, ids: list[str], marks: dict[str, NDArray[np.bool_]]) -> Interactions:
    """Return ``data`` with tags of its items; an item without a row has none."""
    row = dict(zip(ids, range(len(ids)), strict=True))
    rows = np.array([row.get(name, len(ids)) for name in data.items.ids])
    return replace(data, tags={name: np.append(mark, False)[rows] for name, mark in marks.items()})
