"""Starts of a comparison's rows that need no objective: an edit or guidance, each with a setting of its own."""

from collections.abc import Mapping
from typing import Any

from msgm.diffusion import GUIDANCE, SamplingSettings
from msgm.errors import UserError
from msgm.fields import Settings
from msgm.objectives import OBJECTIVES

STEPLESS = {"edit": ("edit", "{name: task-vector}"), "guide": ("guidance", "{name: spell}")}
"""Starts that need no objective, with the setting that each needs and an example of it."""


def check_own(start: str, given: Mapping[str, Settings]) -> None:
    """Raise a UserError for a start without its own setting of ``given``, or with that of another."""
    for own, (key, example) in STEPLESS.items():
        if (start == own) != bool(given[key]):
            raise UserError(f"start: {own} needs the setting {key}, {example} say, and no other start has one.")


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
    if part.by_levels and sampling.evaluations is None:
        raise UserError(
            f"sampling.sampler: guidance {part.name!r} follows a path level by level, and {sampling.sampler!r} has "
            "steps of its own; take a sampler with a grid, such as ancestral."
        )
    return GUIDANCE.resolve(guidance)


def _classes(network: Settings) -> int:
    """Return the classes of a network's settings, 0 of an unconditional one."""
    return int(network.get("classes", 0))
