"""From the numbers of models to the rows and the report of a comparison."""

from msgm.study.band import LEAST
from msgm.study.judging import ABOVE, SCHEMA, Criteria
from msgm.study.parts import Number
from msgm.study.rows import judged_report, left_out, left_out_at, row_numbers

KNOWN = {"auc": Number("AUC of an attack", "privacy", "band", (0, 1))}
CRITERIA = Criteria(keys=("request",), sides=(), repeated="_gap$", size="n", retraining="retrain_seconds", effect=())


def test_a_rows_numbers_are_means_over_its_seeds_beside_what_they_are():
    row = row_numbers({3: {"auc": 0.4}, 5: {"auc": 0.6}}, [{"auc": 0.5}, {"auc": 0.7}], KNOWN)
    entry = row["metrics"]["auc"]
    assert (entry["value"], entry["seeds"]) == (0.5, 2)
    assert (entry["text"], entry["section"], entry["better"], entry["bounds"]) == (
        "AUC of an attack",
        "privacy",
        "band",
        (0, 1),
    )
    assert row["per_seed"] == [{"seed": 3, "metrics": {"auc": 0.4}}, {"seed": 5, "metrics": {"auc": 0.6}}]
    assert row["retrain_band"] == [
        {"retrain": 1, "of": 1, "metrics": {"auc": 0.5}},
        {"retrain": 2, "of": 1, "metrics": {"auc": 0.7}},
    ]


def test_cells_without_numbers_are_named_with_their_reason():
    records = {("als", "few"): {"numbers": {}}, ("knn", "few"): {"status": "failed", "reason": "no.", "made": {}}}
    assert left_out(records, ("model", "request")) == [
        {"model": "knn", "request": "few", "status": "failed", "reason": "no."}
    ]


def test_seeds_without_numbers_for_one_reason_make_one_line():
    failed, other = {"status": "failed", "reason": "no."}, {"status": "skipped", "reason": "no."}
    assert left_out_at({0: failed, 1: {"numbers": {}}, 2: other, 3: failed}, method="edit") == [
        {"method": "edit", "status": "failed", "reason": "no.", "seeds": [0, 3]},
        {"method": "edit", "status": "skipped", "reason": "no.", "seeds": [2]},
    ]


def test_a_report_is_judged_and_says_of_how_many_models_its_band_is():
    row = {"method": "edit", "request": "few", "seconds": 1.0}
    row |= row_numbers({0: {"auc": 0.9}}, [{"auc": 0.5 + k / 100} for k in range(LEAST)], KNOWN)
    report = {"rows": [row], "requests": {"few": {"n": 30}}, "protocol": {"auc": "as said"}}
    made = judged_report(report, 7, CRITERIA)
    assert made["protocol"]["band"].startswith("of 7 models retrained without what is to be forgotten")
    assert made["protocol"]["auc"] == "as said"
    assert made["rows"][0]["metrics"]["auc"]["place"] == ABOVE
    assert (made["schema"], "versions" in made["environment"]) == (SCHEMA, True)
