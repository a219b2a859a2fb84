"""The register of a run folder: the files written there, the training items each of them saw, and hashes.

``traces.json`` lies in every run folder, and in the folder of every row of a comparison. It has

- ``written``: by path relative to its folder, ``what`` it is, which ``part`` of the training items it saw (``all``, the
  ``retain`` items or the ``forget`` items of ``request``; it is ``all`` too where the request does not say which);
- ``sources``: the model folders that the models here were made from, or are compared with;
- ``hashes``: SHA-256 by path of files for which somebody may be accountable: weights, chains, reports and cards.

Such a file is registered before it is written, so that none is missed if the writer is killed. Cards and
``msgm forget-traces`` list from it the files that still hold items to forget; ``msgm verify`` recomputes the hashes.
Retrained models in the user's cache (``msgm.cache``) are listed where they saw items that a model of the folder was
asked to forget.

The first version of msgm wrote no register. In its folders files are identified by their names (``KNOWN``), which the
list states.

The file is long because all that writes, lists, deletes and hashes by the register is read side by side.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from msgm.cache import Cache
from msgm.chain import FILE as CHAIN
from msgm.chain import Chain, read_chain
from msgm.digests import file_digest
from msgm.errors import UserError
from msgm.folders import changing, inside, is_hidden, locked, recover, write_json
from msgm.reading import read_json
from msgm.shapes import Positive

FILE = "traces.json"
FORMAT = 1
Part = Literal["all", "retain", "forget"]


class Written(TypedDict):
    """Entry of the register for one file or folder."""

    what: str
    part: Part
    request: str | None


class Register(TypedDict):
    """``traces.json``."""

    format: Positive
    written: dict[str, Written]
    sources: list[str]
    hashes: dict[str, str]


VIEWS = ("report.*", "samples.png", "sweep.png", "card.*", "*-card.*", "rows/*/card.*", "cards/**/card.*")
"""Reports and cards of a folder, which a person may sign for."""

SERVED = ("ids.json", "recommender.safetensors")
"""What a served recommender cannot do without one another."""

KNOWN: dict[str, tuple[str, Part]] = {
    "model": ("a model, trained on the items or made from one that was", "all"),
    "adapter": ("the adapter that was added to a model's weights", "all"),
    "checkpoints": ("checkpoints: raw and averaged weights, the optimiser's state", "all"),
    "course": ("weights in the course of training", "all"),
    "teacher": ("the teacher, tuned on the items to forget", "forget"),
    "guidance": ("what guides samples, found in the items: among them the items to forget", "all"),
    "shards": ("models of shards, those that held an item to forget trained anew without it", "retain"),
    "replay": ("samples of the model that unlearning started from", "all"),
    "moments": ("gradients of the loss on items", "all"),
    "samples": ("samples of models", "all"),
    "judge": ("the judge, trained on all items", "all"),
    "reference": ("statistics of the data", "all"),
    "neighbours.png": ("training items that are nearest to samples", "all"),
    "samples.png": ("samples of all rows, the base model's too", "all"),
    "report.html": ("the report, with samples of the base model", "all"),
    "models/*/original": ("the original model", "all"),
    "models/*/*/retrain-*": ("a retrained model, which saw what other requests name", "all"),
    "outputs/**/*.npz": ("logits on the items to forget and others", "all"),
    "shadows": ("logits of models that a metric trained", "all"),
    "recommender.safetensors": ("the recommender, with the interactions that it keeps", "all"),
    "ids.json": ("ids of users and items that are not forgotten", "retain"),
}
"""What the first version wrote, by its path in a run folder."""


@dataclass(frozen=True)
class Trace:
    """A file or folder that holds something of the training items.

    Attributes:
        path: where it is.
        what: what it is.
        part: which items it saw: ``all``, or the ``retain`` or ``forget`` items of ``request``.
        request: the request, in words or by name.
        registered: whether its writer registered it; else it was identified by its name.
    """

    path: Path
    what: str
    part: Part
    request: str | None = None
    registered: bool = True

    def holds(self, request: str | None) -> bool:
        """Return whether items that ``request`` names may be in it; None asks for the items of any request."""
        return self.part != "retain" or request is None or self.request != request

    def saw(self) -> str:
        """Return a description of the items it saw."""
        if self.part == "all":
            return "all items"
        return f"the {self.part} items" + (f" of {self.request}" if self.request else "")

    def megabytes(self) -> float:
        """Return its size in MiB."""
        files = [self.path] if self.path.is_file() else self.path.rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file()) / 2**20

    def line(self, start: Path) -> dict[str, Any]:
        """Return it as a report lists it, with its path relative to ``start``."""
        path = Path(os.path.relpath(self.path, start)).as_posix()
        found = {"path": path, "what": self.what, "megabytes": round(self.megabytes(), 3)}
        return found | {"part": self.part, "request": self.request, "registered": self.registered}


# Writing


def register(folder: Path, path: Path, what: str, part: Part = "all", request: str | None = None) -> None:
    """Add a file or folder that is about to be written to the register of ``folder``.

    Args:
        folder: the run folder.
        path: the file or folder, inside it.
        what: what it is, in a few words.
        part: which training items it saw; see ``Trace``.
        request: whose.
    """
    name = path.relative_to(folder).as_posix()
    entry: Written = {"what": what, "part": part, "request": request}
    if _read(folder)["written"].get(name) != entry:
        with _changing(folder) as tree:
            tree["written"][name] = entry


def follow(folder: Path, source: Path) -> None:
    """Add a model folder that models here were made from, or compared with, to the register of ``folder``."""
    name = _relative(source, folder)
    if name not in _read(folder)["sources"]:
        with _changing(folder) as tree:
            tree["sources"].append(name)


def seal(folder: Path, *paths: Path) -> None:
    """Record the present hashes of files, and of all files in folders, in the register of ``folder``."""
    names = [_relative(path, folder) for path in paths]
    new = {_relative(file, folder): file_digest(file) for path in paths for file in _files(path)}

    def sealed(hashes: dict[str, str]) -> dict[str, str]:
        kept = {file: value for file, value in hashes.items() if not any(_below(file, name) for name in names)}
        return dict(sorted((kept | new).items()))

    hashes = _read(folder)["hashes"]
    if sealed(hashes) != hashes:
        with _changing(folder) as tree:
            tree["hashes"] = sealed(tree["hashes"])


@contextmanager
def _changing(folder: Path) -> Iterator[Register]:
    """Yield the register of ``folder`` and write it; processes that share the folder do so one after another."""
    folder.mkdir(parents=True, exist_ok=True)
    with changing(folder / FILE):
        tree = _read(folder)
        yield tree
        write_json(folder / FILE, tree)


def seal_views(folder: Path, rebuilt: bool = False) -> None:
    """Keep the hashes of the report and the cards in ``folder``.

    Args:
        folder: the run folder.
        rebuilt: whether they were rebuilt from an existing report.json; its hash is then left unchanged, so that edits
            of it are still detected.
    """
    views = [path for pattern in VIEWS for path in folder.glob(pattern)]
    seal(folder, *(path for path in views if not (rebuilt and path.name == "report.json")))


def _read(folder: Path) -> Register:
    path = folder / FILE
    if not path.is_file():
        return {"format": FORMAT, "written": {}, "sources": [], "hashes": {}}
    tree: Register = read_json(path, Register)
    if tree["format"] != FORMAT:
        raise UserError(f"{path} is of a newer version of msgm: its format is {tree['format']!r}.")
    return tree


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _below(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}/")


def _files(path: Path) -> list[Path]:
    found = [path] if path.is_file() else path.rglob("*")
    return sorted(file for file in found if file.is_file() and not is_hidden(file.name))


# Listing


def traces(folder: Path) -> list[Trace]:
    """Return all existing files and folders that are registered in ``folder`` and in the runs its models came from.

    With it come the retrained models of the user's cache that saw items which a model here was asked to forget.
    """
    found: dict[Path, Trace] = {}
    seen: set[Path] = set()
    waiting, asked = [folder], dict[str, list[Chain]]()
    while waiting:
        start = waiting.pop(0)
        if start.resolve() in seen:
            continue
        seen.add(start.resolve())
        for run in _runs(start):
            seen.add(run.resolve())
            for trace in _of_run(run):
                found.setdefault(trace.path.resolve(), trace)
            asked.setdefault(str(_manifest(run).get("data_digest")), []).extend(_asked(run))
            for source in _sources(run):
                if source.is_file():
                    found.setdefault(source.resolve(), Trace(source, "weights that a model here came from", "all"))
                else:
                    waiting.append(source)
    return [*found.values(), *_cached(asked)]


def _asked(run: Path) -> list[Chain]:
    """Return the requests of a run's model, and those of the models that a comparison of classifiers retrained."""
    folders = [run / "model", *(path.parent for path in sorted(run.glob(f"models/**/{CHAIN}")))]
    chains = [read_chain(folder) for folder in folders]
    return [chain for chain in chains if chain is not None and chain.requests]


