"""Writes the catalogue: a page for every kind of exchangeable part, read from the code's registries.

A part is a class in a ``Registry``. Its entry holds its docstring, its card, and its settings with their defaults, so
that the pages say what the code does. They are written again at each build and are not kept.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from msgm.classifier.methods import METHODS as CLASSIFIER_METHODS
from msgm.classifier.metrics import METRICS as CLASSIFIER_METRICS
from msgm.classifier.networks import CLASSIFIERS
from msgm.data import DATASETS
from msgm.diffusion import NETWORKS, PROCESSES
from msgm.diffusion.guidance import GUIDANCE
from msgm.diffusion.samplers import SAMPLERS
from msgm.evaluation import attacks  # noqa: F401 - its metrics register themselves
from msgm.evaluation import judges as _judges  # noqa: F401 - likewise
from msgm.evaluation.extractors import EXTRACTORS
from msgm.evaluation.judge import JUDGES
from msgm.evaluation.metrics import METRICS
from msgm.objectives import MATCHING, OBJECTIVES, SURGERY
from msgm.objectives.edits import EDITS
from msgm.recommender.attributes import ERASURES
from msgm.recommender.data import SOURCES
from msgm.recommender.data.splits import SPLITS
from msgm.recommender.methods import METHODS as RECOMMENDER_METHODS
from msgm.recommender.metrics import METRICS as RECOMMENDER_METRICS
from msgm.recommender.models import MODELS
from msgm.registry import Registry
from msgm.starts import ENSEMBLES

EMPTY = (None, "", (), "none")


class Page(NamedTuple):
    """One page: its file, its title, what its parts are, and the registry that holds them."""

    file: str
    title: str
    about: str
    registry: Registry[Any]


PAGES = [
    Page("objectives", "Objectives", "The swappable losses of generators: `objective.name`.", OBJECTIVES),
    Page("edits", "Edits", "Changes of a generator's weights without training steps: `edit.name`.", EDITS),
    Page("matching", "Matching", "Losses of the items that are kept: `objective.matching`.", MATCHING),
    Page("surgery", "Merged gradients", "How two gradients become one: `objective.combine`.", SURGERY),
    Page("samplers", "Samplers", "How samples are drawn: `sampling.sampler`, or `--sampler`.", SAMPLERS),
    Page("guidance", "Guidance", "Changes of a score while a model samples; its weights stay.", GUIDANCE),
    Page("ensembles", "Ensembles", "Generators of several models, which delete items exactly: `shards`.", ENSEMBLES),
    Page("processes", "Processes", "The diffusion processes: `process.name`.", PROCESSES),
    Page("networks", "Networks", "Networks of generators: `network.name`.", NETWORKS),
    Page("datasets", "Data sets", "Data of generators and classifiers: `data.name`.", DATASETS),
    Page("metrics", "Metrics and attacks", "Measures of generators: `--metrics`, or `evaluation.metrics`.", METRICS),
    Page("judges", "Judges", "What decides what a sample shows: `evaluation.judge.kind`.", JUDGES),
    Page(
        "extractors", "Feature extractors", "What distances of features are taken from: `extractor.name`.", EXTRACTORS
    ),
    Page(
        "classifier-methods",
        "Classifier methods",
        "Ways to make a classifier forget: `--method`, `--only`, or `methods`.",
        CLASSIFIER_METHODS,
    ),
    Page("classifier-metrics", "Classifier metrics", "Measures of classifiers: `--metrics`.", CLASSIFIER_METRICS),
    Page("classifier-networks", "Classifier networks", "Networks of classifiers: `network.name`.", CLASSIFIERS),
    Page("recommender-models", "Recommender models", "Recommenders: `models`, or `--model`.", MODELS),
    Page("recommender-methods", "Recommender methods", "Ways to make a recommender forget.", RECOMMENDER_METHODS),
    Page("recommender-metrics", "Recommender metrics", "Measures of recommenders: `metrics`.", RECOMMENDER_METRICS),
    Page("recommender-data", "Recommender data", "Sources of interactions: `data.name`.", SOURCES),
    Page("recommender-splits", "Recommender splits", "How test interactions are held out: `split.name`.", SPLITS),
    Page("erasures", "Attribute erasures", "Ways to take attributes out of user embeddings.", ERASURES),
]


def write(folder: Path) -> None:
    """Write every page, and the index of them, into ``folder``, which holds nothing else."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        old.unlink()
    for page in PAGES:
        entries = [entry(name, cls) for name, cls in sorted(page.registry.entries.items())]
        (folder / f"{page.file}.md").write_text(f"# {page.title}\n\n{page.about}\n\n" + "\n".join(entries))
    (folder / "index.md").write_text(index())


