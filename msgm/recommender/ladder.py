"""The ladder (``msgm.study.ladder``) of recommenders.

- C1: nothing forgotten is served, the completeness AUC inside the band, and NDCG (RMSE for models of ratings) at most
  5% worse than the retrained models' mean.
- C2: every number of section privacy.
- C4: observed cells, an answer that is bit-exact or exact up to rounding, with its record, and nothing forgotten
  served. Exactness at convergence is not claimed here: sweeps are finite.
- C5: no method here computes a bound.

A metric's leaking side is the side of the band on which models that still know the cells lie (``SIDES``). Distances
from retrained models have no leaking side; those in units repeat the plain ones and are not judged. A value may lie
outside a band by ``SLACK``, because many models do not depend on a seed.
"""

from msgm.cards.claims import Check
from msgm.study.judging import Report, Row
from msgm.study.ladder import Ladder, asked, is_inside, near_mean, observed, rules_of

EXACT = ("bit-exact", "exact up to rounding")
UTILITY_MARGIN = 0.05
SLACK = 0.005
"""How far outside the band a number may lie: bands of models that do not depend on a seed have no width."""
SERVED = ("lists_with_forgotten_items", "forgotten_users_served")
REPEATED = r"_distance_units$"
SIDES: tuple[tuple[str, str | None], ...] = (
    (r"_distance(_units)?$", None),
    (r"_auc$|_share$|_exposure$", "above"),
    (r"_repair$", "below"),
)
"""Names of numbers, as patterns, and the side of the band on which a model knows the cells; the first match counts."""

RULES = rules_of(
    "cells",
    "Nothing forgotten is served; the AUC of forgotten against held-out cells lies inside the band of at least 5 "
    "retrained models; NDCG or RMSE is at most 5% worse than the retrained models' mean",
    "Observed cells, an answer that equals fitting anew to the rest, bit by bit or up to rounding, by its record, and "
    "nothing forgotten is served.",
)


def _served(row: Row) -> list[Check]:
    """Return whether anything forgotten is served; no condition where single cells are forgotten."""
    values = {name: (row["metrics"].get(name) or {}).get("value") for name in SERVED}
    return [
        Check(f"{name.replace('_', ' ')}: none", value == 0, f"{value:.3g}")
        for name, value in values.items()
        if value is not None
    ]


def _behaviour(_: Report, row: Row) -> list[Check]:
    rated = (row["metrics"].get("rmse") or {}).get("value") is not None
    name, words, sign = ("rmse", "above", 1) if rated else ("ndcg", "below", -1)
    return [
        *_served(row),
        is_inside(row, "completeness_auc"),
        near_mean(row, name, f"at most 5% {words}", lambda value, mean: sign * (value - mean) <= UTILITY_MARGIN * mean),
    ]


def attacks_of(_: Report, row: Row) -> dict[str, list[str]]:
    """Return the attacks that C2 is about: each number of section privacy that was measured."""
    return {
        name: [name]
        for name, entry in row["metrics"].items()
        if entry["section"] == "privacy" and entry["value"] is not None
    }


def _exactness(report: Report, row: Row) -> list[Check]:
    request, touched = asked(report, row), row["touched"]
    record = "NOT RECORDED" if touched is None else f"{touched:g} rows written in {row['seconds']:.3g} s"
    digest = report["data"]["digest"]
    return [
        Check("the target is observed cells", observed(report, row), f"target: {request['target']}"),
        Check("the answer is exact", _is_exact(row), str(row["exactness"])),
        Check("the record says what was written", None if touched is None else True, record),
        Check("the record names the data", None if digest is None else True, str(digest)),
        *_served(row),
    ]


def _is_exact(row: Row) -> bool:
    return row["exactness"] in EXACT


LADDER = Ladder(
    keys=("model", "request"),
    sides=SIDES,
    repeated=REPEATED,
    size="cells",
    retraining="refit_seconds",
    effect=("completeness_auc", "ndcg"),
    slack=SLACK,
    baseline=None,
    rules=RULES,
    behaviour=_behaviour,
    attacks=attacks_of,
    exactness=_exactness,
    exact=_is_exact,
)
