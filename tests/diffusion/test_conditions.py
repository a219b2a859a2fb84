"""Conditions: their rows, what is refused, and that objectives hand each batch's own to the network."""

import numpy as np
import pytest
import torch
from torch import nn

from msgm.diffusion import VP, Condition, ScoreModel
from msgm.errors import UserError
from msgm.objectives import OBJECTIVES, Obtuse, noised
from msgm.objectives.base import predict_both


def labels(*numbers):
    return Condition(torch.tensor(numbers))


def embedding():
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    return Condition(embedding=torch.randn(3, 2, 4), mask=mask)


def test_rows_are_taken_and_dropped():
    both = labels(3, 7, 5)
    assert both[1:].labels.tolist() == [7, 5]
    assert both[torch.tensor([2, 0])].labels.tolist() == [5, 3]
    assert both[[True, False, True]].labels.tolist() == [3, 5]
    assert both.dropped(torch.tensor([False, True, False])).labels.tolist() == [3, -1, 5]
    assert both.dropped(torch.tensor([False, True, False])).null.tolist() == [False, True, False]
    assert len(both) == 3


def test_embeddings_have_rows_too():
    asked = embedding()
    assert asked.null.tolist() == [False, False, True]
    dropped = asked.dropped(torch.tensor([False, True, False]))
    assert dropped.null.tolist() == [False, True, True]
    assert torch.equal(asked[1:].embedding, asked.embedding[1:])
    assert torch.equal(asked[1:].mask, asked.mask[1:])
    whole = Condition.cat([asked, None], [3, 2])
    assert whole.null.tolist() == [False, False, True, True, True]
    assert torch.equal(whole.embedding[:3], asked.embedding)
    assert Condition(embedding=torch.randn(2, 3, 4)).mask.all()


def test_batches_are_joined_with_the_null_condition_where_one_has_none():
    assert Condition.cat([None, None], [2, 3]) is None
    assert Condition.cat([None, labels(4), None], [2, 1, 1]).labels.tolist() == [-1, -1, 4, -1]
    with pytest.raises(UserError, match="do not go into one batch"):
        Condition.cat([labels(1), embedding()], [1, 3])


def test_what_is_asked_for_becomes_a_row_an_item():
    assert Condition.of(None, 3) is None
    assert Condition.of(4, 3).labels.tolist() == [4, 4, 4]
    assert Condition.of([4, -1], 2).labels.tolist() == [4, -1]
    assert Condition.of(torch.tensor([4, 1]), 2).labels.tolist() == [4, 1]
    for one in (np.int64(4), torch.tensor(4), 4.0):
        assert Condition.of(one, 3).labels.tolist() == [4, 4, 4]
    assert Condition.of(np.array([4, 1], dtype=np.uint8), 2).labels.tolist() == [4, 1]
    assert Condition.of([np.int64(4), 1.0], 2).labels.tolist() == [4, 1]
    for broken in ([1.7, 2.2], 1.5, [float("nan"), 1], [float("inf"), 1], "3", ["3", "7"], [[1], [1, 2]]):
        with pytest.raises(UserError, match="^condition: expected whole numbers as labels, got"):
            Condition.of(broken, 2)
    with pytest.raises(UserError, match="2 rows for 3 items"):
        Condition.of([4, 1], 3)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "one of the two"),
        ({"labels": torch.tensor([1]), "embedding": torch.zeros(1, 2, 3)}, "one of the two"),
        ({"labels": torch.tensor([1.0])}, "long integers"),
        ({"labels": torch.tensor([[1]])}, "long integers"),
        ({"embedding": torch.zeros(2, 3)}, "expected \\(B, L, E\\)"),
        ({"embedding": torch.zeros(1, 2, 3), "mask": torch.ones(1, 3, dtype=torch.bool)}, "\\(1, 2\\) bool"),
    ],
)
def test_other_shapes_are_refused(parts, message):
    with pytest.raises(UserError, match=message):
        Condition(**parts)


class Says(nn.Module):
    """Puts out w times the label, 0 without a condition."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, label, condition=None):
        if condition is None:
            return self.weight * torch.zeros_like(x)
        return self.weight * condition.labels[:, None].to(x).expand_as(x)


def batch(condition, count=2):
    x0, eps = torch.randn(count, 3), torch.zeros(count, 3)
    return noised(VP(), x0, torch.full((count,), 0.5), eps, condition=condition)


def test_both_batches_of_a_step_keep_their_conditions():
    model = ScoreModel(Says(), VP(), (3,))
    for retain, forget, expected in [
        (labels(1, 2), labels(3, 4), ([1, 2], [3, 4])),
        (labels(1, 2), None, ([1, 2], [-1, -1])),
        (None, None, ([0, 0], [0, 0])),
    ]:
        on_retain, on_forget = predict_both(model.eps, batch(retain), batch(forget))
        assert (on_retain[:, 0].tolist(), on_forget[:, 0].tolist()) == expected


@pytest.mark.parametrize("name", ["standard", "unseen", "obtuse", "redirect", "orthogonal", "erasediff"])
def test_the_retain_term_asks_for_the_batch_s_condition(name):
    objective = OBJECTIVES.build({"name": name})
    terms = objective.terms(ScoreModel(Says(), VP(), (3,)).eps, batch(labels(1, 2)), None)
    (term,) = terms.values()
    assert term.values.tolist() == [1, 4]


def test_the_clean_items_are_kept():
    given = batch(labels(1, 2))
    torch.testing.assert_close(given.signal * given.clean + given.noise * given.eps, given.x)


def test_a_plugin_that_knows_no_conditions_gets_the_null_one():
    class Old(Obtuse):
        def terms(self, predict, retain, forget):
            return {"seen": predict(retain.x, retain.t).sum()}

    assert Old().terms(ScoreModel(Says(), VP(), (3,)).eps, batch(labels(1, 2)), None) == {"seen": 0}


@pytest.mark.parametrize("network", ["unet", "mlp"])
def test_an_unconditional_network_refuses_a_condition(network):
    shape = (1, 8, 8) if network == "unet" else (3,)
    model = ScoreModel.new(network, "vp", shape=shape)
    with pytest.raises(UserError, match="unconditional"):
        model.eps(torch.zeros(2, *shape), torch.full((2,), 0.5), labels(1, 2))
