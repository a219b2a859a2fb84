"""The search of ``msgm tune`` on an objective that is known in closed form."""

import json

import pytest
import yaml

from msgm.errors import Interrupted, RunError, UserError
from msgm.ranges import Range, ranges, searched
from msgm.runs import Run
from msgm.study.tuning import Searched, Tunable, table, trial_folder, tune
from msgm.tuned import tuning_protocol, with_tuned

pytest.importorskip("optuna")


class Bowl(Tunable):
    """Rows whose objective is (x - best)^2; a row ``broken`` fails above 1."""

    domain, why, budget = "generator", "distance from the best x, the less the better", "nothing at all"
    numbers = {"objective": "lower", "height": "higher"}  # noqa: RUF012

    def __init__(self, best=0.7, own=3.0, stop_at=None, scale=1.0):
        self.best, self.own, self.stop_at, self.scale, self.calls = best, own, stop_at, scale, []

    def settings(self):
        return {"name": "bowl", "scale": self.scale}

    def rows(self):
        return {name: Searched({"objective.x": Range(0.0, 5.0)}, {"objective.x": self.own}) for name in ("a", "broken")}

    def default_rows(self):
        return ["a", "broken"]

    def prepare(self):
        pass

    def measure(self, row, values):
        x = values["objective.x"]
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append((row, x))
        if row == "broken" and x > 1:
            raise RunError("it breaks above 1.")
        return {"objective": (x - self.best) ** 2, "height": x}

    def chosen(self, row, values):
        return {"rows": {row: {"objective": {"x": values["objective.x"]}}}}


def search(tunable, folder, trials=8, rows=("a",), metric="objective"):
    return tune(tunable, Run(folder), "bowl", 0, trials, rows, metric)


def test_every_row_has_the_same_trials_and_the_first_has_the_configs_own_values(tmp_path):
    bowl = Bowl(own=0.9)
    found = search(bowl, tmp_path / "run", rows=None)
    assert [sum(row == name for row, _ in bowl.calls) for name in ("a", "broken")] == [8, 8]
    assert bowl.calls[:2] == [("a", 0.9), ("broken", 0.9)]
    assert found["rows"]["a"]["own"] == pytest.approx(0.04)
    assert (
        found["rows"]["a"]["best"]
        == min((x - 0.7) ** 2 for row, x in bowl.calls if row == "a")
        <= found["rows"]["a"]["own"]
    )


def test_a_trial_that_fails_counts_and_the_search_goes_on(tmp_path):
    bowl = Bowl(own=0.9)
    found = search(bowl, tmp_path / "run", rows=["broken"])["rows"]["broken"]
    failures = sum(x > 1 for _, x in bowl.calls)
    assert failures > 0
    assert (found["trials"], found["failed"]) == (8, failures)
    assert found["values"]["objective.x"] <= 1


def test_a_row_of_which_all_trials_fail_is_told_with_its_last_reason(tmp_path):
    with pytest.raises(RunError, match="broken: all 1 trials failed; the last: it breaks above 1"):
        search(Bowl(own=3.0), tmp_path / "run", trials=1, rows=["broken"])


@pytest.mark.parametrize("stop_at", [0, 1, 7])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, stop_at):
    whole, first = Bowl(), Bowl(stop_at=stop_at)
    expected = search(whole, tmp_path / "whole", trials=9)
    with pytest.raises(KeyboardInterrupt):
        search(first, tmp_path / "run", trials=9)
    assert not (tmp_path / "run" / "tuned.yaml").exists()
    rest = Bowl()
    found = search(rest, tmp_path / "run", trials=9)
    assert first.calls + rest.calls == whole.calls
    assert found["rows"]["a"]["values"] == expected["rows"]["a"]["values"]


def test_more_trials_and_other_rows_are_added_to_what_is_there_and_fewer_take_the_first_ones(tmp_path):
    search(Bowl(own=0.9), tmp_path / "run", trials=3)
    both = Bowl(own=0.9)
    assert set(search(both, tmp_path / "run", trials=3, rows=["broken"])["rows"]) == {"a", "broken"}
    assert {row for row, _ in both.calls} == {"broken"}
    longer = Bowl(own=0.9)
    assert search(longer, tmp_path / "run", trials=5)["rows"].keys() == {"a"}  # of broken, there are only three
    assert len(longer.calls) == 2
    shorter = Bowl(own=0.9)
    assert search(shorter, tmp_path / "run", trials=1)["rows"]["a"]["values"] == {"objective.x": 0.9}
    assert not shorter.calls


