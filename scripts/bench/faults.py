"""Faults: commands killed at random instants and gone on with, and damaged files read.

Example: ``python scripts/bench/faults.py --kills 200 --malformed 1000 --json faults.json``.

A kill is SIGKILL to a process of its own that runs a real command, at an instant drawn over the time that the command
takes. The same command then goes on. Afterwards the folder holds what an undisturbed command leaves (of its numbers
those that two undisturbed runs agree in, so that times do not count), nothing hidden, and no id of a forgotten user.

A malformed file is a real file, of each kind that msgm reads, with one fault. A command that reads it ends with 1 or 2
and one sentence on stderr. A traceback is a fault, and so is success where no reader could have read the file.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from msgm.cli import main as msgm

PATIENCE = 120
"""Seconds that a command may take before it counts as hanging."""
USER = "zq-user-{:03d}-qz"
"""Ids that no file holds by chance."""
FORGOTTEN = [USER.format(k) for k in (3, 9, 27)]
TIMES = ("seconds", "peak_memory_mb", "date")
"""Numbers that agree by chance if they do."""
GENERATOR = """\
name: faults
data: {name: digits}
request: {labels: [3]}
network: {channels: [8], mid_attention: false}
objective: {name: unseen}
training: {steps: 6, batch_size: 16, checkpoint_every: 2, log_every: 1, trackers: []}
sampling: {steps: 2, batch_size: 4}
evaluation: {samples: 8, nll_items: 4, metrics: [ur, nll], likelihood: {steps: 2}, judge: {epochs: 1, width: 8}}
"""
CLASSIFIER = """\
name: faults
data: {{name: table, path: {table}}}
network: {{name: mlp, hidden: [5]}}
training: {{epochs: 2, batch_size: 32, lr: 0.1}}
seeds: 1
retrains: 5
metrics: [accuracy, tug-of-war]
requests: {{few: {{random: 8}}, two: {{labels: ["2"]}}}}
"""
RECOMMENDER = """\
name: faults
data: {{name: table, path: {log}}}
models: {{ease: {{regularisation: 20.0}}}}
requests: {{few: {{random_users: 5}}}}
"""
Arguments = Sequence[Any]


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; -1 when an exception left it, -9 when it was killed.
        text: what stood on stderr, or the traceback.
        seconds: how long it took.
    """

    code: int
    text: str
    seconds: float


# Commands


