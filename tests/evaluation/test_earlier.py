"""Earlier requests are tested by evaluate and compare, and stand on the cards."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from msgm.chain import Entry
from msgm.config import load_config
from msgm.evaluation.attacks.membership import Membership
from msgm.evaluation.earlier import _tested
from msgm.generator.compare import GENERATORS
from msgm.generator.evaluate import evaluate
from msgm.reading import read_json
from msgm.splits import Part
from msgm.training import train, unlearn
from tests.conftest import TINY
from tests.evaluation.attacks import bench_of, subject_of

MEASURED = [
    "objective.name=redirect",
    "training.steps=2",
    "evaluation.samples=20",
    "evaluation.nll_items=2",
    "evaluation.likelihood.steps=2",
    "evaluation.judge.epochs=6",
    "evaluation.metrics=[ur,nll,membership]",
    "evaluation.options.membership={items: 20}",
    "sampling.steps=2",
]


def experiment(labels: str, *overrides: str):
    return load_config(None, [*TINY, f"request.labels={labels}", *MEASURED, *overrides])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A chain of three requests, and the reports of the last model and of a comparison that starts from it."""
    folder = tmp_path_factory.mktemp("chain")
    train(experiment("[3]", "objective.name=standard"), folder / "O", device="cpu")
    for source, out, labels in (("O", "A", "[3]"), ("A", "B", "[5]"), ("B", "C", "[7]")):
        unlearn(experiment(labels), folder / source, folder / out, device="cpu")
    evaluate(experiment("[7]"), [folder / "C"], device="cpu")
    return folder


def texts(requests) -> list[str]:
    return [request["text"][-1] for request in requests]


def test_evaluate_tests_every_earlier_request(runs):
    (row,) = read_json(runs / "C" / "report.json")["rows"]
    assert texts(row["history"]["requests"]) == ["3", "5", "7"]
    assert texts(row["history"]["earlier"]) == ["3", "5"]
    for earlier in row["history"]["earlier"]:
        assert earlier["asked"]
        assert set(earlier["numbers"]) == {"NLL", "AUC of membership by loss", "UR"}
        assert earlier["numbers"]["UR"].endswith("n = 20")


def test_what_was_forgotten_earlier_is_no_quality_of_retained_items(runs):
    report = read_json(runs / "C" / "report.json")
    digits = {"train": 1257, "validation": 270, "test": 270}
    for part, items in report["data"]["items"].items():
        assert items["retain"] + items["forget"] < digits[part]
    assert 0.5 < report["judge"]["heldout_accuracy"] <= 1


def test_the_card_shows_the_whole_chain(runs):
    card = read_json(next((runs / "C").rglob("card.json")))
    lines = card["history"]["lines"]
    assert [line["number"] for line in lines] == [1, 2, 3]
    assert lines[2]["verdict"] == "this card's request"
    assert {line["verdict"] for line in lines[:2]} <= {"PASS", "FAIL", "INCONCLUSIVE"}
    markdown = next((runs / "C").rglob("card.md")).read_text()
    html = next((runs / "C").rglob("card.html")).read_text()
    for view in (markdown, html):
        assert "What the model was asked so far" in view
        assert view.count("given by labels 3") >= 1
    names = [check["name"] for claim in card["claims"] for check in claim["checks"]]
    assert names.count("earlier requests still hold") == 1


class Shows:
    """A stand-in for the samples: real items of a class."""

    def __init__(self, label: int) -> None:
        self.label = label

    def __call__(self, model, count, *_, **__):
        from msgm.data import dequantise, load_dataset

        digits = load_dataset("digits")
        items = (digits.labels == self.label).nonzero()[0]
        chosen = torch.from_numpy(items[np.arange(count) % len(items)])
        return dequantise(digits.items[chosen], digits.levels)


@pytest.mark.parametrize(("label", "verdicts"), [(3, ["FAIL", "PASS"]), (0, ["PASS", "PASS"])])
def test_a_request_that_came_back_fails(runs, tmp_path, monkeypatch, label, verdicts):
    monkeypatch.setattr("msgm.evaluation.bench.sample", Shows(label))
    shutil.copytree(runs / "C", tmp_path / "C")
    config = experiment("[7]", "evaluation.metrics=[ur]", "evaluation.samples=200", "evaluation.judge.epochs=8")
    evaluate(config, [tmp_path / "C"], device="cpu")
    (row,) = read_json(tmp_path / "C" / "report.json")["rows"]
    assert [earlier["verdict"] for earlier in row["history"]["earlier"]] == verdicts
    card = read_json(next((tmp_path / "C").rglob("card.json")))
    (behaviour,) = [claim for claim in card["claims"] if claim["level"] == "C1"]
    (held,) = [check for check in behaviour["checks"] if check["name"] == "earlier requests still hold"]
    assert held["holds"] is (label != 3)


