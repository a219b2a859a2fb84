"""A comparison of class-conditional generators, from the config to the page."""

import numpy as np
import pytest
from PIL import Image

import msgm
from msgm.config import load_config
from msgm.errors import UserError
from msgm.reading import read_json
from tests.conftest import TINY

OVERRIDES = [
    *TINY,
    "network.classes=10",
    "request.means=both",
    "finetune.steps=4",
    "sampling.steps=3",
    "evaluation.samples=60",
    "evaluation.nll_items=2",
    "evaluation.likelihood.steps=2",
    "evaluation.judge.epochs=1",
]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional") / "run"
    msgm.compare({}, folder, only=["do-nothing", "redirect"], overrides=OVERRIDES, device="cpu")
    return folder


def test_every_row_has_the_three_views(compared):
    report = read_json(compared / "report.json", dict)
    assert "under every condition and as a condition" in report["requests"]["request"]["text"]
    assert report["protocol"]["condition"].startswith("the model is class-conditional")
    for row in report["rows"]:
        views = row["conditions"]
        assert [views[view]["n"] for view in ("forgotten", "others", "none")] == [12, 48, 60]
        assert views["none"]["unlearning_ratio"] == row["unlearning_ratio"]
        assert {"UA %", "IRA %", "UR % asked for forgotten", "junk % asked for others"} <= set(row["metrics"])
    text = (compared / "report.md").read_text()
    assert "## Asked for a class" in text
    assert "UA % [95% CI]" in text


def test_the_pictures_have_a_row_a_class(compared):
    picture = np.asarray(Image.open(compared / "rows" / "redirect" / "samples" / "final.png"))
    assert picture.shape[:2] == ((10 * 9 + 1) * 4, (6 * 9 + 1) * 4)


@pytest.mark.parametrize("name", ["digits/class", "cifar10/class"])
def test_shipped_configs_are_conditional(name):
    config = load_config(name)
    assert (config.network["classes"], config.request.means, config.training.cond_drop) == (10, "both", 0.1)


def test_a_meaning_is_refused_before_anything_is_written(tmp_path):
    overrides = [one for one in OVERRIDES if one != "network.classes=10"]
    with pytest.raises(UserError, match="^request.means: 'both' is said to class-conditional generators"):
        msgm.compare({}, tmp_path / "run", overrides=overrides, device="cpu")
    assert not (tmp_path / "run" / "config.yaml").exists()