def run(arguments: Arguments) -> Ended:
    """Run ``msgm ARGUMENTS`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    start = time.perf_counter()
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(PATIENCE)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = msgm([str(one) for one in arguments])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else -1
    except BaseException:
        err.write(traceback.format_exc())
        code = -1
    finally:
        signal.alarm(0)
    return Ended(code, err.getvalue(), time.perf_counter() - start)


def _hang(*_: Any) -> None:
    raise TimeoutError(f"the command takes longer than {PATIENCE} seconds")


def forked(arguments: Arguments, after: float | None = None) -> Ended:
    """Run ``msgm ARGUMENTS`` in a process of its own, which is killed ``after`` so many seconds."""
    with tempfile.TemporaryFile("w+") as file:
        start, process = time.perf_counter(), os.fork()
        if process == 0:
            ended = run(arguments)
            file.write(ended.text)
            file.flush()
            os._exit(ended.code & 0xFF)
        if after is not None:
            time.sleep(max(0.0, after - (time.perf_counter() - start)))
            os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        seconds = time.perf_counter() - start
        file.seek(0)
        code = -9 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return Ended(-1 if code == 0xFF else code, file.read(), seconds)


# Real files


def build(place: Path) -> None:
    """Make a file and a run of every kind in the folder ``place``."""
    draws = np.random.default_rng(0)
    rows = [f"{k % 3},{k % 3 + draws.normal():.3f},{draws.normal():.3f}" for k in range(150)]
    (place / "table.csv").write_text("\n".join(["label,a,b", *rows]) + "\n")
    drawn = zip(draws.integers(0, 40, 900).tolist(), draws.integers(0, 30, 900).tolist(), strict=True)
    pairs = [(USER.format(user), f"item{item}") for user, item in sorted(set(drawn))]
    (place / "log.csv").write_text("\n".join(["user,item", *(",".join(pair) for pair in pairs)]) + "\n")
    (place / "users.txt").write_text("\n".join(FORGOTTEN) + "\n")
    (place / "indices.txt").write_text("1\n5\n9\n")
    np.savez(place / "table.npz", features=draws.normal(size=(150, 2)), label=np.arange(150) % 3)
    for name in ("logits", "original", "retrain0", "retrain1"):
        np.savez(place / f"{name}.npz", **_logits(draws))
    _pictures(place / "images", draws)
    _parquet(place / "log.parquet", pairs)
    configs = {
        "generator": GENERATOR,
        "images": GENERATOR.replace("{name: digits}", f"{{name: folder, root: {place}/images, size: 8}}"),
        "indices": GENERATOR.replace("{labels: [3]}", f"{{file: {place}/indices.txt}}"),
        "classifier": CLASSIFIER.format(table=place / "table.csv"),
        "arrays": CLASSIFIER.format(table=place / "table.npz"),
        "recommender": RECOMMENDER.format(log=place / "log.csv"),
        "parquet": RECOMMENDER.format(log=place / "log.parquet"),
    }
    for name, text in configs.items():
        (place / f"{name}.yaml").write_text(text)
    for arguments in (
        ["train", place / "generator.yaml", "--out", place / "run"],
        ["sample", place / "run", "-n", 8, "--out", place / "samples"],
        [*compare(place), "--out", place / "compared"],
        ["classifier", "train", place / "classifier.yaml", "--out", place / "original"],
        [*compare_classifiers(place), "--out", place / "classifiers"],
        ["recommender", "fit", place / "recommender.yaml", "--out", place / "served"],
        [*compare_recommenders(place), "--out", place / "recommenders"],
    ):
        _succeed(arguments)
    shutil.copytree(place / "served", place / "asked")
    _succeed(["recommender", "forget", place / "asked", "--users", place / "users.txt"])
    _stopped(place / "run", place / "stopped")


def _succeed(arguments: Arguments) -> None:
    ended = run(arguments)
    if ended.code != 0:
        raise SystemExit(f"cannot make the files: msgm {' '.join(map(str, arguments))}: {ended.text}")


def compare(place: Path) -> list[Any]:
    """Return the command that compares generators."""
    return ["compare", place / "generator.yaml", "--only", "do-nothing,unseen"]


def compare_classifiers(place: Path) -> list[Any]:
    """Return the command that compares classifiers."""
    return ["classifier", "compare", place / "classifier.yaml", "--only", "do-nothing,retrain,finetune"]


def compare_recommenders(place: Path) -> list[Any]:
    """Return the command that compares recommenders."""
    return ["recommender", "compare", place / "recommender.yaml", "--only", "do-nothing,retrain,native"]


def _logits(draws: np.random.Generator) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for part in ("retain", "forget", "nonmembers", "test"):
        arrays |= {f"logits_{part}": draws.normal(size=(12, 3)), f"labels_{part}": np.arange(12) % 3}
    return arrays


def _pictures(folder: Path, draws: np.random.Generator) -> None:
    from PIL import Image

    for kind in ("3", "dog"):
        (folder / kind).mkdir(parents=True)
        for k in range(8):
            Image.fromarray(draws.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(folder / kind / f"{k}.png")


def _parquet(path: Path, pairs: list[tuple[str, str]]) -> None:
    import pyarrow
    import pyarrow.parquet

    users, items = zip(*pairs, strict=True)
    pyarrow.parquet.write_table(pyarrow.table({"user": users, "item": items}), path)


def _stopped(run: Path, stopped: Path) -> None:
    """Copy a run as it would be if it had been stopped after its first checkpoint."""
    shutil.copytree(run, stopped)
    shutil.rmtree(stopped / "model")
    manifest = json.loads((stopped / "manifest.json").read_text()) | {"status": "running"}
    (stopped / "manifest.json").write_text(json.dumps(manifest))
    for later in sorted((stopped / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(later)


# Kills


@dataclass(frozen=True)
class Task:
    """A command that writes a folder.

    Attributes:
        arguments: the command, with the folder at its end.
        again: what is added to go on with it.
        made: files of the folder by which two runs are compared.
        given: a folder that the command changes; None where it makes one.
        asks: the folder must hold no forgotten id afterwards.
    """

    arguments: list[Any]
    again: list[str] = field(default_factory=list)
    made: Sequence[str] = ("**/*.safetensors",)
    given: Path | None = None
    asks: bool = False

    def begin(self, out: Path) -> list[Any]:
        """Return the command that writes to ``out``."""
        if self.given is not None:
            shutil.copytree(self.given, out)
        return [out if one == "OUT" else one for one in self.arguments]


def tasks(place: Path) -> dict[str, Task]:
    """Return the commands that are killed, by name."""
    report = ("report.json", "**/model/**/*.safetensors")
    generator = place / "generator.yaml"
    return {
        "train": Task(["train", generator, "--out", "OUT"], ["--resume"]),
        "unlearn": Task(["unlearn", generator, "--from", place / "run", "--out", "OUT"], ["--resume"]),
        "sample": Task(
            ["sample", place / "run", "-n", 12, "--format", "npz,png", "--out", "OUT"], ["--resume"], ("**/*.png",)
        ),
        "compare": Task([*compare(place), "--out", "OUT"], [], report),
        "classifier compare": Task([*compare_classifiers(place), "--out", "OUT"], [], report),
        "recommender fit": Task(["recommender", "fit", place / "recommender.yaml", "--out", "OUT"]),
        "recommender forget": Task(
            ["recommender", "forget", "OUT", "--users", place / "users.txt"], given=place / "served", asks=True
        ),
        "recommender compare": Task([*compare_recommenders(place), "--out", "OUT"], [], report),
    }


def kill(place: Path, count: int, draws: random.Random) -> list[dict[str, Any]]:
    """Kill commands in turn, go on with each, and return what was found, a record a kill."""
    every = dict(list(tasks(place).items())[:count])
    expected = {name: _undisturbed(task, place / "expected" / name) for name, task in every.items()}
    records = []
    for number in range(count):
        name = list(every)[number % len(every)]
        task, (leaves, seconds) = every[name], expected[name]
        out = place / "killed" / name / f"{number}"  # as deep as the undisturbed ones: reports hold relative paths
        out.parent.mkdir(parents=True, exist_ok=True)
        instant = draws.uniform(0.0, seconds)
        killed = forked(task.begin(out), instant)
        again = _go_on(task, out)
        faults = _faults(task, out, leaves, again)
        records.append({"command": name, "instant": instant, "killed": killed.code == -9, "faults": faults})
        if faults:
            print(f"{name}, killed after {instant:.3f} s: {'; '.join(faults)} (kept in {out})", flush=True)
        else:
            shutil.rmtree(out)
    return records


def _go_on(task: Task, out: Path) -> Ended:
    """Go on with a killed command, or begin it again where it had not begun."""
    arguments = [out if one == "OUT" else one for one in task.arguments]
    if "fit" in arguments and (out / "recommender.safetensors").is_file():
        return Ended(0, "", 0.0)  # it was done
    return forked([*arguments, *task.again])


def _undisturbed(task: Task, folder: Path) -> tuple[dict[str, Any], float]:
    """Return the leaves in which two undisturbed runs agree, and how long the slower one took."""
    found = []
    for number in range(2):
        out = folder / str(number)
        out.parent.mkdir(parents=True, exist_ok=True)
        ended = forked(task.begin(out))
        if ended.code != 0:
            raise SystemExit(f"an undisturbed command fails: {ended.text}")
        found.append((_leaves(task, out), ended.seconds))
    (first, seconds), (second, other) = found
    same = {key: value for key, value in first.items() if second.get(key) == value and not key.endswith(TIMES)}
    return same, max(seconds, other)


def _leaves(task: Task, out: Path) -> dict[str, Any]:
    """Return what a folder holds: every number of its reports, and every other file's bytes."""
    found: dict[str, Any] = {}
    for pattern in task.made:
        for path in out.glob(pattern):
            name = path.relative_to(out).as_posix()
            if path.suffix == ".json":
                found |= {f"{name}: {key}": value for key, value in _flat(json.loads(path.read_text()), "").items()}
            else:
                found[name] = _arrays(path) if path.suffix == ".safetensors" else path.read_bytes()
    return found


