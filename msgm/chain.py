"""The chain of forget requests that a model has answered, kept as ``chain.json`` in every model folder.

Nothing on the chain is ever retain data again: ``gone`` gives the items that earlier requests named, which
``msgm.splits.make_split`` and the classifiers' ``split_by`` keep apart from retain and forget items alike.

Items are identified by position and by content, so that a changed order or content of the data is noticed:

- ``items`` counts the data's items, and ``remaining`` hashes those that no request names;
- ``digests`` holds four bytes of HMAC-SHA-256 for each item, under the key of the run folder (``msgm.digests``).

The key lies beside the model folder and not in it, so that a recipient of a model folder alone cannot test guesses of a
forgotten item against ``chain.json``. Without the key, positions and ``remaining`` are still checked, but errors cannot
name the item that differs, and forgotten items themselves cannot be checked.

The file is long because the chain and the JSON form that it is read from are kept side by side: they change together.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from msgm import __version__
from msgm.errors import UserError
from msgm.reading import read_json
from msgm.shapes import Count, Positive

FILE = "chain.json"
FORMAT = 1
DIGEST_BYTES = 4
Positions = NDArray[np.int64]
SplitFacts = Mapping[str, float | int]
"""How the data was split, by setting, such as ``{"data.split_seed": 0}``."""


class Items(Protocol):
    """Data whose items can be identified by their content; ``Dataset`` is one."""

    def __len__(self) -> int: ...

    def item_digests(self) -> Iterable[bytes]:
        """Yield a hash of each item's content and label, in order."""
        ...


