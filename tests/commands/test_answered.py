"""What ``msgm verify`` says of the requests that models have answered."""

import json
from pathlib import Path

import pytest

from msgm.commands import answered
from msgm.errors import RunError, UserError
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.models.base import load_recommender
from msgm.recommender.service import Service


def served(folder: Path, model: str) -> Path:
    """Return a folder that has answered three requests, one after the other."""
    overrides = ["data.name=synthetic", "data.users=40", "data.items=30", "data.interactions=400"]
    fit(load_config(None, [*overrides, f"models.{model}={{}}"]), model, folder)
    seen = load_recommender(folder).seen.tocoo()
    ids = json.loads((folder / "ids.json").read_text())
    pair = next((u, i) for u, i in zip(seen.row, seen.col, strict=True) if u not in (2, 8) and i != 4)
    cell = [ids["users"][pair[0]], ids["items"][pair[1]]]
    for kind, named in [("users", ["user3", "user9"]), ("items", ["item5"]), ("interactions", [cell])]:
        Service(folder).forget(kind, named, together=True)
    return folder


@pytest.mark.parametrize(("model", "exactness"), [("ease", "exact up to rounding"), ("bpr", "bit-exact")])
def test_a_chain_of_three_requests_is_told_and_tested(tmp_path, model, exactness):
    folder = served(tmp_path / "served", model)
    told = answered.lines(folder)
    assert [line.split(":")[0] for line in told] == [
        "request 1 (users, 2)",
        "request 2 (items, 1)",
        "request 3 (interactions, 1)",
    ]
    assert all(f"{exactness}; no file here names what it asked for" in line for line in told)
    seen = load_recommender(folder).seen
    assert seen[[2, 8]].nnz == 0
    assert seen[:, [4]].nnz == 0


def test_an_id_of_the_first_request_that_is_back_is_found(tmp_path):
    folder = served(tmp_path / "served", "ease")
    ids = json.loads((folder / "ids.json").read_text())
    ids["users"][2] = "user3"
    (folder / "ids.json").write_text(json.dumps(ids))
    with pytest.raises(RunError, match=r"ids.json still names users or items that were forgotten"):
        answered.lines(folder)


def test_a_line_taken_out_of_the_journal_is_noticed(tmp_path):
    folder = served(tmp_path / "served", "ease")
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="lines are missing at its end"):
        answered.lines(folder)
