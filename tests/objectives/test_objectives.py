import pytest
import torch

from msgm.diffusion import DDPM, VE, VP, ScoreModel
from msgm.errors import UserError
from msgm.objectives import OBJECTIVES, EraseDiff, Mixed, Obtuse, Orthogonal, Redirect, Setup, Standard, Unseen, noised
from msgm.objectives.kernel import KernelDensity, leave_one_out_bandwidth
from msgm.registry import defaults, plain
from tests.helpers import PROCESS_CASES, Counted

OBJECTIVE_NAMES = pytest.mark.parametrize("name", OBJECTIVES.entries)
MIXED = ["erasediff", "obtuse", "orthogonal", "redirect"]
TAUGHT = ["esd", "guided"]
BANK = torch.randn(30, 3, generator=torch.Generator().manual_seed(9))


class Network:
    """A network view that counts its calls and puts out half of what it reads."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, t, condition=None):
        self.calls.append((x, t))
        return 0.5 * x


def made(name, **settings):
    objective = OBJECTIVES.build({"name": name, **settings})
    model = ScoreModel(Counted(0.1), VP(), (3,))
    objective.prepare(Setup(model, lambda n: BANK[:n], lambda steps: model))
    return objective


def batch(count=4, seed=0, process=None):
    g = torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, count, 3, generator=g)
    uniform = torch.rand(count, 3, generator=g)
    return noised(process or VP(), x0, torch.linspace(0.1, 0.9, count), eps, lambda name="": uniform)


def test_a_noised_batch_lies_on_the_path_of_its_process():
    for process in PROCESS_CASES.values():
        x0, eps, t = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2), torch.tensor([0.1, 0.5, 1.0])
        made_batch = noised(process, x0, t, eps)
        for i in range(3):
            expected = process.signal(t)[i] * x0[i] + process.noise(t)[i] * eps[i]
            torch.testing.assert_close(made_batch.x[i], expected)
        assert made_batch.uniform().shape == x0.shape
        assert 0 <= made_batch.uniform().min() <= made_batch.uniform().max() < 1
        assert torch.equal(made_batch.uniform(), made_batch.uniform())
        assert not torch.equal(made_batch.uniform(), made_batch.uniform("other"))


@pytest.mark.parametrize("name", ["orthogonal", "obtuse", "redirect"])
@pytest.mark.parametrize(
    ("every", "expected"), [(1, [0, 1, 2, 3, 4, 5, 6, 7]), (3, [2, 5]), (4, [3, 7]), (8, [7]), (9, [])]
)
def test_forget_batches_come_on_every_nth_step(name, every, expected):
    objective = made(name, every=every)
    assert [step for step in range(8) if objective.uses_forget(step)] == expected


def test_defaults_are_the_papers():
    for objective in (Orthogonal(), Obtuse()):
        assert (objective.alpha, objective.every) == (0.99, 4)
    assert (Orthogonal().variant, Obtuse().sign, Obtuse().floor) == ("elementwise", "paper", 1.0)
    assert (Redirect().alpha, Redirect().every) == (0.5, 1)


def test_erasediff_uses_forget_on_every_step_unless_weighted():
    bilevel, weighted = EraseDiff(every=4), EraseDiff(variant="weighted", every=4)
    assert all(bilevel.uses_forget(step) for step in range(8))
    assert [step for step in range(8) if weighted.uses_forget(step)] == [3, 7]


def test_only_an_adaptive_multiplier_needs_the_gradients_apart():
    made = (EraseDiff(multiplier=None), EraseDiff(multiplier=0.1), EraseDiff(variant="weighted", multiplier=None))
    assert [objective.combines for objective in made] == [True, False, False]


def test_every_objective_says_which_data_it_needs():
    assert {name: cls.data for name, cls in OBJECTIVES.entries.items()} == {
        "standard": "all",
        "unseen": "retain",
        "concept-ablation": "retain",
        "subtract": "all+forget",
        **dict.fromkeys([*MIXED, *TAUGHT, "salun", "sfr-on", "selective-amnesia"], "retain+forget"),
    }


@pytest.mark.parametrize(("objective", "name"), [(Standard(), "all"), (Unseen(), "retain")])
def test_plain_objectives_are_the_mean_square_error_of_the_noise(objective, name):
    network, items = Network(), batch()
    terms = objective.terms(network, items, None)
    assert list(terms) == [name]
    assert terms[name].weight == 1
    expected = torch.stack([((0.5 * x - e) ** 2).mean() for x, e in zip(items.x, items.eps, strict=True)])
    torch.testing.assert_close(terms[name].values, expected)
    assert len(network.calls) == 1


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in MIXED),
        ("erasediff", {"variant": "weighted"}),
        ("orthogonal", {"variant": "inner"}),
        ("orthogonal", {"variant": "marginal"}),
    ],
)
def test_a_step_with_forget_data_is_one_network_call(name, settings):
    network, retain, forget = Network(), batch(4), batch(3, seed=1)
    terms = made(name, **settings).terms(network, retain, forget)
    ((x, t),) = network.calls
    assert torch.equal(x, torch.cat([retain.x, forget.x]))
    assert torch.equal(t, torch.cat([retain.t, forget.t]))
    assert {key: len(term.values) for key, term in terms.items()} == {"retain": 4, "forget": 3}


@pytest.mark.parametrize("name", MIXED)
def test_the_terms_do_not_mix_the_batches(name):
    objective, retain, forget = made(name), batch(4), batch(3, seed=1)
    terms = objective.terms(Network(), retain, forget)
    torch.testing.assert_close(terms["retain"].values, (0.5 * retain.x - retain.eps).square().mean(1))
    torch.testing.assert_close(terms["forget"].values, objective.forget_loss(0.5 * forget.x, forget))


@pytest.mark.parametrize("name", ["orthogonal", "obtuse", "redirect"])
def test_alpha_weighs_the_terms(name):
    objective = made(name, alpha=0.8)
    alone = objective.terms(Network(), batch(), None)
    both = objective.terms(Network(), batch(), batch(seed=1))
    assert {key: term.weight for key, term in alone.items()} == {"retain": 0.8}
    assert {key: term.weight for key, term in both.items()} == pytest.approx({"retain": 0.8, "forget": 0.2})


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"multiplier": 0.25}, {"retain": 1, "forget": 0.25}),
        ({"multiplier": 0.0}, {"retain": 1, "forget": 0}),
        ({"multiplier": None}, {"retain": 1, "forget": 1}),
        ({"variant": "weighted"}, {"retain": 0.8, "forget": 0.2}),
    ],
)
def test_erasediff_steps_along_retain_plus_multiplier_times_forget(settings, weights):
    terms = EraseDiff(alpha=0.8, **settings).terms(Network(), batch(), batch(seed=1))
    assert {key: term.weight for key, term in terms.items()} == pytest.approx(weights)


def test_forget_losses_are_their_formulas():
    forget, predicted = batch(), torch.randn(4, 3, generator=torch.Generator().manual_seed(5))
    product = predicted * forget.eps
    expected = [
        (Orthogonal(), (product**2).mean(1)),
        (Orthogonal(variant="inner"), product.sum(1) ** 2 / 3),
        (Obtuse(floor=None), product.mean(1)),
        (Obtuse(floor=None, sign="released"), -product.mean(1)),
        (Obtuse(floor=0.1), product.mean(1).clamp(min=-0.1)),
        (EraseDiff(), ((predicted - forget.uniform()) ** 2).mean(1)),
    ]
    for objective, values in expected:
        torch.testing.assert_close(objective.forget_loss(predicted, forget), values)


def test_the_marginal_teacher_is_tuned_on_the_forget_set_and_gets_no_gradient():
    asked = []
    teacher = ScoreModel(Counted(0.3), VP(), (3,))
    objective = Orthogonal(variant="marginal", teacher_steps=7)
    objective.prepare(Setup(None, None, lambda steps: asked.append(steps) or teacher))
    assert asked == [7]
    forget, predicted = batch(), torch.randn(4, 3, requires_grad=True)
    loss = objective.forget_loss(predicted, forget)
    torch.testing.assert_close(loss, (predicted * 0.3 * forget.x).sum(1) ** 2 / 3)
    loss.sum().backward()
    assert teacher.network.weight.grad is None
    assert predicted.grad.abs().sum() > 0


@pytest.mark.parametrize("variant", ["elementwise", "inner"])
def test_the_other_variants_tune_no_teacher(variant):
    Orthogonal(variant=variant).prepare(Setup(None, None, lambda steps: pytest.fail("a teacher was tuned")))


def test_marginal_without_a_teacher_says_what_to_do():
    with pytest.raises(RuntimeError, match="prepare"):
        Orthogonal(variant="marginal").forget_loss(torch.zeros(4, 3), batch())


def gradients(*rows):
    return [torch.tensor(row) for row in rows]


@pytest.mark.parametrize(
    ("retain", "forget", "cosine"),
    [
        (gradients([1.0, 0.0], [[0.0]]), gradients([0.0, 5.0], [[0.0]]), 0.0),
        (gradients([2.0, 0.0], [[0.0]]), gradients([-7.0, 0.0], [[0.0]]), -1.0),
        (gradients([3.0, 0.0], [[4.0]]), gradients([-1.0, 0.0], [[-1.0]]), -7 / (5 * 2**0.5)),
        (gradients([3.0, 0.0], [[4.0]]), gradients([0.0, 1.0], [[0.1]]), 0.4 / (5 * 1.01**0.5)),
        (gradients([1.0, 1.0], [[1.0]]), gradients([2.0, 2.0], [[2.0]]), 1.0),
    ],
)
@pytest.mark.parametrize("eta", [0.0, 0.1, 0.5])
def test_erasediff_adapts_the_multiplier_to_the_angle(eta, retain, forget, cosine):
    multiplier = max(0.0, eta - cosine)
    combined = EraseDiff(multiplier=None, eta=eta).merge(retain, forget)
    for c, r, f in zip(combined, retain, forget, strict=True):
        torch.testing.assert_close(c, r + multiplier * f)


def test_an_adaptive_multiplier_survives_a_zero_gradient():
    retain, zero = gradients([1.0, 2.0]), gradients([0.0, 0.0])
    objective = EraseDiff(multiplier=None)
    torch.testing.assert_close(objective.merge(retain, zero), retain)
    assert objective.merge(zero, retain)[0].isfinite().all()


def test_objectives_that_do_not_combine_say_so():
    with pytest.raises(NotImplementedError, match="Obtuse"):
        Obtuse().merge([], [])


def brute_force(items, point, signal, noise):
    """The posterior mean noise under equal weights of ``items``, one at a time in float64."""
    items, point = items.double(), point.double()
    squares = torch.stack([(point - signal * item).square().sum() for item in items])
    weights = torch.exp(-0.5 * (squares - squares.min()) / noise**2)
    mean = sum(w * item for w, item in zip(weights, items, strict=True)) / weights.sum()
    return (point - signal * mean) / noise


@pytest.mark.parametrize("process", PROCESS_CASES.values(), ids=PROCESS_CASES)
@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_the_target_of_redirect_is_the_posterior_mean_over_the_bank(process, shape):
    g = torch.Generator().manual_seed(4)
    items, x0, eps = (torch.randn(n, *shape, generator=g) for n in (50, 5, 5))
    forget = noised(process, x0, torch.tensor([0.002, 0.1, 0.3, 0.6, 1.0]), eps)
    target = KernelDensity(items, 0.0).eps(forget)
    for i in range(5):
        signal, noise = (c(forget.t[i].double()) for c in (process.signal, process.noise))
        expected = brute_force(items, forget.x[i], signal, noise)
        torch.testing.assert_close(target[i].double(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("process", [VP(), DDPM()], ids=["vp", "ddpm"])
def test_at_late_times_the_target_aims_at_the_mean_of_the_bank(process):
    late = noised(process, torch.ones(2, 3), torch.ones(2), torch.randn(2, 3))
    expected = (late.x - late.signal * BANK.mean(0)) / late.noise
    torch.testing.assert_close(KernelDensity(BANK, 0.0).eps(late), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("process", [VE(sigma_min=0.001), VP()], ids=["ve", "vp"])
def test_at_early_times_the_target_aims_at_the_nearest_item(process):
    g = torch.Generator().manual_seed(4)
    x0 = BANK[[3, 17]] + 0.05 * torch.randn(2, 3, generator=g)
    early = noised(process, x0, torch.full((2,), 1e-5), torch.randn(2, 3, generator=g))
    nearest = torch.cdist(early.x, early.signal[0] * BANK).argmin(1)
    assert nearest.tolist() == [3, 17]
    expected = (early.x.double() - early.signal * BANK[nearest]) / early.noise
    target = KernelDensity(BANK, 0.0).eps(early)
    torch.testing.assert_close(target.double(), expected.double(), rtol=1e-3, atol=1e-2)
    assert target.isfinite().all()


def test_the_loss_of_redirect_stays_bounded_at_early_times():
    early = noised(VP(), torch.full((2, 3), 5.0), torch.full((2,), 1e-5), torch.zeros(2, 3))
    assert KernelDensity(BANK, 0.0).eps(early).abs().max() > 1e3
    loss = made("redirect", bandwidth=0.0).forget_loss(torch.zeros(2, 3), early)
    torch.testing.assert_close(loss, torch.ones(2), rtol=1e-4, atol=0)


@pytest.mark.parametrize("bandwidth", [0.0, 0.4])
def test_the_loss_of_redirect_is_a_relative_square_weighted_by_the_paths_share_of_the_smoothing(bandwidth):
    objective, forget, predicted = made("redirect", bandwidth=bandwidth), batch(), torch.randn(4, 3)
    target = KernelDensity(BANK, bandwidth).eps(forget)
    noise, signal = forget.noise.squeeze(1), forget.signal.squeeze(1)
    share = noise**2 / (noise**2 + signal**2 * bandwidth**2)
    expected = share * (predicted - target).square().mean(1) / (1 + target.square().mean(1))
    torch.testing.assert_close(objective.forget_loss(predicted, forget), expected)
    assert objective.forget_loss(target, forget).abs().max() < 1e-6


def test_the_bandwidth_of_redirect_is_found_on_its_bank_unless_it_is_given():
    assert made("redirect").density.bandwidth == pytest.approx(leave_one_out_bandwidth(BANK))
    assert made("redirect", bank=10).density.bandwidth == pytest.approx(leave_one_out_bandwidth(BANK[:10]))
    assert made("redirect", bandwidth=0.7).density.bandwidth == 0.7


@pytest.mark.parametrize("bandwidth", [-0.1, float("inf"), float("nan")])
def test_redirect_refuses_a_bandwidth_that_is_none(bandwidth):
    with pytest.raises(UserError, match="objective.bandwidth must be (at least 0|finite)"):
        Redirect(bandwidth=bandwidth)


def test_the_target_of_redirect_carries_no_gradient():
    forget, items = batch(), BANK.clone().requires_grad_(True)
    assert not KernelDensity(items, 0.0).eps(forget).requires_grad


@pytest.mark.parametrize("bank", [8, 20, 16384])
def test_redirect_asks_for_a_bank_and_keeps_it(bank):
    asked = []
    objective = Redirect(bank=bank)
    objective.prepare(Setup(None, lambda n: asked.append(n) or BANK[:n], None))
    assert asked == [bank]
    assert torch.equal(objective.density.items, BANK[:bank])


FLAT = torch.linspace(-1, 1, 20).view(20, 1, 1, 1).expand(20, 3, 4, 4)


@pytest.mark.parametrize(
    ("items", "distinct"),
    [
        (BANK[:1], 1),
        (BANK[:7], 7),
        (BANK[:1].expand(50, 3), 1),
        (BANK[:7].repeat(9, 1), 7),
        (torch.zeros(50, 1, 4, 4), 0),
        (FLAT, 0),
        (torch.cat([FLAT, torch.randn(7, 3, 4, 4)]), 7),
    ],
)
def test_redirect_refuses_a_bank_of_too_few_different_items(items, distinct):
    with pytest.raises(UserError, match=rf"drew {len(items)} retain items, of which {distinct} differ.*needs 8"):
        Redirect().prepare(Setup(None, lambda n: items, None))


@pytest.mark.parametrize("items", [BANK[:8], BANK[:8].repeat(9, 1), torch.cat([FLAT, torch.randn(8, 3, 4, 4)])])
def test_redirect_takes_a_bank_of_eight_different_items(items):
    objective = Redirect()
    objective.prepare(Setup(None, lambda n: items, None))
    assert torch.equal(objective.density.items, items)


@pytest.mark.parametrize("bank", [-1, 0, 1, 7])
def test_redirect_refuses_the_setting_of_a_small_bank(bank):
    with pytest.raises(UserError, match=f"objective.bank must be at least 8, got {bank}"):
        Redirect(bank=bank)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("orthogonal", {"alpha": -0.1}),
        ("obtuse", {"alpha": 1.1}),
        ("obtuse", {"every": 0}),
        ("orthogonal", {"variant": "outer"}),
        ("obtuse", {"sign": "plus"}),
        ("obtuse", {"flor": 1.0}),
        ("obtuse", {"floor": "deep"}),
        ("redirect", {"bank": 0}),
        ("erasediff", {"eta": -0.1}),
        ("erasediff", {"multiplier": -1.0}),
        ("erasediff", {"eta": float("nan")}),
        ("erasediff", {"multiplier": float("inf")}),
        ("obtuse", {"floor": float("inf")}),
        ("orthogonal", {"alpha": float("nan")}),
        ("erasediff", {"variant": "trilevel"}),
        ("standard", {"alpha": 0.5}),
        ("unsean", {}),
    ],
)
def test_bad_settings_are_user_errors(name, settings):
    with pytest.raises(UserError, match=r"^objective") as raised:
        OBJECTIVES.build({"name": name, **settings})
    assert all(key in str(raised.value) for key in settings)


def test_a_misspelt_objective_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'unseen'"):
        OBJECTIVES.build({"name": "unsean"})


@OBJECTIVE_NAMES
def test_every_card_is_shown_whole_and_names_a_paper(name):
    cls = OBJECTIVES.entries[name]
    text = cls.describe()
    for part in ("formula", "source", "deviations"):
        assert f"{part}: {getattr(cls.card, part)}" in text
    assert f"data: {cls.data}" in text
    assert "arXiv" in cls.card.source


def test_the_cards_name_what_differs_from_the_sources():
    cards = {name: cls.card for name, cls in OBJECTIVES.entries.items()}
    assert "squared difference" in cards["orthogonal"].deviations
    assert "floor" in cards["obtuse"].deviations
    assert "sign" in cards["obtuse"].deviations
    assert "U(0, 1)" in cards["erasediff"].formula
    assert "bias" in cards["redirect"].deviations


@OBJECTIVE_NAMES
def test_a_card_lists_the_defaults(name):
    text = OBJECTIVES.entries[name].describe()
    known = defaults(OBJECTIVES.entries[name])
    assert f"defaults: {', '.join(f'{key}={plain(value)}' for key, value in known.items()) or 'none'}" in text
    assert ({"alpha", "every"} <= known.keys()) == issubclass(OBJECTIVES.entries[name], Mixed)
