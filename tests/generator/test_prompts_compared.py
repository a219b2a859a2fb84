"""A comparison of models that are asked by prompts, from the config to the page."""

from dataclasses import dataclass, replace

import pytest

import msgm
from msgm.data import DATASETS
from msgm.data.base import DataSettings
from msgm.reading import read_json
from tests.conftest import TINY
from tests.evaluation.canvases import canvases, vocabulary

OVERRIDES = [
    *[one for one in TINY if not one.startswith("request")],
    "seeds=2",
    f"network.classes={len(vocabulary()[0])}",
    "request.concept.forget=[seven]",
    "finetune.steps=2",
    "sampling={steps: 2, guidance: 2}",
    "evaluation={samples: 12, metrics: [ur, prompts], options: {prompts: {samples: 6}}, judge: {epochs: 2, width: 8}}",
]
SETS = ["word", "synonyms", "compositions", "others"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    @DATASETS.register("canvases")
    @dataclass
    class Canvases(DataSettings):
        def load(self):
            data = canvases()
            return replace(data, labels=data.captions[:, 0], classes=[])

    folder = tmp_path_factory.mktemp("prompts") / "run"
    try:
        rows = ["do-nothing", "unseen"]
        msgm.compare({"data": {"name": "canvases"}}, folder, only=rows, overrides=OVERRIDES, device="cpu")
    finally:
        del DATASETS.entries["canvases"]
    return folder


def test_every_row_has_every_set_and_the_report_says_what_is_reached(compared):
    report = read_json(compared / "report.json", dict)
    assert report["judge"]["classes"] == [*map(str, range(10)), "blank"]
    assert report["judge"]["forgotten"] == ["7"]
    for row in report["rows"]:
        assert [row["prompts"][name]["UA"]["n"] for name in SETS] == [6] * 4
        assert row["metrics"]["UA % word"]["value"] is None  # such a base draws nothing rightly
        assert row["metrics"]["junk % word"]["value"] is not None
    text = (compared / "report.md").read_text()
    assert "## Asked by prompts" in text
    assert "not scored (do-nothing 0.0)" in text
    assert "Which methods forgot the word and kept the others cannot be said: do-nothing was not scored." in text
    assert "guidance of scale 2" in report["protocol"]["samples"]
