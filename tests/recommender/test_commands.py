import subprocess
import sys

import pytest

from msgm.errors import UserError
from msgm.recommender.methods import METHODS
from msgm.recommender.models import MODELS
from msgm.recommender.models.base import Recommender
from tests.conftest import settings

TINY = settings(
    ["data={name: synthetic, users: 60, items: 40, interactions: 900, least: 5}", "models={ease: {}, item-knn: {}}"]
)


@pytest.fixture
def served(cli, tmp_path):
    (tmp_path / "c.yaml").write_text("name: tiny\n")
    done = cli("recommender", "fit", tmp_path / "c.yaml", *TINY, "--model", "item-knn", "--out", tmp_path / "served")
    assert done.code == 0, done.err
    return tmp_path / "served"


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom msgm.cli import main\n"
        "try: main(['recommender', 'forget', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'scipy', 'yaml'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_fit_recommend_forget_and_again(cli, served, tmp_path):
    first = cli("recommender", "recommend", served, "--user", "user4", "-k", 3).out.split()
    assert len(first) == 3
    (tmp_path / "items").write_text("\n".join(first) + "\n")
    done = cli("recommender", "forget", served, "--items", tmp_path / "items")
    assert done.code == 0, done.err
    assert "answered 3 requests" in done.out
    assert "bit-exact" in done.out
    second = cli("recommender", "recommend", served, "--user", "user4", "-k", 3).out.split()
    assert not set(first) & set(second)
    again = cli("recommender", "forget", served, "--items", tmp_path / "items")
    assert again.out.count("was answered before") == 3
    (tmp_path / "users").write_text("user4\nuser5\n")
    assert (
        "answered 1 request in" in cli("recommender", "forget", served, "--users", tmp_path / "users", "--together").out
    )
    gone = cli("recommender", "recommend", served, "--user", "user4")
    assert (gone.code, gone.err.count("\n")) == (2, 1)
    assert "nothing was pending" in cli("recommender", "forget", served, "--resume").out


def test_bad_files_are_one_sentence(cli, served, tmp_path):
    (tmp_path / "bad").write_text("user1;item1\n")
    for option, sentence in (("--interactions", "line 1: expected user and item"), ("--users", "unknown user")):
        done = cli("recommender", "forget", served, option, tmp_path / "bad")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert sentence in done.err
    (tmp_path / "users").write_text("user1\nuser99\n")
    done = cli("recommender", "forget", served, "--users", tmp_path / "users", "--together")
    assert "users, line 2: unknown user 'user99'." in done.err
    assert "--users: cannot read" in cli("recommender", "forget", served, "--users", tmp_path / "none").err
    assert "k must be at least 1" in cli("recommender", "recommend", served, "--user", "user1", "-k", 0).err
    assert "unknown user 'x'" in cli("recommender", "recommend", served, "--user", "x").err


def test_a_request_that_the_model_cannot_answer_is_named(cli, served, tmp_path, monkeypatch):
    def failing(model, deletion):
        raise UserError("the numbers explode.")

    monkeypatch.setattr(Recommender, "forget", failing)
    (tmp_path / "users").write_text("user4\n")
    done = cli("recommender", "forget", served, "--users", tmp_path / "users")
    assert (done.code, done.err) == (2, "msgm: the model could not answer request 1: the numbers explode.\n")


def test_cards_of_methods_and_models_are_printed(cli):
    done = cli("recommender", "methods")
    assert all(f"{name}\n" in done.out for name in METHODS.entries)
    assert "defaults: regularisation 500" in cli("recommender", "models", "ease").out
    assert all(f"{name}\n" in cli("recommender", "models").out for name in MODELS.entries)
    assert "unknown model 'easee'" in cli("recommender", "models", "easee").err