def _cached(asked: Mapping[str, Sequence[Chain]]) -> Iterator[Trace]:
    """Yield the cached models that saw items of requests, given by the digest of the data that these are of."""
    for cached in Cache.of_user().entries():
        model = cached.model
        chains = asked.get(model.data_digest, [])
        held = [chain for chain in chains if any(cached.saw(request.positions) for request in chain.requests)]
        if held:
            same_words = any(chain.requests[-1].text == model.request for chain in held)
            what = f"a retrained model in msgm's cache: {model.what}"
            yield Trace(cached.folder, what, "all" if same_words else "retain", model.request)


def holders(folder: Path) -> list[dict[str, Any]]:
    """Return, for a report, the files that hold items of any of its requests, here and in its models' source runs."""
    return [trace.line(folder) for trace in traces(folder) if trace.part != "retain" or trace.request is not None]


def of_request(found: list[dict[str, Any]] | None, *request: str) -> list[dict[str, Any]] | None:
    """Return the lines of ``holders`` on files that may hold items of a request; None if nothing was recorded.

    Args:
        found: the lines.
        request: its name, and its words, by which the cache knows it.
    """
    if found is None:
        return None
    return [line for line in found if line.get("part") != "retain" or line.get("request") not in request]


def _refuse_no_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give a run or compare folder.")


