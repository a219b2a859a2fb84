"""The variational bound of a DDPM on held-out retain and forget items."""

from dataclasses import dataclass
from typing import Any

from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion.variational import variational_bound
from msgm.errors import UserError
from msgm.evaluation.asking import own
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column, Metric, Report, Row
from msgm.evaluation.metrics.likelihood import NO_DENSITY, forget_part, nll_indices, summary
from msgm.splits import Split


def _cell(part: str, row: Row, _: Report) -> str:
    if NO_DENSITY in row["vlb"]:
        return "none"
    found = row["vlb"][part]
    if found["mean"] is None:
        return f"diverged on {found['non_finite']}"
    return f"{found['mean']:.2f} ({found['median']:.2f})"


@METRICS.register("vlb")
@dataclass(frozen=True)
class VariationalBound(Metric):
    """The variational bound of discrete DDPMs, mean (median), on the items that ``nll`` takes.

    Example:
        >>> chain = msgm.ScoreModel.new("unet", "ddpm", shape=(1, 8, 8), channels=[8])
        >>> found = VariationalBound(terms=10).measure(Subject("chain", chain, subject.bench))["vlb"]
        >>> found["unit"], found["retain"]["n"]
        ('bits/dim', 4)

    Attributes:
        terms: of the chain's steps, how many are evaluated, drawn without bias; None takes all.
    """

    table = "Overview"
    columns = [  # noqa: RUF012
        Column("VLB retain", "lower", lambda row, report: _cell("retain", row, report)),
        Column("VLB forget", "", lambda row, report: _cell("forget", row, report)),
    ]

    terms: int | None = None

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        name, steps = config.process["name"], config.process.get("steps", 0)
        if name != "ddpm":
            raise UserError(
                f"metric vlb: only the process ddpm has a variational bound, and this one is {name}; use nll."
            )
        if dataset.levels is None:
            raise UserError(f"metric vlb: the bound is of images of levels, and {dataset.name} holds vectors; use nll.")
        if self.terms is not None and not 1 <= self.terms < steps:
            raise UserError(f"evaluation.options.vlb.terms must lie in 1 .. {steps - 1}, got {self.terms}.")

    def measure(self, subject: Subject) -> dict[str, Any]:
        if subject.no_density:
            return {"vlb": {NO_DENSITY: subject.no_density}}
        bench = subject.bench
        data, seed = bench.dataset, bench.config.seed
        assert data.levels is not None, "check refuses vectors"
        found: dict[str, Any] = {"unit": "bits/dim", "forget_part": forget_part(bench), "weights": subject.weights}
        for name, indices in nll_indices(bench).items():
            asked = own(subject.model, data, indices)
            bound = variational_bound(subject.model, data.take(indices), data.levels, seed, self.terms, condition=asked)
            found[name] = summary(bound)
        return {"vlb": found | {"terms": self.terms}}

    @classmethod
    def numbers(cls, row: Row, report: Report) -> dict[str, float | None]:
        if NO_DENSITY in row["vlb"]:
            return {}
        return {f"VLB {part}": row["vlb"][part]["mean"] for part in ("retain", "forget")}

    def protocol(self, bench: Bench) -> dict[str, str]:
        terms = "all terms" if self.terms is None else f"{self.terms} terms drawn a stratum each"
        return {
            "VLB": f"variational bound, bits/dim of the items of NLL, mean (median); {terms}, one draw of noise each"
        }
