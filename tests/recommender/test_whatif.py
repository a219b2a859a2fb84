"""A user's list without some of their items: a refit's where it is exact, and nothing is changed by asking."""

import copy
import hashlib
import os

import numpy as np
import pytest

import msgm
from msgm.errors import UserError
from msgm.folders import write_json
from msgm.reading import read_json
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.journal import id_digest
from msgm.recommender.models import MODELS, ease
from msgm.recommender.models.base import load_recommender
from msgm.recommender.overlap import rbo
from msgm.recommender.requests import Deletion
from msgm.recommender.service import Service
from msgm.recommender.whatif import told, what_if
from tests.recommender.models.cells import cells, times

EXACT = {
    "ease": {"regularisation": 20.0},
    "item-knn": {"neighbours": 15},
    "user-knn": {"neighbours": 15},
    "session-knn": {"neighbours": 15, "recent": 40},
}


def fitted(name, **settings):
    matrix = cells()
    return MODELS.build({"name": name, **EXACT.get(name, {}), **settings}).fit(matrix, times=times(matrix))


def some(model, user, seed=0):
    """A third of a user's items."""
    row = model.seen[[user]].indices
    return np.random.default_rng(seed).choice(row, max(len(row) // 3, 1), replace=False)


def without(model, user, items):
    """The list of a model fitted anew without these items of the user."""
    refitted = copy.deepcopy(model)
    refitted.refit(Deletion(cells=np.column_stack([np.full(len(items), user), items])))
    return refitted.listed(np.array([user]), 10)


def state(model):
    gone = [model.gone_users, model.gone_items, model.seen.data, model.seen.indices, model.seen.indptr]
    if model.name == "ease":  # its arrays() would merge
        arrays = [model.parts.base, model.parts.factors, model.parts.diagonal, model.image]
    else:
        arrays = model.arrays().values()
    return [np.array(one) for one in (*arrays, *gone)]


@pytest.mark.parametrize("name", EXACT)
def test_exact_lists_are_those_of_a_refit_and_the_model_stays_bit_by_bit(name):
    model = fitted(name)
    before = state(model)
    changed = 0
    for user in range(0, 120, 12):
        items = some(model, user)
        found = what_if(model, user, items)
        assert found.before == model.listed(np.array([user]), 10)[0].tolist()
        assert found.after == without(model, user, items)[0].tolist()
        assert (found.exactness == "exact up to rounding") == (name == "ease")
        assert found.error == 0
        changed += found.before != found.after
    assert changed > 5
    assert all(np.array_equal(one, two) for one, two in zip(before, state(model), strict=True))


@pytest.mark.parametrize("most", [0, 256])
def test_ease_shares_its_base_with_a_copy_until_that_writes_to_it(most, monkeypatch):
    """A copy that merges its factors, or forgets an item, has a base of its own; factors apart are copied at once."""
    model = fitted("ease")
    for user in (5, 6, 8):  # three factors, in room for four
        model.forget(Deletion(users=np.array([user])))
    before, base = state(model), model.parts.base
    monkeypatch.setattr(ease, "MOST", most)
    assert model.fork().parts.base is base
    for deletion in (Deletion(cells=np.array([[9, i] for i in some(model, 9)])), Deletion(items=np.array([3]))):
        other = model.fork()
        other.forget(deletion)
        assert other.score(np.arange(20)) == pytest.approx(refitted(model, deletion).score(np.arange(20)), abs=1e-9)
    assert model.parts.base is base
    assert all(np.array_equal(one, two) for one, two in zip(before, state(model), strict=True))


def refitted(model, deletion):
    return MODELS.build(model.settings()).fit(deletion.without(model.seen))


def test_an_approximate_list_comes_with_what_a_placebo_changes():
    model = fitted("als", factors=8, regularisation=20.0, sweeps=12)
    before, far, errors = state(model), [], []
    for user in range(0, 120, 12):
        items = some(model, user)
        found = what_if(model, user, items)
        assert found.exactness == "approximate"
        far.append(1 - rbo(np.array([found.after]), without(model, user, items), 0.9))
        errors.append(found.error)
    assert 0 < np.mean(errors) < 0.15
    assert np.mean(far) < 2 * np.mean(errors)
    assert all(np.array_equal(one, two) for one, two in zip(before, state(model), strict=True))


def test_a_placebo_takes_the_steps_of_an_answer_and_forgets_nothing():
    model = fitted("als", factors=8, regularisation=5.0, sweeps=6)
    placebo = model.fork()
    placebo.placebo(Deletion(users=np.array([3])))
    again = model.fork()
    again.refine(again.halves(model.seen), model.forget_sweeps)
    assert np.array_equal(placebo.item_factors, again.item_factors)
    assert placebo.seen.nnz == model.seen.nnz
    assert not np.array_equal(placebo.item_factors, model.item_factors)


def test_models_that_cannot_tell_are_refused_but_for_the_whole_history():
    model = fitted("bpr", epochs=1)
    with pytest.raises(UserError, match="als cannot tell .* while model.forgetting is local"):
        what_if(fitted("als", forgetting="local", factors=8), 3, some(model, 3))
    with pytest.raises(UserError, match=r"^bpr cannot tell .*Models that can: als, ease, item-knn, mf,"):
        what_if(model, 3, some(model, 3))
    found = what_if(model, 3)
    assert (found.after, found.overlap, found.exactness) == ([], 0.0, "bit-exact")
    assert len(found.before) == 10


def test_overlap_is_rank_biased():
    found = msgm.recommender.what_if(fitted("ease"), 7, some(fitted("ease"), 7), N=4)
    shares = [len(set(found.before[:d]) & set(found.after[:d])) / d for d in range(1, 5)]
    weights = 0.9 ** np.arange(4)
    assert found.overlap == pytest.approx((weights * shares).sum() / weights.sum())


@pytest.mark.parametrize(
    ("user", "items", "sentence"),
    [
        (500, None, "users: number 500 is out of range"),
        (5, None, "user number 5 was forgotten"),
        (7, [], "items: name those to withdraw"),
        (7, [0, 0], "given twice"),
        (7, [99], "number 99 is out of range"),
        (7, "unseen", r"^the model never saw item number \d+ with user number 7: nothing to withdraw"),
    ],
)
def test_what_is_no_part_of_the_history_is_refused(user, items, sentence):
    model = fitted("item-knn")
    model.forget(Deletion(users=np.array([5])))
    if items == "unseen":
        items = np.setdiff1d(np.arange(60), model.seen[[user]].indices)[:1]
    with pytest.raises(UserError, match=sentence):
        what_if(model, user, items)


CONFIG = [
    "data={name: synthetic, users: 60, items: 40, interactions: 900, least: 5}",
    "models={ease: {regularisation: 20.0}, bpr: {epochs: 1}}",
]


@pytest.fixture
def folder(tmp_path):
    return fit(load_config(None, CONFIG), "ease", tmp_path / "served")


def history(folder, user):
    ids, model = read_json(folder / "ids.json"), load_recommender(folder)
    return [ids["items"][item] for item in model.seen[[ids["users"].index(user)]].indices]


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_folder_serves_after_the_withdrawal_what_it_said_and_is_not_changed_by_asking(folder):
    service, items = Service(folder), history(folder, "user5")[:4]
    before = digests(folder)
    found = service.what_if("user5", items, 10)
    assert digests(folder) == before
    assert found.before == service.recommend("user5", 10)
    service.forget("interactions", [["user5", item] for item in items], together=True)
    assert found.after == service.recommend("user5", 10)
    assert found.before != found.after


def plan(folder, kind, ids, **numbers):
    """Put a request into ``pending.json``, as a crash right after it was written leaves it."""
    digest = [id_digest(Service(folder).key, kind, one) for one in ids]
    parts = {"users": [], "items": [], "cells": [], **numbers}
    write_json(folder / "pending.json", [{"request": 1, "kind": kind, "size": 1, "digests": digest} | parts])


def test_neither_list_shows_what_is_forgotten_or_pending(folder):
    service, items = Service(folder), history(folder, "user5")
    first, second, *_ = service.what_if("user5", items[:3], 40).after
    service.forget("items", [first])
    at = read_json(folder / "ids.json")["items"].index(second)
    plan(folder, "items", [second], items=[at])
    found = service.what_if("user5", items[:3], 40)
    assert not {first, second} & {*found.before, *found.after}
    assert set(items[:3]) & set(found.after)


def test_what_is_pending_counts_as_withdrawn_already(folder):
    service, items = Service(folder), history(folder, "user5")
    ids = read_json(folder / "ids.json")
    pair = [ids["users"].index("user5"), ids["items"].index(items[0])]
    plan(folder, "interactions", [["user5", items[0]]], cells=[pair])
    with pytest.raises(UserError, match=f"the model never saw item '{items[0]}' with user 'user5'"):
        service.what_if("user5", items[:1], 5)
    assert items[0] not in service.what_if("user5", items[1:3], 40).after
    assert service.what_if("user5", items[1:], 5).after == []
    assert service.what_if("user5", None, 5).after == []
    plan(folder, "users", ["user5"], users=pair[:1])
    with pytest.raises(UserError, match="user 'user5' is being forgotten"):
        service.what_if("user5", items[1:3], 5)


def test_a_request_that_comes_while_the_lists_are_made_is_in_neither(folder, monkeypatch):
    service, items = Service(folder), history(folder, "user5")[:3]
    best, serving, asked = service.what_if("user5", items, 1).after[0], Service._serving, []

    def interrupted(reader, user):
        found = serving(reader, user)
        if not asked:
            asked.append(os.fork())
            if asked == [0]:
                Service(folder).forget("items", [best])
                os._exit(0)
            os.waitpid(asked[0], 0)
        return found

    monkeypatch.setattr(Service, "_serving", interrupted)
    found = service.what_if("user5", items, 40)
    assert best not in [*found.before, *found.after]
    assert len(asked) == 1


def test_the_command_prints_both_lists_and_says_how_exact_they_are(cli, folder, tmp_path):
    items = history(folder, "user5")[:6]
    done = cli("recommender", "whatif", folder, "--user", "user5", "-k", 5, "--items", *items)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    found = Service(folder).what_if("user5", items, 5)
    assert lines[0] == "now\twithout"
    assert [line.split("\t") for line in lines[1:6]] == [list(p) for p in zip(found.before, found.after, strict=True)]
    stay = len(set(found.before) & set(found.after))
    assert lines[6].startswith(f"{stay} of 5 items stay; rank-biased overlap {found.overlap:.3f} (p = 0.9, cut at")
    assert lines[7].startswith("exact up to rounding: a model fitted without them has the same list")
    everything = cli("recommender", "whatif", folder, "--user", "user5", "--all").out.splitlines()
    assert [line.split("\t")[1] for line in everything[1:11]] == ["-"] * 10
    assert everything[-1] == "without any history nothing is served"
    refused = cli("recommender", "whatif", folder, "--user", "user5", "--items", "item0")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "unknown item 'item0'" in refused.err
    other = fit(load_config(None, CONFIG), "bpr", tmp_path / "other")
    assert "bpr cannot tell" in cli("recommender", "whatif", other, "--user", "user5", "--items", items[0]).err


def test_the_sentences_name_the_placebo_and_what_comes_back():
    model = fitted("als", factors=8, regularisation=5.0, sweeps=6)
    items = some(model, 7)
    found = what_if(model, 7, items, N=60)
    lines = told(found, items.tolist())
    assert f"overlap with the present one is {1 - found.error:.3f}" in lines[1]
    assert lines[2].endswith(", ".join(str(item) for item in found.after if item in items))
