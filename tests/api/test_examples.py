"""The examples in the docstrings of public names run as they stand."""

import doctest
import inspect
from importlib import import_module

import pytest

import msgm

NAMES = [name for name in msgm.__all__ if name in msgm._HOME]
FINDER = doctest.DocTestFinder(recurse=True)


def examples(name):
    found = getattr(msgm, name)
    return [test for test in FINDER.find(found, name, module=inspect.getmodule(found)) if test.examples]


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name, report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = vars(import_module(msgm._HOME[name]))
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in examples(name):
        test.globs = {**home, "msgm": msgm, "out": tmp_path, "compared": report.run}
        said = []
        runner.run(test, out=said.append)
        assert not said, "".join(said)
