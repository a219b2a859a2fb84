import math

import pytest
import torch

from msgm.diffusion import VE, VP
from msgm.objectives import EraseDiff, Noised, Obtuse, Orthogonal, Redirect, Setup, mean_square, noised
from msgm.objectives.base import Mixed
from msgm.objectives.kernel import KernelDensity
from tests.helpers import Mixture

ALPHA = 0.7
PATHS = pytest.mark.parametrize(
    ("process", "time"), [(VE(), 0.45), (VP(), 0.2), (VP(), 0.02)], ids=["ve", "vp", "vp-early"]
)
RETAIN = ([[-0.8, 0.5], [0.6, -0.4]], [0.35, 0.5], [2.0, 1.0])
FORGET = ([[0.5, 0.7], [0.1, -0.9]], [0.3, 0.4], [1.0, 1.0])
POINT = torch.tensor([0.25, 0.4], dtype=torch.float64)


def batch(process, time, point, eps):
    """A batch of one x_t and all its noises."""
    t = torch.full((len(eps),), time, dtype=torch.float64)
    signal, noise = process.signal(t)[:, None], process.noise(t)[:, None]
    uniform = torch.linspace(0, 1, eps.numel(), dtype=torch.float64).view_as(eps)
    return Noised(point.expand_as(eps), t, eps, signal, noise, lambda name="": uniform, (point - noise * eps) / signal)


class Point:
    """What there is to know at one x_t: noises and their weights, under the retain and the forget data; densities."""

    def __init__(self, process, time, point=POINT, forget=FORGET):
        t = torch.tensor([time], dtype=torch.float64)
        self.process, self.time, self.point = process, time, point
        self.models = {"retain": Mixture(process, *RETAIN), "forget": Mixture(process, *forget)}
        self.eps, self.weights, self.density, self.mean = {}, {}, {}, {}
        for name, model in self.models.items():
            self.eps[name], self.weights[name] = model.eps_nodes(point, t)
            self.density[name] = model.log_density(point[None], t).exp().item()
            self.mean[name] = self.weights[name] @ self.eps[name]

    def batch(self, name):
        return batch(self.process, self.time, self.point, self.eps[name])

    def expected(self, objective, e):
        """The exact loss density at x_t of a network that puts out ``e`` there."""
        retain, forget = (self.batch(name) for name in ("retain", "forget"))
        terms = objective.terms(lambda x, t, condition: e.expand_as(x), retain, forget)
        return sum(
            term.weight * self.density[name] * (self.weights[name] @ term.values) for name, term in terms.items()
        )

    def gradient(self, objective, e):
        e = e.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.expected(objective, e), e)
        return gradient / self.density["retain"]

    @property
    def pull(self):
        """k R."""
        return (1 - ALPHA) / ALPHA * self.density["forget"] / self.density["retain"]

    def moment(self):
        """E_f[eps eps^T | x_t]."""
        eps = self.eps["forget"]
        return eps.T @ (self.weights["forget"][:, None] * eps)


def marginal(point):
    objective = Orthogonal(variant="marginal", alpha=ALPHA)
    objective.prepare(Setup(point.models["retain"], None, lambda steps: point.models["forget"]))
    return objective


def solve(matrix, vector):
    return torch.linalg.solve(torch.eye(2, dtype=torch.float64) + matrix, vector)


def case(name, point):
    """An objective and its closed-form optimum at a point."""
    retain, forget, pull = point.mean["retain"], point.mean["forget"], point.pull
    if name == "elementwise":
        return Orthogonal(alpha=ALPHA), retain / (1 + pull * point.moment().diagonal())
    if name == "inner":
        return Orthogonal(variant="inner", alpha=ALPHA), solve(pull * point.moment(), retain)
    if name == "marginal":
        return marginal(point), solve(pull * torch.outer(forget, forget), retain)
    sign = {"paper": -1, "released": 1}[name]
    return Obtuse(sign=name, floor=None, alpha=ALPHA), retain + sign * pull / 2 * forget


NAMES = pytest.mark.parametrize("name", ["elementwise", "inner", "marginal", "paper", "released"])


@PATHS
def test_the_quadrature_has_the_mean_noise_of_the_exact_score(process, time):
    point = Point(process, time)
    t = torch.tensor([time], dtype=torch.float64)
    for name, model in point.models.items():
        assert point.weights[name].sum().item() == pytest.approx(1, abs=1e-12)
        torch.testing.assert_close(point.mean[name], model.eps(POINT[None], t)[0])


