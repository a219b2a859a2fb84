"""A served model: crashes between two requests, two writers, bad requests; nothing lost, repeated or left behind."""

import gzip
import hashlib
import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from msgm.errors import RunError, UserError
from msgm.folders import locked, write_json
from msgm.reading import read_json
from msgm.recommender import answering as module
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.journal import DONE, PLANNED, REFUSED, Journal, id_digest
from msgm.recommender.models.base import Recommender, load_recommender
from msgm.recommender.service import Service
from msgm.traces import delete, verify

CONFIG = [
    "data={name: synthetic, users: 60, items: 40, interactions: 900, least: 5}",
    "models={ease: {regularisation: 20.0}, item-knn: {}}",
]
USERS = ["user3", "user9", "user27"]


def killed(folder, steps, ids=USERS, kind="users"):
    """Ask a process of its own to forget ``ids``, which kills itself once it has taken so many steps."""
    process = os.fork()
    if process == 0:
        left = iter(range(steps))
        for owner, name in ((Recommender, "save"), (Journal, "extend"), (module, "write_ids")):
            setattr(owner, name, _dying(getattr(owner, name), left))
        Service(folder).forget(kind, ids)
        os._exit(1)
    return os.WTERMSIG(os.waitpid(process, 0)[1])


def _dying(step, left):
    def run(*arguments, **settings):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments, **settings)

    return run


@pytest.fixture
def folder(tmp_path):
    return fit(load_config(None, CONFIG), "ease", tmp_path / "served")


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def content(folder):
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_lists_hold_neither_what_is_forgotten_nor_what_the_user_has(folder):
    service = Service(folder)
    before = service.recommend("user5", 10)
    assert len(before) == 10
    service.forget("items", before[:3])
    after = service.recommend("user5", 10)
    assert not set(before[:3]) & set(after)
    for user in (f"user{k}" for k in range(1, 61)):
        assert not set(before[:3]) & set(service.recommend(user, 40))
    service.forget("users", ["user5"])
    with pytest.raises(UserError, match="unknown user 'user5'"):
        service.recommend("user5", 10)


def test_forgetting_is_that_of_the_model_and_single_requests_end_where_one_for_all_does(folder, tmp_path):
    other = fit(load_config(None, CONFIG), "ease", tmp_path / "other")
    outcome = Service(folder).forget("users", USERS)
    assert (outcome.numbers, [a.exactness for a in outcome.answers]) == ([1, 2, 3], ["exact up to rounding"] * 3)
    assert Service(other).forget("users", USERS, together=True).numbers == [1]
    one, all_at_once = load_recommender(folder), load_recommender(other)
    assert np.allclose(one.inverse, all_at_once.inverse, atol=1e-12)
    assert (one.seen != all_at_once.seen).nnz == 0
    assert (one.applied, all_at_once.applied) == (3, 1)


def test_no_forgotten_id_stays_in_the_folder(folder):
    service = Service(folder)
    pair = ["user7", service.recommend("user7", 1)[0]]
    item = next(i for i in read_json(folder / "ids.json")["items"] if i != pair[1])
    service.forget("users", ["user3"])
    service.forget("items", [item])
    assert b'"user3"' not in content(folder)
    assert f'"{item}"'.encode() not in content(folder)
    assert not (folder / "pending.json").exists()
    assert "user" not in (folder / "journal.jsonl").read_text().replace('"kind": "users"', "")
    ids = read_json(folder / "ids.json")["users"]
    assert ids.count(None) == 1
    assert len(ids) == 60


def test_a_forgotten_interaction_leaves_the_user_and_the_item(folder):
    model = load_recommender(folder)
    ids = read_json(folder / "ids.json")
    pair = [ids["users"][0], ids["items"][int(model.seen[[0]].indices[0])]]
    Service(folder).forget("interactions", [pair])
    assert load_recommender(folder).seen.nnz == model.seen.nnz - 1
    assert read_json(folder / "ids.json") == ids
    assert pair[1] not in (folder / "journal.jsonl").read_text()


@pytest.mark.parametrize(
    ("seconds", "steps"), [*((0.0, steps) for steps in range(10)), *((10.0, steps) for steps in range(4))]
)
def test_a_kill_at_any_moment_loses_no_request_and_repeats_none(folder, tmp_path, monkeypatch, seconds, steps):
    """A write of planned lines; then for each group, three or one: save, erase ids, a write of done lines."""
    monkeypatch.setattr(module, "AT_RISK", seconds)
    monkeypatch.setattr(module, "WRITING_SHARE", np.inf)
    assert killed(folder, steps) == signal.SIGKILL
    service = Service(folder)
    for user in USERS:
        with pytest.raises(UserError, match=f"user '{user}' is being forgotten|unknown user '{user}'"):
            service.recommend(user, 3)
    if steps % 2:
        service.resume()
    else:
        service.forget("users", USERS)
    lines = Journal(folder).lines
    for state in (PLANNED, DONE):
        assert [line["request"] for line in lines if line["state"] == state] == [1, 2, 3]
    model = load_recommender(folder)
    assert model.applied == 3
    assert model.gone_users.sum() == 3
    whole = fit(load_config(None, CONFIG), "ease", tmp_path / "whole")
    Service(whole).forget("users", USERS)
    assert np.array_equal(model.inverse, load_recommender(whole).inverse)
    assert not any(f'"{user}"'.encode() in content(folder) for user in USERS)


