r"""Certified removal by a Newton step, of the linear head, after Guo et al. (ICML 2020, arXiv 1911.03030).

The head is trained anew on features x_i (with a one for the bias) as one logistic regression a class, targets
y_ik = +-1, perturbed by b ~ N(0, sigma^2 I), to the minimum over W = (w_1, ..., w_C) of
L(W; D) = sum_k [sum_i l(y_ik w_k^T x_i) + (lambda n / 2) |w_k|^2 + b_k^T w_k], l(s) = ln(1 + e^-s).
Removal leaves D' of n' items and takes the Newton step w_k <- w_k + v_k, v_k = -H_k^-1 grad_k L(W; D'), with
H_k = X'^T diag(l'') X' + lambda n' I.

Residual. By Taylor grad_k L after the step is X'^T E X' v_k, E diagonal with |E_ii| <= (g / 2) |x_i^T v_k| and
g = max |l'''| = 1 / (6 sqrt 3). So |grad_k L| <= r_k = (g / 2) |X'|_2 |(X' v_k)^2|_2, the square element by element,
which retained features alone give; over all classes r = sqrt(sum_k r_k^2). Then (Guo et al., theorem 3) the head is
(epsilon, delta)-indistinguishable from one trained on D' alone, epsilon = r sqrt(2 ln(1.5 / delta)) / sigma. The
Gaussian argument behind this is used up to epsilon = 1.

What is covered: the head, for features that did not depend on the items removed. The features of a network that was
trained on these items did, and nothing is certified then.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import nn

from msgm.checks import positive
from msgm.classifier.data import Examples, Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Method, Settings
from msgm.classifier.networks import features, head
from msgm.errors import RunError, UserError
from msgm.seeding import generator
from msgm.solves import Solve

Array = NDArray[np.float64]
BEND = 1 / (6 * math.sqrt(3))
NEWTON_STEPS = 100
SOLVED = 1e-6
"""Relative residual that a direct solve in double precision stays below unless its matrix is nearly singular."""


@METHODS.register("newton-certified")
@dataclass(frozen=True)
class NewtonCertified(Method):
    """A Newton step on a linear head, with a proven bound on what its weights still hold of the items.

    Example:
        >>> made = msgm.classifier.NewtonCertified(head_only=True).forget(network, data, {"labels": [2]})

    Attributes:
        sigma: standard deviation of the perturbation of the loss.
        penalty: lambda, of the squared weights, an item.
        delta: of the guarantee, in (0, 1).
        head_only: take a network whose features were trained on the items too; certifies nothing.
    """

    sigma: float = 10.0
    penalty: float = 0.1
    delta: float = 1e-4
    head_only: bool = False

    card = Card(
        formula=(
            "w_k - H_k^-1 grad_k L(W; retain); epsilon = r sqrt(2 ln(1.5 / delta)) / sigma, r the bound on the "
            "gradient left over; the report shows epsilon and delta. They cover the head alone; nothing is "
            "proved where the features were trained on the items"
        ),
        source="Guo et al., ICML 2020, sec. 3 and theorem 3; there delta 1e-4, sigma and lambda by data set",
        needs=("forget", "retain"),
        family="approximate update",
        touches="head only",
        deviations=(
            "the head of the given model is first replaced by one trained on the perturbed loss, which is preparation; "
            "the bound on the residual is ours (tighter: the third derivative's true maximum, no norm-one inputs "
            "assumed); the classes' losses count as one, their residuals as a root of squares; epsilon above 1 is no "
            "certificate; one request, whose epsilon adds to those before; "
            "rounding of the head's weights to the network's precision is not counted"
        ),
    )

    def __post_init__(self) -> None:
        positive(self, "methods", "sigma", "penalty")
        if not 0 < self.delta < 1:
            raise UserError(f"methods.delta must lie between 0 and 1, got {self.delta}.")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        blind = features_are_blind(model, settings)
        if not blind and not self.head_only:
            raise UserError(
                "newton-certified: this network's features were fitted to the items to forget, so nothing would be "
                "certified; use the network linear on images, or methods.head_only: true for a head that is not."
            )
        with ledger.preparing():
            trained = Problem.of(model, split.train, settings, self)
            weights = trained.minimum()
        retained = Problem.of(model, split.retain, settings, self, noise=trained.noise)
        ledger.saw(len(split.retain))
        steps = retained.newton(weights)
        solve = retained.solve(weights, steps)
        weights = weights + steps
        _write(head(model), weights)
        bound = retained.bound(steps)
        ledger.artefacts |= self._certificate(bound, blind) | {"residual": retained.residual(weights)}
        ledger.artefacts["solve"] = solve.facts()
        return model

    def _certificate(self, bound: float, blind: bool) -> dict[str, float | bool | str]:
        epsilon = bound * math.sqrt(2 * math.log(1.5 / self.delta)) / self.sigma
        numbers = {
            "residual_bound": bound,
            "epsilon": epsilon,
            "delta": self.delta,
            "proved": blind and epsilon <= 1,
        }
        if not blind:
            return numbers | {"covers": "nothing: the features were fitted to the items to forget"}
        return numbers | {
            "covers": "the whole model, which is its head" if epsilon <= 1 else "nothing: epsilon above 1"
        }


def features_are_blind(model: nn.Module, settings: Settings) -> bool:
    """Return whether the head's inputs do not depend on training data: no other weights, and all buffers as built."""
    own = {id(value) for value in head(model).parameters()}
    if any(id(value) not in own for value in model.parameters()):
        return False
    built = dict(settings.build(settings.seed).named_buffers())
    return all(name in built and torch.equal(value.cpu(), built[name].cpu()) for name, value in model.named_buffers())


