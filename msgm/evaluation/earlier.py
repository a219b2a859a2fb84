"""Tests of earlier requests on a model that answered a later one: whether its samples still show their content.

Each request is tested by the metrics ur, nll and membership, as far as the config has them. The verdict is the
unlearning ratio's: the share of samples judged to show the request's content, against the share of real items to retain
that are. A class-conditional model is asked for those of the request's classes, too, of which no item is retained: the
verdict is that of the samples that show more.
"""

import copy
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.cards.claims import INCONCLUSIVE, NOT_TESTED
from msgm.cards.history import Earlier, verdict_at_most
from msgm.chain import Entry, others
from msgm.data import Dataset
from msgm.diffusion.likelihood import measure_likelihood
from msgm.evaluation.asking import forgotten, own
from msgm.evaluation.attacks.membership import Membership
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.judge import Judge, Task, assess, judge_of_task, own_of
from msgm.evaluation.judges.cells import forgotten_classes
from msgm.evaluation.ladder import TRUSTED_RECALL, interval
from msgm.evaluation.metrics.base import Metric
from msgm.evaluation.metrics.likelihood import nll_unit
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.rates import Share, rate, total
from msgm.evaluation.reality import to_items
from msgm.requests import ForgetRequest
from msgm.splits import Part, Split


def tested(subject: Subject, metrics: list[Metric]) -> list[Earlier]:
    """Test the requests of the comparison's chain other than the present one on a model."""
    bench, by_name = subject.bench, {metric.name: metric for metric in metrics}
    asked = () if subject.model.chain is None else subject.model.chain.requests
    mine = bench.dataset.forget_mask(bench.config.request)
    return [
        _tested(subject, entry, any(entry.same_request(other) for other in asked), by_name)
        for entry in others(mine, bench.chain.requests)
    ]


def _tested(subject: Subject, entry: Entry, asked: bool, metrics: dict[str, Metric]) -> Earlier:
    bench, numbers = subject.bench, {}
    mask = entry.mask(len(bench.dataset))
    split = bench.split
    train, test, validation = (part.whole[mask[part.whole]] for part in (split.train, split.test, split.validation))
    listed = entry.selector in ForgetRequest.listing
    controls = np.concatenate([split.validation.whole, split.test.whole] if listed else [validation, test])
    if "nll" in metrics and subject.no_density is None:
        numbers["NLL"] = _likelihood(subject, test if len(test) else train)
    membership = metrics.get("membership")
    if isinstance(membership, Membership) and len(train) and len(controls):
        numbers["AUC of membership by loss"] = _membership(subject.without_guidance(), membership, train, controls)
    if "ur" not in metrics:
        return Earlier(entry, asked, numbers, NOT_TESTED, "ur was not measured")
    judge = _judge(bench, entry, mask)
    if judge is None:
        reason = f"the judge {bench.config.evaluation.judge.kind} has no class for it"
        return Earlier(entry, asked, numbers, INCONCLUSIVE, reason)
    views, floor = _views(subject, judge, train), _floor(bench, judge)
    numbers |= {heading: interval(share) for heading, share in views.items()}
    worst = max(views, key=lambda heading: views[heading]["value"])
    shown = views[worst]
    text = f"{worst} {interval(shown)}, where at most {percent(floor['high'])}% is judged so in real items to retain"
    recall = judge.recall
    if recall is None or recall["value"] < TRUSTED_RECALL:
        found = "none is held out" if recall is None else f"{percent(recall['value'])}% of {recall['n']} are found"
        return Earlier(
            entry, asked, numbers, INCONCLUSIVE, f"{text}; the judge was not shown to find its items: {found}"
        )
    return Earlier(entry, asked, numbers, verdict_at_most(shown["low"], shown["high"], floor["high"]), text)