def test_a_stream_of_answers_is_written_once_unless_it_takes_long(folder, monkeypatch):
    writes, save = [], Recommender.save
    monkeypatch.setattr(Recommender, "save", lambda model, to: writes.append(model.applied) or save(model, to))
    Service(folder).forget("users", [f"user{k}" for k in range(1, 21)])
    assert writes == [20]
    monkeypatch.setattr(module, "WRITING_SHARE", np.inf)
    clock = iter(range(0, 1000, 4))  # each answer takes four seconds: a group has three
    monkeypatch.setattr(module, "perf_counter", lambda: next(clock))
    Service(folder).forget("users", [f"user{k}" for k in range(21, 29)])
    assert writes == [20, 23, 26, 28]


def test_writing_takes_no_more_than_its_share(folder, monkeypatch):
    """Writing that takes four seconds makes groups of sixteen, four answers of four seconds each."""
    writes, save = [], Recommender.save
    monkeypatch.setattr(Recommender, "save", lambda model, to: writes.append(model.applied) or save(model, to))
    monkeypatch.setattr(module, "AT_RISK", 1.0)
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(module, "perf_counter", lambda: next(clock))
    Service(folder).forget("users", [f"user{k}" for k in range(1, 11)])
    assert writes == [1, 5, 9, 10]


@pytest.mark.parametrize("cut", range(1, 6))
def test_done_lines_of_which_a_crash_wrote_some_are_gone_on_with(folder, cut):
    """A crash after ``cut`` thirds of the six lines, at the end of a line and in the middle of one."""
    assert killed(folder, 3) == signal.SIGKILL
    pending = (folder / "pending.json").read_bytes()
    Service(folder).resume()
    content = (folder / "journal.jsonl").read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == 6
    at = ends[2] + (ends[5] - ends[2]) * cut // 6 if cut % 2 else ends[2 + cut // 2]
    (folder / "journal.jsonl").write_bytes(content[:at])
    (folder / "pending.json").write_bytes(pending)
    before = load_recommender(folder).inverse
    assert Service(folder).resume().numbers == [1, 2, 3]
    lines = Journal(folder).lines
    assert [line["request"] for line in lines if line["state"] == DONE] == [1, 2, 3]
    assert np.array_equal(load_recommender(folder).inverse, before)


@pytest.mark.parametrize("steps", range(4))
def test_what_a_kill_within_a_write_leaves_is_removed(folder, steps, monkeypatch):
    """Pending requests, model, ids and register are written under a hidden name before they are renamed."""
    names = {path.name for path in folder.iterdir()}
    process = os.fork()
    if process == 0:
        os.replace = _dying(os.replace, iter(range(steps)))
        Service(folder).forget("users", USERS)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
    assert any(path.name.endswith(".new") for path in folder.iterdir())
    Service(folder).forget("users", USERS)
    assert {path.name for path in folder.iterdir()} == names
    assert Journal(folder).numbers(DONE) == {1, 2, 3}


@pytest.mark.parametrize("fails", [False, True])
def test_a_request_that_comes_while_a_list_is_made_is_not_in_it(folder, monkeypatch, fails):
    """Nor does it matter that files which were read before and after it do not fit."""
    service = Service(folder)
    best = service.recommend("user5", 1)[0]
    listed, asked = Service._listed, []

    def interrupted(reader, user, k):
        found = listed(reader, user, k)
        if not asked:
            asked.append(killed(folder, 0, [best], "items"))
            if fails:
                raise UserError("pending.json: it does not fit.")
        return found

    monkeypatch.setattr(Service, "_listed", interrupted)
    assert best not in service.recommend("user5", 40)
    assert asked == [signal.SIGKILL]


def test_what_was_answered_is_not_done_again(folder):
    Service(folder).forget("users", USERS)
    before = digests(folder)
    outcome = Service(folder).forget("users", USERS)
    assert (outcome.numbers, outcome.before) == ([], [1, 2, 3])
    assert Service(folder).resume().numbers == []
    assert digests(folder) == before


def test_a_list_that_grew_answers_what_is_new_alone(folder):
    Service(folder).forget("users", USERS[:2])
    outcome = Service(folder).forget("users", USERS)
    assert (outcome.numbers, outcome.before) == ([3], [1, 2])
    assert load_recommender(folder).gone_users.sum() == 3
    before = digests(folder)
    with pytest.raises(UserError, match="unknown user 'nobody'"):
        Service(folder).forget("users", [*USERS, "nobody"])
    assert digests(folder) == before


