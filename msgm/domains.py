"""Which part of msgm a config is for, as its keys tell, and its settings as that part reads them."""

from collections.abc import Sequence
from typing import Any, Protocol

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
