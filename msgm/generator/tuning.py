"""``msgm tune`` for generators: objectives, edits and learning rates, judged by samples and by validation items."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from msgm import threads
from msgm.chain import Chain
from msgm.config import BASE_ROW, FROM_BASE, Config, TrainingSettings
from msgm.data import load_dataset
from msgm.devices import chosen_device
from msgm.diffusion.guidance import Guidance, load_guided
from msgm.errors import UserError
from msgm.evaluation import Bench, Subject, measure
from msgm.evaluation.measuring import check_metrics
from msgm.fields import Tree, merged
from msgm.objectives import Objective
from msgm.ranges import searched
from msgm.registry import plain
from msgm.rows import Row
from msgm.runs import Run, find_model
from msgm.splits import Split
from msgm.study.tuning import Searched, Tunable, trial_folder
from msgm.sweep import PARTS
from msgm.training.earlier import earlier_chain
from msgm.training.run import finished, fit, load_source, split_data

SEED_OFFSET = 1000
"""Added to the config's seed: base model, rows and samples are draws of their own, apart from those of the report."""
METRICS = ["ur", "nll"]
NO_STEPS = {"edit": "; an edit makes none", "guide": "; guidance makes none"}


class GeneratorTuning(Tunable):
    """Tuning of a config's rows that start from the base model.

    A fine-tuned row makes ``finetune.steps`` steps instead of its own number; edits without an objective and guidance
    make none. Guidance that has no likelihood is not tuned, as the cost to retained items is judged by that.

    Args:
        config: the experiment.
        run: folder of the search.
        source: where the base model comes from; None trains it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    """

    domain = "generator"
    why: ClassVar[str] = (
        "unlearning ratio + junk rate + rise of the retain items' NLL over the base model's in bits/dim, the less the "
        "better: a model must stop making forgotten content, make no junk instead, and keep what is retained likely; "
        "ratio and junk of a class-conditional model are those of the worst of its three views"
    )
    numbers: ClassVar[Mapping[str, Literal["lower", "higher"]]] = {
        "objective": "lower",
        "unlearning_ratio": "lower",
        "unlearning_ratio_closed_set": "lower",
        "junk_rate": "lower",
        "copy_rate": "lower",
        "nll_retain": "lower",
        "nll_forget": "higher",
    }

    def __init__(self, config: Config, run: Run, source: Path | str | None, device: str) -> None:
        if BASE_ROW not in config.rows:
            raise UserError(f"rows: tune needs the row {BASE_ROW!r}; the config of a single run has no rows.")
        evaluation = replace(config.evaluation, metrics=METRICS, options={})
        self.given, self.run, self.device = config, run, device
        self.source = None if source is None else str(source)
        self.config = replace(config, seed=config.seed + SEED_OFFSET, seeds=1, retrains=1, evaluation=evaluation)
        self.steps = config.finetuning().steps
        starts = {row.start for row in config.rows.values() if not row.objective}
        self.budget = f"{self.steps} steps" + "".join(told for start, told in NO_STEPS.items() if start in starts)

    def settings(self) -> Tree:
        return self.given.to_dict()

    def rows(self) -> dict[str, Searched]:
        found = {name: self._searched(row) for name, row in self.config.rows.items() if row.start in FROM_BASE}
        return {name: searched for name, searched in found.items() if searched.space}

    def default_rows(self) -> list[str]:
        return [name for name in self.rows() if not self.config.rows[name].optional]

    def _searched(self, row: Row) -> Searched:
        parts: dict[str, tuple[Any, dict[str, Any]]] = {}
        for section, registry in PARTS.items():
            if settings := getattr(row, section):
                part = registry.build(settings)
                if isinstance(part, Guidance) and part.no_density:
                    return Searched({}, {})  # what retained items cost could not be judged
                parts[section] = (part, part.effective())
                for name, inner in part.wrappers().items() if isinstance(part, Objective) else ():
                    parts[f"{section}.{name}"] = (inner, inner.effective())
        if row.objective:
            parts["training"] = (TrainingSettings, vars(self.config.row_training(row)))
        space = {f"{key}.{name}": r for key, (part, own) in parts.items() for name, r in searched(part, own).items()}
        own = {key: float(parts[key.rpartition(".")[0]][1][key.rpartition(".")[2]]) for key in space}
        return Searched(space, own)

    @cached_property
    def bench(self) -> Bench:
        """The bench of the trials, with the validation part in place of the test part."""
        where, dataset = chosen_device(self.device), load_dataset(self.config.data)
        chain = earlier_chain(find_model(self.source), self.config, dataset) if self.source else Chain()
        split = split_data(self.config, dataset, chain.requests)
        split = Split(split.train, split.validation, split.validation)
        check_metrics(self.config, dataset, split)
        return Bench.make(self.config, self.run, dataset, split, where, chain)

    @cached_property
    def base(self) -> Path:
        """The base model's folder."""
        if self.source:
            load_source(find_model(self.source), self.config, self.bench.dataset)
            return find_model(self.source)
        made = Run(self.run.path / "base")
        if not finished(made):
            experiment = self.config.for_row(self.config.rows[BASE_ROW])
            fit(experiment, made, self.bench.dataset, self.bench.split, None, resume=True, device=self.device)
        return made.model

    @cached_property
    def base_numbers(self) -> dict[str, float]:
        """The base model's numbers."""
        return self._numbers("base", self.base)

    def prepare(self) -> None:
        threads.keep(self.run.manifest)
        told = self.base_numbers
        print("base: " + ", ".join(f"{key} {value:.4f}" for key, value in told.items()), flush=True)

    def measure(self, row: str, values: Mapping[str, float]) -> dict[str, float]:
        with trial_folder(self.run.path) as folder:
            trial, experiment, bench = Run(folder), self._experiment(row, values), self.bench
            fit(experiment, trial, bench.dataset, bench.split, self.base, False, self.device, bench.chain)
            found = self._numbers(row, trial.model)
        rise = max(0.0, found["nll_retain"] - self.base_numbers["nll_retain"])
        return {"objective": found["unlearning_ratio"] + found["junk_rate"] + rise} | found

    def _experiment(self, name: str, values: Mapping[str, float]) -> Config:
        return self.config.for_row(self._row(name, values))

    def _row(self, name: str, values: Mapping[str, float]) -> Row:
        """Return a row with these values and the number of steps that all rows share."""
        row, chosen = self.config.rows[name], self._parts(name, values)
        found: dict[str, Any] = {"training": row.training | chosen.get("training", {})}
        for section, registry in PARTS.items():
            if settings := getattr(row, section):
                found[section] = registry.resolve(merged(settings, chosen.get(section, {})))
        return replace(row, **found)

    def _parts(self, row: str, values: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """Return the settings of a row's sections, the common number of steps among them."""
        parts: dict[str, dict[str, Any]] = {}
        if self.config.rows[row].objective:
            parts["training"] = {"steps": self.steps}
        for key, value in values.items():
            *sections, name = key.split(".")
            place: dict[str, Any] = parts
            for section in sections:
                place = place.setdefault(section, {})
            place[name] = value
        return parts

    def chosen(self, row: str, values: Mapping[str, float]) -> Tree:
        made = self._row(row, values)
        training = merged(self.config.finetune, made.training) if made.objective else made.training
        sections = {section: getattr(made, section) for section in PARTS} | {"training": plain(training)}
        return {"rows": {row: {"start": made.start} | {key: own for key, own in sections.items() if own}}}

    def _numbers(self, name: str, folder: Path) -> dict[str, float]:
        found = measure(Subject(name, load_guided(folder).to(chosen_device(self.device)), self.bench))
        ratios = {key: found[key]["value"] for key in ("unlearning_ratio", "unlearning_ratio_closed_set")}
        rates = {key: found[key] for key in ("junk_rate", "copy_rate")}
        views = [view for view in found.get("conditions", {}).values() if isinstance(view, dict)]
        for key, rate in (("unlearning_ratio", ratios), ("junk_rate", rates)):
            rate[key] = max([rate[key], *(view[key]["value"] for view in views)])
        return ratios | rates | {f"nll_{part}": found["nll"][part]["mean"] for part in ("retain", "forget")}