@pytest.mark.parametrize("steps", range(4))
def test_a_list_that_grew_is_gone_on_with_after_a_crash(folder, steps):
    Service(folder).forget("users", ["user11"])
    assert killed(folder, steps, ["user11", *USERS]) == signal.SIGKILL
    outcome = Service(folder).forget("users", ["user11", *USERS])
    assert (outcome.numbers, outcome.before) == ([2, 3, 4], [1])
    assert load_recommender(folder).applied == 4
    assert [line["request"] for line in Journal(folder).lines if line["state"] == DONE] == [1, 2, 3, 4]


def test_other_requests_wait_until_unfinished_ones_are_finished(folder):
    killed(folder, 2)
    before = digests(folder)
    with pytest.raises(UserError, match="has unfinished requests; finish them first with --resume"):
        Service(folder).forget("users", ["user11"])
    assert {**digests(folder), "lock": ""} == {**before, "lock": ""}
    Service(folder).resume()
    assert Service(folder).forget("users", ["user11"]).numbers == [4]


def test_a_served_folder_can_be_verified_after_every_command(folder):
    assert verify(folder) == (3, [])
    Service(folder).forget("users", ["user3"])
    assert verify(folder) == (3, [])
    (folder / "ids.json").write_text("{}")
    assert verify(folder)[1] == [f"{folder / 'ids.json'} is not as it was written."]


def test_a_torn_last_line_of_the_journal_is_cut_off(folder):
    service = Service(folder)
    service.forget("users", ["user3"])
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"state": "pla')
    assert service.forget("users", ["user4"]).numbers == [2]
    assert len(Journal(folder).lines) == 4