def _runs(folder: Path) -> list[Path]:
    """Return the run folders in a folder: itself, those with a register, and the rows of a comparison."""
    registers = [path.parent for path in folder.rglob(FILE)]
    rows = [path.parent for path in folder.glob("rows/*/manifest.json")]
    return list(dict.fromkeys([folder, *sorted({*registers, *rows})]))


def _of_run(run: Path) -> Iterator[Trace]:
    recover(run / "model")
    if (run / FILE).is_file():
        for name, entry in _read(run)["written"].items():
            path = _inside(run, name)
            if path.exists():
                yield Trace(path, entry["what"], entry["part"], entry["request"])
        return
    log = _manifest(run)
    retrained = (log.get("start"), log.get("objective")) == ("scratch", "unseen")
    for pattern, (what, part) in KNOWN.items():
        for path in sorted(run.glob(pattern)):
            saw: Part = "retain" if retrained and pattern in ("model", "checkpoints", "course", "samples") else part
            yield Trace(path, what, saw, log.get("request") if saw == "retain" else None, registered=False)
    if not (run / "manifest.json").is_file() and (run / "model_index.json").is_file():
        yield Trace(run, "a model that was made elsewhere", "all", None, registered=False)


def _sources(run: Path) -> list[Path]:
    """Return the run folders, or the folders of models made elsewhere, that a run's models came from."""
    if (run / FILE).is_file():
        found = [run / name for name in _read(run)["sources"]]
    else:
        source = _manifest(run).get("source")
        starts = [Path(), *run.resolve().parents] if isinstance(source, str) else []
        found = [start / str(source) for start in starts if (start / str(source)).exists()][:1]
    owners = [path.parent if path.name == "model" else path for path in found]
    return [Path(os.path.relpath(path)) for path in owners if _is_source(path)]


