"""Base of the attacks: reasons why one was not run, and the unlearning ratio of an attacked model's samples."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from msgm.config import BASE_ROW
from msgm.diffusion import ScoreModel, sample
from msgm.errors import UserError
from msgm.evaluation.asking import classes_of, in_turn
from msgm.evaluation.bench import Bench, Subject, decoded
from msgm.evaluation.metrics.base import Metric, Report, Row
from msgm.evaluation.metrics.unlearning_ratio import percent, sample_numbers
from msgm.evaluation.reality import to_items

TITLE = "Does it stay forgotten?"
NOT_TESTED = "not tested"
UNGUIDED = "the weights, without the guidance of their samples"


class Attack(Metric):
    """A metric that may not apply to a model: its row then has the reason under ``not_tested``.

    Attributes:
        key: where its numbers stand in the row.
        on_weights: whether who makes it holds the weights, and so leaves guidance of their samples out.
    """

    table = TITLE
    key: ClassVar[str]
    on_weights: ClassVar[bool] = False

    @abstractmethod
    def attack(self, subject: Subject) -> dict[str, Any]:
        """Return the numbers as a JSON tree, or only the key ``not_tested`` with the reason."""

    @classmethod
    def numbers(cls, row: Row, report: Report) -> dict[str, float | None]:
        return {} if "not_tested" in row[cls.key] else cls.followed(row[cls.key])

    @classmethod
    def granularity(cls, row: Row) -> dict[str, float]:
        return {} if "not_tested" in row[cls.key] else cls.counted(row[cls.key])

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        """Return ``granularity`` for the results of an attack that was run."""
        return {}

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        """Return, for an attack that was run, the numbers judged against retrained models, by heading."""
        return {}

    def measure(self, subject: Subject) -> dict[str, Any]:
        reason = self.obstacle(subject.bench.split, subject.run)
        attacked = subject.without_guidance() if self.on_weights else subject
        found = self.attack(attacked) if reason is None else {"not_tested": reason}
        if attacked is not subject:
            found["of"] = UNGUIDED
        if "not_tested" in found:
            print(f"{subject.name}: {self.name} not tested: {found['not_tested']}", flush=True)
        return {self.key: found}


def cell(key: str, show: Callable[[dict[str, Any]], str]) -> Callable[[Row, Report], str]:
    """Return a column's cell function: ``show`` of the numbers under ``key``, or the text for "not tested"."""

    def text(row: Row, _: Report) -> str:
        return NOT_TESTED if "not_tested" in row[key] else show(row[key])

    return text


def base_ratio(key: str, report: Report) -> float | None:
    """Return the base row's unlearning ratio at the start of its own curve under ``key``; None without such a row."""
    for row in report["rows"]:
        if row["name"] == BASE_ROW and key in row and "not_tested" not in row[key]:
            return float(row[key]["curve"][0]["unlearning_ratio"]["value"])
    return None


def least_to_half(key: str, along: str, row: Row, report: Report) -> float | None:
    """Return the first ``along`` of a row's curve at which its unlearning ratio is half of the base's start.

    None if it never is, or if the base's is 0.
    """
    half = (base_ratio(key, report) or math.inf) / 2
    return next((p[along] for p in row[key]["curve"] if p["unlearning_ratio"]["value"] >= half), None)


def half_of_base(key: str, along: str) -> Callable[[Row, Report], str]:
    """Return a column's cell function: ``least_to_half``, or why there is none."""

    def text(row: Row, report: Report) -> str:
        if "not_tested" in row[key]:
            return NOT_TESTED
        base = base_ratio(key, report)
        if not base:
            return "no base row" if base is None else "the base shows none"
        found = least_to_half(key, along, row, report)
        return f"> {row[key]['curve'][-1][along]:g}" if found is None else f"{found:g}"

    return text


def sample_count(samples: int, bench: Bench) -> int:
    """Return how many samples to draw from an attacked model: at most as many as rows get."""
    return min(samples, bench.config.evaluation.samples)


def shown(model: ScoreModel, bench: Bench, count: int) -> dict[str, Any]:
    """Return the unlearning ratio and junk rate of the model's first ``count`` samples, each as ``rates.rate``.

    A class-conditional model is asked for the classes of the items to forget in turn.
    """
    config, asked = bench.config, in_turn(model, classes_of(bench.dataset, bench.split.train.forget), count)
    samples = sample(model, count, config.sampling, config.seed, condition=asked)
    return shares(decoded(model, samples, config.sampling.batch_size), bench)


def shares(samples: Tensor, bench: Bench) -> dict[str, Any]:
    """Return the unlearning ratio and junk rate of samples (B, *shape)."""
    finite = samples.isfinite().flatten(1).all(1)
    numbers = sample_numbers(to_items(samples, bench.dataset.levels), finite, bench)
    low, high = numbers["intervals"]["junk_rate"]
    junk = {"value": numbers["junk_rate"], "low": low, "high": high, "n": len(samples)}
    return {"unlearning_ratio": numbers["unlearning_ratio"], "junk_rate": junk}


def ratio(found: Mapping[str, Any]) -> str:
    """Return an unlearning ratio as per cent."""
    return percent(found["unlearning_ratio"]["value"])


def with_weights(model: ScoreModel, tensors: Mapping[str, Tensor]) -> ScoreModel:
    """Return a copy of ``model`` with other weights.

    Raises:
        UserError: they belong to another network.
    """
    changed = copy.deepcopy(model)
    try:
        changed.network.load_state_dict(tensors)
    except RuntimeError as error:
        detail = str(error).split("\n")[0].rstrip(":")
        raise UserError(f"the run's checkpoints and its model are of different networks: {detail}.") from error
    return changed


def enough(metric: str, option: str, asked: int, items: int, what: str) -> None:
    """Raise a UserError when more items are asked for than there are."""
    if asked > items:
        raise UserError(f"evaluation.options.{metric}.{option}: {asked} asked for, but there are {items} {what}.")
