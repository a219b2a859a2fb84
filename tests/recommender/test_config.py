from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from msgm.errors import UserError
from msgm.recommender.config import RequestSettings, load_config
from msgm.recommender.data import load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.methods import METHODS
from msgm.recommender.metrics import METRICS
from msgm.recommender.scenario import make_scenario
from tests.conftest import ROOT

DATA = {"name": "synthetic", "users": 60, "items": 40, "interactions": 900, "least": 5}


@pytest.fixture(scope="module")
def world():
    data = load_interactions(DATA)
    return data, load_split("per-user", data)


def test_every_registered_method_is_a_row_and_one_that_is_null_is_left_out():
    config = load_config(None, ["methods.sisa.shards=4", "methods.few.name=sisa", "methods.few.shards=2"])
    assert set(config.rows()) == {*METHODS.entries, "few"}
    assert (config.rows()["sisa"].shards, config.rows()["few"].shards) == (4, 2)
    assert "sisa" not in load_config(None, ["methods.sisa=null"]).rows()


def test_a_model_is_named_by_its_row_or_by_its_setting(tmp_path):
    (tmp_path / "base.yaml").write_text("models: {ease: {}, als: {}}\n")
    (tmp_path / "c.yaml").write_text("extends: base.yaml\nmodels: {als: null, soft: {name: ease, regularisation: 9}}\n")
    config = load_config(tmp_path / "c.yaml")
    assert config.models["als"] is None
    assert config.models["ease"]["name"] == config.models["soft"]["name"] == "ease"
    assert config.models["soft"]["regularisation"] == 9
    (tmp_path / "again.yaml").write_text(config.to_yaml(tmp_path))
    assert load_config(tmp_path / "again.yaml").to_dict() == config.to_dict()


def test_costly_metrics_are_measured_when_asked_for_by_name_alone():
    assert {metric.name for metric in load_config().measures()} == {
        n for n, c in METRICS.entries.items() if not c.costly
    }
    chosen = load_config(None, ["metrics=[ranking]", "options.ranking.k=5"]).measures()
    assert [(metric.name, metric.k) for metric in chosen] == [("ranking", 5)]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("nme=x", ["nme"]),
        ("seeds=0", ["seeds must be at least 1"]),
        ("retrains=1", ["retrains must be at least 2, got 1"]),
        ("data.name=nowhere", ["unknown data 'nowhere'"]),
        ("split.name=half", ["unknown split 'half'"]),
        ("models.eas.name=eas", ["models.eas", "unknown model 'eas'", "Did you mean 'ease'?"]),
        ("models.ease.regularisation=-1", ["models.ease.regularisation must be a positive number, got -1"]),
        ("models.ease.regularization=1", ["models.ease.regularization: unknown setting; known: regularisation"]),
        ("methods.retrain=null", ["methods.retrain", "a comparison needs this row"]),
        ("methods.sisaa.shards=2", ["methods.sisaa", "unknown method 'sisaa'", "Did you mean 'sisa'?"]),
        ("metrics=[rankin]", ["metrics: unknown metric 'rankin'", "Did you mean 'ranking'?"]),
        ("options.rankin.k=2", ["options: unknown metric 'rankin'"]),
        ("requests.a.random_users=0", ["random_users must be at least 1, got 0"]),
        ("requests.a.random_interactions=1", ["must lie in (0, 1), got 1"]),
        ("requests.a.goal=removal", ["requests.a", "exactly one of users, items", "found none"]),
        ("requests.a={spam: 3, stream: 4}", ["found request.spam and request.stream"]),
        ("requests.a={spam: 3, models: [ease]}", ["requests.a.models: unknown model 'ease'"]),
        ("requests.a={spam: 3, methods: [sis]}", ["requests.a.methods: unknown method 'sis'"]),
        ("plugins=[nothing.py]", ["plugins: the file 'nothing.py' does not exist"]),
    ],
)
def test_bad_settings_are_one_sentence(override, parts):
    with pytest.raises(UserError) as error:
        load_config(None, [override])
    assert all(part in str(error.value) for part in parts), error.value
    assert "\n" not in str(error.value)


COMPARISONS = [path for path in (ROOT / "configs" / "recommender").glob("*.yaml") if "attributes" not in path.stem]


@pytest.mark.parametrize("path", sorted(COMPARISONS), ids=lambda path: path.stem)
def test_shipped_configs_load_and_have_every_kind_of_request(path):
    ways = {request.way() for request in load_config(path).requests.values()}
    assert ways == {
        "random_users", "most_active", "least_active", "random_interactions", "tag", "spam", "stream"
    }  # fmt: skip


