"""Names of rows, methods, requests, models and attributes become files: unsafe ones are refused when they are read."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from msgm.classifier.config import ClassifierConfig
from msgm.classifier.config import RequestSettings as ClassifierRequest
from msgm.classifier.report import VIEWS as CLASSIFIERS
from msgm.config import Config
from msgm.errors import UserError
from msgm.evaluation import figures
from msgm.evaluation.card_views import card_place
from msgm.evaluation.report import write_views as write_generator
from msgm.generator.evaluate import evaluate
from msgm.recommender.config import RecommenderConfig
from msgm.recommender.config import RequestSettings as RecommenderRequest
from msgm.recommender.erasure.compare import asked_labels
from msgm.recommender.erasure.config import AttributeConfig
from msgm.recommender.report import VIEWS as RECOMMENDERS
from msgm.rows import Row
from msgm.runs import Run
from msgm.study.judging import SCHEMA

UNSAFE = ["../../../../x", "a/b", "", "a\0b", ".x", "aux"]


def rows(name: str) -> Config:
    return Config(rows={"do-nothing": Row("none", {"name": "standard"}), name: Row("scratch", {"name": "unseen"})})


MAKERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "generator name": ("name", lambda name: Config(name=name)),
    "generator row": ("rows", rows),
    "classifier name": ("name", lambda name: ClassifierConfig(name=name)),
    "classifier method": ("methods", lambda name: ClassifierConfig(methods={name: {"name": "finetune"}})),
    "classifier method left out": ("methods", lambda name: ClassifierConfig(methods={name: None})),
    "classifier request": ("requests", lambda name: ClassifierConfig(requests={name: ClassifierRequest(random=3)})),
    "recommender name": ("name", lambda name: RecommenderConfig(name=name)),
    "recommender model": ("models", lambda name: RecommenderConfig(models={name: {"name": "ease"}})),
    "recommender method": ("methods", lambda name: RecommenderConfig(methods={name: {"name": "retrain"}})),
    "recommender request": (
        "requests",
        lambda name: RecommenderConfig(requests={name: RecommenderRequest(random_users=3)}),
    ),
    "attribute erasure": ("erasures", lambda name: AttributeConfig(erasures={name: {"name": "refit"}})),
    "attribute model": ("models", lambda name: AttributeConfig(models={name: {"name": "als"}})),
}


@pytest.mark.parametrize("name", UNSAFE, ids=repr)
@pytest.mark.parametrize("what", MAKERS)
def test_an_unsafe_name_is_refused_when_the_config_is_read(what: str, name: str) -> None:
    key, make = MAKERS[what]
    with pytest.raises(UserError, match=rf"^{key}: .*becomes the name of a file"):
        make(name)


@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("rows", lambda: rows("Do-Nothing")),
        ("methods", lambda: ClassifierConfig(methods={"SSD": {"name": "ssd"}})),
        ("requests", lambda: ClassifierConfig(requests={n: ClassifierRequest(random=3) for n in ("a", "A")})),
        ("models", lambda: RecommenderConfig(models={n: {"name": "ease"} for n in ("\u00e9", "e\u0301")})),
        ("requests", lambda: RecommenderConfig(requests={n: RecommenderRequest(random_users=3) for n in ("a", "A")})),
    ],
)
def test_letter_case_twins_are_refused(key: str, make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=f"^{key}: .* same file"):
        make()


@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("methods", lambda: ClassifierConfig(methods={"original": {"name": "finetune"}})),
        ("methods", lambda: ClassifierConfig(methods={"source": {"name": "finetune"}})),
        ("requests", lambda: ClassifierConfig(requests={"Original": ClassifierRequest(random=3)})),
        ("erasures", lambda: AttributeConfig(erasures={"before": {"name": "refit"}})),
    ],
)
def test_names_of_files_that_msgm_writes_there_are_refused(key: str, make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=f"^{key}: .* msgm itself uses"):
        make()


def test_an_attribute_of_a_data_files_header_is_refused() -> None:
    found: Any = SimpleNamespace(attributes={"../../x": np.array(["a", "b"] * 10)})
    with pytest.raises(UserError, match=r"^attributes of the data: '../../x' has a slash"):
        asked_labels(AttributeConfig(), found)


def test_evaluated_folders_do_not_write_over_a_runs_own_pictures(tmp_path: Path) -> None:
    (tmp_path / "samples" / "model").mkdir(parents=True)
    (tmp_path / "samples" / "model" / "process.json").touch()
    (tmp_path / "samples" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="'samples' is a name that msgm itself uses"):
        evaluate(Config(), [str(tmp_path / "samples")])


OUT = "../../../../out"


@pytest.mark.parametrize("part", ["request", "method"])
def test_cards_of_a_received_classifier_report_stay_inside(part: str, tmp_path: Path) -> None:
    report = {"rows": [{"request": "a", "method": "b"} | {part: OUT}]}
    with pytest.raises(UserError, match="of the report"):
        CLASSIFIERS.link(report["rows"][0])


def test_a_received_classifier_report_writes_nothing_outside(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c" / "d" / "run"
    folder.mkdir(parents=True)
    report = {"title": "t", "requests": {}, "left_out": [], "protocol": {}, "rows": [{"request": "a", "method": OUT}]}
    report["schema"] = SCHEMA
    with pytest.raises(UserError, match="of the report"):
        CLASSIFIERS.write(Run(folder), report)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("part", ["request", "model", "method"])
def test_cards_of_a_received_recommender_report_stay_inside(part: str) -> None:
    assert RECOMMENDERS.link({"model": "m", "request": "r", "method": "b"}) == "cards/m/r/b/card"
    with pytest.raises(UserError, match="of the report"):
        RECOMMENDERS.link({"model": "m", "request": "r", "method": "b"} | {part: OUT})


@pytest.mark.parametrize("base", [None, {}])
def test_cards_of_a_received_generator_report_stay_inside(base: object) -> None:
    with pytest.raises(UserError, match=r"rows\[\].name of the report"):
        card_place({"base": base}, {"name": OUT})


@pytest.mark.parametrize("grid", ["/any.png", "../../any.png"])
def test_a_received_report_embeds_no_other_picture(grid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"rows\[\].grid of the report"):
        write_generator(Run(tmp_path), {"rows": [{"name": "a", "grid": grid}]})
    monkeypatch.setattr(figures, "reason_untested", lambda *_: None)
    for row in (
        {"name": "a", "folder": ".", "neighbours": {"picture": grid}},
        {"name": "a", "folder": grid, "neighbours": {"picture": "a.png"}},
    ):
        with pytest.raises(UserError, match=r"rows\[\]"):
            figures._neighbours(Run(tmp_path), {}, row)
    assert list(tmp_path.iterdir()) == []
