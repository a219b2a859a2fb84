"""The chain of requests: positions, digests, and what is refused."""

import hashlib
import json
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from msgm.chain import Chain, Entry, gone_before, others, positions_of, ranges, read_chain, union
from msgm.data import load_dataset
from msgm.errors import UserError
from msgm.requests import ForgetRequest
from msgm.splits import make_split

KEY = b"k" * 32
SPLIT = {"data.split_seed": 0, "data.validation": 0.15}


@dataclass
class Texts:
    """Items that are texts."""

    texts: list[str] = field(default_factory=lambda: list("abcdefgh"))

    def __len__(self):
        return len(self.texts)

    def item_digests(self):
        return (hashlib.sha256(text.encode()).digest() for text in self.texts)


def mask(*positions: int, size: int = 8) -> np.ndarray:
    return np.isin(np.arange(size), positions)


def entry(*positions: int, size: int = 8) -> Entry:
    return Entry.of(ForgetRequest(indices=list(positions)), mask(*positions, size=size), "redirect")


def chain(*requests: tuple[int, ...]) -> Chain:
    found = Chain().over(Texts(), SPLIT, None)
    for positions in requests:
        found = found.extended(entry(*positions), Texts(), SPLIT, KEY)
    return found


def test_items_of_all_requests_are_gone():
    assert np.flatnonzero(chain((1,), (4, 5)).gone(8)).tolist() == [1, 4, 5]
    assert not Chain().gone(8).any()


def test_entries_say_what_was_asked():
    found = chain((1, 2)).requests[0]
    assert (found.goal, found.target, found.selector, found.by) == ("suppression", "concept", "indices", "redirect")
    assert "1, 2" in found.text
    assert found.date.endswith("+00:00")


def test_a_chain_comes_back_from_its_file(tmp_path):
    found = chain((1,), (4, 5, 6))
    (tmp_path / "chain.json").write_text(json.dumps(found.to_json()))
    again = read_chain(tmp_path)
    assert again.to_json() == found.to_json()
    assert np.array_equal(again.data.digests, found.data.digests)
    again.check(Texts(), SPLIT, KEY, "A")


@pytest.mark.parametrize("positions", [[], [0], [3, 5, 6, 7, 9], [0, 1, 2]])
def test_positions_as_text(positions):
    found = positions_of(ranges(np.array(positions, dtype=np.int64)), 10)
    assert found.tolist() == positions
    assert found.dtype == np.int64


def by_prompts(by: str = "uce") -> Entry:
    return Entry.of(ForgetRequest(concept={"forget": ["seven"]}), np.zeros(0, dtype=bool), by)


def test_a_request_of_prompts_names_no_item_and_needs_no_data(tmp_path):
    found = Chain().extended_by_prompts(by_prompts()).extended_by_prompts(by_prompts("rece"))
    (tmp_path / "chain.json").write_text(json.dumps(found.to_json()))
    again = read_chain(tmp_path)
    assert [(entry.by, entry.extent) for entry in again.requests] == [
        ("uce", "prompts alone"),
        ("rece", "prompts alone"),
    ]
    assert again.data is None
    assert not again.gone(8).any()


def test_after_requests_of_prompts_any_data_may_follow(tmp_path, capsys):
    found = Chain().over(Texts(), SPLIT, None).extended_by_prompts(by_prompts())
    found.check(Texts(list("abXdefgh")), SPLIT, None, "model")
    assert "note: model" in capsys.readouterr().out
    both = found.extended(entry(1), Texts(), SPLIT, KEY)
    (tmp_path / "chain.json").write_text(json.dumps(both.to_json()))
    assert [each.extent for each in read_chain(tmp_path).requests] == ["prompts alone", "1 items"]


def test_after_requests_of_items_prompts_need_their_data():
    with pytest.raises(UserError, match="give them too"):
        chain((1,)).extended_by_prompts(by_prompts())


def test_positions_are_written_as_ranges():
    assert ranges(np.array([3, 5, 6, 7, 9])) == "3,5-7,9"


