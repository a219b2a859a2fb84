"""The search of ``msgm tune``: the same number of trials for every row, on the validation part alone.

A trial assigns values to one row's settings, trains the row and measures it; the search minimises or maximises one
number, the objective. The first trial of a row has the config's own values, so that the chosen values are never worse
than these on the validation part, at the budget that all rows share. Later ones are drawn by Optuna's tree-structured
Parzen estimator (Bergstra et al., NeurIPS 2011), whose seed is a function of the run's seed, the row and the trial's
number: a resumed search gives the same result as an uninterrupted one.

``trials.log`` is Optuna's journal of the finished trials, one study a row, which its tools can read too.
"""

import math
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from msgm import traces
from msgm.errors import Interrupted, RunError, UserError, known, nearest
from msgm.fields import Tree, merged
from msgm.folders import locked, write_json, write_text
from msgm.ranges import Range
from msgm.runs import Run, environment
from msgm.seeding import derive_seed
from msgm.settings import differences, dump_yaml
from msgm.tables import Table
from msgm.tuned import FILE

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

JOURNAL = "trials.log"
OBJECTIVE = "objective"
RANDOM_TRIALS = 5
"""Trials drawn at random before the estimator has seen enough to draw by."""


@dataclass(frozen=True)
class Searched:
    """One row that can be tuned.

    Attributes:
        space: the range of every setting that is searched, by its key.
        own: the value that the config gives it.
    """

    space: Mapping[str, Range]
    own: Mapping[str, float]

    @classmethod
    def of(cls, space: Mapping[str, Range], settings: Mapping[str, Any]) -> "Searched":
        """Return the row whose settings are these."""
        return cls(space, {key: float(settings[key]) for key in space})


class Tunable(ABC):
    """A domain's part of tuning: the tunable rows and the trials. It measures on the validation part alone.

    Attributes:
        domain: of the config.
        why: the objective, in words, with its reason.
        numbers: the possible objectives, each with whether less or more is better.
        budget: description of the training budget common to all trials.
        source: where the base model was taken from; None where it is trained.
    """

    domain: ClassVar[str]
    why: ClassVar[str]
    numbers: ClassVar[Mapping[str, Literal["lower", "higher"]]]
    budget: str
    source: str | None = None

    @abstractmethod
    def settings(self) -> Tree:
        """Return all settings of the experiment, as the run folder may hold them."""

    @abstractmethod
    def rows(self) -> dict[str, Searched]:
        """Return the rows that can be tuned, by name; those without a setting to search are not among them."""

    def default_rows(self) -> list[str]:
        """Return the names of the rows that are tuned when none is named; by default all that can be."""
        return list(self.rows())

    @abstractmethod
    def prepare(self) -> None:
        """Make the models and data that all trials share, unless they exist."""

    @abstractmethod
    def measure(self, row: str, values: Mapping[str, float]) -> dict[str, float]:
        """Run one trial and return its ``numbers``, the objective among them.

        Raises:
            RunError: the row cannot be trained with these values; the trial counts, and the search goes on.
        """

    @abstractmethod
    def chosen(self, row: str, values: Mapping[str, float]) -> Tree:
        """Return the config overrides, as a tree, that give a row these values and all others of its trials."""


def tune(
    tunable: Tunable, run: Run, name: str, seed: int, trials: int, only: Sequence[str] | None, metric: str
) -> Tree:
    """Search every row's settings and return the results; stored trials are not run again.

    Args:
        tunable: the domain's part.
        run: where to write.
        name: of the config.
        seed: of the draws.
        trials: for every row, in all.
        only: the rows; by default the domain's own choice.
        metric: the number to judge by.

    Returns:
        What ``tune.json`` holds.

    Raises:
        UserError: an unknown row or number, no Optuna, or a folder that holds another search; nothing is written then.
    """
    names = _chosen_rows(tunable, only)
    known(metric, list(tunable.numbers), "--metric", "number")
    _optuna()
    with locked(run.path):
        _occupy(run, tunable, metric)
        tunable.prepare()
        journal = _journal(run)
        searches = {row: Search(tunable, journal, row, seed, metric, trials) for row in tunable.rows()}
        for number in range(trials):
            for search in (searches[row] for row in names):
                if len(search.finished) <= number:
                    search.run_next()
        done = {row: search for row, search in searches.items() if len(search.finished) == trials}
        report = _report(tunable, name, trials, metric, done)
        write_json(run.path / "tune.json", report)
        write_text(run.path / FILE, dump_yaml(_settings(tunable, report)))
    return report


