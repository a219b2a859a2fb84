"""Generators, as the command line and the Python API know them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from msgm.cards.views import Card
from msgm.config import Config, load_config
from msgm.runs import Run
from msgm.settings import Source
from msgm.study.client import Client
from msgm.study.judging import Report, Row
from msgm.study.tuning import Tunable
from msgm.sweep import with_start, with_sweeps


class Generators(Client[Config]):
    """Comparisons of ways to make score-based models forget."""

    name: ClassVar = "generator"
    kind: ClassVar = None
    options: ClassVar = (
        "only",
        "source",
        "device",
        "fresh_chain",
        "start",
        "sweep",
        "metrics",
        "cache",
        "jobs",
        "cluster",
    )

    def load(self, source: Source, overrides: Sequence[str] = ()) -> Config:
        return load_config(source, list(overrides))

    def compare(
        self,
        config: Config,
        out: Path | str | None = None,
        only: Sequence[str] | None = None,
        start: Literal["scratch", "finetune"] | None = None,
        sweep: Sequence[str] = (),
        **options: Any,
    ) -> Run:
        from msgm.generator.compare import compare

        rows = None if only is None else list(only)
        config = with_start(config, start) if start else config
        if sweep:
            config, rows = with_sweeps(config, list(sweep), rows)
        return compare(config, out, rows, **options)

    def card(self, report: Report, row: Row) -> Card:
        from msgm.evaluation.card import card

        return card(report, row)

    def write_views(self, run: Run, report: Report) -> None:
        from msgm.evaluation.report import write_views

        write_views(run, report)

    def print_report(self, report: Report) -> None:
        from msgm.evaluation.report import print_table

        print_table(report)

    def tunable(self, config: Config, run: Run, source: Path | str | None, device: str) -> Tunable:
        from msgm.generator.tuning import GeneratorTuning

        return GeneratorTuning(config, run, source, device)


GENERATORS = Generators()
