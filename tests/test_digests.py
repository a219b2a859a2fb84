"""Keys of folders and keyed digests."""

import hashlib
import hmac
import json
from pathlib import Path

import numpy as np
import pytest

from msgm.digests import file_digest, folder_key, keyed_digest, positions_digest, stands_for
from msgm.errors import UserError


def test_a_key_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    key = folder_key(tmp_path)
    assert len(key) == 32
    assert folder_key(tmp_path) == key
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert folder_key(tmp_path / "other") != key


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_key_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(UserError, match=rf"key is damaged: expected 32 bytes, found {len(content)}"):
        folder_key(tmp_path)


def test_a_keyed_digest_is_the_hmac_that_journals_of_the_first_version_hold() -> None:
    key = b"k" * 32
    expected = hmac.new(key, json.dumps(["users", "17"]).encode(), hashlib.sha256).hexdigest()[:32]
    assert keyed_digest(key, "users", "17") == expected
    assert keyed_digest(b"l" * 32, "users", "17") != expected


def test_parts_do_not_run_into_one_another() -> None:
    key = b"k" * 32
    parts = [("a", "b"), ("ab",), ("b", "a"), (b"a", "b"), ("a", b"b"), ("a", "b", "")]
    assert len({keyed_digest(key, *each) for each in parts}) == len(parts)


def test_a_file_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100000)
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"abc" * 100000).hexdigest()


def test_item_numbers_are_known_by_the_key_of_their_folder_alone(tmp_path: Path) -> None:
    items = np.array([5, 3, 1000])
    digest = positions_digest(tmp_path / "a", items)
    assert digest == positions_digest(tmp_path / "a", np.array([1000, 5, 3]))
    assert digest != positions_digest(tmp_path / "b", items)
    assert len(digest) == 32
    assert stands_for(digest, tmp_path / "a", items) is True
    assert stands_for(digest, tmp_path / "a", items + 1) is False
    assert stands_for(digest, tmp_path / "b", items) is False
    assert stands_for(digest, tmp_path / "without key", items) is None


def test_digests_of_the_first_version_are_still_read(tmp_path: Path) -> None:
    items = np.array([5, 3, 1000])
    first = hashlib.sha256(np.sort(items).tobytes()).hexdigest()[:16]
    assert stands_for(first, tmp_path, items) is True
    assert stands_for(first, tmp_path, items + 1) is False
