"""``import msgm``: what it offers, and that it costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import msgm


def test_type_checkers_see_what_there_is():
    block = next(node for node in ast.parse(Path(msgm.__file__).read_text()).body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen.pop(None) == "typing"
    assert seen == msgm._HOME


def test_every_public_name_is_there_and_listed():
    for name in msgm.__all__:
        assert getattr(msgm, name) is not None
    assert set(dir(msgm)) == set(msgm.__all__)


def test_importing_is_fast_and_imports_nothing_of_weight():
    code = (
        "import sys, time; began = time.perf_counter(); import msgm; dir(msgm); took = time.perf_counter() - began; "
        "heavy = {'torch', 'numpy', 'typing'} & (set(sys.modules) - before); "
        "assert not heavy, heavy; assert took < .3, took"
    )
    path = f"import sys; before = set(sys.modules); sys.path[:] = {sys.path!r}; "
    subprocess.run([sys.executable, "-S", "-c", path + code], check=True)
