"""From models to the numbers of a report: each number of a model beside the band of retrained models.

Each retrained model is measured like a target, against the other retrained models; its numbers form the band. So the
band of a distance to retrained models is the distance of one retrained model from the others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgm.recommender.metrics import METRICS, Metric
from msgm.study import rows
from msgm.study.judging import means
from msgm.study.measuring import Numbers


def build_metrics(settings: Mapping[str, Mapping[str, Any]] | None = None) -> list[Metric]:
    """Return metrics by name, with their settings; all of them with their defaults where None is given.

    Raises:
        UserError: an unknown name, or a setting that its metric refuses.
    """
    chosen = {name: {} for name in METRICS.entries} if settings is None else settings
    return [METRICS.build({"name": name} | dict(values)) for name, values in chosen.items()]


def row_numbers(
    seeds: Sequence[int], values: Sequence[Numbers], retrains: Sequence[Sequence[Numbers]], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """Return the numbers of a model for a row of a report, in the form of ``msgm.study.rows``.

    Args:
        seeds: of the experiment.
        values: ``measure`` of the model, one tree a seed.
        retrains: ``measure_retrains``, one list a seed, always of the same models: those of a model are averaged.
        metrics: that were measured.
    """
    known = {name: number for metric in metrics for name, number in metric.numbers.items()}
    models = [means(trees) for trees in zip(*retrains, strict=True)]
    band = [{name: entry["value"] for name, entry in model.items()} for model in models]
    return rows.row_numbers(dict(zip(seeds, values, strict=True)), band, known)