@pytest.mark.parametrize("text", ["5,3", "3,3", "7-5", "-1", "10", "0-99999999999999", "a", "1,,2", "1-2-3", "1.0"])
def test_damaged_positions_are_refused(text):
    with pytest.raises(ValueError, match="rise|invalid literal"):
        positions_of(text, 10)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (list("abdcefgh"), "item 2 .* that one stands at 3 now .2 items differ"),
        (list("abXdefgh"), "item 2 .* that one is nowhere in it now .1 items differ"),
        (list("Xabcdefgh"), "item 0 .* that one stands at 1 now"),
        (list("abcdefghX"), "item 8 of the data is new: it has 9 items and had 8"),
        (list("abcdefg"), "item 7 of the data is missing: it has 7 items and had 8"),
    ],
)
def test_other_data_is_refused_by_the_first_item_that_differs(texts, told):
    with pytest.raises(UserError, match=told):
        chain((1,)).check(Texts(texts), SPLIT, KEY, "A")


def test_an_item_with_a_name_is_named():
    now = Texts(list("abXdefgh"))
    now.names = [f"dog/{k}.png" for k in range(8)]
    with pytest.raises(UserError, match=r"item 2 \(dog/2.png\) of the data"):
        chain((1,)).check(now, SPLIT, KEY, "A")


@pytest.mark.parametrize("texts", [list("abdcefgh"), list("abXdefgh"), list("abcdefghX"), list("abcdefg")])
def test_other_data_is_refused_without_the_key_too(texts, capsys):
    with pytest.raises(UserError, match="the (items of the data are not those of then|data has)"):
        chain((1,)).check(Texts(texts), SPLIT, None, "A")
    assert "known by position alone" in capsys.readouterr().out


def test_a_forgotten_item_may_be_erased_as_long_as_something_stands_in_its_place(capsys):
    erased = Texts(list("a-cdefgh"))
    chain((1,)).check(erased, SPLIT, KEY, "A")
    assert "note: 1 items that earlier requests named have another content now" in capsys.readouterr().out
    chain((1,)).check(erased, SPLIT, None, "A")
    assert "known by position alone" in capsys.readouterr().out
    for other in ("a-cdXfgh", "acdefgh", "abcdefgh-"):
        with pytest.raises(UserError, match="item"):
            chain((1,)).check(Texts(list(other)), SPLIT, KEY, "A")


def test_other_keys_give_other_digests_and_no_digest_is_a_plain_hash():
    one, other = chain((1,)), Chain().extended(entry(1), Texts(), SPLIT, b"x" * 32)
    assert not (one.data.digests == other.data.digests).any()
    text = json.dumps(one.to_json())
    for digest in Texts().item_digests():
        assert digest.hex()[:8] not in text
        assert int.from_bytes(digest[:4], "little") not in one.data.digests


def test_what_chain_json_says_of_forgotten_items_does_not_depend_on_them_without_the_key():
    one, other = chain((1,)), Chain().extended(entry(1), Texts(list("aXcdefgh")), SPLIT, KEY)
    assert one.data.remaining == other.data.remaining


@pytest.mark.parametrize("positions", [[4], []])
@pytest.mark.parametrize("key", [KEY, None])
def test_positions_that_were_edited_are_noticed(positions, key):
    answered = chain((1, 2))
    edited = replace(answered.requests[0], positions=np.array(positions, dtype=np.int64))
    with pytest.raises(UserError, match="edited|not those of then"):
        replace(answered, requests=(edited,)).check(Texts(), SPLIT, key, "model")


def test_another_split_is_refused():
    with pytest.raises(UserError, match="data.split_seed is 1 here and was 0"):
        chain((1,)).check(Texts(), SPLIT | {"data.split_seed": 1}, KEY, "A")


def test_before_any_request_other_data_is_said_and_not_refused(capsys):
    chain().check(Texts(list("abdcefgh")), SPLIT, None, "A")
    assert "not those of then" in capsys.readouterr().out
    chain().check(Texts(), SPLIT, None, "A")
    assert capsys.readouterr().out == ""


