"""What every model that gradients train has: seeds, further training, losses as functions of tables, save and load."""

import copy

import numpy as np
import pytest
import torch

from msgm.errors import RunError, UserError
from msgm.recommender.models import MODELS, load_recommender
from msgm.recommender.models.torch_base import cells_of
from msgm.recommender.requests import Deletion
from tests.recommender.models.cells import cells, one_of_each

SMALL = {
    "lightgcn": {"factors": 8, "layers": 2, "epochs": 3, "batch_size": 500},
    "mult-vae": {"hidden": 16, "latent": 8, "epochs": 3, "batch_size": 40},
}


@pytest.fixture(params=SMALL)
def make(request):
    return lambda **settings: MODELS.build({"name": request.param} | SMALL[request.param] | settings)


@pytest.fixture
def matrix():
    return cells(users=60, items=40)


@pytest.fixture
def model(make, matrix):
    return make().fit(matrix, seed=1)


def same(a, b):
    return all(np.array_equal(x, b.arrays()[name]) for name, x in a.arrays().items())


def test_a_seed_makes_the_fit_and_another_another(make, matrix, model):
    torch.manual_seed(5)
    np.random.seed(5)
    assert same(model, make().fit(matrix, seed=1))
    assert not same(model, make().fit(matrix, seed=2))


def test_global_generators_are_left_alone(make, matrix):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    make().fit(matrix)
    assert torch.equal(torch.rand(1), expected)


def test_values_of_cells_do_not_matter(make, matrix, model):
    assert same(model, make().fit(matrix * 4, seed=1))


def test_training_lowers_the_loss_and_stages_differ(make, matrix):
    model = make(learning_rate=0.01).fit(matrix)
    again = copy.deepcopy(model)
    losses = model.train(15, "more")
    assert len(losses) == 15
    assert losses[-1] < losses[0]
    again.train(15, "other")
    assert not same(model, again)


def test_losses_are_a_function_of_tables_and_seed_with_two_derivatives(model, matrix):
    some = cells_of(matrix)[::7]
    tables = {name: table.clone().requires_grad_() for name, table in model.tables.items()}
    losses = model.losses(tables, some, seed=3)
    assert losses.shape == (len(some),)
    assert torch.equal(losses, model.losses(tables, some, seed=3))
    assert not torch.equal(losses, model.losses(tables, some, seed=4))
    gradients = torch.autograd.grad(losses.sum(), list(tables.values()), create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in gradients), list(tables.values()))
    assert all(bool(torch.isfinite(g).all()) and bool(g.any()) for g in [*gradients, *second])


def test_the_gradient_of_the_losses_is_their_slope(model, matrix):
    some = cells_of(matrix)[::7]
    tables = {name: table.double().requires_grad_() for name, table in model.tables.items()}
    direction = {name: torch.randn(t.shape, dtype=t.dtype, generator=torch.Generator()) for name, t in tables.items()}
    gradients = torch.autograd.grad(model.losses(tables, some).sum(), list(tables.values()))
    expected = sum((g * direction[name]).sum() for g, name in zip(gradients, tables, strict=True))

    def moved(step):
        return model.losses({n: t.detach() + step * direction[n] for n, t in tables.items()}, some).sum()

    # Adjacency and noise are float32, the tables float64: the slope is that of a smooth function all the same.
    assert torch.isclose((moved(1e-4) - moved(-1e-4)) / 2e-4, expected, rtol=1e-4)


def test_taking_tables_copies_them(model):
    tables = {name: table + 1 for name, table in model.tables.items()}
    before = model.score(np.arange(5)).copy()
    model.set_tables(tables)
    for table in tables.values():
        table.zero_()
    assert all(bool(table.any()) for table in model.tables.values())
    assert not np.array_equal(model.score(np.arange(5)), before)


def test_a_deep_copy_is_apart(model):
    before = copy.deepcopy(model)
    other = copy.deepcopy(model)
    other.train(1)
    assert same(model, before)
    assert not same(other, before)


def test_a_loss_that_is_not_finite_stops_the_fit_and_keeps_the_tables(model):
    before = copy.deepcopy(model)
    model.learning_rate = 1e30
    with pytest.raises(RunError, match=f"{model.name}: the loss of epoch . is (nan|inf)"):
        model.train(3)
    assert same(model, before)


def test_forgetting_is_a_refit_and_says_so(make, matrix, model):
    rng = np.random.default_rng(0)
    for kind in range(4):
        deletion = one_of_each(model, rng)[kind]
        rest = deletion.without(model.seen)
        answer = model.forget(deletion)
        assert (answer.exactness, answer.facts["refit"]) == ("bit-exact", True)
        assert np.array_equal(model.seen.toarray(), rest.toarray())
        assert same(model, make().fit(rest, seed=1))


def test_a_model_is_the_same_after_save_and_load(tmp_path, model):
    model.forget(Deletion(users=np.array([3]), items=np.array([4])))
    model.save(tmp_path)
    again = load_recommender(tmp_path)
    users = np.delete(np.arange(60), 3)
    assert same(model, again)
    assert np.array_equal(model.score(users), again.score(users))
    assert np.array_equal(model.listed(users, 5), again.listed(users, 5))
    assert model.train(2, "more") == again.train(2, "more")
    assert same(model, again)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "model.epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "model.batch_size must be at least 1, got 0"),
        ({"learning_rate": -1.0}, "model.learning_rate must be a positive number, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(make, settings, message):
    with pytest.raises(UserError, match=message):
        make(**settings)


def test_numpy_models_do_not_wait_for_torch():
    import subprocess
    import sys

    code = "import sys, msgm.recommender.models, msgm.recommender.methods; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
