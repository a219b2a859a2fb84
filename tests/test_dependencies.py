"""What msgm imports is what pyproject.toml says that it needs."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = sorted((ROOT / "msgm").rglob("*.py"))
SERVING = ROOT / "msgm" / "recommender" / "serving"
"""Needs the extra ``serve``, and is imported by the function of that command alone."""


def names(requirements):
    return {re.split(r"[<>=!\[; ]", each)[0].lower().replace("_", "-") for each in requirements}


NEEDED = names(PROJECT["dependencies"])
EXTRAS = names(each for extra, found in PROJECT["optional-dependencies"].items() if extra != "dev" for each in found)


def imported(tree, everywhere):
    """The top-level modules that a file imports: when it is imported itself, or ``everywhere``, in functions too."""
    found, waiting = set(), [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.If | ast.Try):
            waiting += ast.iter_child_nodes(node)
    return found - set(sys.stdlib_module_names) - {"msgm"}


@pytest.mark.parametrize(("everywhere", "declared"), [(False, NEEDED), (True, NEEDED | EXTRAS)])
def test_every_import_is_declared(everywhere, declared):
    homes = packages_distributions()
    for file in FILES:
        for module in imported(ast.parse(file.read_text()), everywhere):
            there = {name.lower().replace("_", "-") for name in homes.get(module, [module])}
            known = declared | names(PROJECT["optional-dependencies"]["serve"]) if SERVING in file.parents else declared
            assert there & known, f"{file.relative_to(ROOT)} imports {module}, which pyproject.toml does not name"


def test_only_its_command_imports_what_needs_the_extra_serve():
    code = "import msgm.cli, msgm.commands.recommender, msgm.recommender.service, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "msgm.commands.recommender" in found
    assert not {"msgm.recommender.serving", "fastapi", "uvicorn", "prometheus_client"} & set(found)
