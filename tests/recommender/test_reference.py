"""The commands of docs/reference/recommender.md, on experiments that take seconds."""

import re
import shlex
from pathlib import Path

from msgm import cli

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "recommender.md").read_text()


def commands():
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.S | re.M)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("msgm recommender")]


def test_the_page_compares_first():
    assert commands()[0] == ["recommender", "compare", "configs/recommender/synthetic.yaml"]


def test_cards_are_printed_and_configurations_named_exist(capsys):
    for what in ("models", "methods", "erasures"):
        assert cli.main(["recommender", what]) == 0
    assert "EASE" in capsys.readouterr().out
    named = set(re.findall(r"configs/recommender/\w+\.yaml", PAGE))
    assert named
    assert all((ROOT / name).is_file() for name in named)