def test_two_writers_are_refused_and_the_lock_of_a_dead_process_is_taken_over(folder):
    with locked(folder), ThreadPoolExecutor(1) as pool:
        before = digests(folder)
        with pytest.raises(UserError, match=f"is being changed by process {os.getpid()} on .*; try again"):
            pool.submit(Service(folder).forget, "users", USERS).result()
        assert digests(folder) | {"lock": ""} == before | {"lock": ""}
        assert Service(folder).recommend("user3", 2)
    (folder / "lock").write_text("999999")
    assert Service(folder).forget("users", USERS).numbers == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "ids", "sentence"),
    [
        ("users", ["user3", "nobody"], "unknown user 'nobody'"),
        ("users", ["user3", "user4", "user3"], "user user3 is given twice"),
        ("users", [f"user{k}" for k in range(1, 61)], "nothing is left"),
        ("items", ["item0"], "unknown item 'item0'"),
        ("interactions", [["user3", "item0"]], "unknown item 'item0'"),
        ("interactions", [["user1", "item1"]] * 2, "interaction user1 with item1 is given twice"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_bad_requests_change_nothing(folder, kind, ids, sentence, together):
    before = digests(folder)
    with pytest.raises(UserError, match=sentence):
        Service(folder).forget(kind, ids, together)
    assert digests(folder) == before


def test_a_pair_that_was_never_seen_changes_nothing(folder):
    unseen = Service(folder).recommend("user3", 1)[0]
    before = digests(folder)
    with pytest.raises(UserError, match=f"the model never saw item '{unseen}' with user 'user3'"):
        Service(folder).forget("interactions", [["user3", unseen]])
    assert digests(folder) == before


def test_digests_in_the_journal_depend_on_the_folders_key(folder, tmp_path):
    other = fit(load_config(None, CONFIG), "ease", tmp_path / "other")
    for place in (folder, other):
        Service(place).forget("users", ["user3"])
    assert Journal(folder).lines[0]["digests"] != Journal(other).lines[0]["digests"]


def test_what_is_no_served_model_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="holds no recommender"):
        Service(tmp_path)
    with pytest.raises(
        UserError, match=r"holds a recommender already; delete \S+recommender.safetensors to fit it anew"
    ):
        fit(load_config(None, CONFIG), "ease", folder)
    with pytest.raises(UserError, match="--model: say which; the config has ease, item-knn"):
        fit(load_config(None, CONFIG), None, tmp_path / "new")
    (folder / "key").unlink()
    with pytest.raises(UserError, match="lacks key"):
        Service(folder)


def test_a_damaged_journal_is_refused(folder):
    (folder / "journal.jsonl").write_text("no json\n")
    with pytest.raises(UserError, match=r"journal.jsonl, line 1 is damaged: .*; no line can be trusted"):
        Service(folder).forget("users", ["user3"])
    (folder / "journal.jsonl").write_text("")
    write_json(folder / "ids.json", {"users": ["a", "a"], "items": []})
    with pytest.raises(UserError, match="not unique"):
        Service(folder).recommend("a", 1)


def test_what_was_answered_is_left_alone_in_a_joint_request_too(folder):
    service = Service(folder)
    service.forget("users", ["user3"])
    outcome = service.forget("users", USERS, together=True)
    assert (outcome.numbers, outcome.before) == ([2], [1])
    assert load_recommender(folder).gone_users.sum() == 3
    assert service.forget("users", USERS, together=True).before == [1, 2]
    assert service.forget("users", ["user9"]).before == [2]


def test_a_pair_of_a_forgotten_user_or_item_was_answered_with_it(folder):
    service, model, ids = Service(folder), load_recommender(folder), read_json(folder / "ids.json")
    own = [ids["items"][item] for item in model.seen[[ids["users"].index("user7")]].indices[:2]]
    other = ids["items"][model.seen[[ids["users"].index("user3")]].indices[0]]
    service.forget("users", ["user3"])
    service.forget("items", own[:1])
    outcome = service.forget("interactions", [["user3", other], ["user7", own[0]], ["user7", own[1]]])
    assert (outcome.numbers, outcome.before) == ([3], [1, 2])


@pytest.mark.parametrize("wanted", [UserError("the numbers explode."), np.linalg.LinAlgError("singular")])
def test_a_request_that_the_model_cannot_answer_is_refused_and_the_others_are_answered(folder, monkeypatch, wanted):
    forget = Recommender.forget

    def failing(model, deletion):
        if deletion.users.tolist() == [read_json(folder / "ids.json")["users"].index("user9")]:
            model.seen.data[:] = 0
            raise wanted
        return forget(model, deletion)

    monkeypatch.setattr(Recommender, "forget", failing)
    outcome = Service(folder).forget("users", USERS)
    assert (outcome.numbers, len(outcome.answers), outcome.refused) == ([1, 2, 3], 2, {2: str(wanted)})
    assert [line["reason"] for line in Journal(folder).lines if line["state"] == REFUSED] == [str(wanted)]
    assert load_recommender(folder).seen.data.all()
    assert Service(folder).resume().numbers == []
    assert Service(folder).recommend("user9", 1)
    monkeypatch.undo()
    outcome = Service(folder).forget("users", USERS)
    assert (outcome.numbers, outcome.before) == ([4], [1, 3])


def test_what_the_saved_model_has_forgotten_is_not_forgotten_again(folder, monkeypatch):
    assert killed(folder, 2) == signal.SIGKILL  # the model is written, ids and journal are not
    monkeypatch.setattr(Recommender, "forget", lambda *_: pytest.fail("asked again"))
    assert [answer.exactness for answer in Service(folder).resume().answers] == ["not recorded"] * 3


def test_a_crash_after_a_refusal_does_not_unseal_it(folder, monkeypatch):
    forget, refused = Recommender.forget, read_json(folder / "ids.json")["users"].index("user9")

    def failing(model, deletion):
        if deletion.users.tolist() == [refused]:
            raise ValueError("no")
        return forget(model, deletion)

    monkeypatch.setattr(Recommender, "forget", failing)
    assert killed(folder, 2) == signal.SIGKILL  # planned and refused lines are written, the model is not
    outcome = Service(folder).resume()
    assert (outcome.numbers, len(outcome.answers), outcome.refused) == ([1, 2, 3], 2, {})
    assert load_recommender(folder).seal["lines"] == 4
    assert Journal(folder).numbers(DONE) == {1, 3}


def test_a_refusal_alone_is_sealed_after_a_crash_too(folder, monkeypatch):
    def failing(model, deletion):
        raise ValueError("no")

    monkeypatch.setattr(Recommender, "forget", failing)
    assert killed(folder, 2, ["user9"]) == signal.SIGKILL
    Service(folder).resume()
    assert load_recommender(folder).seal["lines"] == 2


def test_a_user_without_interactions_is_served_nothing(folder):
    model, ids = load_recommender(folder), read_json(folder / "ids.json")
    pairs = [["user7", ids["items"][item]] for item in model.seen[[ids["users"].index("user7")]].indices]
    service = Service(folder)
    service.forget("interactions", pairs[1:])
    assert service.recommend("user7", 1)
    service.forget("interactions", pairs[:1])
    with pytest.raises(UserError, match="user 'user7' has no interaction left and is served nothing"):
        service.recommend("user7", 1)


def test_unknown_and_doubled_ids_are_named_with_their_place_and_no_user_is_told_of_another(folder):
    service = Service(folder)
    for ids, sentence in (
        (["user3", "usr4"], r"^file, line 2: unknown user 'usr4'\.$"),
        (["user3", "user3"], r"^file, line 2: user user3 is given twice\.$"),
    ):
        for together in (False, True):
            with pytest.raises(UserError, match=sentence):
                service.forget("users", ids, together, ["file, line 1: ", "file, line 2: "])
    with pytest.raises(UserError, match=r"^unknown user 'usr4'\.$"):
        service.recommend("usr4", 1)
    with pytest.raises(UserError, match="To forget everything, delete the model's folder"):
        service.forget("users", [f"user{k}" for k in range(1, 61)])


# The journal's chain


@pytest.fixture
def answered(folder):
    """A folder that has answered three requests."""
    Service(folder).forget("users", USERS)
    return folder


def rewrite(folder, change):
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(change(lines)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda lines: lines[1:], "line 1: it was edited, or the line before it is missing; no line can be trusted"),
        (lambda lines: lines[:2] + lines[3:], "line 3: it was edited, or .* missing; lines 1 to 2 can be trusted"),
        (lambda lines: [*lines[:3], lines[4], lines[3], lines[5]], "line 4: it was edited, or .*; lines 1 to 3"),
        (lambda lines: [*lines[:4], lines[4].replace("done", "refused"), lines[5]], "line 5: it was edited"),
        (lambda lines: [lines[0].replace('"size": 1', '"size": 2'), *lines[1:]], "line 1: it was edited"),
        (lambda lines: [*lines[:5], lines[5].split(', "chain"')[0] + "}\n"], "line 6: it was edited"),
        (lambda lines: [*lines, lines[-1]], "line 7: it was edited"),
        (lambda lines: [*lines[:4], "{}\n", *lines[4:]], "line 5: .*expected .*; lines 1 to 4 can be trusted"),
        (
            lambda lines: lines[:5],
            "lines are missing at its end: it does not say what became of request 3. The 5 lines",
        ),
        (
            lambda lines: [*lines[:4], lines[4][:40]],
            "lines are missing at its end: it does not say what became of request 2. The 4 lines",
        ),
        (lambda lines: lines[:2], "lines are missing at its end: the model was written after line 3"),
        (lambda lines: [], "lines are missing at its end: the model was written after line 3"),
    ],
)
def test_a_journal_that_lost_or_changed_a_line_is_named_with_what_can_be_trusted(answered, cli, change, sentence):
    rewrite(answered, change)
    before = digests(answered)
    (answered.parent / "users.txt").write_text("user4\n")
    for command in (["--resume"], ["--users", answered.parent / "users.txt"]):
        ended = cli("recommender", "forget", answered, *command)
        assert ended.code == 2
        assert re.search(f"journal.jsonl(, |: ){sentence}", ended.err)
        assert digests(answered) == before