def test_items_that_are_no_class_have_a_judge_of_their_own(runs, tmp_path):
    run = unlearn(experiment("[]", "request.indices=[1,2,4,8,16,32]"), runs / "A", tmp_path / "B", device="cpu")
    run = unlearn(experiment("[5]"), run.path, tmp_path / "C", device="cpu")
    evaluate(experiment("[5]", "evaluation.metrics=[ur]"), [run.path], device="cpu")
    (row,) = read_json(run.report)["rows"]
    assert [earlier["verdict"] for earlier in row["history"]["earlier"]][1] == "INCONCLUSIVE"
    assert "UR" in row["history"]["earlier"][1]["numbers"]


def test_every_row_of_a_comparison_carries_the_chain_of_its_base(runs, tmp_path):
    rows = [
        "rows.do-nothing={start: none}",
        "rows.unseen={start: scratch, objective: {name: unseen}}",
        "rows.redirect={start: finetune, objective: {name: redirect}}",
    ]
    config = experiment("[5]", "evaluation.metrics=[ur]", *rows)
    run = GENERATORS.compare(config, tmp_path / "compare", source=runs / "A", device="cpu")
    found = {row["name"]: row["history"] for row in read_json(run.report)["rows"]}
    assert texts(found["do-nothing"]["requests"]) == ["3"]
    assert texts(found["unseen"]["requests"]) == texts(found["redirect"]["requests"]) == ["3", "5"]
    assert all(texts(history["earlier"]) == ["3"] for history in found.values())
    items = read_json(tmp_path / "compare" / "rows" / "unseen" / "manifest.json")["items"]
    assert items["gone"] > 0


def test_evaluating_an_original_beside_tells_which_model_was_asked(runs, tmp_path):
    run = evaluate(
        experiment("[5]", "evaluation.metrics=[ur]"), [runs / "O", runs / "B"], tmp_path / "both", device="cpu"
    )
    original, later = read_json(run.report)["rows"]
    assert texts(original["history"]["requests"]) == []
    assert [earlier["asked"] for earlier in original["history"]["earlier"]] == [False]
    assert [earlier["asked"] for earlier in later["history"]["earlier"]] == [True]


def test_a_history_started_anew_stands_on_the_card(runs, tmp_path):
    run = unlearn(experiment("[5]"), runs / "A", tmp_path / "B", device="cpu", fresh_chain=True)
    evaluate(experiment("[5]", "evaluation.metrics=[ur]"), [run.path], device="cpu")
    card = next(run.path.rglob("card.md")).read_text()
    assert "started anew on purpose" in card
    assert "labels 3" in card


class Answers(Shows):
    """Shows the class that it is asked for, and zeros where it is asked for none."""

    def __call__(self, model, count, settings, seed, first, tell, condition):
        self.label = 0 if condition is None else condition.labels.unique().item()
        return super().__call__(model, count)


def test_a_conditional_model_is_asked_for_the_classes_of_earlier_requests(monkeypatch):
    monkeypatch.setattr("msgm.evaluation.bench.sample", Answers(0))
    bench = bench_of("network.classes=10", "evaluation.samples=100")
    train = bench.split.train
    again = bench.dataset.labels[train.retain] == 5
    part = Part(train.retain[~again], train.forget, train.retain[again])
    bench = replace(bench, split=replace(bench.split, train=part))
    positions = np.flatnonzero(bench.dataset.labels == 5)
    entry = Entry("removal", "removal", "observed", "labels", "redirect", None, positions)
    found = _tested(subject_of(bench), entry, True, {"ur": None})
    assert found.verdict == "FAIL"
    assert found.numbers["UR asked for its classes"].endswith("n = 100")
    assert found.evidence.startswith("UR asked for its classes")


@pytest.mark.parametrize(("selector", "compared"), [("indices", True), ("labels", False)])
def test_items_listed_one_by_one_are_compared_with_any_held_out_ones_of_their_class(selector, compared):
    bench = bench_of()
    entry = Entry("removal", "removal", "observed", selector, "retrain", None, bench.split.train.forget[:9])
    found = _tested(subject_of(bench), entry, True, {"membership": Membership(items=20, levels=[0.5])})
    assert ("AUC of membership by loss" in found.numbers) is compared