def _arrays(path: Path) -> Any:
    """Return tensors as bytes; the header, too, has seals that depend on the folder's key."""
    with contextlib.suppress(TypeError):
        return {name: array.tobytes() for name, array in safetensors.numpy.load_file(path).items()}
    return path.read_bytes()


def _flat(tree: Any, key: str) -> dict[str, Any]:
    if isinstance(tree, dict):
        return {k: v for name, part in tree.items() for k, v in _flat(part, f"{key}.{name}").items()}
    if isinstance(tree, list):
        return {k: v for number, part in enumerate(tree) for k, v in _flat(part, f"{key}[{number}]").items()}
    return {key: tree}


def _faults(task: Task, out: Path, expected: dict[str, Any], again: Ended) -> list[str]:
    faults = []
    if again.code != 0:
        faults.append(f"loss: going on ended with {again.code}: {again.text.strip()[-300:]}")
    else:
        found = _leaves(task, out)
        wrong = [key for key, value in expected.items() if found.get(key) != value]
        if wrong:
            faults.append(f"loss: {len(wrong)} of {len(expected)} differ, such as {wrong[0]}")
    strays = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.name.startswith(".")]
    faults += [f"stray: {name}" for name in strays]
    if task.asks:
        faults += [f"id: {one} in {path.name}" for path in out.rglob("*") if path.is_file() for one in _ids(path)]
    return faults