def test_a_number_of_which_more_is_better_is_made_great(tmp_path):
    found = search(Bowl(own=0.5), tmp_path / "run", trials=12, metric="height")["rows"]["a"]
    assert found["best"] == found["values"]["objective.x"] > 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": ["c"]}, "--rows: 'c' has nothing to tune; rows that have: a, broken"),
        ({"metric": "hight"}, "--metric: unknown number 'hight'; known: objective, height. Did you mean 'height'?"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        search(Bowl(), tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_search_is_refused(tmp_path):
    search(Bowl(), tmp_path / "run", trials=1)
    with pytest.raises(UserError, match=r"scale: 1.0 -> 2.0"):
        search(Bowl(scale=2.0), tmp_path / "run", trials=1)
    with pytest.raises(UserError, match="objective: objective -> height"):
        search(Bowl(), tmp_path / "run", trials=1, metric="height")


def test_what_was_chosen_is_laid_over_a_config_and_told_in_the_protocol(tmp_path):
    found = search(Bowl(own=0.9), tmp_path / "run", trials=2)
    assert json.loads((tmp_path / "run" / "tune.json").read_text()) == found
    tree = with_tuned({"rows": {"a": {"objective": {"x": 4, "y": 1}}}}, [], tmp_path / "run")
    assert float(tree["rows"]["a"]["objective"]["x"]) == found["rows"]["a"]["values"]["objective.x"]
    assert int(tree["rows"]["a"]["objective"]["y"]) == 1
    text = tuning_protocol(yaml.safe_load((tmp_path / "run" / "tuned.yaml").read_text())["tuned"])["tuning"]
    assert text.startswith(
        "2 trials a row (nothing at all) of bowl, on the validation part alone, for the best distance"
    )
    assert f"a: objective.x {found['rows']['a']['values']['objective.x']:.4g}" in text
    assert tuning_protocol({}) == {}


def test_another_kind_of_config_or_folder_is_refused(tmp_path):
    search(Bowl(), tmp_path / "run", trials=1)
    with pytest.raises(UserError, match="it is of a generator, and the config of a classifier"):
        with_tuned({"methods": {}}, [], tmp_path / "run")
    with pytest.raises(UserError, match=r"there is no tuned.yaml in it"):
        with_tuned({}, [], tmp_path)
    (tmp_path / "tuned.yaml").write_text("rows: {}\n")
    with pytest.raises(UserError, match="it does not say what was tuned"):
        with_tuned({}, [], tmp_path)


def test_a_trial_that_a_signal_stops_leaves_nothing_and_says_so(tmp_path):
    with (
        pytest.raises(Interrupted, match="the trial that was running is not kept") as stopped,
        trial_folder(tmp_path) as at,
    ):
        at.mkdir()
        raise Interrupted("stopped after step 3; saved.", 143)
    assert stopped.value.code == 143
    assert not (tmp_path / "trial").exists()


def test_the_table_shows_what_the_config_gave_and_what_was_chosen(tmp_path):
    text = table(search(Bowl(own=0.9), tmp_path / "run", trials=1)).text()
    assert "config's own" in text
    assert "0.0400" in text
    assert "Each trial: nothing at all." in text


def test_a_setting_is_searched_where_it_has_a_value_and_in_a_range_that_holds_it():
    class Base:
        search = ranges(x=Range(0.0, 1.0), rate=Range(0.1, 1.0, log=True))

    class Part(Base):
        search = ranges(y=Range(0.0, 1.0))

    assert searched(Part, {"x": 2.0, "y": None, "rate": 0.0}) == {"x": Range(0.0, 2.0)}
    assert searched(Part(), {"x": 0.5, "y": 0.5, "rate": 0.01}) == {
        "x": Range(0.0, 1.0),
        "y": Range(0.0, 1.0),
        "rate": Range(0.01, 1.0, log=True),
    }
    assert searched(object(), {"x": 1.0}) == {}
