"""``msgm data CONFIG``: what the requests of a config would forget and retain, before anything is trained.

Of generators and classifiers it prints the items of every part by class, the items to forget by name, the omitted files
of the data set's folder with reasons, and near-duplicates of items to forget among the retain items; of recommenders
the users, items and interactions that each request takes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from msgm.chain import Entry, gone_before, read_chain
from msgm.data import DATASETS, Dataset, load_dataset
from msgm.data.duplicates import COMPARED, Pair, Positions, near_duplicates
from msgm.data.listing import printable
from msgm.errors import UserError, known
from msgm.plugins import load_received
from msgm.settings import domain_of_config, module_of
from msgm.tables import aligned

if TYPE_CHECKING:
    from msgm.recommender.data.base import Interactions
    from msgm.recommender.scenario import Scenario

FIRST = 10
"""How many things of a list, and rows of a table, are shown unless all are asked for."""


@dataclass(frozen=True)
class Asked:
    """The items that a request of a generator or a classifier selects.

    Attributes:
        text: the request.
        mask: (N,) of the items that it names.
        parts: positions by the part's name; ``train`` comes first, the others are held out.
    """

    text: str
    mask: NDArray[np.bool_]
    parts: Mapping[str, Positions]

    @property
    def forget(self) -> Positions:
        """Training items to forget."""
        return self.parts["train"][self.mask[self.parts["train"]]]

    @property
    def retain(self) -> Positions:
        """Training items that stay."""
        return self.parts["train"][~self.mask[self.parts["train"]]]


def preview(
    path: Path, overrides: Sequence[str] = (), requests: Sequence[str] | None = None, every: bool = False
) -> Iterator[str]:
    """Yield lines that say what a config's requests would forget and retain.

    Args:
        path: a YAML file, the name of a shipped config, or a run folder.
        overrides: ``key.sub=value``.
        requests: names of requests of the config; all when None. A generator's config has one, without a name.
        every: show whole lists, not the first of them.

    Raises:
        UserError: as the commands that train raise it for the same config.
    """
    module = module_of(path)
    chain = None
    if path.is_dir():
        load_received(path, ("data",))  # refuses what only a trusted folder may name
        chain = read_chain(path / "model")
        path = path / "config.yaml"
    entries = chain.requests if chain else ()
    if module is None and requests is not None:
        raise UserError("--requests: a generator's config has one request, without a name.")
    if module == "classifier":
        yield from _classifier(path, overrides, requests, every, entries)
    elif module is None:
        yield from _generator(path, overrides, every, entries)
    elif module != "recommender":
        raise UserError(f"{path} is of the domain {module}, whose requests are shown by its own plugin alone.")
    elif domain_of_config(path, overrides) == "attributes":
        yield from _attributes(path, overrides)
    else:
        yield from _recommender(path, overrides, requests, every)


def _generator(path: Path, overrides: Sequence[str], every: bool, entries: Sequence[Entry]) -> Iterator[str]:
    from msgm.config import load_config

    config = load_config(path, list(overrides))
    dataset = load_dataset(config.data)
    yield from _data(dataset, every)
    if not config.request.named:
        yield "no request: nothing would be forgotten"
        yield from _counts(dataset, Asked("", np.zeros(len(dataset), dtype=bool), _all(dataset)), every)
        return
    settings, mask = DATASETS.build(config.data), dataset.forget_mask(config.request)
    mask, parts, told = _without_gone(mask, settings.parts(dataset), entries)
    asked = Asked(config.request.describe(), mask, parts)
    yield from told
    yield from _selected(dataset, "request", asked, every)
    settings.split_by(dataset, mask)  # refuses what cannot be answered, now that it is seen why
    yield from _duplicates(dataset, asked, every)


def _without_gone(
    mask: NDArray[np.bool_], parts: Mapping[str, Positions], entries: Sequence[Entry]
) -> tuple[NDArray[np.bool_], dict[str, Positions], list[str]]:
    """Return a request's items and the parts without items of the run's earlier requests, and a line that says so."""
    gone = gone_before(mask, entries)
    told = [f"left out, since earlier requests of this model named them: {gone.sum()} items"] if gone.any() else []
    return mask & ~gone, {name: part[~gone[part]] for name, part in parts.items()}, told


def _all(dataset: Dataset) -> dict[str, Positions]:
    return {"train": np.arange(len(dataset))}


def _classifier(
    path: Path, overrides: Sequence[str], requests: Sequence[str] | None, every: bool, entries: Sequence[Entry]
) -> Iterator[str]:
    import torch

    from msgm.classifier.config import load_config
    from msgm.classifier.experiment import Experiment

    config = load_config(path, list(overrides))
    experiment = Experiment(config, load_dataset(config.data), config.seed, torch.device("cpu"))
    dataset = experiment.dataset
    yield from _data(dataset, every)
    yield f"split and random requests are those of seed {config.seed}, the first of {config.seeds}"
    parts = {"train": experiment.parts["train"], **experiment.parts}
    unused = np.setdiff1d(np.arange(len(dataset)), np.concatenate(list(parts.values())))
    parts |= {"unused": unused} if len(unused) else {}
    for name in _chosen(config.requests, requests):
        mask, left, told = _without_gone(experiment.selected(name), parts, entries)
        asked = Asked(config.requests[name].describe(), mask, left)
        yield from told
        yield from _selected(dataset, f"request {name}", asked, every)
        experiment.split(name)  # refuses what cannot be answered, now that it is seen why
        yield from _duplicates(dataset, asked, every)


def _chosen(requests: Mapping[str, object], wanted: Sequence[str] | None) -> list[str]:
    for name in wanted or ():
        known(name, list(requests), "--requests", "request")
    return list(requests if wanted is None else wanted)


def _data(dataset: Dataset, every: bool) -> Iterator[str]:
    classes = f", {len(dataset.classes)} classes" if dataset.classes else ", no classes"
    copies = f", {dataset.copies} of them copies that data.repeat adds" if dataset.copies else ""
    yield f"{dataset.name}: {len(dataset)} items of shape {'x'.join(map(str, dataset.shape))}{classes}{copies}"
    for reason, paths in dataset.left_out.items() if every else ():
        yield from (f"  left out, {reason}: {printable(path)}" for path in paths)


def _selected(dataset: Dataset, title: str, asked: Asked, every: bool) -> Iterator[str]:
    """Yield what a request selects: counts and names."""
    yield ""
    yield f"{title}: {asked.text}"
    yield from _counts(dataset, asked, every)
    yield f"training items to forget: {len(asked.forget)}"
    yield from _first([_named(dataset, i) for i in asked.forget], every)
    held_out = asked.mask.copy()
    held_out[asked.parts["train"]] = False
    if held_out.any():
        yield f"named by the request but never trained on: {held_out.sum()}"
        yield from _first([_named(dataset, i) for i in np.flatnonzero(held_out).tolist()], every)


def _counts(dataset: Dataset, asked: Asked, every: bool) -> Iterator[str]:
    """Yield a table of the items of every part by class, those to forget apart."""
    head = ["class", *(f"{part} {what}" for part in asked.parts for what in ("retain", "forget"))]
    groups = [(name, dataset.labels == number) for number, name in enumerate(dataset.classes)]
    total = ("all", np.ones(len(dataset), dtype=bool))
    # Classes with items to forget come first, so that the first rows are those that matter.
    groups.sort(key=lambda group: not (group[1] & asked.mask).any())
    shown = groups if every else groups[: 2 * FIRST]
    rows = [
        [
            name,
            *(
                str(int((member & side)[part].sum()))
                for part in asked.parts.values()
                for side in (~asked.mask, asked.mask)
            ),
        ]
        for name, member in [*shown, total]
    ]
    yield from (f"  {row}" for row in aligned(head, rows))
    if len(shown) < len(groups):
        yield f"  and {len(groups) - len(shown)} more classes: see --list"


def _named(dataset: Dataset, position: int) -> str:
    """Return an item as ``position: name, class``, as far as it has these."""
    known = [printable(dataset.names[position])] if dataset.names else []
    known += [f"class {dataset.classes[dataset.labels[position]]}"] if dataset.labels is not None else []
    return f"{position}: {', '.join(known)}" if known else str(position)


def _first(lines: Sequence[str], every: bool) -> Iterator[str]:
    shown = lines if every else lines[:FIRST]
    yield from (f"  {line}" for line in shown)
    if len(shown) < len(lines):
        yield f"  and {len(lines) - len(shown)} more: see --list"


def _duplicates(dataset: Dataset, asked: Asked, every: bool) -> Iterator[str]:
    """Yield lines on retain items that are near-duplicates of items to forget."""
    held_out = np.concatenate([part for name, part in asked.parts.items() if name != "train"])
    parts = {"retain": dataset.distinct(asked.retain), "forget": dataset.distinct(asked.forget)}
    found = near_duplicates(dataset, parts, held_out, most=COMPARED)
    yield f"near-duplicates of these that would stay among the items to retain: {found.found}"
    yield from _first([_pair(dataset, pair) for pair in found.pairs], every)
    yield f"  searched by the {found.method}"


def _pair(dataset: Dataset, pair: Pair) -> str:
    near = "an exact copy" if pair.distance == 0 else f"at distance {pair.distance:.4g}"
    return f"{_named(dataset, pair.other)}, {near} of {_named(dataset, pair.forget)}"


def _recommender(path: Path, overrides: Sequence[str], requests: Sequence[str] | None, every: bool) -> Iterator[str]:
    from msgm.recommender.config import load_config
    from msgm.recommender.data.base import load_interactions
    from msgm.recommender.data.splits import SPLITS
    from msgm.recommender.scenario import make_scenario

    config = load_config(path, list(overrides))
    data = load_interactions(config.data)
    split = SPLITS.build(config.split).split(data)
    yield _interactions(config.data["name"], data)
    for name in _chosen(config.requests, requests):
        scenario = make_scenario(config.requests[name], data, split, config.seed, name)
        yield ""
        yield f"request {name}: {config.requests[name].describe()}"
        yield from _scenario(scenario, every)


def _interactions(name: str, data: "Interactions") -> str:
    return f"{name}: {len(data.users)} users, {len(data.items)} items, {data.matrix.nnz} interactions"


def _scenario(scenario: "Scenario", every: bool) -> Iterator[str]:
    asked, data, split = scenario.together, scenario.data, scenario.split
    cells = {part: getattr(split, part) for part in ("train", "validation", "test")}
    gone = {part: int(asked.mask(matrix).sum()) for part, matrix in cells.items()}
    rows = [["users", str(len(data.users) - len(asked.users)), str(len(asked.users))]]
    rows += [["items", str(len(data.items) - len(asked.items)), str(len(asked.items))]]
    rows += [[f"{part} interactions", str(cells[part].nnz - gone[part]), str(gone[part])] for part in cells]
    yield from (f"  {row}" for row in aligned(["", "retain", "forget"], rows))
    if len(scenario.stream) > 1:
        yield f"  in {len(scenario.stream)} requests, one after the other"
    users, items = data.users.ids, data.items.ids
    lists = {
        "users": [users[i] for i in asked.users],
        "items": [items[i] for i in asked.items],
        "interactions": [f"{users[row]} with {items[column]}" for row, column in asked.cells],
    }
    for kind, found in lists.items():
        if found:
            yield f"{kind} to forget, {len(found)}:"
            yield from _first([printable(one) for one in found], every)


def _attributes(path: Path, overrides: Sequence[str]) -> Iterator[str]:
    """Yield the number of users with each value of the attributes to erase; no item is forgotten."""
    from msgm.recommender.config import load_experiment
    from msgm.recommender.data.base import load_interactions
    from msgm.recommender.erasure.config import AttributeConfig

    config = load_experiment(AttributeConfig, path, list(overrides))
    data = load_interactions(config.data)
    yield _interactions(config.data["name"], data)
    for name in [config.attribute] if config.attribute is not None else data.attributes:
        known(name, list(data.attributes), "attribute", "attribute")
        values, counts = np.unique(data.attributes[name], return_counts=True)
        yield f"attribute {name}, to be taken out of the models of all users:"
        rows = [[value or "(not known)", str(count)] for value, count in zip(values, counts, strict=True)]
        yield from (f"  {row}" for row in aligned(["value", "users"], rows))
