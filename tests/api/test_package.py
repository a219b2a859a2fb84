"""``import msgm``: what it offers, and that it costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import msgm
import msgm.classifier
import msgm.recommender
from msgm.classifier.methods import METHODS as CLASSIFIER_METHODS
from msgm.recommender.models import MODELS as RECOMMENDER_MODELS


@pytest.mark.parametrize("package", [msgm, msgm.classifier, msgm.recommender], ids=lambda package: package.__name__)
def test_type_checkers_see_what_there_is(package):
    block = next(node for node in ast.parse(Path(package.__file__).read_text()).body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == package._HOME


@pytest.mark.parametrize("package", [msgm, msgm.classifier, msgm.recommender], ids=lambda package: package.__name__)
def test_every_public_name_is_there(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        package.nothing


def test_every_public_name_is_listed():
    assert set(dir(msgm)) == set(msgm.__all__)


def test_every_registered_class_has_a_flat_name():
    for registry, package in ((CLASSIFIER_METHODS, msgm.classifier), (RECOMMENDER_MODELS, msgm.recommender)):
        own = [cls for cls in registry.entries.values() if cls.__module__.startswith("msgm.")]
        flat = {name for name in package.__all__ if isinstance(getattr(package, name), type)}
        assert {cls.__name__ for cls in own} == flat


def test_importing_is_fast_and_imports_nothing_of_weight():
    code = (
        "import sys, time; began = time.perf_counter(); import msgm; dir(msgm); took = time.perf_counter() - began; "
        "heavy = {'torch', 'numpy', 'typing'} & (set(sys.modules) - before); "
        "assert not heavy, heavy; assert took < .3, took"
    )
    path = f"import sys; before = set(sys.modules); sys.path[:] = {sys.path!r}; "
    subprocess.run([sys.executable, "-S", "-c", path + code], check=True)
