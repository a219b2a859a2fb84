import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from msgm.classifier.data import Examples
from msgm.classifier.networks import CNN, MLP, build
from msgm.classifier.training import TrainingSettings, augmented, check_outputs, fit, logits
from msgm.data import Dataset
from msgm.errors import RunError, UserError

SETTINGS = {"epochs": 3, "batch_size": 16, "lr": 0.1, "weight_decay": 0.0}


def blobs(count=60, labels=None):
    items = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    own = (items[:, 0] > 0).long().numpy() if labels is None else labels
    return Examples.of(Dataset("blobs", items, (4,), None, own, ["a", "b"]), np.arange(count))


def network(seed=0):
    return build(MLP([8]), (4,), 2, seed)


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_training_learns_and_is_the_same_for_the_same_seed_whatever_was_drawn_before():
    examples = blobs()
    one = fit(network(), examples, TrainingSettings(**SETTINGS | {"epochs": 20}), 7)
    torch.rand(5)
    two = fit(network(), examples, TrainingSettings(**SETTINGS | {"epochs": 20}), 7)
    other = fit(network(), examples, TrainingSettings(**SETTINGS | {"epochs": 20}), 8)
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(other))
    assert (logits(one, examples).argmax(1) == examples.labels).float().mean() > 0.95
    assert not one.training


def test_training_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    fit(network(), blobs(), TrainingSettings(**SETTINGS), 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_epoch_of_one_batch_is_one_plain_gradient_step():
    examples, model = blobs(), network()
    model[1].fit_inputs(examples)
    loss = F.cross_entropy(model(examples.inputs(np.arange(60))), examples.labels)
    expected = weights(model) - 0.5 * torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())])
    settings = TrainingSettings(epochs=1, batch_size=60, lr=0.5, momentum=0.0, weight_decay=0.0, schedule="constant")
    assert torch.allclose(weights(fit(network(), examples, settings, 0)), expected, atol=1e-6)


def test_every_epoch_sees_every_item_once_the_last_part_batch_too():
    seen = []
    fit(network(), blobs(), TrainingSettings(**SETTINGS), 0, watch=lambda step: seen.append(step.positions))
    assert [len(part) for part in seen] == [16, 16, 16, 12] * 3
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:8])
    assert first.sort().values.tolist() == list(range(60))
    assert second.sort().values.tolist() == list(range(60))
    assert not torch.equal(first, second)


def test_schedules():
    cosine = TrainingSettings(lr=0.2, schedule="cosine")
    assert [cosine.rate_at(p) for p in (0, 0.5)] == pytest.approx([0.2, 0.1])
    assert cosine.rate_at(0.999) == pytest.approx(0, abs=1e-5)
    steps = TrainingSettings(lr=1.0, schedule="steps", milestones=[0.5, 0.75])
    assert [steps.rate_at(p) for p in (0.49, 0.5, 0.74, 0.75)] == pytest.approx([1, 0.1, 0.1, 0.01])
    assert TrainingSettings(lr=0.3, schedule="constant").rate_at(0.9) == 0.3


def test_augmentation_mirrors_and_shifts_by_up_to_four_pixels():
    x = torch.rand(200, 1, 12, 12, generator=torch.Generator().manual_seed(1)) + 1
    assert augmented(x, "none", 0, 0) is x
    flipped = augmented(x, "flip", 0, 5)
    mirrored = (flipped == x.flip(-1)).flatten(1).all(1)
    assert ((flipped == x).flatten(1).all(1) ^ mirrored).all()
    assert 60 < mirrored.sum() < 140
    assert torch.equal(flipped, augmented(x, "flip", 0, 5))
    assert not torch.equal(flipped, augmented(x, "flip", 0, 6))
    moved, shifts = augmented(x, "crop-flip", 0, 5), set()
    padded = F.pad(flipped, [4, 4, 4, 4])
    for image, source in zip(moved, padded, strict=True):
        places = [(r, c) for r in range(9) for c in range(9) if torch.equal(image, source[:, r : r + 12, c : c + 12])]
        assert len(places) == 1
        shifts.update(places)
    assert {r for r, _ in shifts} == {c for _, c in shifts} == set(range(9))
    vectors = torch.rand(5, 3)
    assert augmented(vectors, "crop-flip", 0, 0) is vectors


def test_a_model_that_does_not_fit_the_data_is_refused():
    examples = blobs()
    with pytest.raises(UserError, match=r"puts out \(3,\) numbers an item; the data have 2 classes"):
        check_outputs(nn.Linear(4, 3), examples)
    with pytest.raises(UserError, match="cannot read inputs of shape 4"):
        fit(nn.Linear(5, 2), examples, TrainingSettings(**SETTINGS), 0)
    with pytest.raises(UserError, match="no example to train on"):
        fit(network(), examples.subset(np.arange(0)), TrainingSettings(**SETTINGS), 0)


def test_checking_leaves_mode_and_buffers_as_they_were():
    images = Dataset("x", torch.zeros(3, 1, 8, 8, dtype=torch.uint8), (1, 8, 8), 17, np.zeros(3, dtype=int), ["a", "b"])
    model = build(CNN(2), (1, 8, 8), 2, 0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_outputs(model, Examples.of(images, np.arange(3)))
    logits(model, Examples.of(images, np.arange(3)))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_that_blow_up_end_the_run():
    settings = TrainingSettings(**SETTINGS | {"lr": 1e30})
    steps = []
    with pytest.raises(RunError, match="training, step 4: .* became non-finite; lower the learning rate"):
        fit(network(), blobs(), settings, 0, watch=steps.append)
    assert len(steps) == 4  # the first epoch of three


def test_one_process_trains_in_either_precision():
    trained = [fit(network(), blobs(), TrainingSettings(**SETTINGS, precision=p), 0) for p in ("fp32", "bf16", "fp32")]
    assert torch.equal(weights(trained[0]), weights(trained[2]))
    assert not torch.equal(weights(trained[0]), weights(trained[1]))


def test_labels_of_one_class_train_without_nan():
    model = fit(network(), blobs(labels=np.ones(60, dtype=np.int64)), TrainingSettings(**SETTINGS), 0)
    assert math.isfinite(float(weights(model).sum()))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": 0}, "training.epochs"),
        ({"lr": 0.0}, "training.lr"),
        ({"momentum": 1.0}, "training.momentum"),
        ({"milestones": [91]}, "training.milestones"),
    ],
)
def test_values_out_of_range_are_refused(given, words):
    with pytest.raises(UserError, match=words):
        TrainingSettings(**given)


def test_dropout_draws_from_the_seed_and_a_last_batch_of_one_item_trains_with_batch_normalisation():
    def with_dropout():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))

    examples, settings = blobs(49), TrainingSettings(**SETTINGS)
    one = fit(with_dropout(), examples, settings, 3)
    torch.rand(9)
    two, other = fit(with_dropout(), examples, settings, 3), fit(with_dropout(), examples, settings, 4)
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(other))


def test_a_share_of_a_batch_is_augmented_as_in_the_whole_batch():
    x = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = augmented(x, "crop-flip", 5, 2)
    for rank in range(3):
        share = slice(rank, None, 3)
        assert torch.equal(augmented(x[share], "crop-flip", 5, 2, 7, share), whole[share])
