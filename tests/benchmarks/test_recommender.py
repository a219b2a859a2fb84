import json
import sys

import pytest

from scripts.benchmarks import recommender as benchmark


@pytest.fixture
def small(monkeypatch):
    monkeypatch.delenv("MSGM_DATA", raising=False)
    monkeypatch.setattr(benchmark, "ML_1M", {"users": 90, "items": 60, "interactions": 1200})


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["recommender.py", *map(str, arguments)])
    benchmark.main()


def test_it_writes_every_number_and_measures_the_chosen_ones(small, monkeypatch, tmp_path, capsys):
    run(monkeypatch, "--only", "ease_one_user", "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert list(figures) == list(benchmark.PARTS)
    assert figures["ease_one_user"] > 0
    assert all(figures[name] is None for name in figures.keys() - {"ease_one_user"})
    assert "ease_one_user: " in capsys.readouterr().out


def test_an_unknown_part_is_refused(small, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--only", "ease")
    assert "unknown part 'ease'" in capsys.readouterr().err
