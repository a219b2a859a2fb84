"""Which part of msgm a config or a report is of, and how that part reads it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from msgm.cards import stored
from msgm.settings import Source, domain_of, read_settings


class Experiment(Protocol):
    """The settings of one experiment, of whatever domain."""

    name: str
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, defaults included."""


def load(source: Source, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment of a generator, a classifier, a recommender or of attributes, with its defaults.

    Raises:
        UserError: a missing or malformed file, an unknown key, a wrong type, or a value out of range.

    Example:
        >>> type(load("classifier/digits")).__name__
        'ClassifierConfig'
    """
    domain = domain_of(read_settings(source, overrides))
    given = list(overrides)
    if domain == "classifier":
        from msgm.classifier.config import load_config as load_classifier

        return load_classifier(source, given)
    if domain == "recommender":
        from msgm.recommender.config import load_config as load_recommender

        return load_recommender(source, given)
    if domain == "attributes":
        from msgm.recommender.attribute_config import AttributeConfig
        from msgm.recommender.config import load_experiment

        return load_experiment(AttributeConfig, source, given)
    from msgm.config import load_config

    return load_config(source, given)


def read_report(path: Path) -> dict[str, Any]:
    """Read the report of a comparison, one of an earlier version as this one reads it.

    Raises:
        UserError: the file is missing or damaged, or the report is no comparison's.
    """
    report = stored.read_report(path)
    if report.get("kind") == "classifier":
        from msgm.classifier.ladder import LADDER
    elif report.get("kind") == "recommender":
        from msgm.recommender.ladder import LADDER
    else:
        return report
    from msgm.study.judging import upgraded

    with stored.showing(path):
        return upgraded(report, LADDER)
