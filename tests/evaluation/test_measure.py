"""Numbers of other options than are asked for do not stand beside those that are."""

from types import SimpleNamespace

from msgm.config import load_config
from msgm.evaluation.measure import comparable


def test_a_row_measured_with_other_options_is_left_out(capsys):
    config = load_config(
        "configs/digits/vp.yaml",
        ["evaluation.metrics=[ur,quantisation]", "evaluation.options={quantisation: {bits: [4]}}"],
    )
    held = {"ur": {}, "fid": {}, "quantisation": {"bits": [8, 4], "samples": 500}}
    row = {"name": "mine", "measured": held}
    bench = SimpleNamespace(config=config)
    # What is not asked for now stays; the row itself is left as it was.
    assert list(comparable(row, bench)["measured"]) == ["ur", "fid"]
    assert "mine: quantisation was measured with other options" in capsys.readouterr().out
    assert row["measured"] == held
    same = {"name": "mine", "measured": held | {"quantisation": {"bits": [4], "samples": 500}}}
    assert comparable(same, bench) == same