class Search:
    """The trials of one row, so many at most.

    Args:
        tunable: the domain's part.
        journal: where Optuna keeps finished trials.
        row: its name.
        seed: of the draws.
        metric: the number to judge by.
        trials: how many there are to be. Later ones, of an earlier and longer search, do not count.
    """

    def __init__(self, tunable: Tunable, journal: "BaseStorage", row: str, seed: int, metric: str, trials: int) -> None:
        from optuna import create_study

        self.tunable, self.row, self.seed, self.metric, self.trials = tunable, row, seed, metric, trials
        self.searched = tunable.rows()[row]
        self.direction: Literal["minimize", "maximize"] = (
            "minimize" if tunable.numbers[metric] == "lower" else "maximize"
        )
        self.study = create_study(storage=journal, study_name=row, direction=self.direction, load_if_exists=True)

    @property
    def finished(self) -> "list[FrozenTrial]":
        """The trials that ended, those among them that failed."""
        return self.study.get_trials(deepcopy=False)[: self.trials]

    @property
    def measured(self) -> "list[FrozenTrial]":
        """The trials that gave a number, in their order."""
        return [trial for trial in self.finished if trial.value is not None]

    def run_next(self) -> None:
        """Run one more trial and keep it."""
        from optuna.trial import TrialState, create_trial

        number = len(self.finished)
        values = dict(self.searched.own) if number == 0 else self._proposed(number)
        start, found, reason = time.perf_counter(), {}, ""
        try:
            found = self.tunable.measure(self.row, values)
            if not math.isfinite(found.get(self.metric, math.nan)):
                reason = f"{self.metric} is no number here: {found.get(self.metric)}"
        except RunError as error:
            reason = str(error)
        seconds = time.perf_counter() - start
        self.study.add_trial(
            create_trial(
                params=values,
                distributions=self._distributions(),
                value=None if reason else found[self.metric],
                state=TrialState.FAIL if reason else TrialState.COMPLETE,
                user_attrs={"numbers": found, "seconds": seconds} | ({"reason": reason} if reason else {}),
            )
        )
        told = f"failed: {reason}" if reason else f"{self.metric} {found[self.metric]:.4f}"
        print(f"{self.row}, trial {number + 1} of {self.trials}: {shown(values)}: {told}, {seconds:.1f} s", flush=True)

    def best(self) -> "FrozenTrial":
        """Return the best trial, the first of equal ones.

        Raises:
            RunError: all failed.
        """
        if not self.measured:
            reasons = [str(trial.user_attrs.get("reason")) for trial in self.finished]
            raise RunError(f"{self.row}: all {len(reasons)} trials failed; the last: {reasons[-1].rstrip('.')}.")
        sign = 1 if self.direction == "minimize" else -1
        return min(self.measured, key=lambda trial: sign * float(trial.value or 0.0))

    def _proposed(self, number: int) -> dict[str, float]:
        """Return values for a trial, a function of the seed, the row and the earlier trials."""
        from optuna import create_study
        from optuna.samplers import TPESampler

        seed = derive_seed(self.seed, "tune", self.row, number) % 2**32
        sampler = TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)
        study = create_study(sampler=sampler, direction=self.direction)
        study.add_trials(self.measured)
        asked = study.ask(self._distributions()).params
        return {key: self.searched.space[key].rounded(value) for key, value in asked.items()}

    def _distributions(self) -> dict[str, Any]:
        from optuna.distributions import FloatDistribution

        return {key: FloatDistribution(r.low, r.high, log=r.log) for key, r in self.searched.space.items()}


