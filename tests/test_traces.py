"""The register of what was written and what that saw; forget-traces and verify."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from msgm import traces
from msgm.errors import UserError
from msgm.folders import write_text
from msgm.reading import read_json
from msgm.traces import FILE, delete, follow, holders, of_request, register, report_lines, seal, verify


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A compare folder with two rows whose base came from another run."""
    other, run = tmp_path / "A", tmp_path / "B"
    for folder in (other, run / "rows" / "base", run / "rows" / "retrain"):
        write_text(folder / "model" / "w.safetensors", folder.name)
    register(other, other / "model", "the first model", "all")
    seal(other, other / "model")
    register(run / "rows" / "base", run / "rows" / "base" / "model", "the base model", "all")
    follow(run / "rows" / "base", other / "model")
    register(run / "rows" / "retrain", run / "rows" / "retrain" / "model", "a retrained model", "retain", "a")
    register(run, run / "judge", "the judge")
    seal(run / "rows" / "base", run / "rows" / "base" / "model")
    return run


def paths(found: list[dict[str, object]] | None) -> list[object]:
    return [line["path"] for line in found or []]


def test_the_list_follows_sources_and_leaves_out_what_is_not_there(run: Path) -> None:
    assert paths(holders(run)) == ["rows/base/model", "rows/retrain/model", "../A/model"]


def test_a_retrained_model_holds_the_items_of_other_requests_alone(run: Path) -> None:
    found = holders(run)
    assert paths(of_request(found, "a")) == ["rows/base/model", "../A/model"]
    assert paths(of_request(found, "b")) == ["rows/base/model", "rows/retrain/model", "../A/model"]
    assert of_request(None, "a") is None
    first = [{"path": "x", "what": "y", "megabytes": 1.0}]
    assert of_request(first, "a") == first


def test_the_teacher_saw_the_items_to_forget(run: Path) -> None:
    write_text(run / "rows" / "base" / "teacher" / "model" / "w", "x")
    register(run / "rows" / "base", run / "rows" / "base" / "teacher", *traces.KNOWN["teacher"])
    line = next(line for line in holders(run) if line["path"] == "rows/base/teacher")
    assert (line["part"], line in (of_request(holders(run), "a") or [])) == ("forget", True)


def test_what_is_listed_can_be_deleted_and_nothing_else(run: Path) -> None:
    for name in ("../A/model", "../A", "/etc/passwd", "rows/base/other", "rows", "lock"):
        with pytest.raises(UserError, match="--delete: "):
            delete(run, ["rows/base/model", name])
    assert (run / "rows" / "base" / "model").is_dir()
    assert delete(run, ["rows/base/model"]) == [run / "rows" / "base" / "model"]
    assert not (run / "rows" / "base" / "model").exists()
    assert paths(holders(run)) == ["rows/retrain/model", "../A/model"]
    with pytest.raises(UserError, match="holds no hashes"):
        verify(run)
    with pytest.raises(UserError, match=r"missing is no folder; give a run"):
        verify(run / "missing")


def test_verify_names_what_was_changed_lost_or_added(run: Path) -> None:
    assert verify(run) == (1, [])
    model = run / "rows" / "base" / "model"
    write_text(model / "w.safetensors", "other")
    write_text(model / "more.safetensors", "x")
    count, faults = verify(run)
    assert count == 1
    assert faults == [
        f"{model / 'w.safetensors'} is not as it was written.",
        f"{model / 'more.safetensors'} was not there when the model was written.",
    ]
    shutil.rmtree(model)
    assert verify(run)[1] == [f"{model / 'w.safetensors'} is missing."]


def test_sealing_again_replaces_the_hashes_below_the_path_alone(run: Path) -> None:
    write_text(run / "report.json", "{}")
    write_text(run / "model" / "a", "1")
    seal(run, run / "report.json", run / "model")
    (run / "model" / "a").unlink()
    write_text(run / "model" / "b", "1")
    seal(run, run / "model")
    assert list(json.loads((run / "traces.json").read_text())["hashes"]) == ["model/b", "report.json"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd"])
def test_a_received_register_names_nothing_outside(name: str, run: Path) -> None:
    tree = json.loads((run / "traces.json").read_text())
    tree["written"][name] = {"what": "x", "part": "all", "request": None}
    tree["hashes"][name] = "0"
    write_text(run / "traces.json", json.dumps(tree))
    with pytest.raises(UserError, match="leads out of"):
        holders(run)
    with pytest.raises(UserError, match="leads out of"):
        verify(run)


def test_a_source_that_is_no_run_is_not_walked_through(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "neighbour"
    register(other, other / "model", "a model of somebody else")
    (other / "model").mkdir()
    tree = json.loads((run / "traces.json").read_text())
    write_text(run / "traces.json", json.dumps(tree | {"sources": [*tree["sources"], "..", "/"]}))
    assert not [line for line in report_lines(run) if "somebody else" in line]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"format": 1, "written": [], "sources": [], "hashes": {}}',
        '{"format": 1, "written": {}, "sources": [1], "hashes": {}}',
        '{"format": 1, "written": {"model": 5}, "sources": [], "hashes": {}}',
        '{"format": 1, "written": {"model": {"what": "x"}}, "sources": [], "hashes": {}}',
    ],
)
def test_a_damaged_register_is_refused(text: str, run: Path) -> None:
    write_text(run / "traces.json", text)
    with pytest.raises(UserError, match=r"traces\.json"):
        holders(run)


def test_folders_of_the_first_version_are_known_by_names_which_is_said(tmp_path: Path) -> None:
    for name in ("A/model/w", "B/model/w", "B/teacher/model/w", "B/checkpoints/step-1/w", "B/outputs/q/original.npz"):
        write_text(tmp_path / name, "x")
    write_text(tmp_path / "A" / "manifest.json", '{"start": "scratch", "objective": "standard"}')
    write_text(tmp_path / "B" / "manifest.json", '{"source": "A/model", "start": "finetune", "objective": "unseen"}')
    assert paths(holders(tmp_path / "B")) == ["model", "checkpoints", "teacher", "outputs/q/original.npz", "../A/model"]
    assert not any(line["registered"] for line in holders(tmp_path / "B"))
    assert any("first version" in line for line in report_lines(tmp_path / "B"))


def test_a_retrained_row_of_the_first_version_holds_nothing_of_its_request(tmp_path: Path) -> None:
    write_text(tmp_path / "rows/new/model/w", "x")
    manifest = {"start": "scratch", "objective": "unseen", "request": "removal of 3"}
    write_text(tmp_path / "rows/new/manifest.json", json.dumps(manifest))
    assert of_request(holders(tmp_path), "removal of 3") == []
    assert paths(of_request(holders(tmp_path), "removal of 7")) == ["rows/new/model"]


def test_processes_that_share_a_folder_lose_nothing_that_another_registers_or_seals(tmp_path):
    def write(first: int) -> None:
        for number in range(first, first + 10):
            path = tmp_path / f"{number}.npz"
            path.write_text("")
            register(tmp_path, path, "logits")
            seal(tmp_path, path)

    with ThreadPoolExecutor(4) as executor:  # each opens the lock file for itself, as a process does
        list(executor.map(write, range(0, 40, 10)))
    found = read_json(tmp_path / FILE, traces.Register)
    assert set(found["written"]) == set(found["hashes"]) == {f"{number}.npz" for number in range(40)}
    assert not list(tmp_path.glob(".*"))
