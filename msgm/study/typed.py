"""The rows of a report as typed objects: names, numbers with their bands, cost, and what is specific to a domain.

report.json is the source. ``Row.from_json`` reads one of its rows and ``to_json`` gives it back unchanged; rows of
earlier versions are converted by ``msgm.domains.read_report`` before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from msgm.study.judging import Numbers, inside_share
from msgm.study.parts import Number


@dataclass(frozen=True)
class Limits:
    """The band of a number: mean and standard deviation of the retrained models, and the limits for a row's mean.

    Attributes:
        mean: over the retrained models.
        sd: their standard deviation, with k - 1 in the denominator.
        low: the lower limit for a mean of as many seeds as the row has.
        high: the upper limit.
        count: how many retrained models there are, k.
    """

    mean: float
    sd: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Value:
    """A number of a row: its mean over seeds, its interval, and where it lies.

    Attributes:
        value: mean over seeds; None where it could not be measured.
        low: lower end of the 95% interval; None where there is none.
        high: upper end of the interval.
        seeds: how many seeds it is the mean of.
        number: what it is, with its direction and bounds.
        band: of the retrained models; None where there are fewer than five.
        place: inside, above, below, too few to tell or no value; None where it is not judged.
        noticed: the smallest shift that would have been seen in 80 of 100 cases; None where it is not judged.
    """

    value: float | None
    low: float | None
    high: float | None
    seeds: int
    number: Number
    band: Limits | None = None
    place: str | None = None
    noticed: float | None = None

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Value":
        """Read an entry of a row's ``metrics``."""
        number = Number(**{field.name: tree[field.name] for field in fields(Number) if field.name in tree})
        own: dict[str, Any] = {name: tree.get(name) for name in ("value", "low", "high", "seeds", "place", "noticed")}
        band = None if tree.get("band") is None else Limits(**tree["band"])
        return cls(**own, number=number, band=band)


@dataclass(frozen=True)
class Cost:
    """What a row took.

    Attributes:
        seconds: of forgetting; a mean over seeds.
        preparation: seconds of what was made before the request came; None where it is not measured.
        storage: bytes kept for later requests; None where it is not measured.
        share_of_retraining: seconds as a share of retraining's, 1 is as long; None without a retrained model.
    """

    seconds: float
    preparation: float | None
    storage: float | None
    share_of_retraining: float | None


@dataclass(frozen=True)
class Row:
    """One row of a report: a method or an objective, its numbers and its cost.

    Example:
        >>> row = msgm.Report.read(compared).row("obtuse")
        >>> row.name, row.request
        ('obtuse', 'request')
        >>> value = row.metrics["UR %"]
        >>> value.number.better, value.band  # one seed and no retrained model: no band
        ('lower', None)

    Attributes:
        tree: the row as report.json holds it; ``row["settings"]`` is ``row.tree["settings"]``.
    """

    tree: Mapping[str, Any]

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Row":
        """Read a row of report.json."""
        return cls(tree)

    def to_json(self) -> dict[str, Any]:
        """Return the row as report.json holds it."""
        return dict(self.tree)

    def __getitem__(self, key: str) -> Any:
        """Return an entry of the row as report.json holds it."""
        return self.tree[key]

    @property
    def name(self) -> str:
        """The row's name in the config: of a generator's row or of a method."""
        return str(self.tree.get("name", self.tree.get("method")))

    @property
    def request(self) -> str | None:
        """The name of the request; None for attributes, which are erased without one."""
        return self.tree.get("request")

    @property
    def metrics(self) -> dict[str, Value]:
        """The numbers by name."""
        return {name: Value.from_json(entry) for name, entry in self.tree["metrics"].items()}

    @property
    def per_seed(self) -> dict[int, Numbers]:
        """The numbers of each seed."""
        return {part["seed"]: part["metrics"] for part in self.tree["per_seed"]}

    @property
    def retrained(self) -> Sequence[Numbers]:
        """The numbers of each retrained model; empty where there is none."""
        return [model["metrics"] for model in self.tree.get("retrain_band", ())]

    @property
    def cost(self) -> Cost:
        """What the row took."""
        names = ("preparation_seconds", "storage_bytes", "share_of_retraining")
        return Cost(float(self.tree["seconds"]), *(self.tree.get(name) for name in names))

    @property
    def inside(self) -> float | None:
        """Share of the judged numbers that lie in their bands, 0 to 1; None where none is judged."""
        return inside_share(dict(self.tree)) if "judged" in self.tree else None

    @property
    def effect(self) -> str | None:
        """``no effect at this budget`` where the row is not told from fine-tuning; else None."""
        return self.tree.get("effect")
