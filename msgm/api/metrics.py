"""The rates of an evaluation as metrics of torchmetrics, for a training loop or an evaluation of one's own.

They count batch by batch and sum, or collect, over processes; ``compute`` gives the number of all that was seen, as
msgm's evaluators compute it from the same functions, and ``interval`` the 95% interval that belongs to it.

A ``MetricCollection`` lets metrics of equal states share their updates. What each metric is calibrated by is a state
too, so that only metrics that measure the same are taken for one.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from msgm.classifier.metrics.forgetting_rate import forgetting_rate
from msgm.classifier.metrics.scores import best_thresholds, mean_of
from msgm.devices import precise
from msgm.errors import UserError
from msgm.evaluation.attacks.separation import auc
from msgm.evaluation.judge import class_votes, forgotten_share
from msgm.evaluation.metrics.unlearning_ratio import recognised
from msgm.evaluation.rates import wilson
from msgm.evaluation.reality import Reality, to_items


class _Rate(Metric):
    """A share of the samples seen; subclasses count into the state that ``hits`` names."""

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    seen: Tensor
    settings: Tensor

    def __init__(self, hits: str, settings: Tensor, **options: Any) -> None:
        super().__init__(**options)
        self.hits = hits
        self.add_state(hits, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("settings", settings, dist_reduce_fx="max")

    def _count(self, hits: float, seen: int) -> None:
        setattr(self, self.hits, getattr(self, self.hits) + hits)
        self.seen += seen

    def compute(self) -> Tensor:
        """Return the share, in [0, 1]; NaN before any sample."""
        return torch.as_tensor(getattr(self, self.hits) / self.seen)

    def interval(self) -> tuple[float, float]:
        """Return the 95% Wilson interval of the share, over all processes.

        Raises:
            UserError: no sample was seen.
        """
        with self.sync_context(should_sync=self._to_sync):
            if not self.seen:
                raise UserError(f"{type(self).__name__}: there is no interval before any sample.")
            return wilson(float(getattr(self, self.hits)), int(self.seen))


class UnlearningRatio(_Rate):
    """Share of samples that a judge names a forgotten class; samples that are junk name none.

    Example:
        >>> ratio = msgm.UnlearningRatio(forget=[3, 7])
        >>> ratio.update(torch.eye(10)[[3, 7, 3, 1]], junk=torch.tensor([False, False, True, False]))
        >>> float(ratio.compute())
        0.5

    Args:
        forget: numbers of the forgotten classes.
        **options: of every ``torchmetrics.Metric``.
    """

    def __init__(self, forget: list[int], **options: Any) -> None:
        if not forget:
            raise UserError("UnlearningRatio: forget names no class.")
        super().__init__("forgotten", torch.tensor(sorted(set(forget))), **options)

    def update(self, outputs: Tensor, junk: Tensor | None = None) -> None:
        """Count samples.

        Args:
            outputs: (B, C) a judge's logits or log-probabilities; classes that tie share a sample.
            junk: (B,) which samples are no recognisable items at all; none by default.

        Raises:
            UserError: outputs of another shape, or of too few classes.
        """
        if outputs.dim() != 2 or outputs.shape[1] <= int(self.settings.max()):
            raise UserError(
                f"UnlearningRatio: expected outputs of shape (B, C), C above {int(self.settings.max())}; "
                f"got {tuple(outputs.shape)}."
            )
        shares = forgotten_share(class_votes(outputs), self.settings.tolist())
        masked = torch.zeros(len(outputs), dtype=torch.bool) if junk is None else junk
        self._count(recognised(shares, masked.to(shares.device)), len(outputs))


class _Distances(_Rate):
    """A rate by the distance to the nearest training item."""

    def __init__(self, hits: str, training: Tensor, held_out: Tensor, levels: int | None, **options: Any) -> None:
        if len(training) < 1 or len(held_out) < 1:
            raise UserError(f"{type(self).__name__}: expected training and held-out items, got none.")
        reality = Reality.calibrated(training, held_out, levels)
        limits = torch.tensor([reality.junk_above, reality.copy_below])
        super().__init__(hits, limits, **options)
        self.reality = reality

    def _read(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B,) distances, and which samples are finite."""
        distances = self.reality.distances(to_items(samples, self.reality.levels))
        return distances, samples.isfinite().flatten(1).all(1).cpu()


