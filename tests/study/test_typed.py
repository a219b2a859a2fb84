"""Rows of a report as typed objects."""

import json
from pathlib import Path

import pytest

from msgm.domains import read_report
from msgm.study.judging import ABOVE, inside_share, retrained
from msgm.study.typed import Limits, Row, Value

GOLDEN = Path(__file__).parent / "golden"
REPORTS = [path for path in sorted(GOLDEN.glob("*.json")) if "rows" in json.loads(path.read_text())]


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_rows_of_every_version_and_domain_are_read_and_given_back(path):
    for tree in read_report(path)["rows"]:
        row = Row.from_json(tree)
        assert row.to_json() == tree
        assert row.name == tree.get("name", tree["method"])
        assert row.request == tree.get("request")
        assert {name: value.value for name, value in row.metrics.items()} == {
            name: entry["value"] for name, entry in tree["metrics"].items()
        }
        assert [value.place for value in row.metrics.values()] == [e.get("place") for e in tree["metrics"].values()]
        assert list(row.per_seed.values()) == [part["metrics"] for part in tree["per_seed"]]
        assert row.retrained == retrained(tree)
        assert row.cost.seconds == tree["seconds"]
        assert row.cost.share_of_retraining == tree.get("share_of_retraining")
        assert row.inside == (inside_share(tree) if "judged" in tree else None)
        assert row.effect == tree.get("effect")


def test_a_number_has_its_description_and_its_band():
    band = {"mean": 0.5, "sd": 0.1, "low": 0.2, "high": 0.8, "count": 5}
    number = {"text": "AUC, 0 to 1", "section": "privacy", "better": "band", "bounds": [0.0, 1.0], "step": 0.1}
    found = {"value": 0.9, "low": 0.8, "high": 1.0, "seeds": 3, "place": ABOVE, "noticed": 0.3, "inside": False}
    value = Value.from_json(found | number | {"band": band})
    assert (value.value, value.low, value.high, value.seeds, value.place, value.noticed) == (0.9, 0.8, 1, 3, ABOVE, 0.3)
    assert value.band == Limits(0.5, 0.1, 0.2, 0.8, 5)
    assert (value.number.text, value.number.section, value.number.better) == ("AUC, 0 to 1", "privacy", "band")


def test_cost_holds_what_was_measured():
    tree = {"seconds": 3, "preparation_seconds": 1.5, "storage_bytes": 10, "share_of_retraining": 0.25}
    cost = Row.from_json(tree).cost
    assert (cost.seconds, cost.preparation, cost.storage, cost.share_of_retraining) == (3.0, 1.5, 10, 0.25)
    assert Row.from_json({"seconds": 3}).cost.preparation is None