class Asking(Protocol):
    """A request, such as ``ForgetRequest``."""

    goal: Any
    target: Any

    def describe(self) -> str: ...

    def selector(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Entry:
    """One request that a model has answered.

    Attributes:
        text: the request in words.
        goal: ``removal`` or ``suppression``.
        target: ``observed``, ``latent`` or ``concept``.
        selector: how the request named its items, such as ``labels``.
        by: the objective or method that answered it.
        date: when, in UTC, as ISO 8601; None if not recorded.
        positions: (n,) sorted positions of the items that it named, held-out ones included; none where it named prompts
            and no data were read.
        msgm: version that wrote the entry.
    """

    text: str
    goal: str
    target: str
    selector: str
    by: str
    date: str | None
    positions: Positions
    msgm: str = __version__

    @classmethod
    def of(cls, request: Asking, mask: NDArray[np.bool_], by: str) -> "Entry":
        """Return the entry of a ``request`` that selects the items of ``mask`` and is answered now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        positions = np.flatnonzero(mask)
        return cls(request.describe(), request.goal, request.target, request.selector(), by, now, positions)

    def mask(self, size: int) -> NDArray[np.bool_]:
        """Return the items as a mask of ``size``."""
        found = np.zeros(size, dtype=bool)
        found[self.positions] = True
        return found

    def same_items(self, mask: NDArray[np.bool_]) -> bool:
        """Return whether the request named exactly the items of ``mask``."""
        return np.array_equal(self.positions, np.flatnonzero(mask))

    @property
    def extent(self) -> str:
        """How many items it named, in words."""
        return f"{len(self.positions):,} items" if len(self.positions) else "prompts alone"

    def summary(self) -> dict[str, Any]:
        """Return the request's summary for reports and cards, without positions."""
        shown = ("text", "goal", "target", "by", "date")
        return {key: getattr(self, key) for key in shown} | {"items": len(self.positions)}

    def same_request(self, other: "Entry") -> bool:
        """Return whether both ask for the same items, in the same words, with the same goal."""
        said = (self.text, self.goal, self.target) == (other.text, other.goal, other.target)
        return said and np.array_equal(self.positions, other.positions)


@dataclass(frozen=True, eq=False)
class Data:
    """The data that the positions of a chain are of.

    Attributes:
        items: how many there are.
        remaining: SHA-256 over the items that no request names.
        split: how they were split.
        digests: (items,) keyed digests as unsigned numbers; None where no request names an item yet.
    """

    items: int
    remaining: str
    split: SplitFacts
    digests: NDArray[np.uint32] | None = None


@dataclass(frozen=True)
class Chain:
    """The requests that a model has answered, in order.

    Attributes:
        requests: the answered requests.
        data: the data set of their positions; None if not recorded.
        unknown: why earlier requests may be missing, as a sentence; None when the chain is complete.
        anew: the requests that were dropped when a new chain was started deliberately, in words.
    """

    requests: tuple[Entry, ...] = ()
    data: Data | None = None
    unknown: str | None = None
    anew: tuple[str, ...] = field(default=())

    def gone(self, size: int) -> NDArray[np.bool_]:
        """Return a mask of the items that the chain's requests named."""
        return union(self.requests, size)

    def split_seed(self, default: int, where: object) -> int:
        """Return the seed of the split that the positions are of.

        Args:
            default: the seed where the chain has no data.
            where: the model's folder, for the error.

        Raises:
            UserError: it is missing, or no whole number from 0 to 2^32 - 1.
        """
        if self.data is None:
            return default
        seed = self.data.split.get("seed", -1)
        if not 0 <= seed < 2**32 or seed != int(seed):
            raise UserError(f"{where}: {FILE}: data.split.seed: expected a whole number from 0 to 2^32 - 1.")
        return int(seed)

    def started_anew(self) -> "Chain":
        """Return an empty chain that records the requests of this one as dropped."""
        left = tuple(entry.text for entry in self.requests) + ((self.unknown,) if self.unknown else ())
        return Chain(anew=(*self.anew, *(left or ("none",))))

    def over(self, items: Items, split: SplitFacts, key: bytes | None) -> "Chain":
        """Return this chain with digests of ``items``; keyed digests of single items if it has requests."""
        gone = self.gone(len(items))
        remaining, digests = _digests(items, gone, key if gone.any() else None)
        return replace(self, data=Data(len(items), remaining, dict(split), digests))

    def extended(self, entry: Entry, items: Items, split: SplitFacts, key: bytes) -> "Chain":
        """Return this chain with one more request.

        Args:
            entry: the request.
            items: the data, whose items it names by position.
            split: how they are split.
            key: of the folder that the chain is written to.
        """
        return replace(self, requests=(*self.requests, entry)).over(items, split, key)

    def extended_by_prompts(self, entry: Entry) -> "Chain":
        """Return this chain with one more request, which names prompts and no item of any data.

        Raises:
            UserError: earlier requests name items, whose digests are those of data that is not here.
        """
        if self._names_items:
            raise UserError(
                "the model was asked to forget items of its data, and its history goes on with these data alone; give "
                "them too, or start a new history with --fresh-chain."
            )
        return replace(self, requests=(*self.requests, entry))

    @property
    def _names_items(self) -> bool:
        digested = self.data is not None and self.data.digests is not None  # also where positions were taken out
        return digested or any(len(entry.positions) for entry in self.requests)

    def check(self, items: Items, split: SplitFacts, key: bytes | None, where: object) -> None:
        """Refuse data in another order or of other content than the chain's, or another split of it.

        A chain whose requests name no item depends on no position: what differs is printed, not refused.

        Args:
            items: the data as it is now.
            split: how it is split now.
            key: of the folder that the chain was written to, or None where it is not at hand.
            where: the model's folder, for sentences.

        Raises:
            UserError: the data differs; names the first item that differs, if possible.
        """
        if self.data is None:
            return
        found = self._differing_split(split) or self._differing_items(items, key)
        if found is None:
            return
        if self._names_items:
            raise UserError(
                f"{where}: {found} The model was asked to forget items of the data as it was, by position; give the "
                "same data, or start a new history with --fresh-chain."
            )
        print(f"note: {where}: {found}", flush=True)

    def _differing_split(self, split: SplitFacts) -> str | None:
        assert self.data is not None
        for name, value in self.data.split.items():
            if name in split and split[name] != value:
                return f"{name} is {split[name]} here and was {value} when the model was trained."
        return None

    def _differing_items(self, items: Items, key: bytes | None) -> str | None:
        assert self.data is not None
        then, size = self.data, len(items)
        known = then.digests if key is not None else None
        gone = self.gone(max(size, then.items))[:size]
        remaining, digests = _digests(items, gone, key if known is not None else None)
        if known is not None and digests is not None:
            found = _first_difference(known, _without_gone(known, digests, gone), getattr(items, "names", []))
            edited = f"{FILE} was edited: its positions are not those of the items that the requests named."
            return found or (None if remaining == then.remaining else edited)
        if self._names_items:
            print(f"note: the key of {FILE} is not here: forgotten items are known by position alone.", flush=True)
        if size != then.items:
            return f"the data has {size} items and had {then.items}."
        return None if remaining == then.remaining else "the items of the data are not those of then, or not in order."

    def to_json(self) -> dict[str, Any]:
        """Return the chain as the JSON tree that ``read_chain`` reads back."""
        return {
            "format": FORMAT,
            "requests": [asdict(entry) | {"positions": ranges(entry.positions)} for entry in self.requests],
            "data": None if self.data is None else _data_tree(self.data),
            "unknown": self.unknown,
            "anew": list(self.anew),
        }

    def summary(self) -> dict[str, Any]:
        """Return the chain's summary for reports and cards, without positions and digests."""
        return {
            "requests": [entry.summary() for entry in self.requests],
            "unknown": self.unknown,
            "anew": list(self.anew),
        }


def union(entries: Iterable[Entry], size: int) -> NDArray[np.bool_]:
    """Return a mask of the items that any of the requests named."""
    found = np.zeros(size, dtype=bool)
    for entry in entries:
        found |= entry.mask(size)
    return found


def merged(chains: Sequence[Chain]) -> Chain:
    """Return the requests of several models as one chain, each once, in the order in which they appear."""
    requests: list[Entry] = []
    for entry in (entry for chain in chains for entry in chain.requests):
        if not any(entry.same_request(other) for other in requests):
            requests.append(entry)
    return Chain(tuple(requests))


def others(mask: NDArray[np.bool_], entries: Sequence[Entry]) -> list[Entry]:
    """Return ``entries`` without the first request that names exactly the items of ``mask``."""
    own = _place(mask, entries)
    return [entry for k, entry in enumerate(entries) if k != own]


def gone_before(mask: NDArray[np.bool_], entries: Sequence[Entry]) -> NDArray[np.bool_]:
    """Return a mask of the items that are neither retain nor forget items for a model with the requests ``entries``.

    Args:
        mask: (N,) mask of the present request; items of requests before it count as gone.
        entries: all that the model was asked, the present request among them or not.
    """
    mine = mask & ~union(entries[: _place(mask, entries)], len(mask))
    return union(others(mask, entries), len(mask)) & ~mine


def _place(mask: NDArray[np.bool_], entries: Sequence[Entry]) -> int:
    return next((k for k, entry in enumerate(entries) if entry.same_items(mask)), len(entries))


def read_chain(folder: Path) -> Chain | None:
    """Return the chain of a model folder, or None where the folder has none.

    Raises:
        UserError: it is damaged, or a newer msgm wrote it.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    return chain_of(read_json(path, ChainTree), path)


def chain_of(tree: "ChainTree", path: Path | str) -> Chain:
    """Return the chain of a JSON tree, as ``Chain.to_json`` made it, that ``path`` holds; errors as ``read_chain``."""
    if tree["format"] > FORMAT:
        raise UserError(f"{path} was written by a newer msgm (format {tree['format']}; this one reads {FORMAT}).")
    data = None if tree["data"] is None else _data(tree["data"], path)
    if any(entry["positions"] for entry in tree["requests"]) and (data is None or data.digests is None):
        raise UserError(f"{path}: data.digests: expected those of the items that requests name, got nothing.")
    size = 0 if data is None else data.items
    entries = tuple(_entry(entry, size, f"{path}: requests[{k}]") for k, entry in enumerate(tree["requests"]))
    return Chain(entries, data, tree["unknown"], tuple(tree["anew"]))


def ranges(positions: Positions) -> str:
    """Return sorted positions as text, such as ``3,5-9``."""
    if not len(positions):
        return ""
    runs = np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1)
    return ",".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def positions_of(text: str, size: int) -> Positions:
    """Read what ``ranges`` wrote of positions below ``size``.

    Raises:
        ValueError: it is not of this form, not in rising order, or out of range.
    """
    found, last = [np.empty(0, dtype=np.int64)], -1
    for part in text.split(",") if text else []:
        first, dash, end = part.partition("-")
        start, stop = int(first), int(end if dash else first)
        if not last < start <= stop < size:
            raise ValueError(f"{part!r} does not rise, or lies outside 0 to {size - 1}")
        found.append(np.arange(start, stop + 1))
        last = stop
    return np.concatenate(found).astype(np.int64)


def _digests(items: Items, gone: NDArray[np.bool_], key: bytes | None) -> tuple[str, NDArray[np.uint32] | None]:
    """Return a hash of the items that are not ``gone``, and the keyed digest of every item."""
    remaining = hashlib.sha256()
    found = np.empty(len(items), dtype=np.uint32)
    for number, content in enumerate(items.item_digests()):
        if not gone[number]:
            remaining.update(content)
        if key is not None:
            found[number] = int.from_bytes(hmac.digest(key, content, "sha256")[:DIGEST_BYTES], "little")
    return remaining.hexdigest(), found if key is not None else None


def _without_gone(then: NDArray[np.uint32], now: NDArray[np.uint32], gone: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Return the present digests, with stored ones for forgotten items, as erased items may have changed content."""
    if len(then) != len(now):
        return now
    erased = int((gone & (then != now)).sum())
    if erased:
        print(
            f"note: {erased} items that earlier requests named have another content now; they take no part.", flush=True
        )
    return np.where(gone, then, now)


def _first_difference(then: NDArray[np.uint32], now: NDArray[np.uint32], names: Sequence[str]) -> str | None:
    """Return a sentence on the first item that differs; ``names`` are those of the items as they are now, if any."""
    shared = min(len(then), len(now))
    differing = np.flatnonzero(then[:shared] != now[:shared])
    if not len(differing) and len(then) == len(now):
        return None
    first = int(differing[0]) if len(differing) else shared
    item = f"item {first}" + (f" ({names[first]})" if first < len(names) else "")
    if not len(differing):
        kind = "new" if len(now) > len(then) else "missing"
        return f"{item} of the data is {kind}: it has {len(now)} items and had {len(then)}."
    moved = np.flatnonzero(now == then[first])
    where = f"; that one stands at {moved[0]} now" if len(moved) else "; that one is nowhere in it now"
    return f"{item} of the data is not the one that stood there{where} ({len(differing)} items differ)."


def _data_tree(data: Data) -> dict[str, Any]:
    digests = None if data.digests is None else base64.b64encode(data.digests.astype("<u4").tobytes()).decode()
    return {"items": data.items, "remaining": data.remaining, "split": dict(data.split), "digests": digests}


def _data(tree: "DataTree", path: Path | str) -> Data:
    try:
        digests = None if tree["digests"] is None else base64.b64decode(tree["digests"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"{path}: data.digests: expected base64: {error}.") from error
    if digests is not None and len(digests) != DIGEST_BYTES * tree["items"]:
        raise UserError(f"{path}: data.digests: expected {DIGEST_BYTES} bytes for each of {tree['items']} items.")
    numbers = None if digests is None else np.frombuffer(digests, dtype="<u4")
    return Data(tree["items"], tree["remaining"], tree["split"], numbers)


def _entry(tree: "EntryTree", size: int, where: str) -> Entry:
    try:
        positions = positions_of(tree["positions"], size)
    except ValueError as error:
        raise UserError(f"{where}.positions: expected numbers like 3,5-9: {error}.") from error
    return Entry(**{key: tree[key] for key in EntryTree.__annotations__} | {"positions": positions})  # type: ignore[literal-required]


class EntryTree(TypedDict):
    """An entry in the file."""

    text: str
    goal: str
    target: str
    selector: str
    by: str
    date: str | None
    positions: str
    msgm: str


class DataTree(TypedDict):
    """The data in the file; digests in base64."""

    items: Count
    remaining: str
    split: dict[str, float]
    digests: str | None


class ChainTree(TypedDict):
    """The file."""

    format: Positive
    requests: list[EntryTree]
    data: DataTree | None
    unknown: str | None
    anew: list[str]