@contextmanager
def trial_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder for a trial below ``folder``; leftovers of killed trials are removed first."""
    path = folder / "trial"
    traces.register(folder, path, "the model of a trial, while it is measured")
    shutil.rmtree(path, ignore_errors=True)
    try:
        yield path
    except Interrupted as error:
        raise Interrupted("stopped; the trial that was running is not kept.", error.code) from error
    finally:
        shutil.rmtree(path, ignore_errors=True)


def shown(values: Mapping[str, float]) -> str:
    """Return values as a line shows them."""
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items())


def table(report: Tree) -> Table:
    """Return the results as a table, one line for each row."""
    rows = [
        [
            name,
            str(row["trials"]),
            str(row["failed"]),
            "-" if row["own"] is None else f"{row['own']:.4f}",
            f"{row['best']:.4f}",
            shown(row["values"]),
            f"{row['seconds']:.0f}",
        ]
        for name, row in report["rows"].items()
    ]
    head = ["row", "trials", "failed", "config's own", "best", "chosen", "seconds"]
    notes = [f"{report['metric']}: {report['objective']}", f"Each trial: {report['budget']}."]
    return Table(f"{report['metric']} on the validation part", head, rows, notes)


def _journal(run: Run) -> "BaseStorage":
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(run.path / JOURNAL)))


def _chosen_rows(tunable: Tunable, only: Sequence[str] | None) -> list[str]:
    tuned = tunable.rows()
    for name in only or []:
        if name not in tuned:
            listed = ", ".join(tuned) or "none"
            raise UserError(f"--rows: {name!r} has nothing to tune; rows that have: {listed}.{nearest(name, [*tuned])}")
    names = list(dict.fromkeys(only or [])) or tunable.default_rows()
    if not names:
        raise UserError("the config has no row with a setting to tune.")
    return names


def _occupy(run: Run, tunable: Tunable, metric: str) -> None:
    """Make the folder, or check that it holds this search; its rows and trials may grow."""
    stored, wanted, manifest = run.stored_config(), tunable.settings(), run.stored_manifest()
    began = {"kind": "tune", "objective": metric, "source": tunable.source}
    if stored is not None:
        free = dict.fromkeys(("seeds", "tuned"))
        changed = differences(stored | free, wanted | free)
        changed += differences({key: manifest.get(key) for key in began}, began)
        if changed:
            raise UserError(
                f"{run.path} holds a search with other settings ({'; '.join(changed[:3])}); give another --out."
            )
    run.create()
    write_text(run.config, dump_yaml(wanted))
    write_json(run.manifest, environment() | began)


def _report(tunable: Tunable, name: str, trials: int, metric: str, searches: Mapping[str, Search]) -> Tree:
    """Return the results as JSON."""
    why = tunable.why if metric == OBJECTIVE else f"{tunable.numbers[metric]} {metric}"
    return {
        "format": 1,
        "domain": tunable.domain,
        "config": name,
        "metric": metric,
        "objective": why,
        "trials": trials,
        "budget": tunable.budget,
        "rows": {row: _row(search) for row, search in searches.items()},
    }


def _row(search: Search) -> Tree:
    best, finished = search.best(), search.finished
    return {
        "trials": len(finished),
        "failed": len(finished) - len(search.measured),
        "own": finished[0].value,
        "best": best.value,
        "trial": best.number,
        "values": best.params,
        "numbers": best.user_attrs["numbers"],
        "seconds": sum(trial.user_attrs["seconds"] for trial in finished),
    }


def _settings(tunable: Tunable, report: Tree) -> Tree:
    """Return ``tuned.yaml``: the settings of all rows with the chosen values, and where they came from."""
    tree: Tree = {}
    for row, found in report["rows"].items():
        tree = merged(tree, tunable.chosen(row, found["values"]))
    told = {key: report[key] for key in ("domain", "config", "trials", "objective", "budget")}
    return tree | {"tuned": told | {"rows": {row: found["values"] for row, found in report["rows"].items()}}}


def _optuna() -> None:
    """Silence Optuna's log.

    Raises:
        UserError: it is not installed.
    """
    try:
        from optuna.logging import WARNING, set_verbosity
    except ImportError as error:
        raise UserError("tune needs Optuna, which is not installed: pip install 'msgm[tune]'.") from error
    set_verbosity(WARNING)