def index() -> str:
    """Return the page that counts and links the others."""
    rows = [f"| [{p.title}]({p.file}.md) | {len(p.registry.entries)} | {p.about} |" for p in PAGES]
    files = "\n".join(page.file for page in PAGES)
    return (
        "# Catalogue\n\nEverything that can be exchanged by a name in a config. These pages are written from the code "
        "at each build.\n\n| part | how many | what |\n| --- | ---: | --- |\n"
        + "\n".join(rows)
        + f"\n\n```{{toctree}}\n:hidden:\n\n{files}\n```\n"
    )


def entry(name: str, cls: type) -> str:
    """Return the section of one part: what it is, its card, its numbers and its settings."""
    about, attributes = docstring(cls)
    parts = [f"## `{name}`", about or docstring(inspect.getmodule(cls))[0], facts(cls), settings(cls, attributes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def docstring(thing: Any) -> tuple[str, dict[str, str]]:
    """Return the paragraphs of a docstring as Markdown, and its ``Attributes:`` by name."""
    text = "" if (thing.__doc__ or "").startswith(f"{thing.__name__}(") else inspect.getdoc(thing) or ""
    about, _, rest = text.partition("\n\nAttributes:\n")
    listed = re.findall(r"^    (\w+): (.*(?:\n      +\S.*)*)", rest, flags=re.M)
    paragraphs = re.split(r"\n(?:Example|Examples):\n", about)[0].split("\n\n")
    return "\n\n".join(map(paragraph, paragraphs)), {key: " ".join(value.split()) for key, value in listed}


def paragraph(text: str) -> str:
    """Return one paragraph of a docstring as Markdown: formulas, which are indented, as code."""
    if text.startswith("    "):
        return f"```text\n{inspect.cleandoc(text)}\n```"
    if text.startswith("- "):
        return "\n".join(escaped(line) for line in text.splitlines())
    return escaped(" ".join(text.split()))


def escaped(text: str) -> str:
    """Return text whose Markdown characters outside of literals stand for themselves."""
    parts = re.split(r"(``.+?``)", text)
    parts[::2] = [re.sub(r"[\\*_|<>\[\]`$#]", r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def facts(cls: type) -> str:
    """Return what the class says of itself beside its docstring, as a list."""
    return "\n".join(f"- **{escaped(key)}**: {escaped(text)}" for key, text in stated(cls))


def stated(cls: type) -> Iterator[tuple[str, str]]:
    """Yield the facts of a part's card, or of the class where it has none: name and text."""
    card = getattr(cls, "card", None)
    if is_dataclass(card) and not isinstance(card, type):
        yield from ((key, plain(value)) for key, value in asdict(card).items() if value not in EMPTY)
    for key in ("source", "data", "errors", "live", "costly"):
        value = getattr(cls, key, None)
        if value not in (*EMPTY, False) and isinstance(value, str | bool | tuple):
            yield LABELS.get(key, key), plain(value)
    if hasattr(cls, "evaluations") and not getattr(cls, "__abstractmethods__", None):
        count = cls().evaluations(50)
        yield "network evaluations", "as many as it needs" if count is None else f"{count} at 50 steps"
    if isinstance(columns := getattr(cls, "columns", None), list):
        yield from ((f"column {c.heading}", f"{c.better or 'neither direction'} is better") for c in columns)
    if isinstance(numbers := getattr(cls, "numbers", None), Mapping):
        yield from (
            (key, f"{number.text} ({number.section}; better: {number.better})") for key, number in numbers.items()
        )


LABELS = {
    "data": "data it needs",
    "errors": "error of the variance at 50 steps, for data of variance .01, .05, .25, 1",
    "live": "needs the models, not their outputs alone",
    "costly": "measured only when asked for by name",
}


def plain(value: Any) -> str:
    """Return a value as text without brackets."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def settings(cls: type, attributes: Mapping[str, str]) -> str:
    """Return the table of a part's settings: name, default and meaning; empty when it has none."""
    shown = [f for f in fields(cls) if f.init] if is_dataclass(cls) else []
    inherited = {key: text for base in reversed(cls.__mro__[1:]) for key, text in docstring(base)[1].items()}
    meaning = inherited | attributes
    rows = [f"| `{f.name}` | {default(f)} | {escaped(meaning.get(f.name, ''))} |" for f in shown]
    return "\n".join(["| setting | default | meaning |", "| --- | --- | --- |", *rows]) if rows else ""


def default(field: Any) -> str:
    """Return a field's default as code, or a word where it has none."""
    if field.default is not MISSING:
        return f"`{field.default!r}`"
    return "required" if field.default_factory is MISSING else f"`{field.default_factory()!r}`"
