"""Masks of weights: how many are kept, by what, and what is refused."""

import pytest
import torch
from torch import nn

from msgm.diffusion import VP, ScoreModel
from msgm.errors import UserError
from msgm.objectives import OBJECTIVES, Mask, Moments, Setup, kept_shares
from msgm.objectives.gradient_moments import TINY

G = torch.Generator().manual_seed(0)
FORGET = Moments({"a": torch.randn(40, generator=G), "b": torch.randn(5, 4, generator=G)}, {}, 3)
FORGET = Moments(FORGET.mean, {name: mean.square() + 0.1 for name, mean in FORGET.mean.items()}, 3)
RETAIN = Moments(FORGET.mean, {name: torch.full_like(mean, 0.5) for name, mean in FORGET.mean.items()}, 3)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(40)), nn.Parameter(torch.zeros(5, 4))


def found(frozen=(), forget=FORGET, **settings):
    network = Network()
    for name in frozen:
        network.get_parameter(name).requires_grad_(False)
    taken = []

    def moments(part, items, levels=10, batch=1):
        taken.append((part, items, levels, batch))
        return {"forget": forget, "retain": RETAIN}[part]

    setup = Setup(lambda: ScoreModel(network, VP(), (3,)), None, None, moments=moments)
    return Mask(**settings).found(setup), taken


def flat(tensors):
    return torch.cat([tensors[name].flatten() for name in ("a", "b")])


@pytest.mark.parametrize("keep", [0.01, 0.25, 0.5, 1.0])
def test_the_share_of_the_highest_scores_over_all_weights_is_kept(keep):
    mask, taken = found(keep=keep)
    assert taken == [("forget", 256, 10, 1)]
    kept, sizes = flat(mask), flat(FORGET.mean).abs()
    assert kept.sum() == max(1, round(keep * 60))
    assert keep == 1 or sizes[kept].min() > sizes[~kept].max()
    assert kept_shares(mask).keys() == {"a", "b"}


def test_fisher_is_the_ratio_of_both_squares_and_a_threshold_takes_the_place_of_the_share():
    mask, taken = found(by="fisher", threshold=1.0, items=9, levels=2)
    assert taken == [("forget", 9, 2, 1), ("retain", 9, 2, 1)]
    expected = (flat(FORGET.square) + TINY) / (flat(RETAIN.square) + TINY) >= 1
    assert torch.equal(flat(mask), expected)
    assert 0 < expected.sum() < 60


def test_weights_of_score_0_are_not_kept():
    mean = {"a": torch.zeros(40), "b": torch.ones(5, 4)}
    mask, _ = found(forget=Moments(mean, {}, 3), keep=0.9)
    assert not mask["a"].any()
    assert mask["b"].all()
    with pytest.raises(UserError, match="objective.mask: no weight may change"):
        found(forget=Moments({name: 0 * m for name, m in mean.items()}, {}, 3), keep=0.9)


def test_weights_that_are_not_trained_take_no_share():
    mask, _ = found(frozen=["b"], keep=0.5)
    assert mask.keys() == {"a"}
    assert mask["a"].sum() == 20


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"keep": 0.0}, r"objective.mask.keep must lie in \(0, 1\]"),
        ({"keep": 1.1}, "objective.mask.keep"),
        ({"threshold": -1.0}, "objective.mask.threshold"),
        ({"threshold": float("inf")}, "objective.mask.threshold must be finite"),
        ({"items": 0}, "objective.mask.items"),
        ({"levels": 0}, "objective.mask.levels"),
    ],
)
def test_wrong_values_are_refused(settings, why):
    with pytest.raises(UserError, match=why):
        Mask(**settings)


def test_an_objective_s_own_threshold_goes_where_another_mask_is_given():
    def mask(given):
        return OBJECTIVES.build({"name": "sfr-on", "mask": given}).mask

    assert mask({"by": "saliency", "keep": 0.3}) == Mask("saliency", keep=0.3)
    assert mask({"keep": 0.3}) == Mask("fisher", keep=0.3)
    assert mask({"by": "saliency", "threshold": 2}) == Mask("saliency", threshold=2.0)
    assert mask({"items": 8}) == Mask("fisher", threshold=1.0, items=8)
    assert mask(None) is None
    resolved = OBJECTIVES.resolve({"name": "sfr-on"})
    assert OBJECTIVES.build(resolved).mask == Mask("fisher", threshold=1.0)


def test_a_mask_that_keeps_no_weight_is_refused():
    with pytest.raises(UserError, match="objective.mask: no weight may change, as the highest saliency score"):
        found(threshold=1e6)


def test_a_mask_is_built_from_a_row_s_settings_and_written_back():
    settings = {"name": "obtuse", "mask": {"by": "fisher", "threshold": 1}}
    built = OBJECTIVES.build(settings)
    assert built.mask == Mask("fisher", threshold=1.0)
    resolved = OBJECTIVES.resolve(settings)
    assert resolved["mask"] == {"by": "fisher", "keep": 0.5, "threshold": 1.0, "items": 256, "levels": 10}
    assert OBJECTIVES.build(resolved) == built
    assert "anchor" not in resolved
    assert built.effective()["mask"] == {"by": "fisher", "threshold": 1.0, "items": 256, "levels": 10}
    with pytest.raises(UserError, match="objective.mask.kep"):
        OBJECTIVES.build({"name": "obtuse", "mask": {"kep": 0.5}})