def test_a_backup_of_four_files_mends_a_damaged_journal(folder, tmp_path):
    names = ("recommender.safetensors", "ids.json", "journal.jsonl", "key")
    Service(folder).forget("users", ["user3"])
    backup = {name: (folder / name).read_bytes() for name in names}
    Service(folder).forget("users", ["user9"])
    (folder / "journal.jsonl").write_bytes((folder / "journal.jsonl").read_bytes().replace(b"done", b"gone", 1))
    with pytest.raises(UserError, match=f"put back {', '.join(names[:-1])} and key, together, from one backup"):
        Service(folder).forget("users", ["user27"])
    for name in names:
        (folder / name).write_bytes(backup[name])
    outcome = Service(folder).forget("users", ["user3", "user9"])
    assert (outcome.before, outcome.numbers) == ([1], [2])
    assert load_recommender(folder).gone_users.sum() == 2


def test_another_key_fits_no_line(answered):
    (answered / "key").write_bytes(bytes(32))
    with pytest.raises(UserError, match="line 1: it was edited, or the line before it is missing"):
        Service(answered).resume()


def test_a_refused_request_that_is_taken_out_of_the_end_is_noticed(folder, monkeypatch):
    def failing(model, deletion):
        raise ValueError("no")

    monkeypatch.setattr(Recommender, "forget", failing)
    assert Service(folder).forget("users", ["user3"]).refused == {1: "no"}
    rewrite(folder, lambda lines: [])
    with pytest.raises(UserError, match="lines are missing at its end: the model was written after line 2"):
        Service(folder).resume()


def unchained(lines):
    return [re.sub(r', "chain": "[0-9a-f]{32}"', "", line) for line in lines]


def test_a_journal_of_the_first_version_is_read_and_gone_on_with(answered):
    model = load_recommender(answered)
    model.seal = {"lines": 0, "chain": ""}
    model.save(answered)
    rewrite(answered, unchained)
    outcome = Service(answered).forget("users", [*USERS, "user4"])
    assert (outcome.numbers, outcome.before) == ([4], [1, 2, 3])
    rewrite(answered, lambda lines: [lines[0].replace('"size": 1', '"size": 2'), *lines[1:]])
    with pytest.raises(UserError, match="line 7: it was edited, or the line before it is missing; lines 1 to 6"):
        Service(answered).resume()


def test_a_journal_of_the_first_version_without_its_lines_is_noticed(answered):
    model = load_recommender(answered)
    model.seal = {"lines": 0, "chain": ""}
    model.save(answered)
    rewrite(answered, lambda lines: [])
    with pytest.raises(UserError, match="the model has forgotten what request 3 asked for, of which no line says so"):
        Service(answered).resume()


