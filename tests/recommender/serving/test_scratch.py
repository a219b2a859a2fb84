"""The temporary folder of a server: gone at its end, and one that a kill left is gone at the next start."""

import fcntl
import os
import signal
import tempfile

import pytest

from msgm.recommender.serving.scratch import HELD, scratch


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left_by_a_kill(folder):
    process = os.fork()
    if process == 0:
        with scratch() as own:
            (own / "metrics.db").write_bytes(b"0")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    return next(folder.iterdir())


def test_it_is_removed_at_the_end(temporary):
    with scratch() as own:
        assert list(temporary.iterdir()) == [own]
    assert list(temporary.iterdir()) == []


def test_one_that_a_killed_server_left_is_removed_by_the_next(temporary):
    left = left_by_a_kill(temporary)
    assert (left / "metrics.db").exists()
    with scratch() as own:
        assert list(temporary.iterdir()) == [own]


def test_one_of_a_server_that_lives_stays(temporary):
    with scratch() as own:
        with scratch() as other:
            assert set(temporary.iterdir()) == {own, other}
        assert (own / HELD).exists()


@pytest.mark.parametrize(
    "made", [lambda path: path.mkdir(), lambda path: path.write_text(""), lambda path: path.symlink_to("/")]
)
def test_what_no_server_of_this_kind_left_stays(temporary, made):
    made(temporary / "msgm-serve-other")
    with scratch():
        pass
    assert (temporary / "msgm-serve-other").exists()


def test_nobody_finds_a_new_one_without_its_lock(temporary, monkeypatch):
    replace, states = os.replace, []

    def watched(new, path):
        replace(new, path)
        with open(path, "rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        states.append(path.name)

    monkeypatch.setattr(os, "replace", watched)
    with scratch():
        assert states == [HELD]
