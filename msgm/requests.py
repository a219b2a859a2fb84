"""Forget requests: the items to forget and the goal, for generators, classifiers and recommenders.

A request names its items in exactly one way (labels, an attribute, a group, a concept by prompts, names of files,
indices, a file that lists indices or names of files, a predicate, or in Python also a mask or a data set of the items
themselves) and says what is asked: *removal* of the information, or *suppression* of the outputs, which are two things
(Cooper et al., "Machine Unlearning Doesn't Do What You Think", arXiv 2412.06966).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from msgm.concepts import Concept as Concept
from msgm.errors import UserError, nearest
from msgm.fields import structured
from msgm.ids import as_id, as_index, as_list, class_number, listed, shown
from msgm.itemlists import lists_names, read_indices, read_names
from msgm.plugins import load_function

Predicate = Callable[[Any, Any], bool]
Means = Literal["items", "condition", "both"]
MEANT: dict[Means, str] = {
    "items": "under every condition",
    "condition": "as a condition",
    "both": "under every condition and as a condition",
}
SHOWN = 10
"""How many indices or files stand in the words of a request."""


@dataclass
class ForgetRequest:
    """The items to forget, named in exactly one way, and the goal.

    Example:
        >>> digits = msgm.load_dataset("digits")
        >>> int(digits.forget_mask(msgm.ForgetRequest(labels=[3, 7])).sum())
        362
        >>> dark = msgm.ForgetRequest(predicate=lambda item, label: item.float().mean() < 3)
        >>> int(digits.forget_mask(dark).sum())
        1
        >>> digits.forget_mask(msgm.ForgetRequest(mask=[True] + [False] * 1796)).nonzero()[0].tolist()
        [0]

    Attributes:
        labels: names of classes; where no class has the name, a number finds the one class that equals it, as 1 finds
            1.0. A data set whose classes have no names takes their numbers.
        positions: numbers of classes, counted from 0 in the data set's order of classes.
        attribute: name of a boolean attribute; the items that have it are forgotten (CelebA's ``Bangs``).
        group: one column of the data set and its value or a list of them, such as ``{subject: [7, 12]}``.
        concept: prompts, such as ``{forget: [seven]}``: the items with a caption that mentions one of them. Such items
            are asked for by those prompts alone while they are forgotten. A dictionary is taken, too.
        indices: positions in the data set, counted from 0, in decimal digits: 010 is item 10.
        files: names of items in a data set of files, below its folder and as ``msgm data CONFIG --list`` prints them,
            such as ``dog/0001.png``.
        file: text file with one index a line or, for a data set of files, one name a line.
        predicate: a function, or ``path/to/file.py:function``; ``function(item, label) -> bool`` is called on every
            item, with the name of its class; with the class's number where the data set has no names of classes.
        mask: (N,) booleans, true for the items to forget; no setting of a config.
        dataset: the items themselves, as any data set that ``msgm.fit`` takes. Every item of the same content is
            forgotten, whatever its label; each must be found. No setting of a config.
        goal: ``removal`` of information from the model, or ``suppression`` of its outputs.
        target: ``observed`` items, a ``latent`` attribute, or a ``concept``.
        means: of a model that is asked for classes, what is to be forgotten: the ``items``, which it is to show under
            no condition; the ``condition``, what it gives when it is asked for their labels, whatever it gives when
            asked for nothing; or ``both`` alike. None means the items, all that an unconditional model can forget, and
            of a concept the condition.
    """

    selectors: ClassVar[tuple[str, ...]] = (
        "labels",
        "positions",
        "attribute",
        "group",
        "concept",
        "indices",
        "files",
        "file",
        "predicate",
    )
    listing: ClassVar[tuple[str, ...]] = ("indices", "files", "file", "mask", "dataset")
    """Selectors that list items one by one, and so name no kind that held-out items may be of."""
    handed: ClassVar[tuple[str, ...]] = ("mask", "dataset")
    """Selectors that Python alone can hand over, and no config can hold."""

    labels: list[int | str] = field(default_factory=list)
    positions: list[int | str] = field(default_factory=list)
    attribute: str | None = None
    group: dict[str, int | str | list[int | str]] = field(default_factory=dict)
    indices: list[int | str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    file: str | None = None
    predicate: str | Predicate | None = None
    goal: Literal["removal", "suppression"] = "suppression"
    target: Literal["observed", "latent", "concept"] = "concept"
    means: Means | None = None
    concept: Concept | None = None
    mask: InitVar[Any] = None
    dataset: InitVar[Any] = None

    def __post_init__(self, mask: Any, dataset: Any) -> None:
        # No fields, so that no config has them; under these names dataclasses.replace finds them.
        vars(self).update(mask=None if mask is None else _booleans(mask), dataset=dataset)
        self.labels = [as_id(label, "request.labels", "a class") for label in _several(self, "labels")]
        self.positions = [as_index(number, "request.positions") for number in _several(self, "positions")]
        self.indices = [as_index(number, "request.indices") for number in _several(self, "indices")]
        self.files = [as_id(name, "request.files", "a file's name") for name in _several(self, "files")]
        if self.attribute is not None:
            self.attribute = as_id(self.attribute, "request.attribute", "an attribute")
        if not isinstance(self.group, Mapping):
            raise UserError(f"request.group: expected a column with its values, got {shown(self.group)}.")
        named = {as_id(column, "request.group", "a column"): values for column, values in self.group.items()}
        self.group = {column: _values(values, f"request.group.{column}") for column, values in named.items()}
        if self.concept is not None:
            if not isinstance(self.concept, Concept):
                self.concept = structured(Concept, self.concept, "request.concept")
            self.means = self.means or "condition"

    def select(
        self,
        size: int,
        labels: NDArray[np.int64] | None = None,
        classes: Sequence[str] = (),
        attributes: Mapping[str, NDArray[np.bool_]] | None = None,
        items: Callable[[int], Any] | None = None,
        groups: Mapping[str, NDArray[np.str_]] | None = None,
        names: Sequence[str] = (),
        found: NDArray[np.bool_] | None = None,
        texts: tuple[Sequence[str], NDArray[np.int64], Sequence[tuple[int, ...]]] | None = None,
    ) -> NDArray[np.bool_]:
        """Return a boolean array of ``size``, true for the items to forget.

        Args:
            size: number of items in the data set.
            labels: (size,) class numbers, when the data set has them.
            classes: class names; ``classes[k]`` names label ``k``.
            attributes: name to (size,) booleans.
            items: ``items(i)`` returns item ``i``, for predicates.
            groups: column name to (size,) values as text.
            names: names of the items, when they are files.
            found: (size,) mask of the items that have the content of those of ``dataset``.
            texts: of captions, as ``Concept.mask`` takes them.

        Raises:
            UserError: not exactly one selector, an unknown label, attribute, column, value or file, a prompt that no
                caption mentions, an index out of range, an item given twice, a missing file, nothing selected, or
                everything selected.
        """
        selector = self.selector()
        if selector in ("labels", "positions"):
            mask = self._by_classes(selector, labels, classes)
        elif selector == "group":
            mask = self._by_group(groups or {})
        elif selector == "attribute":
            mask = self._by_attribute(attributes or {})
        elif selector == "concept" and self.concept:
            mask = self.concept.mask(*(texts or ((), np.empty((size, 0), np.int64))))
        elif selector == "predicate":
            mask = self._by_predicate(size, labels, classes, items)
        elif selector == "mask":
            mask = self._by_mask(size)
        elif selector == "dataset":
            if found is None:
                raise UserError("request.dataset needs a data set whose items can be compared by content.")
            mask = found
        elif selector == "files" or (selector == "file" and names and lists_names(Path(str(self.file)))):
            mask = self._by_names(selector, names)
        else:
            mask = self._by_indices(size, selector)
        if not mask.any():
            raise UserError(f"request.{selector} selects no item of the {size}: the forget set is empty.")
        if mask.all():
            raise UserError(f"request.{selector} selects all {size} items: nothing is left to retain.")
        return mask

    @property
    def named(self) -> bool:
        """Whether any selector is given, valid or not; a model that trains on all data needs no request."""
        return bool(self.given())

    def value(self, selector: str) -> Any:
        """Return the value of a selector; None or empty if it is not given."""
        return getattr(self, selector)

    def given(self) -> list[str]:
        """Return the names of the selectors that are given."""
        names = (*self.selectors, *self.handed)
        return [name for name in names if (value := self.value(name)) is not None and _is_something(value)]

    def refuse_handed(self) -> None:
        """Refuse selectors that cannot be written to a config.

        Raises:
            UserError: the request is a mask, items, or a function that no file is named for.
        """
        lost = self.handed if not callable(self.predicate) else ("predicate",)
        for name in self.given():
            if name in lost:
                raise UserError(f"request.{name}: a config cannot hold it; give it to msgm.fit, or name the items.")

    def describe(self) -> str:
        """Return the request as half a sentence, for reports."""
        if not self.named:
            return "no request"
        selector = self.selector()
        value = self.value(selector)
        if selector == "mask":
            value = f"of {int(value.sum())} items"
        elif selector == "dataset":
            value = "of the items themselves"
        elif callable(value):
            value = "in Python"
        if isinstance(value, Concept):
            value = value.forget
        if isinstance(value, dict):
            value = [f"{column} {', '.join(map(str, _listed(values)))}" for column, values in value.items()]
        parts = list(map(str, value)) if isinstance(value, list) else [str(value)]
        more = len(parts) - SHOWN if selector in ("indices", "files") else 0
        text = ", ".join(parts[:SHOWN] if more > 0 else parts) + (f" and {more} more" if more > 0 else "")
        meant = f", {MEANT[self.means]}" if self.means else ""
        return f"{self.goal} of the {self.target} given by {selector} {text}{meant}"

    def check_means(self, classes: int) -> None:
        """Refuse to tell the items from a condition where a model of this many ``classes`` knows none.

        Raises:
            UserError: ``means`` or a concept is given, and the model is unconditional.
        """
        if self.concept is not None and not classes:
            raise UserError(
                "request.concept names prompts, and this model reads none; name the items in another way, or take a "
                "network that reads prompts, such as text-unet."
            )
        if self.means is not None and not classes:
            raise UserError(
                f"request.means: {self.means!r} is said to class-conditional generators, and this model is none; "
                "leave it out."
            )

    @property
    def by_class(self) -> bool:
        """Whether it names whole classes."""
        return bool(self.labels or self.positions)

    @property
    def by_item(self) -> bool:
        """Whether it lists items one by one (``listing``)."""
        return self.selector() in self.listing

    def selector(self) -> str:
        """Return the name of the one selector that is given; none or several are refused with a UserError."""
        given = self.given()
        if len(given) != 1:
            found = " and ".join(f"request.{name}" for name in given) or "none"
            raise UserError(f"a request needs exactly one of {', '.join(self.selectors)}; found {found}.")
        return given[0]

    def _by_mask(self, size: int) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = self.value("mask")
        if len(mask) != size:
            raise UserError(f"request.mask: expected one boolean for each of {size} items, got {len(mask)}.")
        return mask.copy()

    def _by_classes(self, selector: str, labels: NDArray[np.int64] | None, classes: Sequence[str]) -> NDArray[np.bool_]:
        if labels is None:
            raise UserError(f"request.{selector} needs a data set with class labels, and this one has none.")
        count = len(classes) or int(labels.max(initial=-1)) + 1
        if selector == "positions":
            wanted = [as_index(number, "request.positions") for number in self.positions]
        else:
            wanted = [class_number(label, classes, "request.labels") for label in self.labels]
        for number in wanted:
            if not 0 <= number < count:
                raise UserError(f"request.{selector}: there is no class number {number}; they are 0 to {count - 1}.")
        if len(set(wanted)) != len(wanted):
            given = ", ".join(map(str, getattr(self, selector)))
            raise UserError(f"request.{selector} names a class twice: {given}.")
        return np.isin(labels, wanted)

    def _by_attribute(self, attributes: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        name = str(self.attribute)
        if name not in attributes:
            known = ", ".join(attributes) or "none"
            raise UserError(
                f"request.attribute: unknown attribute {name!r}; known: {known}.{nearest(name, [*attributes])}"
            )
        return np.asarray(attributes[name], dtype=bool)

    def _by_group(self, groups: Mapping[str, NDArray[np.str_]]) -> NDArray[np.bool_]:
        if len(self.group) != 1:
            raise UserError(f"request.group needs exactly one column, got {', '.join(self.group)}.")
        (column, given), known = next(iter(self.group.items())), list(groups)
        if column not in groups:
            columns = ", ".join(known) or "none"
            raise UserError(f"request.group: unknown column {column!r}; known: {columns}.{nearest(column, known)}")
        wanted = _listed(given)
        values = np.unique(groups[column]).tolist()
        for value in wanted:
            if value not in values:
                hint = nearest(value, values)
                raise UserError(f"request.group.{column}: no item has {value!r}; values are {listed(values)}.{hint}")
        return np.isin(groups[column], wanted)

    def _by_indices(self, size: int, selector: str) -> NDArray[np.bool_]:
        given = self.indices if selector == "indices" else read_indices(Path(str(self.file)))
        numbers = [as_index(number, f"request.{selector}") for number in given]
        if not numbers:
            raise UserError(f"request.{selector}: the forget set is empty.")
        outside = [number for number in numbers if not 0 <= number < size]
        if outside:
            raise UserError(
                f"request.{selector}: index {outside[0]} is out of range; the data set has items 0 to {size - 1}."
            )
        values, counts = np.unique(np.asarray(numbers, dtype=np.int64), return_counts=True)
        if (counts > 1).any():
            raise UserError(f"request.{selector}: index {values[counts > 1][0]} is given twice.")
        mask = np.zeros(size, dtype=bool)
        mask[values] = True
        return mask

    def _by_names(self, selector: str, names: Sequence[str]) -> NDArray[np.bool_]:
        if not names:
            raise UserError("request.files needs a data set of files, and the items of this one have no names.")
        wanted = self.files if selector == "files" else read_names(Path(str(self.file)))
        positions = {name: i for i, name in enumerate(names)}
        mask = np.zeros(len(names), dtype=bool)
        for name in wanted:
            if name not in positions:
                raise UserError(f"request.{selector}: no item is named {name!r}.{_nearest_file(name, names)}")
            if mask[positions[name]]:
                raise UserError(f"request.{selector}: {name!r} is given twice.")
            mask[positions[name]] = True
        return mask

    def _by_predicate(
        self,
        size: int,
        labels: NDArray[np.int64] | None,
        classes: Sequence[str],
        items: Callable[[int], Any] | None,
    ) -> NDArray[np.bool_]:
        predicate = self.predicate if callable(self.predicate) else load_function(str(self.predicate))
        if items is None:
            raise UserError("request.predicate needs a data set whose items can be read one by one.")
        known: list[Any] = [None] * size if labels is None else labels.tolist()
        if labels is not None and classes:
            known = [classes[number] for number in known]
        mask = np.zeros(size, dtype=bool)
        for i in range(size):
            try:
                mask[i] = bool(predicate(items(i), known[i]))
            except Exception as error:
                detail = f"{type(error).__name__}: {error}"
                name = getattr(predicate, "__name__", "it") if callable(self.predicate) else self.predicate
                raise UserError(f"request.predicate: {name} failed on item {i}: {detail}.") from error
        return mask


def _several(request: ForgetRequest, name: str) -> list[Any]:
    return as_list(getattr(request, name), f"request.{name}", name)


def _is_something(value: Any) -> bool:
    return not isinstance(value, list | dict) or bool(value)


def _booleans(mask: Any) -> NDArray[np.bool_]:
    found = np.array(mask)
    if found.dtype != bool or found.ndim != 1:
        raise UserError(f"request.mask: expected a list of booleans, one an item, got {shown(mask)}.")
    return found


def _values(values: Any, key: str) -> Any:
    """Return the values of a group's column, or its single one, as text."""
    if isinstance(values, str | int):
        return as_id(values, key, "a value")
    return [as_id(value, key, "a value") for value in as_list(values, key, "values")]


def _listed(values: Any) -> list[Any]:
    """Return the values of a group's column, of which a single one may stand alone."""
    return values if isinstance(values, list) else [values]


def _nearest_file(name: str, names: Sequence[str]) -> str:
    """Return a hint: the only item whose last part is that of ``name``, else the nearest spelling."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    same = [other for other in names if other.rsplit("/", 1)[-1] == last]
    return f" Did you mean {same[0]!r}?" if len(same) == 1 else nearest(name, list(names))