# Pending requests


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"users": [-1]}, r"\[0\].users\[0\]: expected a whole number from 0, got -1"),
        ({"users": []}, "request 1 is not about what its digests stand for"),
        ({"users": [59]}, "request 1 is not about what its digests stand for"),
        ({"users": [600]}, "request 1 is not about what its digests stand for"),
        ({"users": [], "items": [3]}, "request 1 is not about what its digests stand for"),
        ({"items": [3]}, "request 1 is not about what its digests stand for"),
        ({"cells": [[3, 3]]}, "request 1 is not about what its digests stand for"),
        ({"kind": "items"}, "request 1 is not about what its digests stand for"),
        ({"size": 2}, "request 1 is not about what its digests stand for"),
        ({"digests": []}, "request 1 is not about what its digests stand for"),
        ({"request": 0}, r"\[0\].request: expected a whole number from 1, got 0"),
        ({"request": float("nan")}, "NaN"),
        ({"request": 7}, "expected requests with numbers in order, got 7, 2, 3"),
        ({"users": "3"}, r"\[0\].users: expected a list, got '3'"),
    ],
)
def test_pending_requests_that_were_edited_are_refused(folder, change, sentence):
    killed(folder, 1)
    pending = json.loads((folder / "pending.json").read_text())
    (folder / "pending.json").write_text(json.dumps([pending[0] | change, *pending[1:]]))
    before = digests(folder)
    for work in (Service(folder).resume, lambda: Service(folder).recommend("user4", 1)):
        with pytest.raises(UserError, match=f"pending.json.*{sentence}"):
            work()
        assert digests(folder) | {"lock": ""} == before | {"lock": ""}


