"""What deletion from a sharded generator took and cost, and what each row may claim, in words for cards and reports."""

from collections.abc import Sequence

from msgm.evaluation.metrics.base import Report, Row
from msgm.evaluation.metrics.unlearning_ratio import percent

SHARDED = "shards"
"""Start of rows whose models are trained on shards of the items."""


def deletion_text(row: Row) -> str:
    """Return what a row's deletion took, beside what was to be expected; empty for other rows.

    >>> deleted = {"hit": [2], "shards": 5, "items": 250, "share": 0.2, "steps": 300, "expected_hit": 1.0}
    >>> deletion_text({"deletion": deleted})
    "1 of 5 shards held an item to forget (expected: 1.0), with 250 items in all; 300 steps, 20.0% of all shards'"
    """
    found = row.get("deletion")
    if not found:
        return ""
    several = " (first seed)" if len(row.get("per_seed", [])) > 1 else ""
    return (
        f"{len(found['hit'])} of {found['shards']} shards held an item to forget (expected: "
        f"{found['expected_hit']:.1f}), with {found['items']:,} items in all; {found['steps']:,} steps, "
        f"{percent(found['share'])}% of all shards'{several}"
    )


EXPECTED_COST = "1 - (1 - 1/K)^m of all steps for m items drawn at random, K shards"


def duty(row: Row, observed: bool) -> str:
    """Return what a row may claim at most: *removal*, which a sharded row alone does, or *suppression*.

    Args:
        row: of a report.
        observed: whether the request's target is observed items; those of a concept are not all that shows it.
    """
    if row["start"] == SHARDED:
        if row.get("deletion") and observed:
            return "removal of the listed items, exact by algorithm"
        return "the listed items alone were left out of training" if row.get("deletion") else "nothing: NOT RECORDED"
    if row["start"] == "scratch":
        return "none: a reference, trained from random weights"
    return "none: a reference" if row["start"] in ("none", "random") else "suppression at most"


def removing(report: Report) -> list[str]:
    """Return the names of the rows that may say removal."""
    (request,) = report["requests"].values()
    return [row["name"] for row in report["rows"] if duty(row, request["target"] == "observed").startswith("removal")]


def cost_facts(row: Row, others: Sequence[Row]) -> dict[str, str]:
    """Return what a sharded row cost: its steps beside the formula, its storage, its quality; empty for other rows.

    Args:
        row: of a report.
        others: single models to compare its quality with.
    """
    if not row.get("deletion"):
        return {}
    costs = {
        "expected_cost": EXPECTED_COST,
        "measured_cost": f"{row['seconds']:.1f} s, where {row['preparation_seconds']:.1f} s had trained all shards",
        "storage": f"{row['storage_bytes'] / 2**20:.2f} MB of weights, those of {row['deletion']['shards']} models",
    }
    text = quality_text(row, others)
    return costs | ({"quality": text} if text else {})


def quality_text(row: Row, others: Sequence[Row]) -> str:
    """Return a row's NLL of items to retain and its junk rate, beside those of single models."""
    found = []
    if all((one.get("nll") or {}).get("retain") for one in (row, *others)):
        values = [f"{one['nll']['retain']['mean']:.2f} of {one['name']}" for one in (row, *others)]
        found.append(f"NLL retain {' beside '.join(values)} (bits/dim)")
    if all("junk_rate" in one for one in (row, *others)):
        values = [f"{percent(one['junk_rate'])}% of {one['name']}" for one in (row, *others)]
        found.append(f"junk {' beside '.join(values)}")
    return "; ".join(found) + (" (first seed)" if found and len(row.get("per_seed", [])) > 1 else "")


def of_shards(report: Report) -> list[str]:
    """Return a note on each sharded row, if any, and on what its numbers are of."""
    rows = [row for row in report["rows"] if row["start"] == SHARDED]
    notes = [
        f"{row['name']}: {deletion_text(row)}; {row['preparation_seconds']:.0f} s had trained all of them before, and "
        f"{row['storage_bytes'] / 2**20:.1f} MB are kept."
        for row in rows
        if row.get("deletion")
    ]
    if notes:
        notes.append(
            "Seconds of sharded rows are those of the deletion. Their likelihoods are of the shards' mixture; losses "
            "at single points and fine-tuning, where no walk says which shard is responsible, are of the shards' mean."
        )
    return notes
