"""Which cells are run, in which order, and what becomes of one that fails."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from threadpoolctl import threadpool_info

from msgm import processes
from msgm.errors import RunError, UserError
from msgm.reading import read_json
from msgm.study.cells import Elsewhere, Latest, _stages, run_cells
from msgm.study.executors import Workers
from msgm.study.records import ModelCell, RecordCell


@dataclass(frozen=True)
class Small:
    """A comparison of one model that two of three rows read; ``log`` tells what was made, and by whose preparation."""

    folder: Path
    model: str = "made"
    rows: tuple[str, ...] = ("one", "two", "alone")
    blas_threads: int | None = None

    def cells(self) -> Iterator[ModelCell | RecordCell]:
        self.log("prepared")
        for name in self.rows:
            after = () if name == "alone" else ["model"]
            yield RecordCell(name, self.folder / f"{name}.json", {}, lambda name=name: self.row(name), after=after)
        yield ModelCell("model", (self.folder / "model").exists, self.make)

    def log(self, text: str) -> None:
        with (self.folder / "log").open("a") as file:
            file.write(f"{text}\n")

    def told(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()

    def make(self) -> str:
        self.log("model")
        if self.model == "failed":
            raise RunError("the loss is not finite.")
        if self.model == "unfit":
            raise UserError("it does not fit.")
        if self.model == "stopped":
            raise KeyboardInterrupt
        (self.folder / "model").touch()
        return "1.500 s"

    def row(self, name: str) -> dict[str, object]:
        self.log(name)
        return {"seconds": 2.0, "blas": sorted({pool["num_threads"] for pool in threadpool_info()})}


@pytest.fixture(params=["here", "elsewhere"])
def run(request, tmp_path):
    """Run the cells of a comparison in this process, or as another one takes it up."""
    if request.param == "here":
        yield lambda small: run_cells(small.cells())
        return
    with ThreadPoolExecutor(1) as executor:
        yield lambda small: run_cells(small.cells(), Elsewhere(Workers(executor, None, None), small.folder, small))


def made(small: Small) -> list[str]:
    return [line for line in small.told() if line != "prepared"]


def test_what_others_come_after_is_made_first(run, tmp_path, capsys):
    run(Small(tmp_path))
    assert made(Small(tmp_path)) == ["model", "one", "two", "alone"]
    assert capsys.readouterr().out.splitlines() == ["model: 1.500 s", "one: 2.000 s", "two: 2.000 s", "alone: 2.000 s"]


def test_what_is_there_is_kept_and_a_model_that_nobody_needs_is_not_made_again(run, tmp_path, capsys):
    run(Small(tmp_path))
    capsys.readouterr()
    run(Small(tmp_path))
    assert capsys.readouterr().out.splitlines() == ["one: kept", "two: kept", "alone: kept"]
    (tmp_path / "model").unlink()
    (tmp_path / "alone.json").unlink()
    run(Small(tmp_path))
    assert made(Small(tmp_path)) == ["model", "one", "two", "alone", "alone"]
    assert capsys.readouterr().out.splitlines() == ["one: kept", "two: kept", "alone: 2.000 s"]


@pytest.mark.parametrize(
    ("model", "record", "failed"),
    [
        ("failed", {"status": "failed", "reason": "the loss is not finite."}, ["model", "one", "two"]),
        ("unfit", {"status": "skipped", "reason": "it does not fit."}, []),
    ],
)
def test_what_comes_after_a_cell_that_failed_fails_for_its_reason_and_the_others_go_on(
    run, tmp_path, capsys, model, record, failed
):
    assert run(Small(tmp_path, model)) == dict.fromkeys(failed, record["reason"])
    assert made(Small(tmp_path)) == ["model", "alone"]
    told = [f"{name}: {record['reason']}" for name in ("model", "one", "two")]
    assert capsys.readouterr().out.splitlines() == [*told, "alone: 2.000 s"]
    for name in ("one", "two"):
        assert read_json(tmp_path / f"{name}.json") == {"made": {}} | record


def faulty() -> dict[str, object]:
    raise ValueError("bad shape.")


def test_a_cell_that_fails_keeps_why_and_the_next_one_is_run(tmp_path):
    cells = [RecordCell("bad", tmp_path / "bad.json", {}, faulty), RecordCell("good", tmp_path / "good.json", {}, dict)]
    assert run_cells(cells) == {"bad": "ValueError: bad shape."}
    assert read_json(tmp_path / "bad.json")["status"] == "failed"
    assert cells[1].kept()


def test_a_cell_that_fails_among_several_processes_of_a_launch_ends_them(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "sharing", lambda: 2)
    with pytest.raises(RunError, match=r"^bad: ValueError: bad shape\.$"):
        run_cells([RecordCell("bad", tmp_path / "bad.json", {}, faulty)])
    assert not (tmp_path / "bad.json").exists()


def test_a_row_that_others_read_is_made_once_and_before_them(tmp_path):
    order: list[str] = []

    def cell(name: str, *after: str) -> RecordCell:
        return RecordCell(name, tmp_path / f"{name}.json", {}, lambda: order.append(name) or {}, after=after)

    assert run_cells([cell("second", "first"), cell("first")]) == {}
    assert order == ["first", "second"]


def test_what_failed_is_tried_again(run, tmp_path):
    run(Small(tmp_path, "failed"))
    run(Small(tmp_path))
    assert made(Small(tmp_path)) == ["model", "alone", "model", "one", "two"]


def test_a_cell_that_is_stopped_stops_the_others(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Small(tmp_path, "stopped"))
    assert made(Small(tmp_path)) == ["model"]


def test_another_process_prepares_a_comparison_once(tmp_path):
    small = Small(tmp_path, blas_threads=1)
    with ThreadPoolExecutor(1) as executor:
        run_cells(small.cells(), Elsewhere(Workers(executor, None, None), tmp_path, small))
    assert small.told().count("prepared") == 2  # in this process as well
    assert read_json(tmp_path / "one.json")["blas"] == [1]


def test_the_latest_thing_is_kept_and_the_one_before_let_go():
    latest: Latest[list[int]] = Latest()
    first = latest.get("a", list)
    assert latest.get("a", list) is first
    assert latest.get("b", list) is not first
    assert latest.get("a", list) is not first


@pytest.mark.parametrize(
    ("after", "stages"),
    [
        ({"row": ["edit"], "edit": ["base"], "base": [], "alone": []}, [["base"], ["edit"], ["row", "alone"]]),
        ({"row": ["base"], "other": ["kept"], "base": []}, [["base"], ["row", "other"]]),
    ],
)
def test_cells_are_run_in_stages(after, stages):
    cells = [SimpleNamespace(label=label, after=labels) for label, labels in after.items()]
    found = _stages(cells, range(len(cells)))
    assert [[cells[number].label for number in stage] for stage in found] == stages


def test_cells_that_wait_for_each_other_are_an_error():
    cells = [SimpleNamespace(label=label, after=labels) for label, labels in (("a", ["b"]), ("b", ["a"]))]
    with pytest.raises(ValueError, match="wait for each other: a, b"):
        list(_stages(cells, [0, 1]))
