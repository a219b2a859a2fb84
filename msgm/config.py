"""Typed, validated settings from YAML and ``key.sub=value`` overrides.

The sections data, process, network and objective name a registered part and hold that part's own settings, checked
against its dataclass; the other sections are dataclasses here.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

from msgm.checks import at_least, at_most_one, below_one, positive
from msgm.data import DATASETS
from msgm.diffusion import NETWORKS, PROCESSES, LikelihoodSettings, SamplingSettings
from msgm.errors import UserError, nearest
from msgm.fields import Settings, lossless, merged, own, structured
from msgm.folders import check_name, check_names
from msgm.objectives import OBJECTIVES
from msgm.objectives.edits import EDITS
from msgm.plugins import load_files
from msgm.ranges import Range, ranges
from msgm.requests import ForgetRequest
from msgm.rows import BASE_ROW as BASE_ROW
from msgm.rows import ROWS, Row
from msgm.settings import Source, dump_yaml, read_settings
from msgm.starts import FROM_BASE as FROM_BASE
from msgm.starts import OWN, check_start, fitting_guidance, fitting_objective, fitting_shards, refuse_in_edit


@dataclass
class AdapterSettings:
    """A low-rank adapter (LoRA, arXiv 2106.09685) that is trained while the network's own weights stand still.

    Example:
        >>> load_config("digits/vp", ["finetune.adapter.rank=4"]).finetuning().adapter
        AdapterSettings(rank=4, alpha=None, targets=['*'])

    Each adapted layer's weights W become W + alpha / rank * B A. A starts at random and B at 0, so that training starts
    from the same model.

    Attributes:
        rank: rows of A and columns of B.
        alpha: see above; None takes ``rank``, so that the factor is 1.
        targets: names of the linear and convolutional layers that are adapted, with ``*`` for any part of them
            (``*attentions*``).
    """

    rank: int = 8
    alpha: float | None = None
    targets: list[str] = field(default_factory=lambda: ["*"])

    section: ClassVar[str] = "training.adapter"

    def __post_init__(self) -> None:
        at_least(1, self, "training.adapter", "rank")
        positive(self, "training.adapter", "alpha")


@dataclass
class TrainingSettings:
    """How to train.

    Example:
        >>> TrainingSettings(steps=100, lr=1e-3).batch_size
        64

    Attributes:
        steps: optimiser steps.
        batch_size: items a step over all processes and accumulated parts.
        forget_batch_size: forget items a step, likewise; None takes ``batch_size``.
        lr: Adam's learning rate.
        warmup: steps over which the rate rises linearly.
        beta1: Adam's first decay.
        beta2: Adam's second decay.
        clip: largest norm of the gradient; None does not clip.
        ema: decay of the averaged weights, warmed up as min(ema, (1 + n) / (10 + n)).
        accumulate: parts that a step's batch is cut into.
        precision: ``fp32``, or ``bf16`` for the network's passes; slower on CPUs without instructions for it.
        compile: pass the network through torch.compile; not with ``matching: sliced``, which differentiates twice.
        gradient_checkpointing: keep of the network's blocks only their inputs for the backward pass, which computes the
            rest anew: less memory, about a third more operations, the same weights.
        trainable: names of the weights that are trained, with ``*`` for any part of them (``mid_block.*``); None trains
            all.
        adapter: of runs that start from a trained model: trains an adapter in place of the weights, with the package
            peft. The model folder holds the sum of both, and ``adapter/`` beside it the adapter alone.
        checkpoint_every: steps between checkpoints; 0 writes only the last one and those of signals.
        log_every: steps between log lines and checks for non-finite losses.
        sample_every: steps between sample grids; 0 writes none.
        keep_every: steps between weights kept in ``course/``, as the model folder would hold them; 0 keeps none.
        cond_drop: probability with which a class-conditional network is not told an item's label, so that it learns
            the null condition too; an unconditional network is never told.
        weights: weights that the run's model folder holds: averaged (``ema``) or ``raw``.
        trackers: accelerate's trackers; None takes TensorBoard when it is installed.
    """

    steps: int = 1500
    batch_size: int = 64
    forget_batch_size: int | None = None
    lr: float = 2e-4
    warmup: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float | None = 1.0
    ema: float = 0.999
    accumulate: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    gradient_checkpointing: bool = False
    trainable: list[str] | None = None
    adapter: AdapterSettings | None = None
    checkpoint_every: int = 1000
    log_every: int = 50
    sample_every: int = 0
    keep_every: int = 0
    cond_drop: float = 0.1
    weights: Literal["ema", "raw"] = "ema"
    trackers: list[str] | None = None

    search: ClassVar[Mapping[str, Range]] = ranges(lr=Range(1e-5, 5e-3, log=True))
    retired: ClassVar[tuple[str, ...]] = ("channels_last",)
    section: ClassVar[str] = "training"

    def __post_init__(self) -> None:
        at_least(1, self, "training", "steps", "batch_size", "forget_batch_size", "accumulate", "log_every")
        at_least(0, self, "training", "warmup", "checkpoint_every", "sample_every", "keep_every")
        positive(self, "training", "lr", "clip")
        below_one(self, "training", "beta1", "beta2", "ema")
        at_most_one(self, "training", "cond_drop")
        if self.trainable is not None and self.adapter is not None:
            raise UserError("training.trainable: it and adapter each say which weights train; leave one out.")


@dataclass
class JudgeSettings:
    """The classifier that decides whether a sample shows forgotten content.

    Example:
        >>> load_config("digits/vp", ["evaluation.judge.epochs=5"]).evaluation.judge.epochs
        5

    Attributes:
        kind: one of ``msgm.evaluation.judges``; ``own`` is trained here, and goes by a rule where the request needs it.
        options: the kind's own settings (``msgm.evaluation.judges``).
        epochs: passes over the training part.
        width: channels of its first layer (hidden units, for vectors).
        lr: Adam's peak learning rate.
        batch_size: items a step.
    """

    kind: str = "own"
    options: Settings = field(default_factory=dict)
    epochs: int = 30
    width: int = 32
    lr: float = 3e-3
    batch_size: int = 64

    def __post_init__(self) -> None:
        at_least(1, self, "evaluation.judge", "epochs", "width", "batch_size")
        positive(self, "evaluation.judge", "lr")


@dataclass
class EvaluationSettings:
    """How to measure.

    Example:
        >>> evaluation = EvaluationSettings(metrics=["ur", "c2st"], options={"c2st": {"folds": 3}})
        >>> evaluation.samples
        2000

    Attributes:
        samples: samples a row.
        nll_items: items of each of the retain and forget test sets whose likelihood is taken: the first ones, by index.
        metrics: what to measure (``msgm.evaluation.metrics``).
        options: a metric's own settings, by its name.
        likelihood: the likelihood's solver.
        judge: the judge's training.
    """

    samples: int = 2000
    nll_items: int = 1000
    metrics: list[str] = field(default_factory=lambda: ["ur", "nll"])
    options: dict[str, Settings] = field(default_factory=dict)
    likelihood: LikelihoodSettings = field(default_factory=LikelihoodSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)

    def __post_init__(self) -> None:
        at_least(1, self, "evaluation", "samples", "nll_items")


SECTIONS = (
    *("name", "seed", "plugins", "data", "process", "network", "objective", "edit", "training", "sampling"),
    "evaluation",
)
"""Settings that the config of every run has."""


@dataclass
class Config:
    """One experiment.

    Example:
        >>> config = msgm.load_config("digits/vp", ["training.steps=10"])
        >>> config.process["name"], config.training.steps
        ('vp', 10)

    Attributes:
        name: of the experiment, and of its run folder below ``runs/``.
        seed: of everything but the data split.
        seeds: how many seeds ``msgm compare`` runs the base model and every row at: ``seed`` and the ones after it.
        retrains: how many models it retrains without the request, from seeds of their own, for a band; 1 makes none,
            and the row ``unseen-scratch`` is then the only retrained reference. Verdicts need at least five.
        plugins: Python files to import first; they register objectives, data sets and the like. Kept as whole paths,
            so that the settings hold in any working folder.
        data: the data set (``msgm.data``); ``{}`` is none, for ``msgm unlearn`` with an edit that reads prompts alone.
        request: what to forget.
        process: the diffusion process (``msgm.diffusion.processes``).
        network: the network (``msgm.diffusion.networks``).
        objective: the loss (``msgm.objectives``); ``msgm compare`` takes it from ``rows`` instead.
        edit: an edit (``msgm.objectives.edits``) that ``msgm unlearn`` makes first; training with the objective
            follows, unless that is one of all data, such as the default.
        guidance: guidance (``msgm.diffusion.guidance``) of the samples in the run of a row that starts with ``guide``.
        shards: settings of ``ShardSettings``, in the run of a row that starts with ``shards``.
        training: how to train from random weights.
        finetune: overrides of ``training`` for runs that start from a trained model.
        sampling: how to sample.
        evaluation: how to measure.
        rows: the rows of ``msgm compare``, merged over the default ones; ``{}`` means none.
        tuned: origin of the rows' values that ``msgm tune`` chose; shown in reports.
    """

    name: str = "run"
    seed: int = 0
    seeds: int = 1
    retrains: int = 1
    plugins: list[str] = field(default_factory=list)
    data: Settings = field(default_factory=lambda: {"name": "digits"})
    request: ForgetRequest = field(default_factory=ForgetRequest)
    process: Settings = field(default_factory=lambda: {"name": "vp"})
    network: Settings = field(default_factory=lambda: {"name": "unet"})
    objective: Settings = field(default_factory=lambda: {"name": "standard"})
    edit: Settings = field(default_factory=dict)
    guidance: Settings = field(default_factory=dict)
    shards: Settings = field(default_factory=dict)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    finetune: Settings = field(default_factory=dict)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    rows: dict[str, Row] = field(default_factory=lambda: {name: replace(row) for name, row in ROWS.items()})
    tuned: dict[str, Any] = field(default_factory=dict)

    elsewhere: ClassVar[Mapping[str, str]] = {
        "requests": "request",
        "methods": "rows",
        "metrics": "evaluation.metrics",
        "options": "evaluation.options",
        "shares": "data.validation and data.test",
    }

    def __post_init__(self) -> None:
        at_least(0, self, "", "seed")
        at_least(1, self, "", "seeds", "retrains")
        check_name(self.name)
        check_names(self.rows, "rows")
        self.request.refuse_handed()
        self.plugins = load_files(self.plugins)
        self.data = DATASETS.resolve(self.data) if self.data else {}
        self.process = PROCESSES.resolve(self.process)
        self.network = NETWORKS.resolve(self.network)
        self.objective = OBJECTIVES.resolve(self.objective)
        self.edit = EDITS.resolve(self.edit) if self.edit else {}
        guiding = partial(fitting_guidance, network=self.network, sampling=self.sampling)
        self.guidance = guiding(self.guidance, {}) if self.guidance else {}
        self.shards = fitting_shards(self.shards, self.sampling) if self.shards else {}
        self.finetune = own(self.finetuning(), self.finetune)
        if self.edit:
            refuse_in_edit(self.finetune, "finetune", self.follows)
        for name, row in self.rows.items():
            if name not in ROWS and row.start not in OWN and "name" not in row.objective:
                hint = nearest(name, list(ROWS))
                raise UserError(f"rows.{name}: a row of your own needs objective.name, which msgm's rows have.{hint}")
            try:
                check_start(row)
                given = row.objective or row.start not in OWN
                row.objective = fitting_objective(row.objective, self.network) if given else {}
                row.edit = EDITS.resolve(row.edit) if row.start == "edit" else {}
                row.guidance = guiding(row.guidance, row.training) if row.start == "guide" else {}
                row.shards = fitting_shards(row.shards, self.sampling) if row.start == "shards" else {}
                row.training = own(self.row_training(row), row.training)
            except UserError as error:
                raise UserError(f"rows.{name}: {error}") from error

    @property
    def method(self) -> str:
        """Name of the edit, of the guidance, or of the objective without them; of both where steps follow an edit.

        That of shards is ``sharded``.
        """
        if self.shards:
            return "sharded"
        if self.follows:
            return f"{self.edit['name']}+{self.objective['name']}"
        return str((self.edit or self.guidance or self.objective)["name"])

    @property
    def follows(self) -> bool:
        """Whether training with the objective follows an edit: not with an objective that trains on all data."""
        return bool(self.edit) and OBJECTIVES.entries[self.objective["name"]].data != "all"

    @property
    def forgets(self) -> bool:
        """Whether a run of the config answers its request: all do but those of an objective that trains on all data."""
        answers = bool(self.edit or self.guidance or self.shards)
        return answers or OBJECTIVES.entries[self.objective["name"]].data != "all"

    def finetuning(self) -> TrainingSettings:
        """Return ``training`` with the overrides of ``finetune``."""
        return structured(TrainingSettings, merged(asdict(self.training), self.finetune), "finetune")

    def row_training(self, row: Row) -> TrainingSettings:
        """Return a row's training settings."""
        settings = self.finetuning() if row.start in FROM_BASE else self.training
        return structured(TrainingSettings, merged(asdict(settings), row.training), "training")

    def for_row(self, row: Row) -> "Config":
        """Return the config of a row: its own objective and training, one seed, and no rows."""
        return replace(
            self,
            objective=row.objective or {"name": "standard"},
            edit=row.edit,
            guidance=row.guidance,
            shards=row.shards,
            training=self.row_training(row),
            finetune={},
            rows={},
            tuned={},
            seeds=1,
            retrains=1,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, defaults included, as a plain tree."""
        return dict(lossless(asdict(self)))

    def to_yaml(self) -> str:
        """Return all settings, defaults included, as YAML that ``load_config`` reads back."""
        return dump_yaml(self.to_dict())


def load_config(source: Source = None, overrides: list[str] | None = None) -> Config:
    """Read a YAML file (its key ``extends`` names another one to start from) and apply ``key.sub=value`` overrides.

    Example:
        >>> config = msgm.load_config("digits/vp", ["request.labels=[5]", "objective.name=redirect"])
        >>> config.request.labels
        ['5']

    Raises:
        UserError: a missing or malformed file, an unknown key, a wrong type, or a value out of range.
    """
    return structured(Config, read_settings(source, overrides or []), "")
