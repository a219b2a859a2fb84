"""Names as files, writing whole or not at all, strays of dead writers, and locks."""

import errno
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from msgm import folders
from msgm.errors import UserError
from msgm.folders import (
    changing,
    check_name,
    check_names,
    inside,
    locked,
    place,
    recover,
    sweep,
    whole_folder,
    write_bytes,
    write_json,
    write_text,
)

UNSAFE = [
    "",
    ".",
    "..",
    "../../../../x",
    "a/b",
    "/etc/x",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\x1bb",
    "a\u2028b",
    "a\ud800b",
    ".hidden",
    "ends.",
    "ends ",
    " begins",
    "CON",
    "nul",
    "Com1",
    "lpt9.txt",
    "x" * 181,
    "ü" * 91,
    7,
    None,
]


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python on ``code``; its first line of output is read by ``started``."""
    text = "from msgm.folders import *\nimport sys, os, time\nfrom pathlib import Path\n" + textwrap.dedent(code)
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def started(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def hidden(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


@pytest.mark.parametrize("name", UNSAFE, ids=repr)
def test_an_unsafe_name_is_refused_with_its_key(name: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^rows: .*choose another\.$"):
        place(tmp_path, "rows", name, key="rows")


@pytest.mark.parametrize(
    "name", ["a", "orthogonal@alpha=0.7", "ä ö", "x.y", "com", "com10", "console", "x" * 180, "-1"]
)
def test_a_safe_name_is_one_component(name: str, tmp_path: Path) -> None:
    assert place(tmp_path, "rows", name) == tmp_path / "rows" / name
    assert place(tmp_path, "rows", name, ending=".json") == tmp_path / "rows" / f"{name}.json"
    write_text(place(tmp_path, name), "kept")
    assert (tmp_path / name).read_text() == "kept"


@pytest.mark.parametrize("twins", [["a", "A"], ["Straße", "STRASSE"], ["\u00e9", "e\u0301"], ["a", "b", "A"]])
def test_names_that_would_be_one_file_are_refused(twins: list[str]) -> None:
    with pytest.raises(UserError, match="methods: .*same file"):
        check_names(twins, "methods")


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="methods: 'a' is there twice"):
        check_names(["a", "b", "a"], "methods")


def test_names_of_msgm_are_refused_in_any_letter_case() -> None:
    check_names(["originals", "a"], "methods", ["original"])
    with pytest.raises(UserError, match=r"methods: 'Original' is a name that msgm itself uses"):
        check_names(["a", "Original"], "methods", ["original"])


def test_paths_of_received_files_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path)
    assert inside(tmp_path / "run", "rows/a/final.png") == tmp_path / "run" / "rows/a/final.png"
    for name in ["../x", "/etc/passwd", "rows/../../x", "link/x", "", None, 3, "a\0b"]:
        with pytest.raises(UserError, match="grid: "):
            inside(tmp_path / "run", name, "grid")


def test_a_write_that_fails_leaves_the_old_file_and_no_stray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "a.json", {"old": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_json(tmp_path / "a.json", {"new": 1})
    assert caught.value.filename == str(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert hidden(tmp_path) == []


def test_errors_of_the_machine_name_the_real_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(IsADirectoryError) as folder:
        write_text(tmp_path / "a.json", "x")
    assert folder.value.filename == str(tmp_path / "a.json")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as file:
        write_text(tmp_path / "file" / "sub" / "a.json", "x")
    assert "-" not in Path(file.value.filename).name
    with pytest.raises(NotADirectoryError) as replaced, whole_folder(tmp_path / "file"):
        pass
    assert replaced.value.filename == str(tmp_path / "file")
    with pytest.raises(FileNotFoundError) as within, whole_folder(tmp_path / "model") as new:
        (new / "missing" / "x").write_text("")
    assert within.value.filename == str(tmp_path / "model" / "missing" / "x")
    assert hidden(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError) as caught:
        write_text(tmp_path / "a.json", "x")
    assert caught.value.filename == str(tmp_path / "a.json")


def test_permissions_follow_the_umask_and_secrets_are_closed(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_bytes(tmp_path / "open", b"")
        write_bytes(tmp_path / "secret", b"", mode=0o600)
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("open", "secret")] == [0o644, 0o600]


def test_a_whole_folder_replaces_the_old_one_or_leaves_it(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with whole_folder(tmp_path / "model") as new:
            (new / "a").write_text(text)
    assert (tmp_path / "model" / "a").read_text() == "two"
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "model") as new:
        (new / "a").write_text("three")
        raise ZeroDivisionError
    assert (tmp_path / "model" / "a").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_writer_killed_at_any_moment_leaves_no_stray_and_loses_nothing(tmp_path: Path) -> None:
    code = """
        folder = Path(sys.argv[1])
        for name in ("a.json", "model/a"):
            write_text(folder / name, "0" * 100000)
        print("started", flush=True)
        for number in range(1, 10**9):
            write_text(folder / "a.json", str(number % 10) * 100000)
            with whole_folder(folder / "model") as new:
                (new / "a").write_text(str(number % 10) * 100000)
    """
    draw = random.Random(0)
    strays = 0
    for number in range(12):
        folder = tmp_path / str(number)
        writer = started(python(code, folder))
        time.sleep(draw.uniform(0, 0.03))
        end(writer)
        strays += len(hidden(folder))
        with locked(folder):
            assert hidden(folder) == []
            for name in ("a.json", "model/a"):
                text = (folder / name).read_text()
                assert text == text[0] * 100000
    assert strays > 0, "no kill fell into a write: the test shows nothing"


def test_a_kill_between_the_two_renames_is_mended(tmp_path: Path) -> None:
    code = """
        folder, renames = Path(sys.argv[1]), [0]
        with whole_folder(folder / "model") as new:
            (new / "a").write_text("one")
        real = os.replace
        def replace(old, new):
            real(old, new)
            os.kill(os.getpid(), 9)
        os.replace = replace
        with whole_folder(folder / "model") as new:
            (new / "a").write_text("two")
    """
    for number, mend in enumerate([sweep, lambda folder: recover(folder / "model")]):
        folder = tmp_path / str(number)
        python(code, folder).communicate()
        assert not (folder / "model").exists()
        mend(folder)
        assert (folder / "model" / "a").read_text() == "one"


def test_recover_leaves_what_is_there_and_what_belongs_to_others(tmp_path: Path) -> None:
    recover(tmp_path / "none" / "model")
    (tmp_path / ".other.old").mkdir()
    recover(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_living_writer_keeps_its_temporary_files(tmp_path: Path) -> None:
    code = """
        with whole_folder(Path(sys.argv[1]) / "rows" / "model") as new:
            print("started", flush=True)
            time.sleep(60)
    """
    writer = started(python(code, tmp_path))
    assert sweep(tmp_path) == []
    assert len(hidden(tmp_path)) == 1
    end(writer)
    assert len(sweep(tmp_path)) == 1
    assert hidden(tmp_path) == []


def test_a_stopped_process_that_nobody_reaped_is_dead(tmp_path: Path) -> None:
    code = """
        with whole_folder(Path(sys.argv[1]) / "model") as new:
            print("started", flush=True)
            time.sleep(60)
    """
    writer = started(python(code, tmp_path))
    writer.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
    assert len(sweep(tmp_path)) == 1
    writer.communicate()


def test_owners_are_told_apart_by_machine_boot_and_start(tmp_path: Path) -> None:
    (machine, boot), pid, start = folders._machine(), os.getpid(), folders._began(os.getpid())
    ours = tmp_path / f".a.{machine}-{boot}-{pid}-{start}-00000000.new"
    later = tmp_path / f".a.{machine}-{boot}-{pid}-{int(start or 0) + 1}-00000000.new"
    rebooted = tmp_path / f".a.{machine}-{'0' * 8}-{pid}-{start}-00000000.new"
    elsewhere = tmp_path / f".a.{'0' * 8}-{boot}-{pid}-{start}-00000000.new"
    for path in (ours, later, rebooted, elsewhere):
        path.touch()
    assert sorted(sweep(tmp_path)) == sorted([later, rebooted])
    os.utime(elsewhere, (0, 0))
    assert sweep(tmp_path) == [elsewhere]
    assert ours.exists()


def test_strays_of_the_first_version_are_swept_and_its_folders_come_back(tmp_path: Path) -> None:
    for name in (".model.new", ".model.old", "checkpoints/.step-00000100.new", "samples/.png.new", "rows/a/.model.new"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x").write_text(name)
    for name in (
        ".ids.json.ab3d_12c",
        ".key.0a234567",
        "rows/a/.final.png.zz9zz_zz",
        ".recommender.safetensors.a1b2c3d4",
    ):
        (tmp_path / name).write_text("x")
    own = [".gitignore", ".notes.md", ".cache.abcdefgh", ".ids.json", ".model.news", ".notes.json.original"]
    own += [".photo.png.unedited", ".config.yaml.20240531", ".log.jsonl.backup01", ".log.jsonl.backup_1"]
    for name in own:
        (tmp_path / name).write_text("x")
    sweep(tmp_path)
    assert hidden(tmp_path) == sorted(own)
    assert (tmp_path / "model" / "x").read_text() == ".model.old"


HOLD = """
    with locked(Path(sys.argv[1])):
        print("started", flush=True)
        time.sleep(60)
