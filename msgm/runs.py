"""The run folder: its files, written atomically."""

import platform
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict

from msgm import __version__, threads
from msgm.errors import UserError
from msgm.folders import recover
from msgm.reading import read_json, read_yaml
from msgm.shapes import Count, Seconds

if TYPE_CHECKING:
    pass

PACKAGES = [
    "torch",
    "diffusers",
    "accelerate",
    "torchvision",
    "torchsde",
    "torchmetrics",
    "numpy",
    "scikit-learn",
]


SERVED = ("recommender.safetensors", "journal.jsonl")
"""Files of a folder that ``msgm recommender fit`` made: the model, and the journal, which outlives it."""


def refuse_served(folder: Path) -> None:
    """Refuse a folder that a recommender is served from, or that lies in one, to commands that write other things.

    Raises:
        UserError: it is one, or lies in one.
    """
    for around in (folder, *folder.resolve().parents):
        if any((around / name).is_file() for name in SERVED):
            raise UserError(
                f"{within(folder, around)} holds a recommender that is served, a run of another kind; give another "
                "--out."
            )


def within(folder: Path, around: Path) -> str:
    """Return the name of ``around``, behind that of the ``folder`` in it where they are two."""
    return str(folder) if folder.resolve() == around.resolve() else f"{folder} lies in {around}, which"


class Run:
    """A run folder and the names of what lies in it.

    Example:
        >>> run = msgm.Run("runs/digits-vp")
        >>> run.model.as_posix(), run.report.as_posix()
        ('runs/digits-vp/model', 'runs/digits-vp/report.json')
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.manifest = self.path / "manifest.json"
        self.model = self.path / "model"
        self.adapter = self.path / "adapter"
        self.checkpoints = self.path / "checkpoints"
        self.course = self.path / "course"
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples"
        self.report = self.path / "report.json"

    def create(self) -> None:
        """Make the folder.

        Raises:
            UserError: a file is in its place, it cannot be made, or a recommender is served from it.
        """
        refuse_served(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the run folder {self.path}: {error.strerror}.") from error

    def stored_config(self) -> dict[str, Any] | None:
        """Return the settings the run was made with, or None for a new run.

        Raises:
            UserError: the file is damaged.
        """
        if not self.config.is_file():
            return None
        settings: dict[str, Any] = read_yaml(self.config, dict[str, Any])
        return settings

    def stored_manifest(self) -> "Manifest":
        """Return the run's manifest; empty for a new run.

        Raises:
            UserError: the file is damaged.
        """
        manifest: Manifest = read_json(self.manifest, Manifest) if self.manifest.is_file() else {}
        return manifest

    def finished_manifest(self) -> "FinishedManifest":
        """Return the manifest of a run that made a model.

        Raises:
            UserError: the file is missing, damaged, or of a run without a model.
        """
        manifest: FinishedManifest = read_json(self.manifest, FinishedManifest)
        return manifest


class Manifest(TypedDict, total=False):
    """Optional keys of ``manifest.json``, beside the environment."""

    status: str
    kind: str
    source: str | None
    start: Literal["scratch", "finetune", "edit", "guide", "shards", "none", "random"]
    objective: str | None
    weights: str
    edited: dict[str, Any]
    found: dict[str, Any]
    deletion: dict[str, Any]
    seconds: Seconds
    seed: int
    forget_digest: str | None
    data_digest: str | None
    cached: dict[str, str]
    drawn: dict[str, Count]


class FinishedManifest(Manifest):
    """Keys of ``manifest.json`` of a run that made a model."""

    source: Required[str | None]  # type: ignore[misc]
    start: Required[Literal["scratch", "finetune", "edit", "guide", "shards", "none", "random"]]  # type: ignore[misc]
    weights: Required[str]  # type: ignore[misc]
    seconds: Required[Seconds]  # type: ignore[misc]


def find_model(path: Path | str) -> Path:
    """Return the model folder that ``path`` means: a run, its ``model`` folder, a compare folder or a diffusers folder.

    Raises:
        UserError: there is nothing of the kind.
    """
    path = Path(path)
    marks = ("process.json", "model_index.json", "unet/config.json", "unet_ema/config.json", "transformer/config.json")
    for run in (path, path / "rows" / "do-nothing"):
        recover(run / "model")
    for candidate in (path / "model", path / "rows" / "do-nothing" / "model", path):
        if any((candidate / name).is_file() for name in marks):
            return candidate
    what = "holds no finished run and no diffusers model" if path.exists() else "does not exist"
    raise UserError(f"{path} {what}; expected a run folder, or a diffusers folder with model_index.json.")


def environment() -> dict[str, Any]:
    """Return versions, git commit of the working folder (if any), threads and peak memory, for manifests."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "versions": {"python": platform.python_version(), "msgm": __version__} | {p: version_of(p) for p in PACKAGES},
        "git_commit": _git_commit(),
        "platform": platform.platform(),
        "threads": threads.in_use(),
        "peak_memory_mb": round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
    }


@cache
def version_of(package: str) -> str | None:
    """Return the version of an installed package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