def _is_source(path: Path) -> bool:
    """Return whether a path may be a model's source: a file of weights, a run, or a model's folder."""
    return path.is_file() or any((path / name).is_file() for name in (FILE, "manifest.json", "model_index.json"))


def _manifest(run: Path) -> dict[str, Any]:
    tree = read_json(run / "manifest.json") if (run / "manifest.json").is_file() else {}
    return tree if isinstance(tree, dict) else {}


def _inside(run: Path, name: str) -> Path:
    return inside(run, name, f"{run / FILE}: written")


# Commands


def report_lines(folder: Path) -> list[str]:
    """Return the lines of ``msgm forget-traces``: one for each trace, and the limits of the list.

    Raises:
        UserError: there is no such folder.
    """
    _refuse_no_folder(folder)
    found = traces(folder)
    lines = []
    for trace in found:
        line = trace.line(folder)
        lines.append(f"{line['path']} ({line['megabytes']:g} MB): {trace.what}; saw {trace.saw()}")
    if not found:
        lines.append("nothing is registered in this folder")
    if not all(trace.registered for trace in found):
        lines.append("Some are of msgm's first version, which kept no register: known by their names alone.")
    return [*lines, "Copies elsewhere, and the data themselves, are not looked for."]


def delete(folder: Path, paths: Iterable[str]) -> list[Path]:
    """Delete registered files and folders of a run.

    Args:
        folder: the run folder.
        paths: as ``msgm forget-traces`` lists them.

    Raises:
        UserError: a path that leads out of the folder or is not registered, or another command writes there; nothing
            is deleted then.
    """
    with locked(folder):
        known = {trace.path.resolve(): trace for trace in traces(folder)}
        chosen = []
        for name in paths:
            path = (folder / name).resolve()
            if path.is_relative_to(Cache.of_user().folder.resolve()):
                raise UserError(f"--delete: {name!r} is in the cache; use msgm cache --delete {path.name}.")
            if not path.is_relative_to(folder.resolve()):
                raise UserError(f"--delete: {name!r} lies outside {folder}; give its own run instead.")
            if path not in known:
                raise UserError(f"--delete: {name!r} is not on the list; see msgm forget-traces {folder}.")
            chosen.append(known[path].path)
        served = {(folder / name).resolve() for name in SERVED if (folder / name).is_file()}
        named = {path.resolve() for path in chosen}
        if served & named and not served <= named:
            raise UserError(f"--delete: {' and '.join(SERVED)} are one served model; name both, or neither.")
        for path in chosen:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for run in _runs(folder):
            _forget(run)
    return chosen


def _forget(run: Path) -> None:
    """Remove deleted paths from a run's register."""
    if (run / FILE).is_file():
        tree = _read(run)
        written = {name: entry for name, entry in tree["written"].items() if (run / name).exists()}
        hashes = {name: value for name, value in tree["hashes"].items() if (run / name).exists()}
        if (written, hashes) != (tree["written"], tree["hashes"]):
            write_json(run / FILE, tree | {"written": written, "hashes": hashes})


def verify(folder: Path) -> tuple[int, list[str]]:
    """Recompute all recorded hashes and compare.

    Returns:
        The number of hashed files, and a sentence for each that has changed.

    Raises:
        UserError: there is no such folder, it has no hashes, or its register is damaged.
    """
    _refuse_no_folder(folder)
    count, faults = 0, []
    for run in _runs(folder):
        hashes = _read(run)["hashes"]
        count += len(hashes)
        for name, value in hashes.items():
            path = _inside(run, name)
            if not path.is_file():
                faults.append(f"{path} is missing.")
            elif file_digest(path) != value:
                faults.append(f"{path} is not as it was written.")
        for parent in {(run / name).parent for name in hashes if name.endswith(".safetensors")}:
            weights = [file for file in _files(parent) if file.suffix in (".safetensors", ".bin")]
            new = [file for file in weights if _relative(file, run) not in hashes]
            faults += [f"{file} was not there when the model was written." for file in new]
    if not count:
        raise UserError(f"{folder} holds no hashes to compare with: it is no run, or one of msgm's first version.")
    return count, faults