def _ids(path: Path) -> list[str]:
    content = path.read_bytes()
    return [one for one in FORGOTTEN if one.encode() in content]


# Malformed files


@dataclass(frozen=True)
class Specimen:
    """A kind of file and a command that reads it.

    Attributes:
        kind: what is printed.
        folder: what is copied before the file is changed.
        file: the file, or a pattern of them, below the folder.
        arguments: the command; COPY stands for the copied folder, OUT for a new one.
    """

    kind: str
    folder: Path
    file: str
    arguments: list[Any]


def specimens(place: Path) -> list[Specimen]:
    """Return every kind of file that msgm reads, each with a command that reads it."""
    generator, run, weights = place / "generator.yaml", place / "run", "**/*.safetensors"
    sample = ["sample", "COPY", "-n", 2, "--out", "OUT"]
    unlearn = ["unlearn", generator, "--from", "COPY", "--out", "OUT"]
    evaluate = ["evaluate", "COPY", "--out", "OUT"]
    resume = ["train", generator, "--resume", "--out", "COPY"]
    again = [*compare(place), "--out", "COPY"]
    classifiers = [*compare_classifiers(place), "--out", "COPY"]
    recommenders = [*compare_recommenders(place), "--out", "COPY"]
    asked = ["classifier", "unlearn", place / "classifier.yaml", "--from", "COPY", "--request", "few"]
    unlearned = [*asked, "--method", "finetune", "--trust", "--out", "OUT"]
    audit = ["classifier", "audit", "COPY/logits.npz", "--original", "COPY/original.npz", "--out", "OUT"]
    audited = [*audit, "--retrains", "COPY/retrain0.npz", "COPY/retrain1.npz"]
    recommend = ["recommender", "recommend", "COPY", "--user", USER.format(5)]
    forget = ["recommender", "forget", "COPY", "--users", place / "users.txt"]
    files = place / "files"
    return [
        Specimen("process.json", run, "model/process.json", sample),
        Specimen("unet config.json", run, "model/unet/config.json", unlearn),
        Specimen("model safetensors", run, f"model/{weights}", sample),
        Specimen("run config.yaml", run, "config.yaml", sample),
        Specimen("run config.yaml", run, "config.yaml", evaluate),
        Specimen("run manifest.json", run, "manifest.json", evaluate),
        Specimen("checkpoint state.json", place / "stopped", "checkpoints/*/state.json", resume),
        Specimen("checkpoint safetensors", place / "stopped", f"checkpoints/{weights}", resume),
        Specimen("resumed manifest.json", place / "stopped", "manifest.json", resume),
        Specimen("metrics.jsonl", place / "stopped", "metrics.jsonl", resume),
        Specimen("samples.json", place / "samples", "samples.json", ["sample", run, "-n", 8, "--out", "COPY"]),
        Specimen("report.json", place / "compared", "report.json", ["report", "COPY"]),
        Specimen("row report.json", place / "compared", "rows/*/report.json", again),
        Specimen("row manifest.json", place / "compared", "rows/*/manifest.json", again),
        Specimen("judge.json", place / "compared", "judge/judge.json", again),
        Specimen("judge safetensors", place / "compared", "judge/judge.safetensors", again),
        Specimen("sample grid PNG", place / "compared", "rows/*/samples/final.png", ["report", "COPY"]),
        Specimen("classifier report.json", place / "classifiers", "report.json", ["report", "COPY"]),
        Specimen("classifier records", place / "classifiers", "**/made.json", classifiers),
        Specimen("classifier safetensors", place / "original", f"model/{weights}", unlearned),
        Specimen("network.json", place / "original", "model/network.json", unlearned),
        Specimen("classifier config.yaml", place / "original", "config.yaml", unlearned),
        Specimen("logits npz", files, "[lor][oer]*.npz", audited),
        Specimen("recommender report.json", place / "recommenders", "report.json", ["report", "COPY"]),
        Specimen("recommender records", place / "recommenders", "records/**/*.json", recommenders),
        Specimen("recommender safetensors", place / "asked", weights, recommend),
        Specimen("ids.json", place / "asked", "ids.json", recommend),
        Specimen("journal.jsonl", place / "asked", "journal.jsonl", forget),
        Specimen("key", place / "asked", "key", forget),
        Specimen("named YAML", files, "generator.yaml", ["train", "COPY/generator.yaml", "--out", "OUT"]),
        Specimen("request file", files, "indices.txt", _with(place, "indices", "train")),
        Specimen(
            "user ids", files, "users.txt", ["recommender", "forget", place / "served", "--users", "COPY/users.txt"]
        ),
        Specimen("table CSV", files, "table.csv", _with(place, "classifier", "classifier", "train")),
        Specimen("table npz", files, "table.npz", _with(place, "arrays", "classifier", "train")),
        Specimen("log CSV", files, "log.csv", _with(place, "recommender", "recommender", "fit")),
        Specimen("log Parquet", files, "log.parquet", _with(place, "parquet", "recommender", "fit")),
        Specimen("image PNG", files, "images/*/*.png", _with(place, "images", "train")),
    ]