class JunkRate(_Distances):
    """Share of samples farther from the training items than 99% of held-out items are, or not finite.

    The distance is Euclidean. It is a coarse measure: a blurred average of real items lies near many of them.

    Example:
        >>> real = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> junk = msgm.JunkRate(training=real[:200], held_out=real[200:])
        >>> junk.update(torch.tensor([[0.0, 0.0], [50.0, 50.0]]))
        >>> float(junk.compute())
        0.5

    Args:
        training: (N, *shape) what the model was trained on, scaled as samples are.
        held_out: (M, *shape) real items like these that it was not trained on.
        levels: grey levels, where training and held-out items are images of whole numbers 0 .. levels - 1, as a data
            set of msgm holds them; samples in [-1, 1] are then rounded to these.
        **options: of every ``torchmetrics.Metric``.
    """

    def __init__(self, training: Tensor, held_out: Tensor, levels: int | None = None, **options: Any) -> None:
        super().__init__("junk", training, held_out, levels, **options)

    def update(self, samples: Tensor) -> None:
        """Count (B, *shape) samples."""
        self._count(int(self.reality.junk(*self._read(samples)).sum()), len(samples))


class CopyRate(_Distances):
    """Share of samples nearer to a training item than 99% of held-out items are.

    Example:
        >>> real = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> copies = msgm.CopyRate(training=real[:200], held_out=real[200:])
        >>> copies.update(torch.stack([real[7], real[7] + 0.5]))
        >>> float(copies.compute())
        0.5

    Args:
        training: (N, *shape) what the model was trained on, scaled as samples are.
        held_out: (M, *shape) real items like these that it was not trained on.
        levels: as for ``JunkRate``.
        **options: of every ``torchmetrics.Metric``.
    """

    def __init__(self, training: Tensor, held_out: Tensor, levels: int | None = None, **options: Any) -> None:
        super().__init__("copied", training, held_out, levels, **options)

    def update(self, samples: Tensor) -> None:
        """Count (B, *shape) samples."""
        self._count(int(self.reality.copies(*self._read(samples)).sum()), len(samples))


