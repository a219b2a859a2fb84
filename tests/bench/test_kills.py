"""Kills of a recommender, few of them: scripts/bench/kills.py has found nothing, and finds what is wrong."""

import pytest

from msgm.folders import write_bytes
from msgm.recommender.models.base import FILE
from msgm.recommender.service import Service
from scripts.bench import kills


def test_killed_commands_lose_nothing(tmp_path, capsys):
    found = kills.measure(made(tmp_path), forget=4, serve=0, seed=0)
    assert found["forget"].faults == []
    assert (found["forget"].kills <= 4, found["forget"].answered) == (True, 5 * kills.AT_ONCE)
    assert "| forget |" in capsys.readouterr().out


def made(place):
    (place / "all").mkdir()
    return place / "all"


@pytest.fixture
def forgotten(tmp_path):
    """A folder that forgot three users, its users, and what their callers were told."""
    folder, users = kills.made(tmp_path)
    before = (folder / FILE).read_bytes()
    Service(folder).forget("users", users[:3])
    return folder, users, {user: [number] for number, user in enumerate(users[:3], start=1)}, before


def examined(folder, users, told):
    found = kills.Found()
    kills.examine(found, folder, users, told)
    return found


def test_a_folder_that_is_right_has_no_fault(forgotten):
    folder, users, told, _ = forgotten
    found = examined(folder, users, told)
    assert (found.faults, found.answered) == ([], 3)


def test_what_is_wrong_is_found(forgotten):
    folder, users, told, before = forgotten
    (folder / ".ids.json.abc").write_text("")
    found = examined(folder, users, told | {users[0]: [2], users[5]: [4]})
    assert found.lost == [f"{users[5]}: answered, and not done"]
    assert found.twice == [f"{users[0]}: told [2], and the journal has 1"]
    assert found.strays == [".ids.json.abc"]
    write_bytes(folder / FILE, before)
    assert "the model is not that of one undisturbed call" in examined(folder, users, told).lost


def test_a_user_who_was_answered_twice_is_found(forgotten, monkeypatch):
    folder, users, told, _ = forgotten
    monkeypatch.setattr(kills, "Journal", doubled(folder))
    found = examined(folder, users, told)
    assert len([fault for fault in found.twice if fault.startswith(("request 3", "digest"))]) == 2


def doubled(folder):
    journal = kills.Journal(folder)
    journal.lines.append(next(line for line in journal.lines if (line["request"], line["state"]) == (3, "done")))
    return lambda _: journal
