r"""Closed forms of cross-attention: the weights through which a denoiser reads texts are chosen anew at once.

Cross-attention reads a text through keys W_K c and values W_V c of the embeddings c of its places. UCE, RECE and MACE
all solve the same ridge regression for each of these W, with other embeddings c_i, targets v_i and scales s_i:

    W = argmin  lam |W - W_s|^2 + sum_i s_i |W c_i - v_i|^2
      = W_s + (sum_i s_i (v_i - W_s c_i) c_i^T) (lam I + sum_i s_i c_i c_i^T)^-1.

Targets are what the layer as it was, W_0, gave for other embeddings: v_i = W_0 g_i. With W_s = W_0 (I + X) the layer
then stands on the left of everything, W = W_0 (I + X'), and X', of the width of an embedding, is the same for all
layers. It is solved once, from sums whose size does not grow with the number of embeddings. An embedding that is its
own target adds nothing to the left sum, so that an edit that only preserves leaves every weight as it is to the bit.
A layer's bias is in v_i and in W_s c_i alike, and cancels.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from msgm.errors import RunError
from msgm.objectives.edits.base import in_double

Pairs = tuple[Tensor, Tensor]
"""Embeddings (n, E) and, one for each, those whose outputs are their targets (n, E)."""


class Ridge:
    """The sums of one regression, and its solution X', for layers that read embeddings of ``width`` numbers.

    Example:
        >>> seven, one = torch.eye(3)[:2].double().split(1)
        >>> ridge = Ridge(3)
        >>> ridge.add(seven, one, scale=1.0)
        >>> layer = torch.nn.Linear(3, 2)
        >>> edited = multiplied(layer.weight, ridge.solution(lam=1e-9))
        >>> torch.allclose(edited @ seven[0], layer.weight.double() @ one[0], atol=1e-6)
        True

    Args:
        width: E, of an embedding.
        start: (E, E), the X of the weights W_0 (I + X) that the regression stays near; None is zero.
    """

    def __init__(self, width: int, start: Tensor | None = None) -> None:
        self.start = start
        self.moved = torch.zeros(width, width, dtype=torch.double)
        self.gram = torch.zeros(width, width, dtype=torch.double)

    def add(self, texts: Tensor, targets: Tensor, scale: float) -> None:
        """Add embeddings (n, E) and, one for each, those whose outputs they are to give (n, E), in float64.

        Raises:
            ValueError: another number of targets than of embeddings.
        """
        if texts.shape != targets.shape:
            raise ValueError(f"expected a target for each embedding, got {[*texts.shape]} and {[*targets.shape]}")
        left = targets - texts if self.start is None else targets - texts - texts @ self.start.T
        self.moved = self.moved.to(texts.device) + scale * left.T @ texts
        self.gram = self.gram.to(texts.device) + scale * texts.T @ texts

    def solution(self, lam: float) -> Tensor:
        """Return X', (E, E), with which the layers become W_0 (I + X')."""
        change = solved(self.moved, self.gram, lam)
        return change if self.start is None else self.start + change


def solved(moved: Tensor, gram: Tensor, lam: float) -> Tensor:
    """Return ``moved`` (lam I + ``gram``)^-1 by Cholesky's factors, in float64.

    Raises:
        RunError: the matrix cannot be factored, as with NaN among the embeddings.
    """
    factor, failed = torch.linalg.cholesky_ex(gram + lam * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    if bool(failed) or not bool(factor.isfinite().all()):
        raise RunError("edit.lam: the normal equations of the edit cannot be solved; take a larger edit.lam.")
    return torch.cholesky_solve(moved.T, factor).T


def multiplied(weight: Tensor, change: Tensor) -> Tensor:
    """Return W_0 (I + X) in float64."""
    whole = in_double(weight)
    return whole + whole @ change.to(whole.device)


def write(layers: Mapping[str, nn.Linear], change: Tensor) -> None:
    """Multiply the layers' weights by I + ``change``, in place; they are rounded to their own precision at the end.

    Where nothing changes, not a bit of a weight does.
    """
    if not bool(change.any()):
        return
    with torch.no_grad():
        for layer in layers.values():
            layer.weight.copy_(multiplied(layer.weight, change))


def width_of(layers: Mapping[str, nn.Linear]) -> int:
    """Return the width of the embeddings that all layers read."""
    (width,) = {layer.in_features for layer in layers.values()}
    return width


def gram_of(layers: Mapping[str, nn.Linear]) -> Tensor:
    """Return sum_l W_l^T W_l, (E, E), with which lengths of all layers' outputs together are those of embeddings."""
    width = width_of(layers)
    total = torch.zeros(width, width, dtype=torch.double)
    for layer in layers.values():
        whole = in_double(layer.weight.detach())
        total = total.to(whole.device) + whole.T @ whole
    return total


def residuals(before: Mapping[str, Tensor], after: Mapping[str, nn.Linear], pairs: Iterable[Pairs]) -> dict[str, float]:
    """Return by layer how much is left of the way to the targets: |W c - W_0 g| / |W_0 c - W_0 g| over all pairs.

    The weights are those that the layers have now, rounded as they are.

    Args:
        before: W_0 by layer.
        after: the edited layers.
        pairs: embeddings and those whose outputs were their targets.
    """
    return _shares(before, after, pairs, lambda texts, targets: texts - targets)


def drifts(before: Mapping[str, Tensor], after: Mapping[str, nn.Linear], pairs: Iterable[Pairs]) -> dict[str, float]:
    """Return by layer how far outputs that are to stay have moved: |W c - W_0 c| / |W_0 c| over all pairs."""
    return _shares(before, after, pairs, lambda texts, targets: targets)


def _shares(
    before: Mapping[str, Tensor],
    after: Mapping[str, nn.Linear],
    pairs: Iterable[Pairs],
    whole: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, float]:
    """Return by layer |W c - W_0 g| beside the length of W_0's outputs for ``whole`` of the pairs."""
    left, all_of_it = dict.fromkeys(before, 0.0), dict.fromkeys(before, 0.0)
    for texts, targets in pairs:
        for name, weight in before.items():
            old, new = (in_double(part) for part in (weight, after[name].weight.detach()))
            left[name] += (texts @ new.T - targets @ old.T).square().sum().item()
            all_of_it[name] += (whole(texts, targets) @ old.T).square().sum().item()
    return {name: (left[name] / length) ** 0.5 if length else 0.0 for name, length in all_of_it.items()}
