"""The ladder (``msgm.study.ladder``) of classifiers.

- C1: forget accuracy not above the band and, for requests of instances, the AUC of the attacks by loss and by
  confidence inside it; test accuracy (of the classes to retain, where a class is forgotten) at most 5 points below the
  retrained models' mean.
- C2: the attacks ``ATTACKS``, and LiRA where it was run.
- C4: observed items, and a method of the family ``exact`` with its record.
- C5: observed items, and an (epsilon, delta) that the method itself certifies.

A metric's leaking side is the side of the band on which models that still know the items lie (``SIDES``). For the share
of forget items found by an attack's lowest scores it is below the band, as such models have few of them. Distances from
the retrained models have no leaking side. The gaps |value - mean of the retrained models| are not judged: the values
themselves are judged on both sides.
"""

from typing import Any

from msgm.cards.claims import Check
from msgm.cards.parts import metric_of
from msgm.classifier.metrics import METRICS
from msgm.study.judging import BELOW, Report, Row
from msgm.study.ladder import Ladder, asked, is_inside, near_mean, observed, recorded, rules_of

TARGETS = {"observed": "observed items", "latent": "latent attribute", "concept": "concept"}
ACCURACY_MARGIN = 0.05
ATTACKS = ("membership", "rmia", "relearning", "probe")
BEHAVIOURAL = ("mia_loss_auc", "mia_confidence_auc")
REPEATED = r"_gap$"
SIDES: tuple[tuple[str, str | None], ...] = (
    (rf"{REPEATED}|^tow$", None),
    (r"_low_tpr_", "below"),
    (r"_auc$|_tpr_|^forget_accuracy$|^test_accuracy_forgotten$|_worst_decile$|_worse(_share)?$", "above"),
    (r"_efficacy$|^fr_|^fup$|^relearn_steps$", "below"),
)
"""Names of numbers, as patterns, and the side of the band on which a model knows the items; the first match counts."""

RULES = rules_of(
    "items",
    "Forget accuracy is not above the band of at least 5 retrained models and, for instances, the AUC of membership "
    "inference by loss and by confidence lies inside it; test accuracy is at most 5 points below the retrained models' "
    "mean",
    "Observed items, and a method that trains without them, by its record.",
)


def _behaviour(report: Report, row: Row) -> list[Check]:
    by_class = asked(report, row)["scope"] == "class"
    accuracy = "test_accuracy_retained" if by_class else "test_accuracy"
    return [
        is_inside(row, "forget_accuracy", also=(BELOW,)),
        *(is_inside(row, name) for name in (() if by_class else BEHAVIOURAL)),
        near_mean(row, accuracy, "at most 5 points below", lambda value, mean: value >= mean - ACCURACY_MARGIN),
    ]


def attacks_of(report: Report, row: Row) -> dict[str, list[str]]:
    """Return the attacks that C2 is about, with their numbers: all of ``ATTACKS``, and LiRA where it was run.

    In a report made from saved logits, which has ``outputs_only``, those on outputs alone.
    """
    named = [name for name in ATTACKS if not (report.get("outputs_only") and METRICS.entries[name].live)]
    found: dict[str, list[str]] = {name: [] for name in named}
    for name in row["metrics"]:
        metric = metric_of(name, METRICS.entries)
        if metric in found or "lira" in name:
            found.setdefault(metric, []).append(name)
    return found


def _exactness(report: Report, row: Row) -> list[Check]:
    request = asked(report, row)
    digest, trained = request.get("forget_digest"), row["examples"]
    return [
        Check("the target is observed items", observed(report, row), f"target: {request['target']}"),
        Check("the method trains without them", _is_exact(row), f"family: {row['family']}"),
        recorded("the record names the forget set", digest, digest is not None),
        recorded("the record counts the items trained on", trained, bool(trained)),
    ]


def _is_exact(row: Row) -> bool:
    return bool(row["family"] == "exact")


def _bound(report: Report, row: Row) -> list[Check]:
    found = bound_of(row)
    if found is None:
        return [Check("a proven bound", False, "no epsilon and delta are computed by this method")]
    evidence = f"epsilon {found['epsilon']:g}, delta {found['delta']:g}; it covers {found['covers']}"
    return [
        Check("the target is observed items", observed(report, row), f"target: {asked(report, row)['target']}"),
        Check("the method proves it of this model", found["proved"], evidence),
    ]


def bound_of(row: Row) -> dict[str, Any] | None:
    """Return the weakest of the seeds' bounds: epsilon, delta, what it covers, and whether all are proved."""
    made = [part.get("artefacts") or row["artefacts"] or {} for part in row["per_seed"]]
    if not made or any(tree.get(key) is None for tree in made for key in ("epsilon", "delta")):
        return None
    weakest = max(made, key=lambda tree: tree["epsilon"])
    proved = all(tree.get("proved", tree.get("certified")) is True for tree in made)  # Its name in the first version.
    return {"covers": "NOT RECORDED"} | weakest | {"proved": proved}


LADDER = Ladder(
    keys=("request",),
    sides=SIDES,
    repeated=REPEATED,
    size="n",
    retraining="retrain_seconds",
    retrained_a_seed=True,
    effect=("forget_accuracy", "mia_loss_auc", "test_accuracy"),
    rules=RULES,
    behaviour=_behaviour,
    attacks=attacks_of,
    exactness=_exactness,
    exact=_is_exact,
    bound=_bound,
    bounded=lambda row: bound_of(row) is not None,
)
