"""Lists from a model in memory: they follow the folder, and never show what is pending."""

from unittest.mock import patch

import pytest

from msgm.errors import UserError
from msgm.folders import write_bytes, write_json
from msgm.recommender.config import load_config
from msgm.recommender.fitting import fit
from msgm.recommender.journal import id_digest
from msgm.recommender.models.base import load_recommender
from msgm.recommender.service import Service, UnreadableError
from msgm.recommender.serving import reader as reading
from msgm.recommender.serving.reader import Reader

CONFIG = ["data={name: synthetic, users: 60, items: 30, interactions: 700, least: 5}", "models={ease: {}}"]


@pytest.fixture
def folder(tmp_path):
    return fit(load_config(None, CONFIG), "ease", tmp_path / "shop")


def planned(folder, kind, one):
    """Plan to forget a user or an item, as a writer does that is killed next."""
    data, _ = Service(folder)._load()
    request = {"request": 1, "kind": kind, "size": 1, "digests": [id_digest(Service(folder).key, kind, one)]}
    numbers = {"users": [], "items": [], "cells": []} | {kind: [getattr(data, kind).number(one)]}
    write_json(folder / "pending.json", [request | numbers])


def plan(folder, item):
    planned(folder, "items", item)


def test_a_deletion_that_arrives_while_a_list_is_computed_is_not_in_the_list(folder):
    reader = Reader(folder)
    best = reader.recommend("user1", 3)[0]
    make, calls = reader._listed, []

    def late(user, k):
        found = make(user, k)
        if not calls:
            plan(folder, best)
        calls.append(found)
        return found

    with patch.object(reader, "_listed", late):
        assert best not in reader.recommend("user1", 3)
    assert best in calls[0]
    assert len(calls) == 2


def test_a_deletion_that_arrives_while_what_would_be_is_computed_is_in_neither_list(folder):
    reader = Reader(folder)
    best = reader.recommend("user1", 3)[0]
    serving, calls = reader._serving, []

    def late(user):
        found = serving(user)
        calls.append(user)
        if len(calls) == 1:
            plan(folder, best)
        return found

    held = Service(folder)._serving("user1")
    items = [held[0].items.ids[item] for item in held[1].seen[[held[2]]].indices[:2]]
    with patch.object(reader, "_serving", late):
        found = reader.what_if("user1", items, 5)
    assert len(calls) == 2
    assert best not in found.before + found.after


@pytest.mark.parametrize("kind", ["users", "items"])
def test_what_is_planned_is_served_to_nobody_before_the_model_has_forgotten_it(folder, kind):
    """Nor is it after the reader, which had the list in memory, was started anew."""
    reader = Reader(folder)
    best = reader.recommend("user1", 30)[0]
    planned(folder, kind, "user1" if kind == "users" else best)
    for one in (reader, Reader(folder)):
        if kind == "items":
            assert best not in one.recommend("user1", 30)
            continue
        for ask in (lambda one=one: one.recommend("user1", 30), lambda one=one: one.what_if("user1", None, 3)):
            with pytest.raises(UserError, match="is being forgotten and is served nothing"):
                ask()


def test_lists_are_those_of_the_folder_after_every_deletion(folder):
    reader = Reader(folder)
    for user in ("user2", "user3"):
        Service(folder).forget("users", [user])
        assert reader.recommend("user1", 5) == Service(folder).recommend("user1", 5)
        with pytest.raises(UserError):
            reader.recommend(user, 5)


def test_the_model_is_read_once_until_it_is_replaced(folder):
    reader, other = Reader(folder), Reader(folder)
    with patch.object(reading, "load_recommender", side_effect=load_recommender) as load:
        best = {reader.recommend("user1", 5)[0] for _ in range(3)}.pop()
        assert load.call_count == 1
    plan(folder, best)
    with patch.object(reading, "load_recommender", side_effect=load_recommender) as load:
        assert best not in reader.recommend("user1", 5)
        assert load.call_count == 0
    Service(folder).resume()
    with patch.object(reading, "load_recommender", side_effect=load_recommender) as load:
        assert reader.recommend("user1", 5) == other.recommend("user1", 5)
        assert load.call_count == 2


def test_model_and_ids_are_read_once_each_after_a_deletion(folder):
    reader = Reader(folder)
    reader.recommend("user1", 5)
    with (
        patch.object(reading, "load_recommender", side_effect=load_recommender) as load,
        patch.object(reader, "_load_ids", side_effect=reader._load_ids) as load_ids,
    ):
        for name in ("recommender.safetensors", "ids.json"):
            write_bytes(folder / name, (folder / name).read_bytes())
            reader.recommend("user1", 5)
        assert (load.call_count, load_ids.call_count) == (1, 1)


def test_what_was_refused_is_served_again(folder):
    reader = Reader(folder)
    best = reader.recommend("user1", 3)[0]
    plan(folder, best)
    assert best not in reader.recommend("user1", 3)
    (folder / "pending.json").unlink()
    assert reader.recommend("user1", 3)[0] == best


def test_a_status_is_that_of_the_journal_without_digests(folder):
    reader = Reader(folder)
    assert reader.status(1) is None
    plan(folder, "item3")
    assert reader.status(1) == {"request": 1, "kind": "items", "size": 1, "state": "planned"}
    Service(folder).resume()
    found = reader.status(1)
    assert found["state"] == "done"
    assert "digests" not in found


def test_a_damaged_folder_is_no_fault_of_the_caller(folder):
    (folder / "ids.json").write_text("{")
    with pytest.raises(UnreadableError):
        Reader(folder).recommend("user1", 3)


def lost(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize("name", ["recommender.safetensors", "ids.json", "journal.jsonl", "key", None])
def test_what_is_missing_is_no_fault_of_the_caller_and_is_not_made_anew(folder, name):
    reader, writer = Reader(folder), Service(folder)
    reader.recommend("user1", 3)
    (folder / name).unlink() if name else lost(folder)
    left = sorted(folder.iterdir()) if name else None
    calls = [lambda: writer.forget("users", ["user2"]), writer.resume, writer.answered]
    calls += [lambda: reader.status(1)] if name in ("journal.jsonl", "key", None) else []
    calls += [lambda: reader.recommend("user1", 3)] if name in ("recommender.safetensors", "ids.json", None) else []
    for call in calls:
        with pytest.raises(UnreadableError):
            call()
    assert (sorted(folder.iterdir()) if folder.exists() else None) == left


def test_an_older_model_is_not_served(folder):
    reader, older = Reader(folder), (folder / "recommender.safetensors").read_bytes()
    assert reader.recommend("user1", 3)
    Service(folder).forget("users", ["user2"])
    assert reader.recommend("user1", 3)
    write_bytes(folder / "recommender.safetensors", older)
    for one in (reader, Reader(folder)):
        with pytest.raises(UnreadableError, match="up to request 0, the journal up to 1"):
            one.recommend("user1", 3)