def _likelihood(subject: Subject, items: NDArray[np.int64]) -> str:
    config, data = subject.bench.config, subject.bench.dataset
    chosen = items[: config.evaluation.nll_items]
    if not len(chosen):
        return "no item"
    how, asked = config.evaluation.likelihood, own(subject.model, data, chosen)
    found = measure_likelihood(
        subject.model, data.take(chosen), data.levels, how, config.seed, condition=asked
    ).per_item
    mean = found.mean().item()
    return f"{mean:.2f} {nll_unit(data)}, n = {len(chosen)}" if math.isfinite(mean) else "diverged"


def _membership(subject: Subject, metric: Membership, train: NDArray[np.int64], held_out: NDArray[np.int64]) -> str:
    sides = metric.sides(subject.bench, train, held_out)
    if not len(sides.members):
        return "no held-out item of the same class and source"
    found = metric.inferred(subject, sides)["auc"]
    return "diverged" if found is None else f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def _views(subject: Subject, judge: Judge, train: NDArray[np.int64]) -> dict[str, Share]:
    """Return by heading what is shown by samples asked for nothing, and by those asked for the request's classes."""
    bench, views = subject.bench, {"UR": _shown(subject.bench, judge, subject.items, subject.finite)}
    labels = forgotten(bench.dataset, bench.split, train)
    if subject.model.classes and labels:
        samples = subject.asked_for(labels)
        finite = samples.isfinite().flatten(1).all(1)
        views["UR asked for its classes"] = _shown(bench, judge, to_items(samples, bench.dataset.levels), finite)
    return views


def _shown(bench: Bench, judge: Judge, items: Tensor, finite: Tensor) -> Share:
    """Return the share of samples that are no junk and are judged to show the request's content."""
    junk = bench.junk(items, finite)
    return rate(total(judge.forgotten_share(judge.votes(items))[~junk]), len(items))


def _floor(bench: Bench, judge: Judge) -> Share:
    """Return the share of real held-out items to retain that are judged to show the request's content."""
    items = bench.dataset.take(bench.split.test.retain)
    return rate(total(judge.forgotten_share(judge.votes(items))), len(items))


def _judge(bench: Bench, entry: Entry, mask: NDArray[np.bool_]) -> Judge | None:
    """Return a judge of an earlier request: the comparison's own where it knows the classes, else one of its own."""
    known: dict[bytes, Judge | None] = bench.memory.setdefault("judges of earlier requests", {})
    key = entry.positions.tobytes()
    if key not in known:
        known[key] = _made_judge(bench, entry, mask)
    return known[key]


def _made_judge(bench: Bench, entry: Entry, mask: NDArray[np.bool_]) -> Judge | None:
    dataset, config = bench.dataset, bench.config
    task = Task.of(dataset, _split_for(bench.split, mask), config.request)
    named = _whole_classes(dataset, mask)
    if task.by_classes and named is not None:
        judge = copy.copy(bench.judge)
        judge.forgotten, judge.recall = named, None
        assess(judge, Task(dataset, task.split, task.targets, task.classes, named))
        return judge
    if config.evaluation.judge.kind != "own":
        return None
    kind = own_of(dataset, task.split, entry.selector in ForgetRequest.listing)
    asked = Task(dataset, task.split, mask.astype(np.int64), ["retain", "forget"], [1], kind)
    if kind == "cells" and not forgotten_classes(asked):
        return None
    with torch.random.fork_rng(devices=[]):
        return judge_of_task(asked, config.evaluation.judge, config.seed, None, bench.reality.bank.device)


def _split_for(split: Split, mask: NDArray[np.bool_]) -> Split:
    """Return the split with an earlier request's items as the forget set, in place of the present one's."""
    return Split(
        *(Part(part.retain, part.whole[mask[part.whole]]) for part in (split.train, split.validation, split.test))
    )


def _whole_classes(dataset: Dataset, mask: NDArray[np.bool_]) -> list[int] | None:
    """Return the classes whose union is the mask; None if it holds only part of a class or there are no classes."""
    if dataset.labels is None:
        return None
    named = np.unique(dataset.labels[mask])
    return named.tolist() if np.array_equal(np.isin(dataset.labels, named), mask) else None