@pytest.mark.parametrize("content", ["", "[]", "{}", "[1]", "[[]]", "null", "\xff"])
def test_a_damaged_pending_file_is_refused(folder, content):
    (folder / "pending.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"pending\.json"):
        Service(folder).resume()


def test_pending_pairs_are_checked_too(folder):
    model, ids = load_recommender(folder), read_json(folder / "ids.json")
    items = model.seen[[7]].indices
    pairs = [[ids["users"][7], ids["items"][item]] for item in items[:2]]
    key = (folder / "key").read_bytes()
    request = {"request": 1, "kind": "interactions", "size": 2, "users": [], "items": []}
    request |= {"digests": [id_digest(key, "interactions", pair) for pair in pairs]}
    write_json(folder / "pending.json", [request | {"cells": [[7, int(items[0])], [7, int(items[2])]]}])
    with pytest.raises(UserError, match="request 1 is not about what its digests stand for"):
        Service(folder).resume()
    write_json(folder / "pending.json", [request | {"cells": [[7, int(item)] for item in items[:2]]}])
    assert Service(folder).resume().numbers == [1]


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_key_that_is_no_key_is_refused(folder, content):
    (folder / "key").write_bytes(content)
    with pytest.raises(UserError, match=r"key is damaged: expected 32 bytes"):
        Service(folder).resume()


def test_the_key_can_be_read_by_its_owner_alone(folder):
    assert (folder / "key").stat().st_mode & 0o777 == 0o600


# Leftovers


def test_a_forgotten_id_in_any_file_of_the_folder_is_named(answered, cli):
    for name, content in {
        "note.json": '{"who": ["user9"]}',
        "log.csv": "user,item\nuser3,item4\n",
        "deep/old.jsonl": '{"user27": 1}\n',
        "list.yaml": "best: {user9: [item1]}\n",
        "innocent.txt": "user31 user90\n",
    }.items():
        (answered / name).parent.mkdir(exist_ok=True)
        (answered / name).write_text(content)
    ended = cli("recommender", "forget", answered, "--resume")
    assert ended.code == 1
    for name in ("note.json", "log.csv", "deep/old.jsonl", "list.yaml"):
        assert str(answered / name) in ended.err
        (answered / name).unlink()
    assert "innocent" not in ended.err
    assert cli("recommender", "forget", answered, "--resume").code == 0


@pytest.mark.parametrize("users", [["1", "2", "20"], ["done", "all", "planned"], ["ease", "users", "request"]])
def test_ids_that_are_spelled_like_words_of_msgms_own_files_are_forgotten(tmp_path, users):
    names = [*users, *(f"u{number}" for number in range(12))]
    rows = [f"{name},i{(3 * number + k) % 9}" for number, name in enumerate(names) for k in range(4)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item", *rows]) + "\n")
    config = [f"data={{name: table, path: {tmp_path / 'log.csv'}, user: user, item: item}}", "models={ease: {}}"]
    folder = fit(load_config(None, config), "ease", tmp_path / "served")
    assert Service(folder).forget("users", users).numbers == [1, 2, 3]
    assert Service(folder).resume().numbers == []
    assert len(Service(folder).answered()) == 3
    with pytest.raises(UserError, match="unknown user"):
        Service(folder).recommend(users[0], 1)


def test_a_user_and_an_item_of_one_id_are_told_apart(tmp_path):
    rows = [f"{user},{(3 * user + k) % 9}" for user in range(12) for k in range(4)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item", *rows]) + "\n")
    config = [f"data={{name: table, path: {tmp_path / 'log.csv'}, user: user, item: item}}", "models={ease: {}}"]
    folder = fit(load_config(None, config), "ease", tmp_path / "served")
    assert Service(folder).forget("users", ["7"]).numbers == [1]
    assert Service(folder).forget("items", ["3"]).numbers == [2]
    assert "7" in Service(folder).recommend("3", 9) or "7" in read_json(folder / "ids.json")["items"]
    ids = read_json(folder / "ids.json")
    write_json(folder / "ids.json", ids | {"users": ["7" if one is None else one for one in ids["users"]]})
    with pytest.raises(RunError, match=r"ids\.json still names"):
        Service(folder).resume()


def test_half_of_a_served_model_is_not_deleted(answered):
    with pytest.raises(UserError, match=r"ids.json and recommender.safetensors are one served model"):
        delete(answered, ["ids.json"])
    delete(answered, ["ids.json", "recommender.safetensors"])
    assert not (answered / "ids.json").exists()


def write_parquet(path, cells):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"who": cells}), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("log.parquet", lambda path: write_parquet(path, ["user9"])),
        ("log.npz", lambda path: np.savez(path, who=np.array(["user9", "user2"]))),
        ("log.npy", lambda path: np.save(path, np.array(["user9"]))),
        ("log.csv.gz", lambda path: path.write_bytes(gzip.compress(b"user9,item1\n"))),
        ("log.txt", lambda path: path.write_bytes("user9\titem1\n".encode("utf-16"))),
        ("log.csv", lambda path: path.write_text("user,item\nuser9 ,item1\n")),
        ("log.jsonl", lambda path: path.write_text('{"who": "\\u0075ser9"}\n')),
        ("log.yaml", lambda path: path.write_text("[user9]\n")),
        ("deep/key", lambda path: path.write_text("user9\n")),
        ("user9.png", lambda path: path.write_bytes(b"\x89PNG\0")),
        ("user9/note.txt", lambda path: path.write_text("nothing\n")),
        ("notes of user9.txt", lambda path: path.write_text("nothing\n")),
        ("note.txt", lambda path: path.write_text("user9 complained\n")),
        ("note.txt", lambda path: path.write_text("forgot user9, today\n")),
        ("note.txt", lambda path: path.write_text("It was (user9).\n")),
        ("note.md", lambda path: path.write_text("- **user9**/item7\n")),
        ("pairs.txt", lambda path: path.write_text("user9 item7\n")),
        ("log.jsonl", lambda path: path.write_text('{"said": "of \\u0075ser9 again"}\n')),
        ("log.npz", lambda path: np.savez(path, said=np.array(["user9 complained"]))),
    ],
)
def test_a_forgotten_id_is_found_in_files_of_every_kind(answered, name, write):
    path = answered / name
    path.parent.mkdir(exist_ok=True)
    write(path)
    with pytest.raises(RunError, match=f"{re.escape(str(path))} still names"):
        Service(answered).resume()


IDS = {
    "numbers": ([str(number) for number in range(12)], "7"),
    "mails": ([f"u{number}@mail-x.org" for number in range(12)], "u7@mail-x.org"),
    "names": ([f"Anna-{number}_b" for number in range(12)], "Anna-7_b"),
}


