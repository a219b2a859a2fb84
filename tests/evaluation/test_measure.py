"""Numbers of other options than are asked for do not stand beside those that are."""

from types import SimpleNamespace

from msgm.config import load_config
from msgm.evaluation.measuring import comparable


def test_a_row_measured_with_other_options_is_left_out(capsys):
    config = load_config(
        "configs/digits/vp.yaml",
        ["evaluation.metrics=[ur,quantisation]", "evaluation.options={quantisation: {bits: [4]}}"],
    )
    held = {"ur": {}, "fid": {"filtered": False}, "quantisation": {"bits": [8, 4], "samples": 500}}
    asked = held | {"quantisation": {"bits": [4], "samples": 500}}
    other = asked | {"fid": {"filtered": True}}
    rows = [{"name": name, "measured": m} for name, m in (("old", held), ("same", asked), ("other", other))]
    kept = comparable(rows, SimpleNamespace(config=config))
    # What is not asked for now, fid, is the first row's; the rows themselves are left as they were.
    names = [list(row["measured"]) for row in kept]
    assert names == [["ur", "fid"], ["ur", "fid", "quantisation"], ["ur", "quantisation"]]
    assert kept[1] == rows[1]
    assert rows[0]["measured"] == held
    told = capsys.readouterr().out
    assert "old: quantisation was measured with other options" in told
    assert "other: fid was measured with other options" in told
    assert told.count("\n") == 2
