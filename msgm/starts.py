"""Starts of a comparison's rows that need no objective: an edit, guidance or shards, each with a setting of its own."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from msgm.checks import at_least
from msgm.diffusion import GUIDANCE, SamplingSettings
from msgm.diffusion.guidance import ClassifierFree
from msgm.diffusion.samplers.sampling import TWICE
from msgm.diffusion.shards import Mixing, check_path
from msgm.errors import UserError
from msgm.fields import Settings, structured
from msgm.objectives import OBJECTIVES, Card
from msgm.registry import Registry

if TYPE_CHECKING:
    from msgm.rows import Row

FROM_BASE = ("finetune", "edit", "guide")
"""Starts of rows that are made from the base model."""

STEPLESS = {"edit": ("edit", "{name: task-vector}"), "guide": ("guidance", "{name: spell}")}
"""Starts of rows that make no step of training, with the setting that each needs and an example of it."""

OWN = STEPLESS | {"shards": ("shards", "{count: 5}")}
"""Starts that need no objective, likewise."""


ENSEMBLES: Registry["ShardSettings"] = Registry("shards")
"""Methods of generators that are no change of one model; a row of each has a start of its own."""


@ENSEMBLES.register("sharded")
@dataclass
class ShardSettings:
    """Models of disjoint shards of the items, and their mixture; deletion trains those that held an item again.

    A row of a comparison has ``start: shards``; ``msgm.ShardedModel`` answers request after request.

    Example:
        >>> ShardSettings(count=3).mixture
        'posterior'

    Attributes:
        count: K, into how many shards the items are divided.
        mixture: how their models sample together (``msgm.diffusion.shards``): ``posterior``, ``drawn`` or ``equal``.
    """

    count: int = 5
    mixture: Mixing = "posterior"

    card: ClassVar[Card] = Card(
        formula="p = sum_k lambda_k p_k of models trained apart, lambda_k the shards' shares of the items; the models "
        "whose shard held an item to forget are trained again from random weights without it",
        source="Bourtoule et al., arXiv 1912.03817, for generators: Golatkar et al., arXiv 2308.01937",
        deviations="no router and no slices; an item's shard is a hash of its content; all shards together make "
        "training.steps steps",
    )

    def __post_init__(self) -> None:
        at_least(1, self, "shards", "count")


def check_own(start: str, given: Mapping[str, Settings]) -> None:
    """Raise a UserError for a start without its own setting of ``given``, or with that of another."""
    for own, (key, example) in OWN.items():
        if (start == own) != bool(given[key]):
            raise UserError(f"start: {own} needs the setting {key}, {example} say, and no other start has one.")


def check_start(row: "Row") -> None:
    """Raise a UserError where a row has the setting of another start, lacks its own, or has an objective too many."""
    check_own(row.start, {"edit": row.edit, "guidance": row.guidance, "shards": row.shards})
    if row.start == "guide" and row.objective:
        raise UserError("objective: a row with start: guide makes no steps, so it has no objective; leave it out.")
    if row.start == "shards" and row.objective:
        raise UserError("objective: the models of shards are trained by the objective standard alone; leave it out.")
    if row.start == "edit" and row.objective and OBJECTIVES.build(row.objective).needs == "all":
        raise UserError(
            f"objective: the steps after an edit are to forget or to keep, and {row.objective['name']} trains on all "
            "data; take unseen, say, or leave it out."
        )
    if row.start == "edit":
        refuse_in_edit(row.training, "training", bool(row.objective))
    if row.start not in FROM_BASE and row.training.get("adapter") is not None:
        raise UserError(f"training.adapter: an adapter is of a trained model, and the row has start: {row.start}.")


def refuse_in_edit(settings: Mapping[str, Any], section: str, follows: bool = False) -> None:
    """Refuse the training settings that say which weights train, where an edit changes them.

    Steps that follow the edit may train some weights alone; an adapter of edited weights would not be one of the base.
    """
    for name in ("adapter",) if follows else ("trainable", "adapter"):
        if settings.get(name) is not None:
            raise UserError(f"{section}.{name}: an edit chooses the weights that it changes itself; leave it out.")


def fitting_objective(objective: Settings, network: Settings) -> Settings:
    """Return the settings of an objective, defaults filled in.

    Raises:
        UserError: an unknown objective or settings, or one that such a network cannot be taught.
    """
    OBJECTIVES.build(objective).check(_classes(network))
    return OBJECTIVES.resolve(objective)


def fitting_guidance(guidance: Settings, training: Settings, network: Settings, sampling: SamplingSettings) -> Settings:
    """Return the settings of guidance, defaults filled in.

    Args:
        guidance: its name and settings.
        training: settings of the copy that it may tune.
        network: of the models.
        sampling: how they are sampled.

    Raises:
        UserError: unknown guidance or settings, or such as do not fit.
    """
    part = GUIDANCE.build(guidance)
    part.check(_classes(network))
    for key in training:
        if key in ("steps", "trainable", "adapter") or not part.tunes:
            why = "has its own guidance.steps and tunes all weights" if part.tunes else "trains no weights"
            raise UserError(f"training.{key}: guidance {part.name!r} {why}; leave it out.")
    if isinstance(part, ClassifierFree) and sampling.guidance != 1:
        raise UserError(TWICE)
    if part.by_levels and sampling.evaluations is None:
        raise UserError(
            f"sampling.sampler: guidance {part.name!r} follows a path level by level, and {sampling.sampler!r} has "
            "steps of its own; take a sampler with a grid, such as ancestral."
        )
    return GUIDANCE.resolve(guidance)


def _classes(network: Settings) -> int:
    """Return the classes of a network's settings, 0 of an unconditional one."""
    return int(network.get("classes", 0))


def fitting_shards(shards: Settings, sampling: SamplingSettings) -> Settings:
    """Return the settings of shards, defaults filled in.

    Args:
        shards: its settings.
        sampling: how the models are sampled.

    Raises:
        UserError: unknown settings, or such as do not fit.
    """
    found = structured(ShardSettings, shards, "shards")
    if found.mixture == "posterior":
        check_path(sampling.build())
    return asdict(found)