@NAMES
@PATHS
def test_the_exact_loss_is_stationary_at_the_closed_form(process, time, name):
    point = Point(process, time)
    objective, optimum = case(name, point)
    assert point.gradient(objective, optimum).abs().max() < 1e-6
    assert point.gradient(objective, optimum + 0.01).abs().max() > 1e-3
    assert (optimum - point.mean["retain"]).norm() > 1e-3


@NAMES
def test_the_closed_form_is_the_minimum(name):
    point = Point(VP(), 0.2)
    objective, optimum = case(name, point)
    best = point.expected(objective, optimum)
    steps = 0.3 * torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert all(point.expected(objective, optimum + step) > best for step in steps)


def test_alpha_one_is_plain_training_on_the_retain_set():
    point = Point(VP(), 0.2)
    for objective in (Orthogonal(alpha=1.0), Obtuse(alpha=1.0), EraseDiff(variant="weighted", alpha=1.0)):
        assert point.gradient(objective, point.mean["retain"]).abs().max() < 1e-6


def test_where_forget_data_dominate_orthogonal_shrinks_to_nothing_and_obtuse_grows_without_bound():
    at = torch.tensor([2.8, 3.1], dtype=torch.float64)
    point = Point(VP(), 0.02, at, forget=([[3.0, 3.0]], [0.2]))
    assert point.pull > 1e4
    elementwise, paper = case("elementwise", point)[1], case("paper", point)[1]
    assert (elementwise.abs() < 1e-2 * point.mean["retain"].abs()).all()
    assert paper.norm() > 1e3 * point.mean["retain"].norm()


def retain_items(count=40):
    return Mixture(VP(), *RETAIN).draw(count, seed=5)


def redirect(items, bandwidth=0.0):
    objective = Redirect(alpha=ALPHA, bandwidth=bandwidth)
    objective.prepare(Setup(None, lambda n: items[:n], None))
    return objective


def empirical(process, time, items):
    """Noises of one x_t under a finite retain set, by Bayes' rule; their weights; the density's value."""
    t = torch.tensor([time], dtype=torch.float64)
    signal, noise = process.signal(t), process.noise(t)
    eps = (POINT - signal * items) / noise
    likelihood = torch.exp(-0.5 * eps.square().sum(1)) / (2 * math.pi * noise**2)
    return eps, likelihood / likelihood.sum(), likelihood.mean().item()


@PATHS
def test_redirect_and_training_on_a_finite_retain_set_share_their_optimum(process, time):
    items, point = retain_items(), Point(process, time)
    point.eps["retain"], point.weights["retain"], point.density["retain"] = empirical(process, time, items)
    target = point.weights["retain"] @ point.eps["retain"]
    assert point.gradient(redirect(items), target).abs().max() < 1e-6
    assert point.gradient(redirect(items), target + 0.1).abs().max() > 1e-3


@PATHS
@pytest.mark.parametrize("bandwidth", [0.0, 0.3])
def test_redirect_mixes_both_targets_where_its_bank_is_not_the_retain_data(process, time, bandwidth):
    items, point = retain_items(), Point(process, time)
    t = torch.tensor([time], dtype=torch.float64)
    target = Mixture(process, items, torch.full((len(items),), bandwidth)).eps(POINT[None], t)[0]
    rho = process.noise(t) / process.signal(t)
    pull = point.pull * rho**2 / (rho**2 + bandwidth**2) / (1 + target.square().mean())
    optimum = (point.mean["retain"] + pull * target) / (1 + pull)
    assert point.gradient(redirect(items, bandwidth), optimum).abs().max() < 1e-6


@PATHS
def test_erasediff_weighted_mixes_retain_noise_and_uniform_mean(process, time):
    point = Point(process, time)
    uniform = point.weights["forget"] @ point.batch("forget").uniform()
    optimum = (point.mean["retain"] + point.pull * uniform) / (1 + point.pull)
    objective = EraseDiff(variant="weighted", alpha=ALPHA)
    assert point.gradient(objective, optimum).abs().max() < 1e-6


def network(x):
    """Any smooth function of x_t."""
    return torch.tanh(x @ torch.tensor([[0.9, 0.3], [-0.4, 0.7]], dtype=torch.float64)) + 0.2


