r"""From the records of an attribute comparison to its report, with the verdicts that its controls allow.

An attacker who guesses blindly is right on each of class c's n_c users with chance 1 / C; his balanced accuracy has the
standard deviation

    s = 1 / C sqrt(sum_c (1 / C) (1 - 1 / C) / n_c),

and 3 s is the noise level. Of a model and an attribute, on means over seeds:

    negative control:  attackers who are given permuted values are within the noise of chance;
    positive control:  before any erasure the attribute is found.

It is found on a surface where the leak exceeds that with permuted values by more than the noise. Both controls are
checked on each surface separately. A surface where one fails is INCONCLUSIVE and rows are judged on the others, because
on it the attackers find nothing even before erasure, or find what does not exist. With no surface left all rows are
INCONCLUSIVE. Where it is found on no surface, but the 95% t-interval of a leak reaches the threshold for found, the
verdict is "cannot tell". "not found" holds for these attackers and this number of users alone.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from msgm import __version__
from msgm.folders import place
from msgm.recommender.assemble import data_facts
from msgm.recommender.attributes.labels import Labels
from msgm.recommender.data.base import Interactions
from msgm.recommender.erasure.config import BEFORE, CONTROLS, SHUFFLED, AttributeConfig
from msgm.recommender.erasure.erasures import CARDS, build_erasure
from msgm.recommender.metrics.attribute_attackers import ATTACKERS, AttributeAttackers
from msgm.recommender.metrics.ranking import Ranking
from msgm.runs import Run, environment
from msgm.study.judging import means
from msgm.study.records import find_record
from msgm.study.rows import left_out
from msgm.tuned import tuning_protocol

KIND = "recommender-attributes"
FOUND, NOT_FOUND, UNSURE, INCONCLUSIVE = "found", "not found", "cannot tell", "INCONCLUSIVE"
DEVIATIONS = 3
CONTROL_CARDS = {
    BEFORE: "the model as it was fitted; attackers must find the attribute (positive control)",
    SHUFFLED: "attackers on the model as it was fitted who are given permuted values, and must be at chance "
    "(negative control)",
}
Report = dict[str, Any]


def record_at(run: Run, model: str, attribute: str, row: str) -> Path:
    """Return where the record of a cell lies."""
    return place(run.path, "records", model, attribute, row, ending=".json")


def make_report(config: AttributeConfig, run: Run, data: Interactions, labels: Sequence[Labels]) -> Report:
    """Return the report of all records that the folder holds for rows of ``config``."""
    records = _records(config, run, data, [each.name for each in labels])
    rows = [_row(config, cell, record) for cell, record in records.items() if "runs" in record]
    attributes = {each.name: _attribute(each) for each in labels}
    controls = [
        _control(rows, model, name, attributes[name]["noise"], config.surfaces)
        for model in dict.fromkeys(cell[0] for cell in records)
        for name in attributes
    ]
    return {
        "kind": KIND,
        "title": config.name,
        "data": data_facts(config.data["name"], data),
        "seeds": [config.seed + k for k in range(config.seeds)],
        "surfaces": config.surfaces,
        "models": {name: settings for name, settings in config.models.items() if settings is not None},
        "attributes": attributes,
        "protocol": _protocol(config) | tuning_protocol(config.tuned),
        "controls": controls,
        "rows": _judged(rows, controls, attributes),
        "left_out": left_out(records, ("model", "attribute", "method")),
        "environment": environment(),
    }


def shared_facts(config: AttributeConfig, data: Interactions, model: str) -> Report:
    """Return the facts that all records of a model depend on."""
    return {
        "msgm": __version__,
        "data": data.digest(),
        "split": config.split,
        "model": config.models[model],
        "seeds": [config.seed, config.seeds],
        "attack": {"surfaces": config.surfaces, "folds": config.folds, "k": config.k},
    }


def _records(
    config: AttributeConfig, run: Run, data: Interactions, attributes: Sequence[str]
) -> dict[tuple[str, str, str], Report]:
    """Return the comparable records in the config's order, controls first.

    An erasure's own settings may differ from the config's: its record states them.
    """
    found = {}
    for model in (name for name, settings in config.models.items() if settings is not None):
        facts = shared_facts(config, data, model)
        for attribute in attributes:
            for row in [*CONTROLS, *(name for name, settings in config.erasures.items() if settings is not None)]:
                record = find_record(record_at(run, model, attribute, row), facts)
                if record is not None:
                    found[model, attribute, row] = record
    return found


def _row(config: AttributeConfig, cell: tuple[str, str, str], record: Report) -> Report:
    model, attribute, erasure = cell
    runs, control = record["runs"], erasure in CONTROLS
    settings = {} if control else record["made"]["erasure"]
    texts = _texts(config)
    summary = means([run["numbers"] for run in runs])
    return {
        "model": model,
        "method": erasure,
        "attribute": attribute,
        "erased": [] if control else list(record["made"]["erased"]),
        "reversible": not control and build_erasure(settings).reversible,
        "seconds": fmean(run["seconds"] for run in runs),
        "fit_seconds": fmean(run["fit_seconds"] for run in runs),
        "dropped": runs[0]["dropped"],
        "metrics": {name: entry | texts[name] for name, entry in summary.items()},
        "per_seed": [
            {"seed": config.seed + k, "seconds": run["seconds"], "metrics": run["numbers"]}
            for k, run in enumerate(runs)
        ],
        "settings": {key: value for key, value in settings.items() if key != "name"},
        "card": CONTROL_CARDS[erasure] if control else CARDS[settings["name"]].describe(),
    }


def _texts(config: AttributeConfig) -> dict[str, dict[str, str]]:
    """Return the description of every number."""
    found = {name: asdict(number) for name, number in Ranking.numbers.items()}
    for name, number in AttributeAttackers.numbers.items():
        for surface in config.surfaces:
            of_surface = {"text": f"{number.text}, from {surface}"}
            found[name.replace("attribute", surface, 1)] = asdict(number) | of_surface
    return found | {"chance": asdict(AttributeAttackers.numbers["attribute_chance"])}


def noise_of(sizes: Sequence[int]) -> float:
    """Return three standard deviations of the balanced accuracy of blind guesses at classes of these sizes."""
    chance = 1 / len(sizes)
    return DEVIATIONS * chance * math.sqrt(chance * (1 - chance) * sum(1 / size for size in sizes))


def _attribute(labels: Labels) -> Report:
    sizes = [len(members) for members in labels.members()]
    return {
        "values": dict(zip(labels.values, sizes, strict=True)),
        "missing": labels.missing,
        "chance": 1 / len(sizes),
        "noise": noise_of(sizes),
    }


def _control(rows: Sequence[Report], model: str, attribute: str, noise: float, surfaces: Sequence[str]) -> Report:
    """Return the surfaces on which both controls of one model and attribute hold, and the controls' numbers."""
    found: Report = {"model": model, "attribute": attribute}
    before, dealt = (_find(rows, model, attribute, name) for name in CONTROLS)
    if before is None or dealt is None:
        return found | {"positive": [], "negative": [], "sound": [], "evidence": "a control has no numbers"}
    chance = dealt["metrics"]["chance"]["value"]
    guesses = {
        surface: [dealt["metrics"][f"{surface}_bacc_{name}"]["value"] for name in ATTACKERS] for surface in surfaces
    }
    positive = _found_on(before, dealt, noise, surfaces)
    negative = [surface for surface in surfaces if all(abs(guess - chance) <= noise for guess in guesses[surface])]
    leaks = ", ".join(f"{before['metrics'][f'{surface}_leak']['value']:.3f} on {surface}" for surface in surfaces)
    every = [guess for of_surface in guesses.values() for guess in of_surface]
    return found | {
        "positive": positive,
        "negative": negative,
        "sound": [surface for surface in positive if surface in negative],
        "evidence": f"permuted values are guessed with {min(every):.3f} to {max(every):.3f} "
        f"(chance {chance:.3f} ± {noise:.3f}); before any erasure {attribute} leaks {leaks}",
    }


