"""From what a user names as a config to an experiment of a known kind."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from msgm import threads as threading
from msgm.classifier.config import ClassifierConfig
from msgm.config import Config
from msgm.domains import of_config
from msgm.downloads import downloading
from msgm.errors import UserError
from msgm.fields import Tree, merged
from msgm.plugins import trusting
from msgm.recommender.config import BaseConfig as RecommenderSettings
from msgm.settings import read_settings
from msgm.study.client import Client
from msgm.tuned import with_tuned

ConfigLike: TypeAlias = str | Path | Mapping[str, Any] | Config | ClassifierConfig | RecommenderSettings
"""A shipped config's name, the path of a YAML file, a tree of settings, or a config that was read before."""
Overrides: TypeAlias = Sequence[str] | Mapping[str, Any]
"""Settings over the config's: ``["training.steps=100"]`` as on the command line, or ``{"training.steps": 100}``."""


@dataclass(frozen=True)
class Named:
    """A user's settings.

    Attributes:
        client: the domain that they are of.
        tree: the settings.
    """

    client: Client[Any]
    tree: Tree

    @property
    def domain(self) -> str:
        """Its name: ``generator``, ``classifier``, ``recommender``, ``attributes`` or a plugin's."""
        return self.client.name

    def config(self) -> Any:
        """Return them as the config of their domain.

        Raises:
            UserError: an unknown key, a wrong type, or a value out of range.
        """
        return self.client.load(self.tree)

    @classmethod
    def read(cls, config: ConfigLike, overrides: Overrides = (), seed: int | None = None) -> "Named":
        """Read a config and lay ``overrides`` and the ``seed`` over it.

        Raises:
            UserError: a missing or malformed file, or a malformed override.
        """
        own = tree = read_settings(config if isinstance(config, str | Path | Mapping) else config.to_dict())
        if isinstance(overrides, str):
            raise UserError(f"overrides: expected a list or settings by name, got the one text {overrides!r}.")
        if isinstance(overrides, Mapping):
            for key, value in overrides.items():
                tree = merged(tree, _nested(key, value))
        else:
            tree = read_settings(tree, overrides)
        found = cls(of_config(own, tree), tree)
        return found if seed is None else found.having("seed", seed)

    def with_tuned(self, folder: Path | str | None) -> "Named":
        """Return the settings with what ``msgm.tune`` chose in ``folder``, if one is given, over them."""
        return Named(self.client, with_tuned(self.tree, [], folder))

    def having(self, key: str, value: Any) -> "Named":
        """Return the settings with the one at ``key`` (``section.name``) set."""
        return Named(self.client, merged(self.tree, _nested(key, value)))

    def measuring(self, metrics: Sequence[str] | None) -> "Named":
        """Return the settings with ``metrics`` in place of what they say is measured, where any are given."""
        return self if metrics is None else self.having(self.client.metrics, list(metrics))

    def options(self, verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the options of a verb that the domain has.

        Args:
            verb: ``train``, ``unlearn``, ``compare`` or ``tune``.
            given: all options, by name; None, False, ``auto`` and nothing of any kind count as not given.

        Raises:
            UserError: one that is given is not among the domain's.
        """
        own = self.client.takes(verb)
        for name, value in given.items():
            if name not in own and value not in (None, False, "auto") and value != ():
                known = ", ".join(own) or "none"
                raise UserError(f"{verb}: {name} is no option of a {self.domain} experiment; it has {known}.")
        return {name: value for name, value in given.items() if name in own and value is not None}


def _nested(key: str, value: Any) -> Tree:
    names = str(key).split(".")
    if not all(names):
        raise UserError(f"overrides: expected keys like section.setting, got {key!r}.")
    tree = value
    for name in reversed(names):
        tree = {name: tree}
    return dict(tree)


@contextmanager
def working(trust: bool, download: bool, threads: int | None) -> Iterator[None]:
    """Run a block with what the command line's ``--trust``, ``--download`` and ``--threads`` allow and choose."""
    with ExitStack() as stack:
        if trust:
            stack.enter_context(trusting())
        if download:
            stack.enter_context(downloading())
        if threads is not None:
            threading.choose(threads)
        yield
