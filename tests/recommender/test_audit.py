"""The audit of a served folder: a clean one passes, and each planted fault fails the check that it is meant for."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from msgm.errors import UserError
from msgm.folders import locked
from msgm.reading import read_json
from msgm.recommender.auditing.audit import UNSAID, audit, told
from msgm.recommender.auditing.refusals import PAIRS, _judged
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.journal import DONE, PLANNED, Journal, id_digest
from msgm.recommender.models.base import FILE, load_recommender
from msgm.recommender.service import Service
from tests.recommender.test_service import CONFIG, killed

CHECKS = ["journal", "model", "refit", "ids", "lists", "files", "refusals"]
MODELS = (
    "models={ease: {regularisation: 20.0}, single: {name: ease, precision: float32}, item-knn: {}, user-knn: {}, "
    "session-knn: {}, bpr: {epochs: 2, factors: 8}, als: {factors: 4, regularisation: 1.0}}"
)
PASSED = dict.fromkeys(CHECKS[:-1], "PASS")


def pair_of(folder, user):
    model, ids = load_recommender(folder), read_json(folder / "ids.json")
    number = ids["users"].index(user)
    return [user, ids["items"][int(model.seen[[number]].indices[0])]]


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """A folder that has forgotten two users, an item and an interaction, and the same before the interaction."""
    made = tmp_path_factory.mktemp("audited")
    folder = fit(load_config(None, CONFIG), "ease", made / "now")
    service = Service(folder)
    service.forget("users", ["user3", "user9"])
    service.forget("items", [service.recommend("user5", 1)[0]])
    shutil.copytree(folder, made / "before")
    service.forget("interactions", [pair_of(folder, "user7")])
    return made


@pytest.fixture
def folder(answered, tmp_path):
    return shutil.copytree(answered / "now", tmp_path / "shop")


@pytest.fixture
def before(answered):
    return answered / "before"


def verdicts(folder, **settings):
    return {row.check: row.verdict for row in audit(folder, users=30, **settings).findings}


def failed(folder, **settings):
    return audit(folder, users=30, **settings).failed


def found(folder, check):
    return next(row.found for row in audit(folder, users=30).findings if row.check == check)


def edited(model, folder, change):
    """Write a model of the folder anew after ``change``."""
    change(model)
    model.save(folder)


def state(folder):
    paths = sorted(folder.rglob("*"))
    return [(path.name, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths]


def test_a_clean_folder_passes_and_is_only_read(folder):
    earlier = state(folder)
    made = audit(folder, users=30, forgotten=["user3", "user9"])
    assert state(folder) == earlier
    rows = {row.check: row for row in made.findings}
    assert list(rows) == CHECKS
    assert {check: row.verdict for check, row in rows.items() if check != "refusals"} == dict.fromkeys(
        CHECKS[:-1], "PASS"
    )
    assert (rows["journal"].n, rows["refit"].n, rows["lists"].n, rows["files"].n) == (4, 30, 30, 6)
    assert made.asked == "4 requests (users 2, items 1, interactions 1); 4 done, 0 refused"
    assert rows["refusals"].n == PAIRS
    assert "in the same words" in rows["refusals"].found or rows["refusals"].verdict == "FAIL"  # by chance, of 1 in 100


def test_a_folder_that_was_never_asked_passes(tmp_path):
    folder = fit(load_config(None, CONFIG), "item-knn", tmp_path / "shop")
    assert verdicts(folder) == PASSED | {"refusals": "NOT TESTED"}
    assert "no request was ever made" in found(folder, "journal")


def test_a_folder_that_was_fitted_anew_with_its_journal_passes(folder):
    (folder / FILE).unlink()
    fit(load_config(None, CONFIG), "item-knn", folder)
    assert failed(folder) == []


def test_an_edited_line_fails_the_journal_and_what_rests_on_it_is_not_tested(folder):
    path = folder / "journal.jsonl"
    path.write_text(path.read_text().replace('"touched": 40', '"touched": 41', 1))
    got = verdicts(folder, forgotten=["user3"])
    assert [check for check, verdict in got.items() if verdict == "FAIL"] == ["journal"]
    assert [check for check, verdict in got.items() if verdict == "NOT TESTED"] == ["model", "ids", "refusals"]
    assert "it was edited" in found(folder, "journal")
    assert "nobody can tell" in audit(folder, users=5).asked


def test_a_planned_request_fails_the_journal_alone(folder):
    request = {"request": 5, "kind": "users", "size": 1, "digests": ["0" * 32]}
    Journal(folder).add(request, PLANNED)
    assert failed(folder) == ["journal"]
    assert "request 5 is planned and not done" in found(folder, "journal")


def test_a_request_without_its_numbers_fails_the_journal_alone(folder):
    request = {"request": 5, "kind": "interactions", "size": 1, "digests": ["0" * 32]}
    model = load_recommender(folder)
    Journal(folder).add(request, PLANNED)
    Journal(folder).add(request, DONE, seconds=0.1, touched=3, exactness="splendid")
    model.applied = 5
    model.save(folder)
    assert failed(folder) == ["journal"]
    assert "request 5 is done without its numbers" in found(folder, "journal")


def test_gaps_requests_never_planned_and_a_cut_line_fail_the_journal_alone(folder):
    request = {"request": 6, "kind": "interactions", "size": 1, "digests": ["0" * 32]}
    Journal(folder).add(request, DONE, seconds=0.1, touched=3, exactness="bit-exact")
    edited(load_recommender(folder), folder, lambda model: setattr(model, "applied", 6))
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b'{"state": "pla')
    assert failed(folder) == ["journal"]
    for fault in ("request 5 is missing", "request 6 is done and was never planned", "its last line is cut"):
        assert fault in found(folder, "journal")


def test_a_journal_that_ends_early_fails(folder):
    path = folder / "journal.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    assert failed(folder) == ["journal"]
    assert "lines are missing at its end" in found(folder, "journal")


@pytest.mark.parametrize("steps", [1, 2])
def test_what_a_kill_leaves_fails_the_journal_and_the_files(folder, steps):
    killed(folder, steps, ["user27"])
    got = verdicts(folder)
    assert got["journal"] == got["files"] == "FAIL"
    assert got["lists"] == "PASS"  # the service shows nothing of what is pending
    assert "request 5 is planned and not done" in found(folder, "journal")
    assert found(folder, "files").startswith("lock was left by a killed command")
    Service(folder).resume()
    assert failed(folder) == []


def test_pending_requests_that_are_done_fail_the_journal_alone(folder):
    killed(folder, 0, ["user27"])
    pending = (folder / "pending.json").read_bytes()
    Service(folder).resume()
    (folder / "pending.json").write_bytes(pending)
    assert failed(folder) == ["journal"]
    assert "pending.json is there" in found(folder, "journal")
    (folder / "pending.json").write_text("[]")
    assert "expected requests with numbers in order" in found(folder, "journal")


def test_an_older_model_fails_the_model_alone(folder, before):
    shutil.copy(before / FILE, folder / FILE)
    assert failed(folder) == ["model"]
    assert "up to request 3, the journal up to 4: it is an older one" in found(folder, "model")
    assert "delete the model file and run msgm recommender fit" in found(folder, "model")
    edited(load_recommender(folder), folder, lambda model: setattr(model, "applied", 4))
    assert failed(folder) == ["model"]
    assert "it keeps 1 interactions that the journal says are forgotten" in found(folder, "model")


def test_a_model_that_knows_a_forgotten_user_fails_beside_its_lists(folder):
    user = read_json(folder / "ids.json")["users"].index(None)
    edited(load_recommender(folder), folder, lambda model: model.gone_users.__setitem__(user, False))
    assert failed(folder) == ["model", "lists"]
    assert "1 users are blanked in ids.json or forgotten by the model, and not both" in found(folder, "model")
    assert "1 of 2 forgotten users get a list" in found(folder, "lists")


def test_a_model_that_lists_a_forgotten_item_fails_beside_its_lists(folder):
    item = read_json(folder / "ids.json")["items"].index(None)
    edited(load_recommender(folder), folder, lambda model: model.gone_items.__setitem__(item, False))
    assert failed(folder) == ["model", "lists"]
    assert "the lists of 30 of 30 users hold an item that is forgotten" in found(folder, "lists")


def test_interactions_of_the_forgotten_and_forgetting_unasked_fail_the_model_alone(folder):
    ids = read_json(folder / "ids.json")
    ids["users"][0] = None
    (folder / "ids.json").write_text(json.dumps(ids))
    edited(load_recommender(folder), folder, lambda model: model.gone_users.__setitem__(0, True))
    assert failed(folder) == ["model"]
    count = np.diff(load_recommender(folder).seen.indptr)[0]
    for fault in ("it has forgotten 3 users, the journal names 2", f"it keeps {count} interactions of users or items"):
        assert fault in found(folder, "model")


def test_weights_from_before_fail_the_refit_alone(folder, before):
    older = load_recommender(before)
    edited(load_recommender(folder), folder, lambda model: model.restore(older.arrays()))
    made = audit(folder, users=1)  # whose list may be the same, as few are changed by one interaction
    assert made.failed == ["refit"]
    assert "not as fitted anew, though its forgetting is exact" in found(folder, "refit")


@pytest.mark.parametrize("name", ["single", "item-knn", "user-knn", "session-knn", "bpr"])
def test_models_that_are_exact_or_trained_again_are_as_fitted_anew(tmp_path, name):
    folder = fit(load_config(None, [CONFIG[0], MODELS]), name, tmp_path / "shop")
    Service(folder).forget("users", ["user3", "user9"])
    assert verdicts(folder)["refit"] == "PASS"


def test_an_approximate_model_tells_its_distance_and_gets_no_verdict(tmp_path):
    folder = fit(load_config(None, [CONFIG[0], MODELS]), "als", tmp_path / "shop")
    assert verdicts(folder)["refit"] == "PASS"  # nothing is forgotten yet
    Service(folder).forget("users", [f"user{k}" for k in range(1, 20)], together=True)
    row = audit(folder, users=30).findings[2]
    assert row.verdict == "INCONCLUSIVE"
    assert 0 < row.numbers["list_distance"] < 1
    assert 0 < row.numbers["seed_distance"] < 1
    assert f"{row.numbers['seed_distance']:.3f}" in row.found
    assert audit(folder, users=30).failed == []


def test_a_refit_that_takes_too_long_is_not_tested(folder):
    facts = read_json(folder / "manifest.json")
    (folder / "manifest.json").write_text(json.dumps(facts | {"fit_seconds": 30.0}))
    assert verdicts(folder, refit_seconds=29.0)["refit"] == "NOT TESTED"
    assert verdicts(folder, refit_seconds=30.0)["refit"] == "PASS"


def test_a_forgotten_id_in_a_file_fails_the_ids(folder):
    (folder / "notes.txt").write_text("asked: user3\n")
    assert failed(folder) == ["ids", "files"]  # the file itself is no part of the folder
    assert found(folder, "ids") == "notes.txt names a user or an item that is forgotten"
    assert found(folder, "files") == "notes.txt is no part of the folder"


def test_a_forgotten_id_that_is_served_again_fails_the_ids_and_the_model(folder):
    ids = read_json(folder / "ids.json")
    ids["users"][ids["users"].index(None)] = "user3"
    (folder / "ids.json").write_text(json.dumps(ids))
    assert failed(folder) == ["model", "ids"]


def test_a_digest_outside_the_journal_fails_the_ids_alone(folder):
    facts = read_json(folder / "manifest.json")
    told_to = id_digest((folder / "key").read_bytes(), "users", "user3")
    (folder / "manifest.json").write_text(json.dumps(facts | {"note": told_to}))
    assert failed(folder) == ["ids"]
    assert found(folder, "ids") == "manifest.json holds the digest of an id that is forgotten"


def test_what_cannot_be_searched_gets_no_verdict(folder):
    (folder / "picture.png").write_bytes(b"\x89PNG\0\0")
    assert verdicts(folder)["ids"] == "INCONCLUSIVE"
    assert failed(folder) == ["files"]


def test_a_temporary_file_of_a_killed_write_fails_the_files_alone(folder):
    name = f".{FILE}.00000000-00000000-1-1-00000000.new"
    shutil.copy(folder / FILE, folder / name)
    assert failed(folder) == ["files"]
    assert f"{name} is a temporary file of a killed command" in found(folder, "files")


def test_a_missing_part_and_a_key_for_all_eyes_fail_the_files_alone(folder):
    (folder / "traces.json").unlink()
    os.chmod(folder / "key", 0o644)
    assert failed(folder) == ["files"]
    assert found(folder, "files") == "traces.json is missing; key can be read by others than its owner"


def test_refusals_differ_in_seconds_or_in_words():
    draws = np.random.default_rng(0)
    assert _judged(draws.normal(0, 1e-4, PAIRS), alike=True).verdict == "PASS"
    slower = _judged(draws.normal(5e-4, 1e-4, PAIRS), alike=True)
    assert slower.verdict == "FAIL"
    assert 0 < slower.numbers["low_ms"] < slower.numbers["median_ms"] < slower.numbers["high_ms"]
    assert "in other words" in _judged(draws.normal(0, 1e-4, PAIRS), alike=False).found


def test_a_forgotten_user_who_is_answered_otherwise_fails_the_refusals(folder, monkeypatch):
    refuse = Service.recommend

    def telling(service, user, k):
        if user == "user9":
            raise UserError("user 'user9' has left us.")
        return refuse(service, user, k)

    monkeypatch.setattr(Service, "recommend", telling)
    assert failed(folder, forgotten=["user3", "user9"]) == ["refusals"]
    with pytest.raises(UserError, match=r"^gone, line 1: no answered request of the journal names user 'user5'\.$"):
        audit(folder, users=5, forgotten=["user5"], places=["gone, line 1: "])


def test_many_faults_are_counted(folder):
    for k in range(8):
        (folder / f"notes{k}").touch()
    assert found(folder, "files").endswith("notes4 is no part of the folder; and 3 more")


def test_no_folder_another_writer_and_a_change_meanwhile_are_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds no recommender"):
        audit(tmp_path / "none")
    with locked(folder), pytest.raises(UserError, match="is being changed by process"):
        audit(folder)
    module = "msgm.recommender.auditing.leaks.files"
    monkeypatch.setattr(module, lambda served: (folder / "notes").touch())
    with pytest.raises(UserError, match="was changed while it was audited"):
        audit(folder, users=5)


def test_the_command_prints_rows_or_json_and_ends_with_1_where_one_fails(cli, folder):
    done = cli("recommender", "audit", folder, "--users", 20)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == told(audit(folder, users=20))
    assert done.out.count("cannot be said: ") == len(UNSAID)
    (folder / "notes.txt").touch()
    (folder.parent / "gone").write_text("user3\n")
    done = cli(
        "recommender", "audit", folder, "--users", 20, "--seed", 3, "--json", "--forgotten", folder.parent / "gone"
    )
    tree = json.loads(done.out)
    assert [row["check"] for row in tree["checks"]] == CHECKS
    assert {row["check"]: row["verdict"] for row in tree["checks"]}["files"] == "FAIL"
    assert tree["checks"][6]["n"] == PAIRS
    assert done.code == 1
    assert done.err.startswith(f"msgm: {folder} does not pass: ")
    done = cli("recommender", "audit", folder.parent / "none")
    assert (done.code, done.err.count("\n")) == (2, 1)
