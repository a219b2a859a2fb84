"""The catalogue holds every registered part, with its card and its settings; docstrings become valid pages."""

import gc
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from msgm import objectives
from msgm.objectives import OBJECTIVES, Card, Mixed
from msgm.registry import Registry

DOCS = Path(__file__).parent.parent.parent / "docs"


def load(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


catalogue, docstrings = load("catalogue"), load("docstrings")


def test_every_registry_of_the_package_has_a_page():
    known = {id(page.registry) for page in catalogue.PAGES}
    registries = [r for r in gc.get_objects() if isinstance(r, Registry) and r.entries]
    own = [r for r in registries if next(iter(r.entries.values())).__module__.startswith("msgm.")]
    assert {id(r) for r in own} == known
    assert len(own) == len(catalogue.PAGES)


def test_every_part_stands_on_its_page_with_all_settings(tmp_path):
    (tmp_path / "gone.md").write_text("a part that is no more")
    catalogue.write(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {page.file for page in catalogue.PAGES} | {"index"}
    for page in catalogue.PAGES:
        text = (tmp_path / f"{page.file}.md").read_text()
        assert text.count("\n## `") == len(page.registry.entries)
        for name in page.registry.entries:
            assert f"\n## `{name}`\n" in text


def test_a_new_objective_stands_in_the_catalogue(tmp_path, monkeypatch):
    monkeypatch.setattr(OBJECTIVES, "entries", dict(OBJECTIVES.entries))

    @OBJECTIVES.register("of-a-test")
    @dataclass
    class OfATest(Mixed):
        """Pushes x_t away.

            |x|^2 + y_i

        Attributes:
            push: how far, in units of ``sigma``;
                two is far.
        """

        push: float = 2.5
        card = Card("a * b", "nobody", "none")

        def forget_loss(self, predicted, forget):
            return predicted

    catalogue.write(tmp_path)
    text = (tmp_path / "objectives.md").read_text()
    entry = text.split("## `of-a-test`")[1].split("\n## ")[0]
    assert "Pushes x\\_t away." in entry
    assert "```text\n|x|^2 + y_i\n```" in entry
    assert "- **formula**: a \\* b" in entry
    assert "| `push` | `2.5` | how far, in units of ``sigma``; two is far. |" in entry
    assert "| `alpha` | `0.99` | weight of the retain term. |" in entry, "settings are inherited with their meaning"
    assert "deviations" not in entry


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["a * b, |x| and x_ of ``a * b``"], [r"a \* b, \|x\| and x\_ of ``a * b``"]),
        (
            ["Text:", "", "    x_ = |y|", "    z", "", "More."],
            ["Text:", "", "::", "", "    x_ = |y|", "    z", "", "More."],
        ),
        (["Args:", "    x: |x|"], ["Args:", r"    x: \|x\|"]),
        (["Example:", "    >>> 2 * 3", "    6"], ["Example:", "    >>> 2 * 3", "    6"]),
    ],
)
def test_docstrings_become_pages(lines, wanted):
    assert docstrings.readable(lines) == wanted


def test_every_public_docstring_ends_its_literals():
    for name in objectives.__all__:
        doc = getattr(objectives, name).__doc__ or ""
        assert doc.count("``") % 2 == 0, name
