"""The examples in the docstrings of public names run as they stand."""

import doctest
import inspect
from importlib import import_module

import pytest

import msgm

MODULES = ("msgm.testing",)
"""Modules of public names beside the flat ones."""
PLACES = [(msgm._HOME[name], name) for name in msgm.__all__ if name in msgm._HOME]
PLACES += [(module, name) for module in MODULES for name in import_module(module).__all__]
FINDER = doctest.DocTestFinder(recurse=True)


def examples(module, name):
    found = getattr(import_module(module), name)
    return [test for test in FINDER.find(found, name, module=inspect.getmodule(found)) if test.examples]


@pytest.mark.parametrize(("module", "name"), PLACES)
def test_examples_run(module, name, report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = vars(import_module(module))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in examples(module, name):
        test.globs = {**home, "msgm": msgm, "out": tmp_path, "compared": report.run}
        said = []
        runner.run(test, out=said.append)
        assert not said, "".join(said)
