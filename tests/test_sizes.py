"""A file or a function that is long is usually two ideas; one that has to be long says why in its docstring."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "msgm"
FILE, FUNCTION = 400, 60
"""Lines of a file, and of a function without its docstring."""
REASON = "is long because"


def long_parts(text: str) -> list[str]:
    """Return the names of what is too long in a file and does not say why; the file itself is ``file``."""
    tree = ast.parse(text)
    found = ["file"] if text.count("\n") > FILE and REASON not in (ast.get_docstring(tree) or "") else []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            start = node.body[0].end_lineno if docstring else node.lineno - 1
            if node.end_lineno - start > FUNCTION and REASON not in docstring:
                found.append(node.name)
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_and_no_function_is_long_without_a_reason(path):
    assert long_parts(path.read_text("utf-8")) == []


def test_what_is_long_is_seen_unless_it_says_why():
    body = "    x = 1\n" * (FUNCTION + 1)
    assert long_parts(f"def f():\n{body}") == ["f"]
    assert long_parts(f'def f():\n    """A sum.\n\n    It is long because of this.\n    """\n{body}') == []
    assert long_parts("x = 1\n" * (FILE + 1)) == ["file"]
    assert long_parts('"""A file. It is long because of that."""\n' + "x = 1\n" * FILE) == []