@pytest.mark.parametrize(
    ("ids", "text", "found"),
    [
        ("numbers", "epoch 7 of 20, loss 0.7\n7 items\n3 7 9\n", False),
        ("numbers", "epoch,loss\n7,0.5\n", True),
        ("numbers", "7\n", True),
        ("mails", "write to u7@mail-x.org.\n", True),
        ("mails", "from <u7@mail-x.org> and others\n", True),
        ("mails", "write to u77@mail-x.org, or u7@mail-x.org2\n", False),
        ("names", "it was Anna-7_b, again\n", True),
        ("names", "it was --Anna-7_b-- again\n", True),
        ("names", "it was Anna-7_bc and Anna-7\n", False),
    ],
)
def test_a_word_in_running_text_is_found_but_numbers_that_count_are_not(tmp_path, ids, text, found):
    names, gone = IDS[ids]
    rows = [f"{name},i{(3 * number + k) % 9}" for number, name in enumerate(names) for k in range(4)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item", *rows]) + "\n")
    config = [f"data={{name: table, path: {tmp_path / 'log.csv'}, user: user, item: item}}", "models={ease: {}}"]
    folder = fit(load_config(None, config), "ease", tmp_path / "served")
    Service(folder).forget("users", [gone])
    (folder / "note.csv").write_text(text)
    if not found:
        Service(folder).resume()
    else:
        with pytest.raises(RunError, match=r"note\.csv still names"):
            Service(folder).resume()


def test_a_file_that_cannot_be_searched_is_named(answered, cli):
    (answered / "curve.png").write_bytes(b"\x89PNG\0\0")
    told = cli("recommender", "forget", answered, "--resume")
    assert (told.code, f"{answered / 'curve.png'} was not searched for ids" in told.out) == (0, True)


def test_spaces_around_an_id_do_not_bring_a_user_back(folder):
    Service(folder).forget("users", [" user3 "])
    assert Service(folder).forget("users", ["user3"]).before == [1]
    refit(folder)
    with pytest.raises(UserError, match="unknown user"):
        Service(folder).recommend("user3", 1)


def test_one_text_is_not_taken_for_a_list_of_ids(folder):
    with pytest.raises(UserError, match="request.users: expected a list of ids, got 'user3'"):
        Service(folder).forget("users", "user3")


def test_an_id_in_the_head_of_the_model_file_is_named(answered):
    model = load_recommender(answered)
    model.seal = {**model.seal, "note": "user9"}
    model.save(answered)
    with pytest.raises(RunError, match=r"recommender\.safetensors still names users or items that were forgotten"):
        Service(answered).resume()


def test_a_model_from_before_is_refused_until_a_new_fit_mends_it(folder, cli):
    older = (folder / "recommender.safetensors").read_bytes()
    Service(folder).forget("users", ["user3"])
    (folder / "recommender.safetensors").write_bytes(older)
    (folder / "gone.txt").write_text("user9\n")
    for command in (
        ["forget", folder, "--users", folder / "gone.txt"],
        ["forget", folder, "--resume"],
        ["serve", folder],
    ):
        told = cli("recommender", *command)
        assert (told.code, told.err.count("\n")) == (2, 1)
        assert "up to request 0, the journal up to 1: it is an older one" in told.err
        assert "delete the model file and run msgm recommender fit" in told.err
    assert Journal(folder).numbers(PLANNED) == {1}
    with pytest.raises(UserError, match="it is an older one"):
        Service(folder).recommend("user5", 1)
    (folder / "gone.txt").unlink()
    refit(folder)
    assert Service(folder).recommend("user5", 1)
    assert Service(folder).forget("users", ["user3", "user9"]).before == [1]
    assert load_recommender(folder).gone_users.sum() == 2


# A new fit


def refit(folder, *overrides):
    (folder / "recommender.safetensors").unlink()
    return fit(load_config(None, [*CONFIG, *overrides]), "ease", folder)


def test_a_new_fit_leaves_out_what_the_journal_says_is_forgotten(answered, capsys):
    service = Service(answered)
    item, ids = service.recommend("user5", 1)[0], read_json(answered / "ids.json")
    service.forget("items", [item])
    model = load_recommender(answered)
    seventh = ids["users"].index("user7")
    pair = ["user7", ids["items"][model.seen[[seventh]].indices[0]]]
    service.forget("interactions", [pair])
    before = load_recommender(answered)
    refit(answered)
    assert "are forgotten: 3 users, 1 items and 1 single interactions of the data" in capsys.readouterr().out
    after = load_recommender(answered)
    assert (after.seen != before.seen).nnz == 0
    assert np.allclose(after.inverse, before.inverse, atol=1e-10)
    assert after.applied == 5
    assert not any(f'"{user}"'.encode() in content(answered) for user in USERS)
    with pytest.raises(UserError, match="unknown user 'user3'"):
        Service(answered).recommend("user3", 1)
    assert item not in Service(answered).recommend("user5", 40)
    assert Service(answered).forget("users", ["user3", "user4"]).numbers == [6]


def test_a_new_fit_leaves_out_what_was_pending_and_answers_it(folder, capsys, monkeypatch):
    monkeypatch.setattr(module, "AT_RISK", 0.0)
    killed(folder, 4)
    refit(folder)
    assert load_recommender(folder).gone_users.sum() == 3
    assert not (folder / "pending.json").exists()
    assert Journal(folder).numbers(DONE) == {1, 2, 3}
    assert Service(folder).forget("users", USERS).before == [1, 2, 3]


def test_a_new_fit_without_the_key_is_refused(answered):
    (answered / "key").unlink()
    with pytest.raises(UserError, match="holds the journal of an earlier model without its key"):
        refit(answered)
    assert not (answered / "key").exists()


def test_a_new_fit_of_nothing_is_refused(folder):
    Service(folder).forget("users", [f"user{k}" for k in range(2, 61)], together=True)
    (folder / "recommender.safetensors").unlink()
    log = folder.parent / "log.csv"
    log.write_text("user,item\nuser2,item1\nuser3,item2\n")
    data = f"data={{name: table, path: {log}}}"
    with pytest.raises(UserError, match="its journal says that all interactions of the data are forgotten"):
        fit(load_config(None, [data, "models={ease: {}}"]), "ease", folder)