def _find(rows: Sequence[Report], model: str, attribute: str, erasure: str) -> Report | None:
    return next(
        (row for row in rows if (row["model"], row["attribute"], row["method"]) == (model, attribute, erasure)), None
    )


def _found_on(
    row: Report, dealt: Report, noise: float, surfaces: Sequence[str], end: Literal["value", "high"] = "value"
) -> list[str]:
    """Return the surfaces on which attackers find the attribute, by the mean leak or the high end of its interval."""
    found = []
    for surface in surfaces:
        leak, floor = row["metrics"][f"{surface}_leak"], dealt["metrics"][f"{surface}_leak"]["value"]
        if (leak["value"] if leak[end] is None else leak[end]) > floor + noise:
            found.append(surface)
    return found


def _judged(rows: Sequence[Report], controls: Sequence[Report], attributes: dict[str, Report]) -> list[Report]:
    """Return the rows with ``verdict`` and ``found_on``, None where no surface's controls hold."""
    sound = {(each["model"], each["attribute"]): each["sound"] for each in controls}
    judged = []
    for row in rows:
        surfaces = sound[row["model"], row["attribute"]]
        dealt = _find(rows, row["model"], row["attribute"], SHUFFLED)
        if dealt is None or not surfaces:
            judged.append(row | {"verdict": INCONCLUSIVE, "found_on": None})
            continue
        noise = attributes[row["attribute"]]["noise"]
        found = _found_on(row, dealt, noise, surfaces)
        unsure = row is not dealt and _found_on(row, dealt, noise, surfaces, "high")
        verdict = FOUND if found else UNSURE if unsure else NOT_FOUND
        judged.append(row | {"verdict": verdict, "found_on": found})
    return judged


def _protocol(config: AttributeConfig) -> dict[str, str]:
    split = ", ".join(f"{key} {value}" for key, value in config.split.items())
    return {
        "split": f"{split}; models are fitted to training cells, utility is measured on test cells",
        "seeds": f"{config.seeds}: of fits, erasures and attackers; data and split are the same for all",
        "attackers": f"{', '.join(ATTACKERS)}, fresh for every row, {config.folds} stratified folds over the users "
        "whose value is known; erasures see the values of all of these users",
        "noise": f"{DEVIATIONS} standard deviations of blind guesses; an attribute is found where its leak exceeds "
        "that of permuted values by more",
        "seconds": "wall time of the erasure on one thread; before and in training, of the whole fit",
        "lists": f"the {config.k} items recommended; an obfuscated model may list items taken out of its data",
    }