def by_quadrature(objective, model, process, time, width=6.0, cells=48):
    """The forget loss's expectation: over x_t on a grid, over the noise given x_t by Gauss-Hermite."""
    axis = torch.linspace(-width, width, cells, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    t = torch.tensor([time], dtype=torch.float64)
    density = model.log_density(points, t.expand(len(points))).exp() * (axis[1] - axis[0]) ** 2
    keep = density > 1e-9
    total = 0.0
    for point, mass in zip(points[keep], density[keep], strict=True):
        eps, weights = model.eps_nodes(point, t, degree=5)
        predicted = network(point[None]).expand_as(eps)
        total += mass * (weights @ objective.forget_loss(predicted, batch(process, time, point, eps)))
    return total.item()


@pytest.mark.parametrize("name", ["elementwise", "inner", "marginal", "paper", "released", "redirect"])
def test_sampled_losses_agree_with_quadrature(name):
    process, time, count = VP(), 0.2, 20000
    point = Point(process, time)
    objective = redirect(retain_items()) if name == "redirect" else case(name, point)[0]
    model = point.models["forget"]
    g = torch.Generator().manual_seed(1)
    eps = torch.randn(count, 2, generator=g, dtype=torch.float64)
    drawn = noised(process, model.draw(count), torch.full((count,), time, dtype=torch.float64), eps)
    losses = objective.forget_loss(network(drawn.x), drawn)
    exact = by_quadrature(objective, model, process, time)
    assert losses.shape == (count,)
    assert abs(losses.mean().item() - exact) < 4 * losses.std().item() / math.sqrt(count)


def test_a_perfect_score_of_the_forget_set_costs_with_the_papers_sign_and_pays_with_the_released_one():
    process, count = VP(), 20000
    model = Mixture(process, *FORGET)
    g = torch.Generator().manual_seed(1)
    t = torch.full((count,), 0.2, dtype=torch.float64)
    drawn = noised(process, model.draw(count), t, torch.randn(count, 2, generator=g, dtype=torch.float64))
    perfect = model.eps(drawn.x, drawn.t)
    paper, released = (Obtuse(sign=sign, floor=None).forget_loss(perfect, drawn) for sign in ("paper", "released"))
    error = 4 * paper.std() / math.sqrt(count)
    assert paper.mean() > error
    assert released.mean() < -error
    # E <ebar, eps> = E |ebar|^2: the loss is the squared length of the score.
    gap = paper - mean_square(perfect)
    assert gap.mean().abs() < 4 * gap.std() / math.sqrt(count)


class Printed(Mixed):
    """Eq. 7 as printed: the squared difference of the model's score and the forget data's."""

    def __init__(self, teacher):
        super().__init__(alpha=ALPHA)
        self.teacher = teacher

    def forget_loss(self, predicted, forget):
        return mean_square(predicted - self.teacher.eps(forget.x, forget.t))


class Learning(Mixed):
    """Noise prediction on the forget set: learning it."""

    def forget_loss(self, predicted, forget):
        return mean_square(predicted - forget.eps)


PLACES = torch.randn(8, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@PATHS
def test_eq_7_as_printed_trains_on_the_forget_set(process, time):
    point = Point(process, time)
    printed, learning = Printed(point.models["forget"]), Learning(alpha=ALPHA)
    for e in PLACES:
        torch.testing.assert_close(point.gradient(printed, e), point.gradient(learning, e))


def forget_gradient(point, objective, e):
    e = e.clone().requires_grad_(True)
    forget = point.batch("forget")
    loss = point.weights["forget"] @ objective.forget_loss(e.expand_as(forget.eps), forget)
    return torch.autograd.grad(loss, e)[0]


@pytest.mark.parametrize("name", ["elementwise", "inner", "marginal", "paper", "redirect", "erasediff"])
@PATHS
def test_no_variant_trains_on_the_forget_set(process, time, name):
    point = Point(process, time)
    made = {"redirect": lambda: redirect(retain_items()), "erasediff": lambda: EraseDiff(variant="weighted")}
    objective = made[name]() if name in made else case(name, point)[0]
    learnt = point.mean["forget"]
    assert forget_gradient(point, Learning(alpha=ALPHA), learnt).abs().max() < 1e-9
    assert forget_gradient(point, objective, learnt).norm() > 1e-3


@PATHS
def test_the_released_sign_teaches_the_forget_set(process, time):
    point = Point(process, time)
    step = -forget_gradient(point, Obtuse(sign="released", floor=None), torch.zeros(2, dtype=torch.float64))
    away = -forget_gradient(point, Obtuse(sign="paper", floor=None), torch.zeros(2, dtype=torch.float64))
    assert torch.cosine_similarity(step, point.mean["forget"], dim=0) > 0.999
    assert torch.cosine_similarity(away, point.mean["forget"], dim=0) < -0.999


@pytest.mark.parametrize("sign", ["paper", "released"])
@pytest.mark.parametrize("floor", [1.0, 0.25, 0.0])
def test_the_floor_stops_the_gradient_of_the_samples_below_it(sign, floor):
    eps = torch.ones(2, 4, dtype=torch.float64)
    forget = batch(VP(), 0.2, torch.zeros(4, dtype=torch.float64), eps)
    way = -1 if sign == "paper" else 1
    level = torch.tensor([floor + 0.1, floor - 0.1], dtype=torch.float64)
    predicted = (way * level[:, None] * eps).requires_grad_(True)
    losses = Obtuse(sign=sign, floor=floor).forget_loss(predicted, forget)
    (gradient,) = torch.autograd.grad(losses.sum(), predicted)
    torch.testing.assert_close(losses, torch.stack([torch.tensor(-floor).double(), -level[1]]))
    assert (gradient[0] == 0).all()
    torch.testing.assert_close(gradient[1], torch.full((4,), -way / 4, dtype=torch.float64))


def doubled(b):
    uniform = b.uniform()
    twice = [part.repeat(1, 2) for part in (b.x, b.eps, b.clean)]
    return Noised(twice[0], b.t, twice[1], b.signal, b.noise, lambda name="": uniform.repeat(1, 2), twice[2])


def some_batch(count=5, dims=3, dtype=torch.float64):
    g = torch.Generator().manual_seed(2)
    x0, eps, predicted = torch.randn(3, count, dims, generator=g, dtype=dtype)
    uniform = torch.rand(count, dims, generator=g, dtype=dtype)
    return noised(VP(), x0, torch.linspace(0.1, 0.9, count, dtype=dtype), eps, lambda name="": uniform), predicted


@pytest.mark.parametrize(
    "objective", [Orthogonal(), Obtuse(floor=None), Obtuse(sign="released"), EraseDiff(variant="weighted")]
)
def test_losses_do_not_change_when_dimensions_are_repeated(objective):
    forget, predicted = some_batch()
    once, twice = (
        objective.terms(lambda x, t, condition, p=p: torch.cat([p, p]), b, b)
        for b, p in ((forget, predicted), (doubled(forget), predicted.repeat(1, 2)))
    )
    for name in ("retain", "forget"):
        torch.testing.assert_close(once[name].values, twice[name].values)


def test_redirect_does_not_change_when_dimensions_are_repeated():
    # One item: with more of them, repeated dimensions are evidence and rightly sharpen the posterior.
    forget, predicted = some_batch()
    item = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
    once, twice = Redirect(), Redirect()
    once.density, twice.density = KernelDensity(item, 0.3), KernelDensity(item.repeat(1, 2), 0.3)
    once = once.forget_loss(predicted, forget)
    twice = twice.forget_loss(predicted.repeat(1, 2), doubled(forget))
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("dims", [4, 64])
def test_inner_costs_what_elementwise_costs_when_the_noise_is_independent(dims):
    g = torch.Generator().manual_seed(0)
    count = 20000
    e = torch.randn(1, dims, generator=g, dtype=torch.float64).expand(count, -1)
    eps = torch.randn(count, dims, generator=g, dtype=torch.float64)
    forget = batch(VP(), 0.2, torch.zeros(dims, dtype=torch.float64), eps)
    expected = e[0].square().mean()
    for variant in ("elementwise", "inner"):
        losses = Orthogonal(variant=variant).forget_loss(e, forget)
        assert (losses.mean() - expected).abs() < 4 * losses.std() / math.sqrt(count)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_losses_are_one_number_an_item_for_any_shape(shape):
    x0 = torch.randn(5, *shape)
    forget = noised(VP(), x0, torch.rand(5), torch.randn(5, *shape))
    items = redirect(torch.randn(9, *shape))
    for objective in (Orthogonal(), Orthogonal(variant="inner"), Obtuse(), EraseDiff(), items):
        losses = objective.forget_loss(torch.randn(5, *shape), forget)
        assert losses.shape == (5,)
        assert losses.isfinite().all()
