"""The arrows between the rooms of msgm point one way: the contracts in pyproject.toml."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLAIN = {"configs", "tabular"}
"""Packages that import errors, ids and readers alone, and may be imported by all."""

pytest.importorskip("importlinter")


def lint(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    return subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)


def test_no_room_imports_one_above_it():
    found = lint(ROOT)
    assert found.returncode == 0, found.stdout
    assert "3 kept, 0 broken" in found.stdout


def test_an_arrow_that_points_up_is_seen(tmp_path):
    for name, text in {"__init__": "", "cli": "", "data": "from msgm import cli\n"}.items():
        path = tmp_path / "msgm" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\nroot_package = "msgm"\n'
        '[[tool.importlinter.contracts]]\nname = "down"\ntype = "layers"\nlayers = ["msgm.cli", "msgm.data"]\n'
    )
    found = lint(tmp_path)
    assert found.returncode == 1
    assert "msgm.data -> msgm.cli" in found.stdout


def test_every_package_stands_in_a_contract():
    tree = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    named = {
        module.strip()
        for contract in tree["contracts"]
        for key in ("layers", "source_modules")
        for entry in contract.get(key, [])
        for module in entry.split("|")
    }
    packages = {path.parent.name for path in (ROOT / "msgm").glob("*/__init__.py")} - PLAIN
    assert {f"msgm.{name}" for name in packages} <= named