def test_active_users_are_those_with_most_and_fewest_training_cells(world):
    sizes = np.diff(world[1].train.indptr)
    (most,) = make_scenario(RequestSettings(most_active=7), *world, 0, "a").stream
    (least,) = make_scenario(RequestSettings(least_active=7), *world, 0, "a").stream
    assert sizes[most.users].sum() == np.sort(sizes)[-7:].sum()
    assert sizes[least.users].sum() == np.sort(sizes)[:7].sum()


def test_random_requests_are_drawn_by_the_seed_from_training_cells(world):
    request = RequestSettings(random_interactions=0.1)
    first, same, other = (make_scenario(request, *world, seed, "a").together.cells for seed in (0, 0, 1))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert len(first) == round(0.1 * world[1].train.nnz)
    assert world[1].train.toarray()[first[:, 0], first[:, 1]].all()


def test_two_random_requests_draw_different_users(world):
    request = RequestSettings(random_users=5)
    one, other, first, plain = (
        make_scenario(request, *world, 0, name).together.users for name in ("one", "other", "random", None)
    )
    assert set(one) != set(other)
    assert first.tolist() == plain.tolist()
    assert set(make_scenario(request, *world, 0, "interactions").together.users) != set(first)


@pytest.mark.parametrize(
    "settings",
    [{"random_users": 5}, {"stream": 5}, {"random_interactions": 0.1}, {"spam": 5}],
    ids=lambda s: next(iter(s)),
)
def test_two_requests_of_one_kind_draw_different_things(world, settings):
    one, other = (make_scenario(RequestSettings(**settings), *world, 0, name) for name in ("a", "b"))
    if "spam" in settings:
        assert (one.split.train != other.split.train).nnz
    else:
        assert not np.array_equal(one.together.users, other.together.users) or len(one.together.cells)
        assert not np.array_equal(one.together.cells, other.together.cells) or len(one.together.users)


def test_a_stream_is_one_request_a_user(world):
    scenario = make_scenario(RequestSettings(stream=9), *world, 0, "a")
    assert [len(one.users) for one in scenario.stream] == [1] * 9
    assert len(np.unique(scenario.together.users)) == 9


def test_planted_profiles_are_further_users_who_promote_one_unpopular_item(world):
    data, split = world
    scenario = make_scenario(RequestSettings(spam=8), data, split, 0, "a")
    (item,) = np.flatnonzero(scenario.data.tags["promoted"])
    planted = scenario.split.train[60:].toarray()
    assert planted[:, item].all()
    assert planted.sum(axis=0)[np.arange(40) != item].max() <= 8
    popularity = np.bincount(split.train.indices, minlength=40)
    assert (popularity > popularity[item]).sum() >= 19
    assert scenario.together.users.tolist() == list(range(60, 68))
    assert (scenario.together.without(scenario.split.train)[:60] != split.train).nnz == 0
    assert scenario.split.test[60:].nnz == 0
    assert len(scenario.split.train_times) == scenario.split.train.nnz
    assert len(scenario.data.times) == scenario.data.matrix.nnz
    assert len(scenario.data.users) == 68
    assert data.shape == (60, 40)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"random_users": 60}, "60 of 60 users leave none"),
        ({"stream": 61}, "61 of 60 users leave none"),
        ({"tag": "cluster99"}, "unknown tag 'cluster99'"),
        ({"users": ["nobody"]}, "unknown user 'nobody'"),
        ({"items": [f"item{k}" for k in range(1, 41)]}, "nothing is left"),
    ],
)
def test_requests_that_do_not_fit_the_data_are_refused(world, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        make_scenario(RequestSettings(**settings), *world, 0, "a")


@pytest.mark.parametrize("way", ["most_active", "least_active"])
def test_of_equally_active_users_any_may_be_meant(world, way):
    data, split = world
    level = replace(split, train=csr_array(np.ones((60, 2), dtype=np.float32)))
    request = RequestSettings(**{way: 1})
    found = [int(make_scenario(request, data, level, seed, "a").stream[0].users[0]) for seed in range(300)]
    assert np.bincount(found, minlength=60).max() < 20
    again = [int(make_scenario(request, data, level, seed, "a").stream[0].users[0]) for seed in range(3)]
    assert again == found[:3]
