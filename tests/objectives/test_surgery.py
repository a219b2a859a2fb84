"""Merged gradients: what every way of merging promises, and each one's own formula."""

import pytest
import torch

from msgm.errors import UserError
from msgm.objectives import SURGERY, Cap, Cone, EraseDiff, Obtuse, Subtract, Unseen, inner

WAYS = [*({"name": name} for name in SURGERY.entries), {"name": "cap", "ratio": 0.1, "exactly": True}]
WAY = pytest.mark.parametrize("way", WAYS, ids=str)


def pair(seed, cosine=None):
    """Two gradients of two weights; with ``cosine``, the second is turned to it."""
    g = torch.Generator().manual_seed(seed)
    r, f = (torch.randn(7, generator=g, dtype=torch.float64) for _ in range(2))
    if cosine is not None:
        f = f - (f @ r) / (r @ r) * r
        f = cosine * r / r.norm() + (1 - cosine**2) ** 0.5 * f / f.norm()
    f = f * 10 ** torch.empty(1).uniform_(-3, 3, generator=g).double()
    return [part.float() for part in (r[:3], r[3:].view(2, 2))], [part.float() for part in (f[:3], f[3:].view(2, 2))]


def flat(gradients):
    return torch.cat([g.flatten() for g in gradients]).double()


@WAY
@pytest.mark.parametrize("cosine", [-1, -0.999, -0.5, -1e-4, 0, 0.5, 1])
def test_the_result_never_points_against_the_retain_gradient(way, cosine):
    for seed in range(20):
        r, f = pair(seed, cosine)
        merged = SURGERY.build(way).merge(r, f)
        length = flat(r).norm() * max(flat(g).norm() for g in (merged, f, r))
        assert float(inner(merged, r) / length) >= -1e-6
        assert [g.shape for g in merged] == [g.shape for g in r]


@WAY
@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e6])
def test_gradients_scaled_alike_give_the_scaled_result(way, factor):
    for seed, cosine in enumerate((-0.9, 0.3)):
        r, f = pair(seed, cosine)
        merged, scaled = (SURGERY.build(way).merge([k * g for g in r], [k * g for g in f]) for k in (1, factor))
        torch.testing.assert_close(flat(scaled) / factor, flat(merged), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["pcgrad", "agem", "cone"])
def test_gradients_that_do_not_conflict_are_added(name):
    for seed, cosine in enumerate((0.0, 0.4, 1.0)):
        r, f = pair(seed, cosine)
        if float(inner(r, f)) < 0:  # rounding, of gradients at a right angle
            f = [-g for g in f]
        merged = SURGERY.build({"name": name}).merge(r, f)
        for m, a, b in zip(merged, r, f, strict=True):
            assert torch.equal(m, a + b)


@WAY
@pytest.mark.parametrize("zero", ["retain", "forget", "both"])
def test_a_zero_gradient_gives_a_finite_result(way, zero):
    r, f = pair(0, -0.5)
    r = [torch.zeros_like(g) for g in r] if zero != "forget" else r
    f = [torch.zeros_like(g) for g in f] if zero != "retain" else f
    merged = flat(SURGERY.build(way).merge(r, f))
    assert merged.isfinite().all()
    if zero == "forget":
        torch.testing.assert_close(merged, flat(r))


def test_inner_products_are_taken_in_float64():
    one = [torch.full((1000,), 1e20), torch.tensor([1.0])]
    assert float(inner(one, one)) == pytest.approx(1e43, rel=1e-6)  # float32 overflows at 3e38


def test_pcgrad_takes_the_conflict_out_of_both():
    r, f = pair(1, -0.7)
    a, b = flat(r), flat(f)
    expected = a - (a @ b) / (b @ b) * b + b - (a @ b) / (a @ a) * a
    torch.testing.assert_close(flat(SURGERY.build({"name": "pcgrad"}).merge(r, f)), expected, rtol=1e-5, atol=1e-6)


def test_agem_adds_what_of_the_forget_gradient_is_at_a_right_angle():
    r, f = pair(2, -0.7)
    a, b = flat(r), flat(f)
    expected = a + b - (a @ b) / (a @ a) * a
    torch.testing.assert_close(flat(SURGERY.build({"name": "agem"}).merge(r, f)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [0.1, 0.9, 1.1, 30.0])
def test_the_cone_s_result_is_the_nearest_that_points_against_neither(length):
    r, f = pair(3, -0.8)
    f = [g * length * flat(r).norm().float() / flat(f).norm().float() for g in f]
    a, b, found = flat(r), flat(f), flat(Cone().merge(r, f))
    assert min(found @ a, found @ b) > -1e-5 * a.norm() * max(a.norm(), b.norm())
    draws = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
    others = found + 0.05 * (draws - 1) @ torch.stack([a, b])  # in their plane, where the nearest one lies
    allowed = others[(others @ a >= 0) & (others @ b >= 0)]
    assert len(allowed) > 100
    assert (allowed - a - b).norm(dim=1).min() >= (found - a - b).norm() - 1e-6


@pytest.mark.parametrize(("length", "expected"), [(0.05, 0.05), (0.3, 0.2), (9.0, 0.2)])
def test_the_cap_shortens_a_longer_gradient_alone(length, expected):
    r, f = [torch.tensor([3.0, 4.0])], [torch.tensor([5.0 * length, 0.0])]
    (merged,) = Cap(ratio=0.2).merge(r, f)
    torch.testing.assert_close(merged, torch.tensor([3 + 5 * expected, 4.0]))
    (merged,) = Cap(ratio=0.2, exactly=True).merge(r, f)
    torch.testing.assert_close(merged, torch.tensor([4.0, 4.0]))


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.5, float("nan")])
def test_a_cap_above_the_retain_gradient_or_of_nothing_is_refused(ratio):
    with pytest.raises(UserError, match=r"objective.combine.ratio must lie in \(0, 1\]"):
        Cap(ratio=ratio)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Obtuse(combine="pcgrd"), "unknown combine 'pcgrd'.*pcgrad"),
        (lambda: Unseen(combine="agem"), "reads retain items alone"),
        (lambda: Subtract(descent="nothing", weight=1, ceiling=1.0, combine="agem"), "reads forget items alone"),
        (lambda: EraseDiff(multiplier=None, combine="agem"), "merges them itself"),
        (lambda: Obtuse(combine={"name": "cap", "rato": 1}), "objective.combine.rato"),
    ],
)
def test_a_way_of_merging_that_does_not_fit_is_refused(make, why):
    with pytest.raises(UserError, match=why):
        make()


def test_a_method_under_its_former_name_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match="the method that merges gradients is called merge"):
        type("Old", (Obtuse,), {"combine": lambda self, retain, forget: retain})