@dataclass(frozen=True, eq=False)
class Problem:
    """The perturbed loss of all classes on some items.

    Attributes:
        x: (n, d) features with a last column of ones.
        y: (n, C) targets, 1 or -1.
        noise: (C, d) perturbation b.
        penalty: lambda.
    """

    x: Array
    y: Array
    noise: Array
    penalty: float

    @classmethod
    def of(
        cls,
        model: nn.Module,
        examples: Examples,
        settings: Settings,
        method: NewtonCertified,
        noise: Array | None = None,
    ) -> "Problem":
        """Return the problem of a model's features; the noise is drawn from the method's seed unless given."""
        seen = features(model, examples, settings.device).double().numpy()
        x = np.concatenate([seen, np.ones((len(seen), 1))], 1)
        classes = len(examples.dataset.classes)
        y = np.where(examples.labels.numpy()[:, None] == np.arange(classes), 1.0, -1.0)
        if noise is None:
            draws = generator(settings.seed, method.name)
            drawn = torch.randn(classes, x.shape[1], generator=draws, dtype=torch.float64)
            noise = method.sigma * drawn.numpy()
        return cls(x, y, noise, method.penalty)

    def loss(self, weights: Array) -> Array:
        """Return (C,) losses of (C, d) weights."""
        margins = self.y * (self.x @ weights.T)
        ridge = 0.5 * self.penalty * len(self.x) * (weights**2).sum(1)
        return np.asarray(np.logaddexp(0, -margins).sum(0) + ridge + (self.noise * weights).sum(1))

    def gradient(self, weights: Array) -> Array:
        """Return (C, d)."""
        slopes = -self.y * expit(-self.y * (self.x @ weights.T))
        return np.asarray(slopes.T @ self.x + self.penalty * len(self.x) * weights + self.noise)

    def hessians(self, weights: Array) -> list[Array]:
        """Return C Hessians, (d, d) each."""
        p = expit(self.x @ weights.T)
        ridge = self.penalty * len(self.x) * np.eye(self.x.shape[1])
        return [(self.x * curved[:, None]).T @ self.x + ridge for curved in (p * (1 - p)).T]

    def newton(self, weights: Array) -> Array:
        """Return (C, d) Newton steps at the weights."""
        pairs = zip(self.hessians(weights), self.gradient(weights), strict=True)
        return -np.stack([np.linalg.solve(hessian, slope) for hessian, slope in pairs])

    def solve(self, weights: Array, steps: Array) -> Solve:
        """Return the largest relative residual over the classes' Newton systems, for given ``steps`` at the weights."""
        slopes = self.gradient(weights)
        left = np.stack([hessian @ step for hessian, step in zip(self.hessians(weights), steps, strict=True)]) + slopes
        sizes = np.maximum(np.linalg.norm(slopes, axis=1), np.finfo(float).tiny)
        return Solve(float((np.linalg.norm(left, axis=1) / sizes).max()), SOLVED, len(steps))

    def minimum(self) -> Array:
        """Return the (C, d) minimising weights, by Newton steps halved until each class' loss falls.

        Raises:
            RunError: no convergence.
        """
        weights = np.zeros_like(self.noise)
        for _ in range(NEWTON_STEPS):
            steps, gradient, before = self.newton(weights), self.gradient(weights), self.loss(weights)
            if np.linalg.norm(gradient) <= 1e-9 * len(self.x):
                return weights
            expected = (gradient * steps).sum(1)
            size = np.ones(len(steps))
            for _ in range(30):
                worse = self.loss(weights + size[:, None] * steps) > before + 1e-4 * size * expected + 1e-12 * abs(
                    before
                )
                size = np.where(worse, size / 2, size)
            weights = weights + size[:, None] * steps
        raise RunError("newton-certified: the head's training did not converge; raise methods.penalty.")

    def residual(self, weights: Array) -> float:
        """Return the norm of the gradient of all classes' losses."""
        return float(np.linalg.norm(self.gradient(weights)))

    def bound(self, steps: Array) -> float:
        """Return the bound r on the residual after one Newton step, from the items' features alone."""
        return float(BEND / 2 * np.linalg.norm(self.x, 2) * np.linalg.norm((self.x @ steps.T) ** 2))


@torch.no_grad()
def _write(layer: nn.Linear, weights: Array) -> None:
    """Put (C, d) weights, the bias last, into the head.

    Raises:
        UserError: the head has no bias.
    """
    if layer.bias is None:
        raise UserError("newton-certified: the model's head has no bias, which the removal needs.")
    both = torch.from_numpy(weights).to(layer.weight)
    layer.weight.copy_(both[:, :-1])
    layer.bias.copy_(both[:, -1])
