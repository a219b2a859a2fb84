"""``Bench``, the references that all models are measured against, and ``Subject``, one model with its samples."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msgm import processes, traces
from msgm.chain import Chain
from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import Condition, ScoreModel, sample
from msgm.diffusion.guidance import unguided, views
from msgm.diffusion.samplers import State
from msgm.evaluation.asking import in_turn, known_classes, nothing
from msgm.evaluation.judge import Judge, train_judge
from msgm.evaluation.reality import Reality, to_items
from msgm.progress import Progress
from msgm.runs import Run
from msgm.splits import Split


@dataclass(frozen=True)
class Retrained:
    """A retrained model of a comparison's band.

    Attributes:
        name: of the model.
        model: its folder.
        seed: of its samples.
    """

    name: str
    model: Path
    seed: int


@dataclass(frozen=True)
class Bench:
    """The data, judge and references that all models of a comparison are measured against.

    Example:
        >>> bench = subject.bench
        >>> bench.dataset.name, bench.judge.forgotten
        ('digits', [3, 7])

    Attributes:
        config: the experiment; its section ``evaluation`` says how to measure.
        dataset: the data.
        split: its parts, retain and forget apart.
        judge: classifies samples.
        reality: decides whether a sample is junk, or a copy of a training item.
        folder: where statistics of the data are kept between runs; None keeps none.
        chain: forget requests so far, of all models together.
        memory: objects that metrics share, by name, such as loaded extractors.
        retrained: the band of a comparison, for metrics that compare models with it; they find its models trained.
    """

    config: Config
    dataset: Dataset
    split: Split
    judge: Judge
    reality: Reality
    folder: Path | None = None
    chain: Chain = field(default_factory=Chain)
    memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    retrained: tuple[Retrained, ...] = ()

    @classmethod
    def make(
        cls,
        config: Config,
        run: Run,
        dataset: Dataset,
        split: Split,
        device: torch.device,
        chain: Chain | None = None,
    ) -> "Bench":
        """Train the judge, or load that of the run, and calibrate the distances.

        Args:
            config: the experiment.
            run: whose folder keeps judge and statistics.
            dataset: the data.
            split: its parts.
            device: of the judge.
            chain: forget requests of the models; None for none.
        """
        folder, settings = run.path / "judge", config.evaluation.judge
        for name in ("judge", "reference"):
            traces.register(run.path, run.path / name, *traces.KNOWN[name])
        with processes.first_before_others():
            judge = train_judge(dataset, split, config.request, settings, config.seed, folder, device)
        reality = Reality.of(dataset, split, device)
        return cls(config, dataset, split, judge, reality, run.path / "reference", chain or Chain())

    def junk(self, items: Tensor, finite: Tensor | None = None) -> Tensor:
        """Return (B,) which raw items are junk: far from the training items, not ``finite``, or so by the judge."""
        return self.reality.junk(self.reality.distances(items), finite) | self.judge.junk(items)

    def at(self, seed: int) -> "Bench":
        """Return the same bench for one model of ``seed``, which seeds its samples, noise and drawn items."""
        return replace(self, config=replace(self.config, seed=seed, seeds=1, retrains=1))


@dataclass(frozen=True)
class Subject:
    """One model under measurement. Its samples are drawn when the first metric asks for them.

    Example:
        >>> subject.samples.shape
        torch.Size([20, 1, 8, 8])

    Attributes:
        name: of the row.
        model: the model; metrics leave it as it is and change copies only.
        bench: the references it is measured against.
        folder: where a metric may keep pictures and arrays of this row; None keeps none.
        run: the run that made the model, when there is one: its checkpoints, settings and metrics.
        memory: objects that metrics share, by name, such as the samples' features.
    """

    name: str
    model: ScoreModel
    bench: Bench
    folder: Path | None = None
    run: Run | None = None
    memory: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def weights(self) -> str:
        """Return the kind of the model's weights, raw or averaged, from its run; ``as given`` without a run."""
        return self.run.stored_manifest().get("weights", "as given") if self.run is not None else "as given"

    def without_guidance(self) -> "Subject":
        """Return the model that who holds the weights has: the subject itself unless its samples are guided."""
        bare = unguided(self.model)
        return self if bare is self.model else replace(self, model=bare)

    @property
    def no_density(self) -> str | None:
        """Return why the model's flow gives no likelihood of its samples; None where it does."""
        guides = [view.guidance for view in views(self.model) if view.guidance is not None]
        return next((f"{guide.name}: {guide.no_density}" for guide in guides if guide.no_density), None)

    @functools.cached_property
    def samples(self) -> Tensor:
        """Return (samples, *shape) of the model, in [-1, 1] but for sampling error, on the CPU; asked for no class."""
        count = self.bench.config.evaluation.samples
        return self._drawn(nothing(self.model, self.bench.dataset, count), count, f"drawing {count} samples")

    @functools.cached_property
    def asked(self) -> Tensor:
        """Return as many samples of a class-conditional model, asked for the classes of the data in turn."""
        return self.asked_for(known_classes(self.model, self.bench.dataset))

    def asked_for(self, labels: Sequence[int], count: int | None = None) -> Tensor:
        """Draw ``count`` samples of a class-conditional model, as many as rows get, asked for ``labels`` in turn."""
        count = count or self.bench.config.evaluation.samples
        return self._drawn(in_turn(self.model, labels, count), count, f"asking for {count} samples")

    def _drawn(self, condition: Condition | None, count: int, doing: str) -> Tensor:
        config = self.bench.config
        steps = config.sampling.steps
        adaptive = config.sampling.evaluations is None

        with Progress(f"{self.name}: {doing}") as progress:

            def tell(numbers: range, state: State) -> None:
                walked = 0 if adaptive else min(1, (state.step + 1) / steps)
                progress.update((numbers.start + len(numbers) * walked) / count)

            found = sample(self.model, count, config.sampling, config.seed, 0, tell, condition)
        return decoded(self.model, found, config.sampling.batch_size)

    @functools.cached_property
    def items(self) -> Tensor:
        """Return the samples as raw items, as the data set holds them."""
        return to_items(self.samples, self.bench.dataset.levels)

    @functools.cached_property
    def finite(self) -> Tensor:
        """Return a mask of the samples without NaN or infinity."""
        return self.samples.isfinite().flatten(1).all(1)


def decoded(model: ScoreModel, samples: Tensor, size: int) -> Tensor:
    """Return what samples (B, *shape) of a model show, on the CPU: the images of latents, ``size`` at a time."""
    return torch.cat([model.decode(part.to(model.device)).cpu() for part in samples.split(size)])