"""


def test_one_writer_at_a_time_across_processes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = started(python(HOLD, folder))
    with (
        pytest.raises(UserError, match=rf"{folder} is being changed by process {holder.pid} on ") as caught,
        locked(folder),
    ):
        pass
    assert "\n" not in str(caught.value)
    end(holder)
    with locked(folder), locked(folder / ".." / "run"):
        second = python(HOLD, folder)
        assert f"process {os.getpid()}" in second.communicate()[1]
    end(started(python(HOLD, folder)))


def test_the_first_process_of_torchrun_holds_the_lock_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = started(python(HOLD, tmp_path))
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match="being changed"), locked(tmp_path):
        pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    with locked(tmp_path):
        pass
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="being changed"), locked(tmp_path):
        pass
    end(holder)


def test_a_folder_around_or_within_one_that_is_written_is_refused(tmp_path: Path) -> None:
    row = tmp_path / "compare" / "rows" / "a"
    for held, asked in [(tmp_path / "compare", row), (row, tmp_path / "compare")]:
        held.mkdir(parents=True, exist_ok=True)
        holder = started(python(HOLD, held))
        with pytest.raises(UserError, match=rf"{held} is being changed by process {holder.pid} on "), locked(asked):
            pass
        end(holder)
    with locked(tmp_path / "compare"), locked(row):
        pass


def test_a_lock_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with locked(tmp_path / "run"):
            pass


def test_a_refused_command_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bad"), locked(tmp_path / "runs" / "a"):
        raise UserError("bad")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine"):
        pass
    with locked(tmp_path / "runs" / "b"):
        write_text(tmp_path / "runs" / "b" / "x", "")
    assert list((tmp_path / "mine").iterdir()) == []
    assert (tmp_path / "runs" / "b" / "x").is_file()


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    for folder in (tmp_path / "run", tmp_path / "run" / "sub"):
        with pytest.raises(UserError, match="cannot make the folder"), locked(folder):
            pass


def test_folders_need_no_torch() -> None:
    code = "import sys, msgm.folders, msgm.digests; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_name_is_returned_as_it_is() -> None:
    assert check_name("a b") == "a b"


def test_a_folder_that_its_last_holder_removes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, removed = os.open, []

    def late(path: Path, *given: int) -> int:
        if not removed:
            removed.append(path)
            path.parent.rmdir()
        return opened(path, *given)

    monkeypatch.setattr(folders.os, "open", late)
    with locked(tmp_path / "run"):
        assert removed == [tmp_path / "run" / "lock"]
        assert (tmp_path / "run" / "lock").is_file()


def test_many_processes_that_want_one_folder_never_write_at_once(tmp_path: Path) -> None:
    code = """
        folder, won = Path(sys.argv[1]), 0
        print("started", flush=True)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                with locked(folder):
                    os.close(os.open(folder / "alone", os.O_CREAT | os.O_EXCL))
                    won += 1
                    os.unlink(folder / "alone")
            except UserError:
                pass
        print(won)
    """
    writers = [started(python(code, tmp_path / "run")) for _ in range(3)]
    done = [writer.communicate() for writer in writers]
    assert [error for _, error in done] == ["", "", ""]
    assert min(int(out) for out, _ in done) > 0


def test_a_lock_whose_holder_was_killed_is_swept_and_one_that_is_held_stays(tmp_path):
    (tmp_path / "below").mkdir()
    left = [tmp_path / ".traces.json.lock", tmp_path / "below" / ".x.lock"]
    for path in [*left, tmp_path / "lock", tmp_path / ".lock", tmp_path / "a.lock"]:
        path.touch()
    with changing(tmp_path / "held.json"):
        assert sorted(folders.sweep(tmp_path)) == sorted(left)
        assert (tmp_path / ".held.json.lock").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "a.lock", "below", "lock"]
