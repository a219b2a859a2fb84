"""Fixtures shared by the tests: tiny experiments, and the command line in-process."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from msgm.cli import main
from msgm.config import Config, load_config
from tests.shortcuts import (  # noqa: F401 - fixtures
    bandwidths_searched_once,
    documents_composed_once,
    figures_left_white,
    files_not_forced_to_disk,
    judges_trained_once,
    rendered,
)

torch.set_num_threads(1)
MEMORY = "/dev/shm"  # small folders come and go tens of times as fast as on a disk
if os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
_CACHE = tempfile.TemporaryDirectory(prefix="msgm-cache-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))
os.environ["MSGM_CACHE"] = _CACHE.name  # of fixtures that several tests share; the user's own is never written
_NUMBERS = itertools.count()

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "configs" / "digits" / "vp.yaml"

# A network of 8 channels and a handful of steps on 8x8 digits. Attention is off: the bias of its keys has gradient zero
# but for rounding, which Adam blows up, so that no comparison up to rounding could be made.
TINY = [
    "request.labels=[3,7]",
    "network.channels=[8]",
    "network.mid_attention=false",
    "training.steps=6",
    "training.batch_size=16",
    "training.lr=2e-3",
    "training.warmup=0",
    "training.log_every=1",
    "training.trackers=[]",
    "finetune.steps=6",
]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a cache of retrained models of its own, so that none depends on what another trained.

    It is not pytest's to number, which lists thousands of folders before each test to find a free number.
    """
    folder = Path(_CACHE.name, f"test-{next(_NUMBERS)}")
    monkeypatch.setenv("MSGM_CACHE", str(folder))
    return folder


@pytest.fixture
def tiny() -> Callable[..., Config]:
    """Make a tiny experiment on digits; arguments are further ``key.sub=value`` overrides."""
    return lambda *overrides: load_config(None, [*TINY, *overrides])


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``msgm ARGUMENTS`` in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def settings(overrides: list[str]) -> list[str]:
    """Return command-line arguments that set ``overrides``."""
    return [part for override in overrides for part in ("--set", override)]
