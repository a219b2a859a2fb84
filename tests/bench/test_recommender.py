import json
import os
import re
import sys

import pytest

from scripts.bench import recommender as benchmark


@pytest.fixture
def small(monkeypatch):
    """A small matrix; the threads that are asked for are kept in the list, and not set."""
    asked = []
    monkeypatch.setattr(benchmark.threads, "use", asked.append)
    monkeypatch.delenv("MSGM_DATA", raising=False)
    monkeypatch.setattr(benchmark, "ML_1M", {"users": 90, "items": 60, "interactions": 1200})
    monkeypatch.setattr(benchmark, "ML_100K", {"users": 90, "items": 60, "interactions": 1200})
    return asked


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["recommender.py", *map(str, arguments)])
    benchmark.main()


def test_it_writes_every_number_and_measures_the_chosen_ones(small, monkeypatch, tmp_path, capsys):
    run(monkeypatch, "--only", "ease_one_user", "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert tuple(figures) == (*benchmark.FIGURES, "threads", "machine")
    measured = {"ease_one_user", "ease_one_user_ms", "ease_refit_seconds"}
    assert all(figures[name] > 0 for name in measured)
    assert all(figures[name] is None for name in figures.keys() - measured - {"threads", "machine"})
    assert "ease_one_user: " in capsys.readouterr().out


def test_it_says_what_it_ran_on(small, monkeypatch, tmp_path, capsys):
    run(monkeypatch, "--only", "partition_seconds", "--threads", 2, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert small == [2]
    assert figures["threads"] == 2
    assert figures["machine"].endswith(f", {os.cpu_count()} logical cores")
    assert f"{figures['machine']}; threads: 2\n" in capsys.readouterr().out


def test_second_lists_are_timed_model_by_model(small, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "ASKED", 5)
    run(monkeypatch, "--only", "whatif", "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert all(0 < figures[f"whatif_{name}_ms"] < 1000 for name in ("ease", "item_knn", "user_knn", "session_knn"))


def test_a_base_in_shards_is_read_beside_the_full_model(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(benchmark.QUALITY_SEEDS, "ease", 2)
    run(monkeypatch, "--only", "sisa_fold_in_ease", "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["sisa_fold_in_loss"] == figures["sisa_fold_in_loss_ease"] < 1
    lines = capsys.readouterr().out
    full, shards = zip(
        *(map(float, pair) for pair in re.findall(r"full ([\d.]+), 10 shards ([\d.]+)", lines)), strict=True
    )
    ratios = [ours / theirs for ours, theirs in zip(shards, full, strict=True)]
    assert figures["sisa_fold_in_loss"] == pytest.approx(1 - sum(ratios) / 2, abs=1e-3)


def test_a_stream_is_timed_and_its_writes_are_counted(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "STREAM", 30)
    run(monkeypatch, "--only", "forget_stream", "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["forget_stream_seconds"] > 0
    assert figures["forget_stream_writes"] == 1
    assert "answered 30 requests" in capsys.readouterr().out


def test_the_trace_of_als_is_read_beside_a_refit_and_the_model_before(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "ML_1M", {"users": 300, "items": 200, "interactions": 9000})
    run(monkeypatch, "--only", "als_trace", "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert abs(figures["als_trace"]) < 0.03 < figures["als_trace_before"]
    assert "als: residual 0.0" in capsys.readouterr().out


def test_lists_are_counted_beside_deletions(small, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(benchmark, "SERVED", 1.0)
    run(monkeypatch, "--only", "serve", "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["serve_reads_per_second"] > 10
    assert 0 < figures["serve_p99_ms"] < 1000
    assert "users forgotten in 1 s" in capfd.readouterr().out


def test_an_unknown_part_is_refused(small, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--only", "ease")
    assert "unknown part 'ease'" in capsys.readouterr().err
