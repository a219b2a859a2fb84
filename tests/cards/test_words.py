"""Words for an accomplished fact: msgm's own sentences have none of them, users' names and texts keep theirs."""

import ast
import re
from pathlib import Path

import pytest

import msgm
from msgm.cards.views import card_html, card_markdown
from msgm.cards.words import cannot_say, unsaid_of_goal
from tests.cards.test_views import make_card

ACCOMPLISHED = re.compile("deleted|removed|compliant|certified|gdpr", re.IGNORECASE)
HOUSE = Path(msgm.__file__).parent
ALLOWED = {
    "evaluation/ladder.py": ["weights untouched: outputs were suppressed, nothing "],  # It denies it.
    "evaluation/card.py": ["Exact by algorithm: the listed items were removed from the training data and "],  # C4
    "classifier/card.py": ["Certified removal with epsilon "],  # C5
    "classifier/ladder.py": ["certified"],  # A key of the first version's records.
    "classifier/__init__.py": ["NewtonCertified", "msgm.classifier.methods.newton_certified"],  # The method's name.
    "commands/cache.py": ["removed "],  # Said of models that it took out of the cache.
    "classifier/methods/newton_certified.py": ["newton-certified"],  # The method's name, and errors that begin with it.
    "generator/restore.py": ["removed", "psnr_removed", "ssim_removed"],  # Keys of numbers.json and restored.npz.
    "evaluation/restored.py": ["psnr_removed", "ssim_removed"],
    "cli.py": ["what is REMOVED: the upper, "],
    "training/deleting.py": ["--fresh-chain: models of shards ", ": deleted "],  # Of shards, which delete exactly.
    "commands/folders.py": ["deleted "],  # Said of files that forget-traces deleted.
}
"""Beginnings of sentences that may hold the words, by file."""


def sentences(path: Path) -> list[str]:
    """All texts of a Python file but docstrings, and the first lines of those of its classes, which cards quote."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    quoted = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented[1])]
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in notes]
    return [text for text in texts if isinstance(text, str)] + [doc.splitlines()[0] for doc in quoted if doc]


def test_msgms_own_sentences_claim_no_accomplished_fact():
    found = {}
    for path in HOUSE.rglob("*.py"):
        name = str(path.relative_to(HOUSE))
        allowed = tuple(ALLOWED.get(name, ()))
        texts = [text for text in sentences(path) if ACCOMPLISHED.search(text)]
        found[name] = [text for text in texts if not (allowed and text.startswith(allowed))]
    found |= {
        str(path.relative_to(HOUSE)): ACCOMPLISHED.findall(path.read_text()) for path in HOUSE.rglob("templates/*")
    }
    assert {name: texts for name, texts in found.items() if texts} == {}


def test_what_is_allowed_is_there():
    for name, beginnings in ALLOWED.items():
        texts = [text for text in sentences(HOUSE / name) if ACCOMPLISHED.search(text)]
        assert all(any(text.startswith(beginning) for text in texts) for beginning in beginnings), name


def test_what_users_wrote_stands_as_they_wrote_it():
    words = "deleted, Removed, CERTIFIED, GDPR-compliant"
    card = make_card(title=words, request={"removed": "runs/gdpr-x", "Removed": "certified"}, protocol={words: words})
    for text in (card_markdown(card, {}), card_html(card, {})):
        assert text.count(words) >= 3
        assert all(part in text for part in ("runs/gdpr-x", "certified", "removed", "Removed"))


@pytest.mark.parametrize(
    ("goal", "reached", "word"), [("removal", "C3", "Removal"), ("removal", "C4", None), ("suppression", "C4", "Supp")]
)
def test_what_the_goal_leaves_open(goal, reached, word):
    lines = unsaid_of_goal(goal, reached)
    assert [line.startswith(word) for line in lines] == ([True] if word else [])


def test_five_lines_stand_on_every_card():
    lines = cannot_say("by typing it")
    assert len(lines) == 5
    assert any(line.endswith("by supplying it, by typing it.") for line in lines)