class ForgettingRate(Metric):
    """1 - AT / BT: of the items that a loss threshold called members before, how many it does not any more.

    At most 1, negative where unlearning exposes more items, NaN where none was called a member before. A retrained
    model's own is far below 1: read it beside that. With several equally good thresholds it is the mean over them.

    Example:
        >>> rate = msgm.ForgettingRate(thresholds=[0.5])
        >>> rate.update(before=torch.tensor([0.1, 0.2, 0.9]), after=torch.tensor([0.1, 0.8, 0.9]))
        >>> float(rate.compute())
        0.5

    Args:
        thresholds: losses up to which an item is called a member.
        **options: of every ``torchmetrics.Metric``.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    thresholds: Tensor
    before: Tensor
    after: Tensor

    def __init__(self, thresholds: list[float], **options: Any) -> None:
        super().__init__(**options)
        if not thresholds:
            raise UserError("ForgettingRate: thresholds: expected one or more losses, got none.")
        none = torch.zeros(len(thresholds), dtype=torch.int64)
        self.add_state("thresholds", torch.tensor(thresholds, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("before", none.clone(), dist_reduce_fx="sum")
        self.add_state("after", none.clone(), dist_reduce_fx="sum")

    @classmethod
    def calibrated(cls, members: Tensor, others: Tensor, **options: Any) -> "ForgettingRate":
        """Return the rate by the thresholds of the highest balanced accuracy of the model before.

        Args:
            members: (N,) losses of items to retain, which it was trained on.
            others: (M,) losses of items that it was not trained on.
            **options: of every ``torchmetrics.Metric``.

        Raises:
            UserError: one of them is empty.
        """
        if not len(members) or not len(others):
            raise UserError("ForgettingRate: expected losses of members and of others, got none.")
        found = best_thresholds(-members.double().cpu().numpy(), -others.double().cpu().numpy())
        return cls((-found).tolist(), **options)

    def update(self, before: Tensor, after: Tensor) -> None:
        """Count (B,) losses of the same forget items before and after unlearning.

        Raises:
            UserError: their numbers differ.
        """
        if before.shape != after.shape or before.dim() != 1:
            shapes = f"{tuple(before.shape)} and {tuple(after.shape)}"
            raise UserError(f"ForgettingRate: expected losses of shape (B,) before and after, got {shapes}.")
        self.before += (before[:, None].to(self.thresholds) <= self.thresholds).sum(0)
        self.after += (after[:, None].to(self.thresholds) <= self.thresholds).sum(0)

    def compute(self) -> Tensor:
        """Return the rate."""
        counts = zip(self.before.tolist(), self.after.tolist(), strict=True)
        rate = mean_of([forgetting_rate(before, after) for before, after in counts])
        return torch.tensor(float("nan") if rate is None else rate, dtype=torch.float64)


class MembershipAUC(Metric):
    """Area under the ROC curve of a score that is higher for training items; .5 is chance.

    Both sides of it tell: a value far below .5 gives the forget items away just as one above does, and what to reach is
    a retrained model's value.

    Example:
        >>> area = msgm.MembershipAUC()
        >>> area.update(scores=torch.tensor([0.9, 0.4, 0.5, 0.1]), member=torch.tensor([True, True, False, False]))
        >>> float(area.compute())
        0.75

    Args:
        **options: of every ``torchmetrics.Metric``.
    """

    is_differentiable = False
    full_state_update = False
    scores: list[Tensor]
    members: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("members", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, member: Tensor) -> None:
        """Collect items.

        Args:
            scores: (B,) higher for training items, such as minus the loss.
            member: (B,) whether each is a training item.

        Raises:
            UserError: other shapes, or a score that is not finite.
        """
        if scores.shape != member.shape or scores.dim() != 1:
            shapes = f"{tuple(scores.shape)} and {tuple(member.shape)}"
            raise UserError(f"MembershipAUC: expected scores and members of shape (B,), got {shapes}.")
        if not scores.isfinite().all():
            raise UserError("MembershipAUC: a score is not finite.")
        self.scores.append(precise(scores.detach()))
        self.members.append(member.bool().to(self.scores[-1].device))

    def sync(self, *args: Any, **options: Any) -> None:
        """Gather what all processes saw; one that saw nothing takes part with nothing of the same types."""
        if not self.scores:
            self.scores.append(torch.zeros(0, dtype=torch.float64, device=self.device))
            self.members.append(torch.zeros(0, dtype=torch.bool, device=self.device))
        super().sync(*args, **options)

    def compute(self) -> Tensor:
        """Return the area; NaN where there are no members or no others."""
        found = self._found()
        return torch.tensor(float("nan") if found is None else found["value"], dtype=torch.float64)

    def interval(self) -> tuple[float, float]:
        """Return the 95% DeLong interval of the area, over all processes.

        Raises:
            UserError: there are no members or no others.
        """
        with self.sync_context(should_sync=self._to_sync):
            found = self._found()
        if found is None:
            raise UserError("MembershipAUC: there is no interval without members and others.")
        return found["low"], found["high"]

    def _found(self) -> dict[str, Any] | None:
        if not len(self.scores):
            return None
        scores = np.asarray(dim_zero_cat(self.scores).cpu())
        members = np.asarray(dim_zero_cat(self.members).cpu())
        return auc(scores[members], scores[~members]) if members.any() and not members.all() else None
