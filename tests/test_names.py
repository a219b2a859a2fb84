"""Public names: each means one thing, however it is imported."""

import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

import msgm
from tests.forks import Forked

PACKAGES = ["msgm", *(found.name for found in pkgutil.walk_packages(msgm.__path__, "msgm.") if found.ispkg)]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_also_a_modules(package):
    module = import_module(package)
    modules = {found.name for found in pkgutil.iter_modules(module.__path__)}
    public = {name for name in getattr(module, "__all__", []) if not isinstance(getattr(module, name), type(msgm))}
    assert not public & modules


def test_compare_is_a_function_however_it_is_imported():
    def anew() -> int:
        for name in [name for name in sys.modules if name.partition(".")[0] == "msgm"]:
            del sys.modules[name]
        code = "from msgm import compare; import msgm; assert callable(compare) and compare is msgm.compare"
        exec(code, {})
        return 0

    process = Forked(anew)
    assert process.ended() == 0, process.said("stderr")


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "msgm", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"msgm {msgm.__version__}\n"


def test_types_are_announced():
    from importlib.resources import files

    assert files("msgm").joinpath("py.typed").is_file()