def test_a_chain_started_anew_says_what_it_leaves_behind():
    found = chain((1,)).started_anew()
    assert found.requests == ()
    assert "given by indices 1" in found.anew[0]
    assert chain().started_anew().anew == ("none",)


@pytest.mark.parametrize(
    ("asked", "entries", "gone", "left"),
    [
        ((2, 3), [(1, 2)], [1, 2], 1),
        ((2, 3), [(1, 2), (2, 3)], [1, 2], 1),
        ((1, 2), [(1, 2), (2, 3)], [3], 1),
        ((1, 2), [(1, 2), (4,), (1, 2)], [4], 2),
        ((1, 2), [(1, 2)], [], 0),
        ((1, 2), [], [], 0),
    ],
)
def test_a_request_is_apart_from_earlier_and_later_ones(asked, entries, gone, left):
    made = [entry(*positions) for positions in entries]
    assert np.flatnonzero(gone_before(mask(*asked), made)).tolist() == gone
    assert len(others(mask(*asked), made)) == left


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"requests": None}, "requests: expected a list"),
        ({"requests": [3]}, r"requests\[0\]: expected an object"),
        ({"requests": [{"text": "x"}]}, r"requests\[0\].goal: expected text"),
        ({"format": 99}, "written by a newer msgm"),
        ({"format": True}, "format: expected a whole number"),
        ({"anew": [1]}, r"anew\[0\]: expected text"),
        ({"data": None}, "data.digests: expected those of the items"),
        ({"data": {"items": 8, "remaining": "x", "split": {}, "digests": "?"}}, "digests: expected base64"),
        ({"data": {"items": 8, "remaining": "x", "split": {}, "digests": "AAAA"}}, "digests: expected 4 bytes"),
        ({"data": {"items": 8, "remaining": "x", "split": {}, "digests": None}}, "data.digests: expected those"),
        (
            {"data": {"items": 2, "remaining": "x", "split": {}, "digests": "AAAAAAAAAAA="}},
            "positions: expected numbers",
        ),
        ({"data": {"items": 8, "remaining": "x", "split": {"a": "b"}, "digests": None}}, "split.a: expected a number"),
    ],
)
def test_a_damaged_chain_is_named(tmp_path, change, told):
    (tmp_path / "chain.json").write_text(json.dumps(chain((1,), (4, 5)).to_json() | change))
    with pytest.raises(UserError, match=told) as error:
        read_chain(tmp_path)
    assert "chain.json" in str(error.value)


def test_a_folder_without_a_chain(tmp_path):
    assert read_chain(tmp_path) is None


def test_gone_items_are_in_no_other_part():
    forget, gone = mask(1, 2, size=100), mask(2, 3, 50, 51, size=100)
    split = make_split(forget | mask(60, size=100), 0.2, 0.2, seed=0, gone=gone)
    plain = make_split(forget, 0.2, 0.2, seed=0)
    for name in ("train", "validation", "test"):
        part = getattr(split, name)
        assert not set(part.gone) & (set(part.retain) | set(part.forget) | set(part.all))
        assert part.whole.tolist() == getattr(plain, name).whole.tolist()
    named = np.concatenate([getattr(split, name).gone for name in ("train", "validation", "test")])
    assert sorted(named) == [2, 3, 50, 51]


def test_a_request_for_what_is_gone_is_refused():
    with pytest.raises(UserError, match="all that it names was forgotten before"):
        make_split(mask(*range(50), size=100), 0.2, 0.2, seed=0, gone=mask(*range(60), size=100))


def test_digests_of_a_dataset_change_with_items_and_labels():
    one, other = load_dataset("digits"), load_dataset("digits")
    assert list(one.item_digests()) == list(other.item_digests())
    other.labels[3] += 1
    other.items[5, 0, 0, 0] += 1
    differing = [k for k, (a, b) in enumerate(zip(one.item_digests(), other.item_digests(), strict=True)) if a != b]
    assert differing == [3, 5]
    assert set(map(len, one.item_digests())) == {40}


def test_union_of_nothing():
    assert not union([], 3).any()
