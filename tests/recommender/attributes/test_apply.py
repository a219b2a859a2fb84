import numpy as np
import pytest

from msgm.errors import UserError
from msgm.recommender.attributes import ERASURES
from msgm.recommender.attributes.apply import erase_attributes, plug
from msgm.recommender.models import MODELS, load_recommender
from msgm.recommender.requests import Deletion
from tests.recommender.attributes.planted import cells

SETTINGS = {
    "als": {"factors": 6, "sweeps": 3},
    "bpr": {"factors": 6, "epochs": 2},
    "mf": {"factors": 4, "sweeps": 3},
    "lightgcn": {"factors": 6, "epochs": 2, "layers": 1},
}
USERS = np.arange(80)


def fitted(name="als"):
    matrix, texts = cells()
    if name == "mf":
        matrix.data = np.random.default_rng(1).integers(1, 6, matrix.nnz).astype(np.float32)
    return MODELS.build({"name": name, **SETTINGS[name]}).fit(matrix), {"gender": texts}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_copy_has_another_user_table_and_the_same_items(name):
    model, attributes = fitted(name)
    before = model.score(USERS).copy()
    found = erase_attributes(model, attributes, ERASURES.build({"name": "leace"}))
    assert (model.score(USERS) == before).all()
    assert (found.model.item_factors == model.item_factors).all()
    assert (found.model.user_factors != model.user_factors).any()
    assert found.model.user_factors.dtype == model.user_factors.dtype
    assert not np.allclose(found.model.score(USERS), before)
    assert found.seconds >= 0


@pytest.mark.parametrize("name", ERASURES.entries)
def test_every_erasure_applies(name):
    model, attributes = fitted()
    quick = {"distribution": {"steps": 2}, "rate-distortion": {"steps": 2}, "combined": {"erasure": {"name": "leace"}}}
    found = erase_attributes(model, attributes, ERASURES.build({"name": name, **quick.get(name, {})}))
    assert np.isfinite(found.model.score(USERS)).all()
    assert (found.model.user_factors != model.user_factors).any()


def test_users_without_a_value_and_forgotten_ones_are_counted():
    model, attributes = fitted()
    attributes["gender"] = attributes["gender"].copy()
    attributes["gender"][:7] = ""
    model.forget(Deletion(users=np.array([3, 20, 30])))
    found = erase_attributes(model, attributes, ERASURES.build({"name": "user-to-user"}))
    assert found.dropped == {"gender": 9}
    assert (found.model.user_factors[[3, 20, 30]] == 0).all()


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("erasure", ["leace", "rate-distortion"])
def test_unplugging_restores_bit_for_bit(name, erasure):
    model, attributes = fitted(name)
    before = model.score(USERS).tobytes()
    settings = {"name": erasure, "steps": 3} if erasure == "rate-distortion" else {"name": erasure}
    plugged = plug(model, attributes, ERASURES.build(settings)).model
    assert plugged.score(USERS).tobytes() != before
    assert plugged.unplug().score(USERS).tobytes() == before
    assert model.score(USERS).tobytes() == before
    copied = erase_attributes(model, attributes, ERASURES.build(settings)).model
    assert (copied.score(USERS) == plugged.score(USERS)).all()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_plug_in_is_saved_with_the_model(name, tmp_path):
    model, attributes = fitted(name)
    plugged = plug(model, attributes, ERASURES.build({"name": "rate-distortion", "steps": 3})).model
    plugged.save(tmp_path)
    read = load_recommender(tmp_path)
    assert read.score(USERS).tobytes() == plugged.score(USERS).tobytes()
    assert read.unplug().score(USERS).tobytes() == model.score(USERS).tobytes()
    assert read.settings() == plugged.settings()


def test_requests_are_the_base_s_to_answer_and_the_plug_in_stays():
    model, attributes = fitted()
    deletion = Deletion(users=np.array([4]), cells=np.array([[0, int(model.seen[[0]].indices[0])]]))
    plugged = plug(model, attributes, ERASURES.build({"name": "leace"})).model
    answer = plugged.forget(deletion)
    reference = model.forget(deletion)
    assert (answer.touched, answer.exactness) == (reference.touched, "approximate")
    assert answer.facts["exactness_of_base"] == reference.exactness == "approximate"
    assert (plugged.unplug().score(USERS) == model.score(USERS)).all()
    assert (plugged.user_factors == plugged.plugin(model.user_factors)).all()
    assert plugged.seen.nnz == model.seen.nnz == plugged.unplug().seen.nnz
    assert plugged.gone_users[4]
    with pytest.raises(UserError, match="was forgotten"):
        plugged.listed(np.array([4]), 3)


@pytest.mark.parametrize("name", ["bpr", "lightgcn"])
def test_where_the_base_is_fitted_anew_the_plug_in_is_taken_out_and_told(name):
    model, attributes = fitted(name)
    plugged = plug(model, attributes, ERASURES.build({"name": "leace"})).model
    deletion = Deletion(users=np.array([4]))
    answer = plugged.forget(deletion)
    assert answer.facts["plugin"] == "taken out; learn another one"
    model.forget(deletion)
    assert (plugged.score(USERS) == model.score(USERS)).all()
    assert plugged.gone_users[4]


def test_a_refit_is_the_base_s():
    model, attributes = fitted()
    plugged = plug(model, attributes, ERASURES.build({"name": "leace"})).model
    deletion = Deletion(users=np.array([4, 5]))
    plugged.refit(deletion)
    model.refit(deletion)
    assert (plugged.score(USERS) == model.score(USERS)).all()
    assert plugged.gone_users[[4, 5]].all()


def test_bad_input_is_refused():
    model, attributes = fitted()
    leace = ERASURES.build({"name": "leace"})
    knn = MODELS.build({"name": "item-knn"}).fit(model.seen)
    with pytest.raises(UserError, match="item-knn has no user embeddings"):
        erase_attributes(knn, attributes, leace)
    with pytest.raises(UserError, match="attribute 'gender' has 3 users; the model 80"):
        erase_attributes(model, {"gender": np.array(["F", "M", "F"])}, leace)
    with pytest.raises(UserError, match="user-to-user moves the users it has seen and is no plug-in"):
        plug(model, attributes, ERASURES.build({"name": "user-to-user"}))
    with pytest.raises(UserError, match="item-knn has no user embeddings"):
        MODELS.build({"name": "plugged", "base": {"name": "item-knn"}}).fit(model.seen)
