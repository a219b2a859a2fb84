"""Facts on how a generator was made: its method with settings and card, its start, steps, seconds and items drawn."""

from pathlib import Path
from typing import Any, NotRequired, TypedDict

from msgm.cards.parts import method_lines
from msgm.diffusion import GUIDANCE
from msgm.fields import structured
from msgm.objectives import OBJECTIVES
from msgm.objectives.edits import EDITS
from msgm.reading import read_yaml
from msgm.registry import Registry
from msgm.rows import Row
from msgm.runs import FinishedManifest, Run
from msgm.shapes import Count
from msgm.starts import ShardSettings
from msgm.training.shards import describe_shards

UNTRAINED = ("none", "random")


class Named(TypedDict):
    """An objective in a run's config; its settings stand beside its name."""

    name: str


class Steps(TypedDict):
    """The keys that are read from the training section of a run's config."""

    steps: Count
    lr: float
    trainable: NotRequired[list[str] | None]
    adapter: NotRequired[dict[str, Any] | None]


class Trained(TypedDict):
    """The keys that are read from the config of a given run."""

    objective: Named
    edit: NotRequired[dict[str, Any]]
    guidance: NotRequired[dict[str, Any]]
    shards: NotRequired[dict[str, Any]]
    training: Steps


def facts_of(name: str, row: Row, run: Run) -> dict[str, Any]:
    """Return the facts on how a row's model was made in ``run``; a base model is not counted as made."""
    if row.start in UNTRAINED:
        return _facts_of_given(name, run.finished_manifest()["weights"], row.start)
    return given_facts(name, run.model)


def given_facts(name: str, folder: Path) -> dict[str, Any]:
    """Return the facts on a model made elsewhere, from its run folder if it has one."""
    run = Run(folder.parent)
    if folder != run.model or not run.manifest.is_file() or not run.config.is_file():
        return _facts_of_given(name, "as given")
    config: Trained = read_yaml(run.config, Trained)
    manifest, objective, edit = run.finished_manifest(), {**config["objective"]}, config.get("edit")
    training, lr = config["training"], config["training"]["lr"]
    if edit and manifest["weights"] != "edited":
        return _facts_of_both(name, edit, objective, training, manifest)
    if edit:
        return _facts_without_steps(EDITS, name, edit, lr, manifest)
    if shards := config.get("shards"):
        return _facts_of_shards(name, shards, lr, manifest)
    if guidance := config.get("guidance"):
        return _facts_without_steps(GUIDANCE, name, guidance, lr, manifest)
    return _facts_of_run(name, objective, manifest["start"], training, manifest)


def _facts_of_given(name: str, weights: str, start: str = "none") -> dict[str, Any]:
    """Return the facts of a model that is not trained here."""
    nothing: dict[str, Any] = {
        "objective": None,
        "settings": {},
        "card": None,
        "start": start,
        "steps": 0,
        "lr": None,
        "seconds": 0.0,
    }
    return {"name": name, **nothing, "weights": weights}


def _facts_of_run(
    name: str, objective: dict[str, Any], start: str, training: Steps, manifest: FinishedManifest
) -> dict[str, Any]:
    """Return the facts of a model that ``objective`` was run on; its settings say which weights were trained."""
    if start in UNTRAINED:
        return _facts_of_given(name, manifest["weights"], start)
    known = objective["name"] in OBJECTIVES.entries
    weights = {"training.trainable": training.get("trainable"), "training.adapter": training.get("adapter")}
    own = OBJECTIVES.build(objective).effective() if known else objective
    return {
        "name": name,
        "objective": objective["name"],
        "settings": own | {key: value for key, value in weights.items() if value is not None},
        "card": OBJECTIVES.entries[objective["name"]].describe() if known else None,
        "start": start,
        "steps": training["steps"],
        "lr": training["lr"],
        "seconds": manifest["seconds"],
        "cached": manifest.get("cached"),
        "found": manifest.get("found"),
        "drawn": manifest.get("drawn"),
        "weights": manifest["weights"],
    }


def _facts_without_steps(
    registry: Registry[Any], name: str, given: dict[str, Any], lr: float, manifest: FinishedManifest
) -> dict[str, Any]:
    """Return the facts of a model that an edit or guidance of ``registry`` made.

    The rate is that of tuning a copy, where one is tuned.
    """
    part = registry.build(given) if given["name"] in registry.entries else None
    edits = registry is EDITS
    return {
        "name": name,
        "objective": given["name"],
        "settings": part.effective() if part else given,
        "card": part.describe() if part else None,
        "start": "edit" if edits else "guide",
        "steps": 0,
        "lr": lr if part and part.tunes else None,
        "seconds": manifest["seconds"],
        **({"edited": manifest.get("edited")} if edits else {"found": manifest.get("found")}),
        "drawn": manifest.get("drawn"),
        "weights": manifest["weights"],
    }


def _facts_of_shards(name: str, shards: dict[str, Any], lr: float, manifest: FinishedManifest) -> dict[str, Any]:
    """Return the facts of a sharded generator: steps and seconds are those of the deletion."""
    deletion = manifest.get("deletion") or {}
    return {
        "name": name,
        "objective": "sharded",
        "settings": shards,
        "card": describe_shards(structured(ShardSettings, shards, "shards")),
        "start": "shards",
        "steps": deletion.get("steps", 0),
        "lr": lr,
        "seconds": manifest["seconds"],
        "preparation_seconds": deletion.get("preparation_seconds"),
        "storage_bytes": deletion.get("storage_bytes"),
        "deletion": deletion,
        "drawn": manifest.get("drawn"),
        "weights": manifest["weights"],
    }


def _facts_of_both(
    name: str, edit: dict[str, Any], objective: dict[str, Any], training: Steps, manifest: FinishedManifest
) -> dict[str, Any]:
    """Return the facts of a model that was edited and then fine-tuned: those of the steps, with both parts' names."""
    first, then = (
        _facts_without_steps(EDITS, name, edit, training["lr"], manifest),
        _facts_of_run(name, objective, "edit", training, manifest),
    )
    return then | {
        "objective": f"{first['objective']}+{then['objective']}",
        "settings": {f"edit.{key}": value for key, value in first["settings"].items()} | then["settings"],
        "card": _both_cards(first["card"], then["card"]),
        "edited": first["edited"],
    }


def _both_cards(one: str | None, other: str | None) -> str | None:
    """Return the lines of two cards by their names, the second's after the first's."""
    if one is None or other is None:
        return one or other
    lines, more = method_lines(one), method_lines(other)
    return "\n".join(f"{key}: {text}; then: {more.get(key, 'none')}" for key, text in lines.items())