def _with(place: Path, config: str, *command: str) -> list[Any]:
    """Return a command on a config whose files are those of the copy."""
    return [*command, f"CONFIG:{place / config}.yaml", "--out", "OUT"]


Fault = Callable[[bytes, random.Random], bytes]


def cut(content: bytes, draws: random.Random) -> bytes:
    """Cut the file off somewhere in its first nine tenths."""
    return content[: draws.randrange(1, max(2, len(content) * 9 // 10))]


def flip(content: bytes, draws: random.Random) -> bytes:
    """Change up to eight bytes."""
    changed = bytearray(content)
    for _ in range(draws.randint(1, 8)):
        changed[draws.randrange(len(changed))] ^= draws.randint(1, 255)
    return bytes(changed)


def other(content: bytes, draws: random.Random) -> bytes:
    """Put one value of another type, or out of range, into JSON, or take a key out."""
    lines = content.decode().splitlines()
    number = draws.randrange(len(lines))
    whole = not _is_json(lines[number])
    tree = json.loads(content if whole else lines[number])
    places = list(_places(tree))
    if not places:
        return b"[]"
    parent, key = draws.choice(places)
    if isinstance(parent, dict) and draws.random() < 0.3:
        del parent[key]
    else:
        parent[key] = draws.choice([None, True, -1, 0, 1e300, "text", "", [], {}, [[1]], {"a": 1}, 10**18, "../../x"])
    text = json.dumps(tree, indent=2 if whole else None)
    return (text if whole else "\n".join([*lines[:number], text, *lines[number + 1 :]])).encode() + b"\n"


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _places(tree: Any) -> list[tuple[Any, Any]]:
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [(tree, key) for key in keys] + [place for key in keys for place in _places(tree[key])]


def doubled(content: bytes, _: random.Random) -> bytes:
    """Give one key of the top a second time."""
    start = content.index(b"{") + 1
    key = content[start:].split(b'"')[1]
    return content[:start] + b'"' + key + b'": 1, ' + content[start:]


def no_number(content: bytes, _: random.Random) -> bytes:
    """Put NaN into JSON."""
    start = content.index(b"{") + 1
    return content[:start] + b'"nan": NaN, ' + content[start:]


def nan_tensor(content: bytes, draws: random.Random) -> bytes:
    """Put NaN into one tensor of real numbers."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    real = [one for one in header.values() if one.get("dtype") in ("F32", "F64") and one["data_offsets"][1]]
    start, end = draws.choice(real)["data_offsets"]
    at = 8 + size + start
    return content[:at] + b"\xff" * (end - start) + content[8 + size + end :]


BROKEN: dict[str, Fault] = {
    "cut": cut,
    "empty": lambda content, draws: b"",
    "not UTF-8": lambda content, draws: content[: len(content) // 2] + b"\xff\xfe\xff" + content[len(content) // 2 :],
    "nested deep": lambda content, draws: b"[" * 20_000 + b"]" * 20_000 + b"\n",
    "5,000 digits": lambda content, draws: b'{"step": ' + b"9" * 5000 + b"}\n",
}
"""After these no file of JSON, JSONL or YAML can be read."""
BROKEN_BINARY: dict[str, Fault] = {
    "cut": cut,
    "empty": BROKEN["empty"],
    "text": lambda content, draws: b"no such file\n",
}
SAID = [("metrics.jsonl", "cut"), ("metrics.jsonl", "empty"), ("image PNG", "empty")]
"""Logs end where a crash cut them off, and empty pictures are left out and counted."""
LOOSE: dict[str, Fault] = {"bytes flipped": flip}
"""After these a file may still be one."""


def faults_of(path: Path) -> tuple[dict[str, Fault], dict[str, Fault]]:
    """Return the faults that no reader can read past, and the others."""
    if path.suffix in (".json", ".jsonl"):
        sure = BROKEN | {"NaN": no_number, "key doubled": doubled}
        return sure, LOOSE | {"value of another kind": other}
    if path.suffix == ".yaml":
        return {name: BROKEN[name] for name in ("not UTF-8", "nested deep")}, LOOSE | {
            "cut": cut,
            "empty": BROKEN["empty"],
        }
    if path.suffix == ".safetensors":
        return BROKEN_BINARY | {"NaN": nan_tensor}, LOOSE
    if path.suffix in (".csv", ".txt"):
        return {name: BROKEN[name] for name in ("empty", "not UTF-8")}, LOOSE | {"cut": cut}
    return BROKEN_BINARY, LOOSE


def malform(place: Path, count: int, draws: random.Random) -> list[dict[str, Any]]:
    """Read damaged files, and return what came of it, a record a file."""
    _files(place)
    every, records = specimens(place), []
    for number in range(count):
        one = every[number % len(every)]
        if number < len(every):  # a command that reads nothing proves nothing
            _succeed(_fresh(one, place))
        arguments = _fresh(one, place)
        path = draws.choice(sorted((place / "copy").glob(one.file)))
        sure, loose = faults_of(path)
        fault = draws.choice([*sure, *loose])
        path.write_bytes((sure | loose)[fault](path.read_bytes(), draws))
        ended = run(arguments)
        verdict = _verdict(ended, fault in sure, one.kind, fault)
        record = {"kind": one.kind, "fault": fault, "code": ended.code, "verdict": verdict, "text": ended.text[-2000:]}
        records.append(record)
        if verdict not in ("refused", "read"):
            print(f"{one.kind}, {fault}: {verdict}, code {ended.code}: {ended.text.strip()[-400:]}", flush=True)
            shutil.copytree(place / "copy", place / "kept" / str(number), dirs_exist_ok=True)
    return records


def _fresh(one: Specimen, place: Path) -> list[str]:
    """Copy the specimen's folder anew, and return its command."""
    copy, out = place / "copy", place / "out"
    for folder in (copy, out):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(one.folder, copy)
    return [_filled(argument, copy, out) for argument in one.arguments]


def _files(place: Path) -> None:
    """Gather the single files in a folder of their own."""
    files = place / "files"
    files.mkdir(exist_ok=True)
    for path in (path for path in place.iterdir() if path.is_file()):
        shutil.copy(path, files)
    shutil.copytree(place / "images", files / "images", dirs_exist_ok=True)


def _filled(argument: Any, copy: Path, out: Path) -> str:
    text = str(argument)
    if text.startswith("CONFIG:"):
        config = Path(text.removeprefix("CONFIG:"))
        changed = copy / f"{config.stem}-copy.yaml"
        changed.write_text(config.read_text().replace(str(config.parent), str(copy)))
        return str(changed)
    return text.replace("COPY", str(copy)) if text.startswith("COPY") else str(out) if text == "OUT" else text


def _verdict(ended: Ended, sure: bool, kind: str, fault: str) -> str:
    """Return ``refused``, ``read``, or what was wrong."""
    if ended.code == -1:
        return "traceback"
    if ended.code in (1, 2):
        said = [line for line in ended.text.splitlines() if line.startswith("msgm")]
        return "refused" if len(said) == 1 and "Traceback" not in ended.text else "not one sentence"
    if ended.code != 0:
        return "other exit code"
    return "silent success" if sure and (kind, fault) not in SAID else "read"


# Tables


def main() -> None:
    """Kill and malform, print tables, and end with 1 when there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="commands to kill (200)")
    parser.add_argument("--malformed", type=int, default=1000, metavar="N", help="damaged files to read (1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", help="write all records")
    parser.add_argument("--keep", metavar="DIR", help="work in this folder and leave it")
    options = parser.parse_args()
    folder = options.keep or tempfile.mkdtemp(prefix="faults-")
    result = measure(Path(folder), options.kills, options.malformed, options.seed)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")
    if options.keep is None:
        shutil.rmtree(folder)
    sys.exit(1 if any(result["summary"].values()) else 0)


def measure(place: Path, kills: int, malformed: int, seed: int = 0) -> dict[str, Any]:
    """Return all records and the number of faults of each kind, and print them."""
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"  # msgm's commands heed it; threads do not survive the forks
    torch.set_num_threads(1)
    place.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    build(place)
    killed = kill(place, kills, random.Random(seed)) if kills else []
    read = malform(place, malformed, random.Random(seed + 1)) if malformed else []
    found = Counter(fault.split(":")[0] for record in killed for fault in record["faults"])
    summary = {"losses": found["loss"], "strays": found["stray"], "forgotten ids": found["id"]}
    verdicts = Counter(record["verdict"] for record in read)
    names = {"traceback": "tracebacks", "silent success": "silent successes"}
    for name in ("traceback", "silent success", "not one sentence", "other exit code"):
        summary[names.get(name, name)] = verdicts[name]
    _print(killed, read, summary, time.perf_counter() - start)
    return {"summary": summary, "kills": killed, "malformed": read}


def _print(killed: list[dict[str, Any]], read: list[dict[str, Any]], summary: dict[str, int], seconds: float) -> None:
    if killed:
        print("\n| command | kills | before its end | faults |\n| --- | ---: | ---: | ---: |")
        for name in dict.fromkeys(record["command"] for record in killed):
            own = [record for record in killed if record["command"] == name]
            cells = (len(own), sum(record["killed"] for record in own), sum(bool(record["faults"]) for record in own))
            print(f"| {name} | {' | '.join(map(str, cells))} |")
    if read:
        print("\n| file | damaged | refused | read | faults |\n| --- | ---: | ---: | ---: | ---: |")
        for kind in dict.fromkeys(record["kind"] for record in read):
            verdicts = Counter(record["verdict"] for record in read if record["kind"] == kind)
            good = (verdicts["refused"], verdicts["read"])
            print(f"| {kind} | {verdicts.total()} | {good[0]} | {good[1]} | {verdicts.total() - sum(good)} |")
    text = ", ".join(f"{count} {name}" for name, count in summary.items())
    print(f"\n{len(killed)} kills and {len(read)} malformed files in {seconds:.0f} s: {text}")


if __name__ == "__main__":
    main()
