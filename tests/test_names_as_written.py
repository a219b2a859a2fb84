"""What a request names is what was written, through the real command line."""

from pathlib import Path

import numpy as np
import pytest

from msgm.config import load_config
from msgm.data import load_dataset
from msgm.errors import UserError
from msgm.recommender.data import load_interactions
from msgm.recommender.requests import RecommenderRequest
from msgm.requests import ForgetRequest

IDS = ["8", "010", "10", "1.10", "1.1", "0x1F", "31", "yes", "True", "~", "None", "1e3", "1000.0", "1_2", "12", "null"]


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    """A log whose users' ids look like numbers, words and nothing."""
    path = tmp_path_factory.mktemp("log") / "log.csv"
    rows = [f"{user},i{k % 7}" for number, user in enumerate(IDS) for k in range(number, number + 4)]
    path.write_text("user,item\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("user", ["010", "1.10", "0x1F", "yes", "~", "1e3", "1_2", "null"])
@pytest.mark.parametrize("where", ["file", "set"])
def test_the_user_who_was_written_is_forgotten(cli, tmp_path, log, user, where):
    request = f"requests: {{one: {{users: [{user}]}}}}\n" if where == "file" else ""
    (tmp_path / "c.yaml").write_text(
        f"data: {{name: table, path: {log}, rating: ~}}\nmodels: {{item-knn: {{}}}}\n{request}"
    )
    given = [] if where == "file" else ["--set", f"requests.one.users=[{user}]"]
    done = cli("data", tmp_path / "c.yaml", *given, "--list")
    assert done.code == 0, done.err
    forgotten = RecommenderRequest(users=[user]).deletion(
        data := load_interactions({"name": "table", "path": str(log), "rating": None}), data.matrix
    )
    assert [data.users.ids[number] for number in forgotten.users] == [user]
    assert user in done.out


@pytest.mark.parametrize("value", [True, None, 0.5, [1], float("nan")])
@pytest.mark.parametrize("key", ["users", "items"])
def test_what_is_no_id_is_refused_with_its_key(key, value):
    with pytest.raises(UserError, match=rf"request\.{key}: expected an id"):
        RecommenderRequest(**{key: [value]})
    with pytest.raises(UserError, match=r"request\.interactions: expected"):
        RecommenderRequest(interactions=[["u", value]])


def test_a_whole_number_is_its_decimal_text():
    assert RecommenderRequest(users=[10], interactions=[(1, "a")]).users == ["10"]


@pytest.fixture
def table(tmp_path):
    """Write a table of two columns of numbers, labels and wards, and return its settings."""

    def write(labels: list[str], wards: list[str] | None = None) -> dict[str, object]:
        rows = [f"{k},{k * 2},{label},{(wards or labels)[k]}" for k, label in enumerate(labels)]
        (tmp_path / "t.csv").write_text("a,b,label,ward\n" + "\n".join(rows) + "\n")
        return {"name": "table", "path": str(tmp_path / "t.csv"), "groups": ["ward"]}

    return write


def forgotten(settings: dict[str, object], override: str) -> list[int]:
    config = load_config({"data": settings}, [f"request={override}"])
    return np.flatnonzero(load_dataset(config.data).forget_mask(config.request)).tolist()


@pytest.mark.parametrize(
    ("labels", "request_", "items"),
    [
        (["1.0", "2.0", "3.0"], "{labels: [1]}", [0]),
        (["1.0", "2.0", "3.0"], "{labels: [3]}", [2]),
        (["8", "10", "8"], "{labels: [10]}", [1]),
        (["-1", "1", "1"], "{labels: [-1]}", [0]),
        (["yes", "no", "no"], "{labels: [yes]}", [0]),
        (["1e3", "5", "5"], "{labels: [1000]}", [0]),
        (["1.0", "2.0", "3.0"], "{positions: [1]}", [1]),
        (["a", "b", "c"], "{indices: [02]}", [2]),
        (["a", "b", "c"], "{group: {ward: [b]}}", [1]),
    ],
)
def test_the_class_that_was_written_is_forgotten(table, labels, request_, items):
    assert forgotten(table(labels), request_) == items


@pytest.mark.parametrize(
    ("labels", "request_", "part"),
    [
        (["1.0", "2.0", "3.0"], "{labels: [0]}", "classes are 1.0, 2.0, 3.0"),
        (["8", "10", "8"], "{labels: [010]}", "classes are 8, 10"),
        (["-1", "1", "1"], "{labels: [0]}", "classes are -1, 1"),
        (["a", "b", "c"], "{indices: [1.0]}", "request.indices: expected an index"),
        (["a", "b", "c"], "{indices: [0x1]}", "request.indices: expected an index"),
    ],
)
def test_what_names_no_class_is_refused(table, labels, request_, part):
    with pytest.raises(UserError, match=part):
        forgotten(table(labels), request_)


def test_values_of_a_group_are_as_written(table):
    settings = table(["a", "b", "a", "b"], ["12", "1_2", "010", "~"])
    for number, ward in enumerate(["12", "1_2", "010", "~"]):
        assert forgotten(settings, f"{{group: {{ward: [{ward}]}}}}") == [number]
        assert forgotten(settings, f"{{group: {{ward: {ward}}}}}") == [number]


def test_an_index_is_decimal_in_yaml_overrides_and_files(tmp_path):
    (tmp_path / "indices.txt").write_text("010\n")
    (tmp_path / "c.yaml").write_text("request: {indices: [010]}\n")
    config = load_config(tmp_path / "c.yaml")
    digits = load_dataset(config.data)
    for request in (config.request, load_config(None, ["request.indices=[010]"]).request):
        assert np.flatnonzero(digits.forget_mask(request)).tolist() == [10]
    assert np.flatnonzero(digits.forget_mask(ForgetRequest(file=str(tmp_path / "indices.txt")))).tolist() == [10]
    for wrong in ([1.7], [True], [None]):
        with pytest.raises(UserError, match=r"request\.indices: expected an index"):
            ForgetRequest(indices=wrong)


def test_a_predicate_gets_the_name_of_the_class(tmp_path, table):
    (tmp_path / "rule.py").write_text("def one(item, label):\n    return label == '1.0'\n")
    assert forgotten(table(["2.0", "1.0", "3.0"]), f"{{predicate: '{tmp_path}/rule.py:one'}}") == [1]


def test_rows_and_names_are_as_written():
    given = ["name=010", "rows={010: {objective: {name: unseen}}, '8': {objective: {name: unseen}}}"]
    config = load_config(None, given)
    assert config.name == "010"
    assert {"010", "8"} <= config.rows.keys()
    assert load_config(None, ["rows.010.objective.name=unseen"]).rows["010"].objective["name"] == "unseen"


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("recommender", "models: [als]"),
        ("recommender", "models: als"),
        ("recommender", "models: {als: {}}\nrequests: [a]"),
        ("recommender", "models: {als: {}}\nmethods: [sisa]"),
        ("classifier", "requests: [a]"),
        ("classifier", "methods: [sisa]\nrequests: {a: {random: 3}}"),
        ("classifier", "shares: [1]"),
        ("classifier", "requests: {a: {labels: {b: c}}}"),
        ("", "training: [steps]"),
        ("", "rows: [a]"),
        ("", "request: [3]"),
        ("", "request: {labels: 3}"),
        ("", "plugins: {a: b}"),
        ("", "data: [digits]"),
        ("", "evaluation: {options: [ur]}"),
        ("", "extends: [a]"),
        ("", "seed: -1"),
    ],
)
def test_a_list_in_the_place_of_names_and_the_reverse_are_one_sentence(cli, tmp_path, module, text):
    (tmp_path / "c.yaml").write_text(f"{text}\n")
    done = cli(*filter(None, [module]), "compare", tmp_path / "c.yaml", "--out", tmp_path / "out")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert done.err.startswith("msgm: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("module", ["", "classifier"])
def test_a_negative_seed_is_refused(cli, tmp_path, module):
    (tmp_path / "c.yaml").write_text("name: x\n")
    command = [*filter(None, [module]), "train", tmp_path / "c.yaml", "--out", tmp_path / "out"]
    done = cli(*command, "--set", "seed=-1")
    assert (done.code, done.err) == (2, "msgm: seed must be at least 0, got -1.\n")
    with pytest.raises(SystemExit, match="2"):
        cli(*command, "--seed", "-1")
    assert not (tmp_path / "out").exists()
