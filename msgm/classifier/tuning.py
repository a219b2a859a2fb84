"""``msgm tune`` for classifiers: settings of methods, judged against retrained models on the tuning part.

The tuning part is cut in two. Methods that need unseen items are given one half; the other stands in the place of the
test items and of the attacks' non-members. The parts that reports are made of are not read.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from msgm import threads, traces
from msgm.chain import Chain
from msgm.classifier.compare import from_file, note_of_file
from msgm.classifier.config import ClassifierConfig
from msgm.classifier.data import Split
from msgm.classifier.experiment import Experiment
from msgm.classifier.measuring import outputs_of
from msgm.classifier.methods import METHODS
from msgm.classifier.metrics import METRICS
from msgm.classifier.metrics.base import Case
from msgm.classifier.outputs import Outputs
from msgm.data import load_dataset
from msgm.devices import chosen_device
from msgm.errors import UserError
from msgm.fields import Tree
from msgm.folders import place
from msgm.ranges import searched
from msgm.runs import Run
from msgm.study.tuning import Searched, Tunable

if TYPE_CHECKING:
    from torch import nn

COMPARED = {
    "forget_gap": ("accuracy", "forget_accuracy"),
    "retain_gap": ("accuracy", "retain_accuracy"),
    "validation_gap": ("accuracy", "test_accuracy"),
    "membership_gap": ("membership", "mia_loss_auc"),
}
"""Metric and number of every gap; where the metrics say test, they are given validation items."""


class OnValidation(Experiment):
    """An experiment whose held-out parts are all taken from the tuning part."""

    @cached_property
    def parts(self) -> dict[str, NDArray[np.int64]]:
        """Positions of train, tuning, nonmembers and test; the last two are the same items."""
        found = super().parts
        shuffled = np.random.default_rng(self.seed).permutation(found["tuning"])
        half = len(shuffled) // 2
        measured = np.sort(shuffled[half:])
        return {"train": found["train"], "tuning": np.sort(shuffled[:half]), "nonmembers": measured, "test": measured}


class ClassifierTuning(Tunable):
    """Tuning of a config's methods over all its requests; methods that train in epochs get those of row ``finetune``.

    Args:
        config: the experiment.
        run: folder of the search.
        source: file of weights to take as the original; None trains it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    """

    domain = "classifier"
    why: ClassVar[str] = (
        "average gap: mean absolute distance from the retrained models' mean of forget, retain and validation accuracy "
        "and of the loss attack's AUC, the less the better: a model that forgot is told from a retrained one by none"
    )
    numbers: ClassVar[Mapping[str, Literal["lower", "higher"]]] = dict.fromkeys(("objective", *COMPARED), "lower")

    def __init__(self, config: ClassifierConfig, run: Run, source: Path | str | None, device: str) -> None:
        if source is not None and not Path(source).is_file():
            raise UserError(f"--from {source}: expected a file of weights.")
        self.config, self.run, self.device = from_file(config, source, None), run, device
        if not config.requests:
            raise UserError("requests: the config names no request, so there is nothing to tune for.")
        known = {name: method for name, method in config.rows().items() if hasattr(method, "epochs")}
        like = known.get("finetune") or next(iter(known.values()), None)
        self.epochs: int | None = getattr(like, "epochs", None)
        self.budget = f"{self.epochs} epochs for methods that train in epochs"

    def settings(self) -> Tree:
        return self.config.to_dict()

    def rows(self) -> dict[str, Searched]:
        found = {}
        for name in self.config.rows():
            settings = self._given(name)
            space = searched(METHODS.build(settings), settings)
            if settings.get("lr") is not None:
                space.pop("lr_share", None)  # the rate itself wins
            if space:
                found[name] = Searched.of(space, settings)
        return found

    def _given(self, row: str) -> Tree:
        """Return a row's settings, with the number of epochs that all rows share."""
        settings: Tree = self.config.methods[row]
        return settings | ({"epochs": self.epochs} if "epochs" in settings else {})

    @cached_property
    def experiment(self) -> OnValidation:
        """The experiment at its first seed."""
        weights = self.config.original.weights
        chain = Chain() if weights is None else Chain(unknown=note_of_file(self.config))
        data, where = load_dataset(self.config.data), chosen_device(self.device)
        return OnValidation(self.config, data, self.config.seed, where, self.run.path, chain)

    def prepare(self) -> None:
        threads.keep(self.run.manifest)
        self.experiment.check()
        for request in self.config.requests:
            gaps = self._gaps(request, self._outputs(self.original, self.splits[request]))
            told = ", ".join(f"{key} {value:.4f}" for key, value in gaps.items())
            print(f"{request}, before: {told}", flush=True)

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The data split of each request."""
        return {request: self.experiment.split(request) for request in self.config.requests}

    @cached_property
    def original(self) -> "nn.Module":
        """The model before unlearning."""
        folder = self._models / "original"
        traces.register(self.run.path, folder, *traces.KNOWN["models/*/original"])
        return self.experiment.original(folder)

    @cached_property
    def retrained(self) -> dict[str, dict[str, float]]:
        """The retrained models' mean numbers, by request."""
        return {request: self._retrained(request) for request in self.config.requests}

    def _retrained(self, request: str) -> dict[str, float]:
        found = []
        for number in range(1, self.config.retrains + 1):
            folder = place(self._models, request, f"retrain-{number}")
            traces.register(self.run.path, folder, "a retrained model", "retain", request)
            model = self.experiment.retrain(folder, request, number)
            found.append(self._numbers(self._outputs(model, self.splits[request]), self.splits[request]))
        return _means(found)

    @property
    def _models(self) -> Path:
        return self.run.path / "models" / f"seed-{self.experiment.seed}"

    def _outputs(self, model: "nn.Module", split: Split) -> Outputs:
        return outputs_of(model, split, self.experiment.device)

    def _numbers(self, outputs: Outputs, split: Split) -> dict[str, float]:
        case = Case(outputs, outputs, [], split.scope)
        found: dict[str, float | None] = {}
        for name in {metric for metric, _ in COMPARED.values()}:
            found |= METRICS.build({"name": name}).measure(case)
        values = {key: found[number] for key, (_, number) in COMPARED.items()}
        return {key: value for key, value in values.items() if value is not None}

    def _gaps(self, request: str, outputs: Outputs) -> dict[str, float]:
        numbers, aim = self._numbers(outputs, self.splits[request]), self.retrained[request]
        return {key: abs(numbers[key] - aim[key]) for key in COMPARED if key in numbers and key in aim}

    def measure(self, row: str, values: Mapping[str, float]) -> dict[str, float]:
        method = METHODS.build({**self._given(row), **values})
        fitting = [name for name, split in self.splits.items() if split.scope in method.card.scopes]
        if not fitting:
            raise UserError(f"--rows {row}: it is meant for {' and '.join(method.card.scopes)} requests.")
        found = []
        for request in fitting:
            made = method.unlearn(self.original, self.splits[request], self.experiment.settings("tune"))
            found.append(self._gaps(request, self._outputs(made.model, self.splits[request])))
        gaps = _means(found)
        return {"objective": fmean(gaps.values())} | gaps

    def chosen(self, row: str, values: Mapping[str, float]) -> Tree:
        return {"methods": {row: self._given(row) | dict(values)}}


def _means(found: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every gap over the entries that have it."""
    return {key: fmean(one[key] for one in found if key in one) for key in COMPARED if any(key in one for one in found)}
