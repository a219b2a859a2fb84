import copy

import numpy as np
import pytest
import torch
from torch import nn

from msgm.classifier.data import Examples
from msgm.classifier.networks import CLASSIFIERS, build, features, head, reinitialised
from msgm.data import Dataset
from msgm.errors import UserError


def made(name, shape=(1, 8, 8), classes=3, seed=0, **settings):
    return build(CLASSIFIERS.build({"name": name} | settings), shape, classes, seed)


def trained_like(model):
    """Move every tensor, as training does."""
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(9)))
    return model


NETWORKS = [
    ("linear", {}),
    ("mlp", {"hidden": [6, 5]}),
    ("cnn", {"width": 2}),
    ("torchvision", {"model": "resnet18", "small_images": True}),
]


@pytest.mark.parametrize(("name", "settings"), NETWORKS)
def test_networks_give_one_logit_a_class_and_their_weights_are_the_seeds(name, settings):
    one, same, other = (made(name, seed=seed, **settings) for seed in (1, 1, 2))
    assert one.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    pairs = zip(one.parameters(), same.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_building_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    made("mlp")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("name", "settings"), NETWORKS)
def test_reinitialisation_changes_every_tensor(name, settings):
    model = trained_like(made(name, **settings))
    fresh = reinitialised(model, made(name, seed=1, **settings))
    old = dict(model.named_parameters())
    assert all(not torch.equal(value, old[key]) for key, value in fresh.named_parameters())


def test_a_partly_new_model_is_refused():
    model = trained_like(made("mlp", hidden=[6]))
    partly = copy.deepcopy(model)
    partly[-1].reset_parameters()
    with pytest.raises(UserError, match="left the weights 2.weight as they were"):
        reinitialised(model, partly)


def test_a_network_of_another_shape_is_no_reinitialisation():
    with pytest.raises(UserError, match="other weights or shapes"):
        reinitialised(made("mlp", hidden=[6]), made("mlp", hidden=[7]))


@pytest.mark.parametrize(
    ("name", "shape", "settings", "words"),
    [
        ("cnn", (5,), {}, "cnn is for images"),
        ("torchvision", (5,), {}, "for images"),
        ("torchvision", (3, 32, 32), {"model": "resnet19"}, "no classifier 'resnet19'. Did you mean 'resnet1"),
        ("torchvision", (3, 32, 32), {"model": "alexnet", "small_images": True}, "alexnet is none"),
        ("mlp", (5,), {"hidden": [0]}, "network.hidden must be at least 1"),
    ],
)
def test_networks_that_cannot_be_are_refused(name, shape, settings, words):
    with pytest.raises(UserError, match=words):
        made(name, shape, **settings)


def test_a_network_of_the_users(tmp_path):
    path = tmp_path / "net.py"
    path.write_text("from torch import nn\ndef net(shape, classes):\n    return nn.Linear(shape[0], classes)\nx = 3\n")
    assert made("module", (5,), function=f"{path}:net")(torch.zeros(1, 5)).shape == (1, 3)
    path.with_name("bad.py").write_text("def net(shape, classes):\n    return 3\n")
    with pytest.raises(UserError, match="returned int, no torch module"):
        made("module", (5,), function=f"{path.with_name('bad.py')}:net")


def test_features_are_the_inputs_of_the_head():
    data = Dataset("x", torch.rand(7, 4), (4,), None, np.zeros(7, dtype=int), ["a", "b", "c"])
    model = made("mlp", (4,), hidden=[6]).train()
    examples = Examples.of(data, np.arange(7))
    found = features(model, examples)
    assert found.shape == (7, 6)
    with torch.no_grad():
        assert torch.allclose(head(model)(found), model(data.items), atol=1e-6)
    assert model.training
    with pytest.raises(UserError, match="no linear layer"):
        head(nn.Conv2d(1, 1, 1))


def test_standardisation_knows_the_items_it_was_fitted_to_alone():
    items = torch.cat([torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 4 + 2, torch.full((5, 3), 1e6)])
    items[:, 2] = 7
    data = Dataset("x", items, (3,), None, np.zeros(55, dtype=int), ["a", "b"])
    layer = made("linear", (3,))[1]
    layer.fit_inputs(Examples.of(data, np.arange(50)))
    out = layer(items[:50])
    assert out.mean(0).abs().max() < 1e-5
    assert out[:, :2].std(0, unbiased=False).numpy() == pytest.approx([1, 1], rel=1e-5)
    assert (out[:, 2] == 0).all()
