r"""Second-order steps from gradients alone.

``H v`` is the gradient of ``g . v``, with g a gradient whose graph is kept: as dear as a gradient, and H is never
formed. Conjugate gradients solve (H + mu I) x = b from such products. Where H is no block of a convex objective, a
direction of curvature not above zero ends them (Steihaug, SIAM J. Numer. Anal. 20(3), 1983): what was found before it
stands, or the damping is raised.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from msgm.errors import RunError
from msgm.seeding import generator
from msgm.solves import Solve

Loss = Callable[[Tensor], Tensor]
Product = Callable[[Tensor], Tensor]

POWER_STEPS = 10
LEAST_SHARE = 0.01
HALVINGS = 12
DIRECT = 1e-6
"""Relative residual that a direct solve in double precision stays below unless its matrix is nearly singular."""


@dataclass(frozen=True, eq=False)
class Solution:
    """Result of conjugate gradients.

    Attributes:
        x: (p,).
        steps: products used.
        residual: true length of b - (H + mu I) x, relative to that of b.
        convex: whether no direction of negative curvature was met.
        share: mu as a share of H's largest |eigenvalue|, if mu was set that way.
        tolerance: requested bound on the residual.
    """

    x: Tensor
    steps: int
    residual: float
    convex: bool
    share: float = 0.0
    tolerance: float = 0.0

    @property
    def solve(self) -> Solve:
        """Residual, tolerance and steps of the solve."""
        return Solve(self.residual, self.tolerance, self.steps)

    def facts(self) -> dict[str, Any]:
        """Return the facts of the solve that an ``Answer`` records."""
        return {"solve": self.solve.facts(), "cg_damping": self.share, "convex": self.convex}


def gradient(loss: Loss, at: Tensor) -> Tensor:
    """Return the (p,) gradient."""
    point = at.detach().requires_grad_()
    return torch.autograd.grad(loss(point), point)[0]


def hessian_product(loss: Loss, at: Tensor) -> Product:
    """Return v -> H v, (p,) each, with H the Hessian of ``loss`` at the (p,) point."""
    point = at.detach().requires_grad_()
    slope = torch.autograd.grad(loss(point), point, create_graph=True)[0]
    return lambda v: torch.autograd.grad(slope, point, v, retain_graph=True)[0]


def largest_eigenvalue(product: Product, draws: torch.Generator, size: int) -> float:
    """Return the largest |eigenvalue| of H, from below, by power iteration from a random (size,) vector."""
    v = torch.randn(size, generator=draws, dtype=torch.float64)
    length = v.norm()
    for _ in range(POWER_STEPS):
        v = product(v / length)
        length = v.norm()
        if length == 0:
            return 0.0
    return float(length)


def conjugate_gradients(product: Product, b: Tensor, damping: float, tolerance: float, max_steps: int) -> Solution:
    """Solve (H + damping I) x = b from x = 0.

    Args:
        product: v -> H v.
        b: (p,).
        damping: mu, at least 0.
        tolerance: of the residual, relative to b.
        max_steps: products at most; one more gives the residual.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, norm = residual.clone(), residual @ residual
    start, steps, convex = float(norm), 0, True
    while steps < max_steps and float(norm) > tolerance**2 * start:
        image = product(direction) + damping * direction
        steps += 1
        curvature = direction @ image
        if curvature <= 0:
            convex = False
            break
        length = norm / curvature
        x = x + length * direction
        residual = residual - length * image
        norm, last = residual @ residual, norm
        direction = residual + norm / last * direction
    left = float((b - product(x) - damping * x).norm() / b.norm()) if start else 0.0
    return Solution(x, steps, left, convex, tolerance=tolerance)


def solve_damped(product: Product, b: Tensor, share: float, tolerance: float, max_steps: int, seed: int) -> Solution:
    """Solve (H + mu I) x = b by conjugate gradients with mu = ``share`` times H's largest |eigenvalue|.

    Where that meets a direction of negative curvature, along which a Newton step would go uphill, ``share`` becomes
    ten times as large, or ``LEAST_SHARE``, until it does not, or is 1: there is none left then, but for the estimate.
    """
    largest = largest_eigenvalue(product, generator(seed, "gradients", "power"), len(b))
    found, steps = conjugate_gradients(product, b, share * largest, tolerance, max_steps), 0
    while not found.convex and share < 1:
        share, steps = min(max(10 * share, LEAST_SHARE), 1.0), steps + found.steps
        found = conjugate_gradients(product, b, share * largest, tolerance, max_steps)
    return replace(found, steps=steps + found.steps, share=share)


def solve_blocks(blocks: Tensor, b: Tensor, damping: float) -> Tensor:
    """Return the (p,) solution of (H + mu I) x = b by Cholesky factors of the blocks.

    Args:
        blocks: (n, w, w) of H, positive semi-definite.
        b: (n w,).
        damping: mu of a block, as a share of its mean diagonal.

    Raises:
        RunError: a block has no Cholesky factor.
    """
    n, width = blocks.shape[:2]
    damped = _damped(blocks, damping)
    factors, failed = torch.linalg.cholesky_ex(damped)
    if failed.any():
        raise RunError(f"{int((failed > 0).sum())} of {n} rows have a Hessian that is not positive definite.")
    return torch.cholesky_solve(b.reshape(n, width, 1), factors).flatten()


def blocks_solve(blocks: Tensor, b: Tensor, damping: float, x: Tensor) -> Solve:
    """Return the largest relative residual of the blocks for the solution ``x`` of ``solve_blocks``; same arguments."""
    right = b.reshape(*blocks.shape[:2], 1)
    left = right - _damped(blocks, damping) @ x.reshape(right.shape)
    sizes = right.norm(dim=1).clamp_min(torch.finfo(b.dtype).tiny)
    return Solve(float((left.norm(dim=1) / sizes).max()) if len(blocks) else 0.0, DIRECT, len(blocks))


def _damped(blocks: Tensor, damping: float) -> Tensor:
    # A row that nothing holds in place has a block of zeros: damped by 1, it stays where it is.
    scale = blocks.diagonal(dim1=1, dim2=2).mean(1)
    return blocks + torch.diag_embed(torch.where(scale > 0, damping * scale, 1.0)[:, None].expand(blocks.shape[:2]))


def newton_step(loss: Loss, at: Tensor, damping: float, tolerance: float, max_steps: int) -> tuple[Tensor, Solution]:
    """Return the (p,) point after a step along -(H + mu I)^{-1} g, halved until the loss is no higher than before.

    Where no half of it is, the point stays where it was, and nothing is solved: the residual is 1.
    """
    solved = conjugate_gradients(hessian_product(loss, at), -gradient(loss, at), damping, tolerance, max_steps)
    with torch.no_grad():
        before, step = loss(at), solved.x
        for _ in range(HALVINGS):
            if loss(at + step) <= before:
                return at + step, solved
            step = step / 2
    return at, replace(solved, residual=1.0)
