"""Numbers of other options than are asked for do not stand beside those that are."""

from types import SimpleNamespace

from msgm.config import load_config
from msgm.evaluation.measuring import _samples, comparable


def test_a_row_measured_with_other_options_is_left_out(capsys):
    config = load_config(
        "configs/digits/vp.yaml",
        ["evaluation.metrics=[ur,quantisation]", "evaluation.options={quantisation: {bits: [4]}}"],
    )
    held = {"ur": {}, "fid": {"filtered": False}, "quantisation": {"bits": [8, 4], "samples": 500}}
    asked = held | {"quantisation": {"bits": [4], "samples": 500}}
    other = asked | {"fid": {"filtered": True}}
    bench = SimpleNamespace(config=config)
    sampled = _samples(bench)
    measured = (("old", held), ("same", asked), ("other", other))
    rows = [{"name": name, "measured": m, "sampled": sampled} for name, m in measured]
    kept = comparable(rows, bench)
    # What is not asked for now, fid, is the first row's; the rows themselves are left as they were.
    names = [list(row["measured"]) for row in kept]
    assert names == [["ur", "fid"], ["ur", "fid", "quantisation"], ["ur", "quantisation"]]
    assert kept[1] == rows[1]
    assert rows[0]["measured"] == held
    told = capsys.readouterr().out
    assert "old: quantisation was measured with other options" in told
    assert "other: fid was measured with other options" in told
    assert told.count("\n") == 2


def test_what_was_measured_on_other_samples_is_left_out(capsys):
    bench = SimpleNamespace(config=load_config("configs/digits/vp.yaml"))
    rows = [
        {"name": "first", "measured": {"ur": {}}},
        {"name": "now", "measured": {"ur": {}}, "sampled": _samples(bench)},
    ]
    assert [row["measured"] for row in comparable(rows, bench)] == [{}, {"ur": {}}]
    assert capsys.readouterr().out == "first: what was measured on other samples is left out: run it again\n"
