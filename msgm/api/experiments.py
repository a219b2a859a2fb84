"""From what a user names as a config to an experiment of a known kind."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from msgm import threads as threading
from msgm.classifier.config import ClassifierConfig
from msgm.config import Config
from msgm.downloads import downloading
from msgm.errors import UserError
from msgm.fields import Tree, merged
from msgm.plugins import trusting
from msgm.recommender.config import Experiment as RecommenderExperiment
from msgm.settings import domain_of, read_settings
from msgm.tuned import with_tuned

ConfigLike: TypeAlias = str | Path | Mapping[str, Any] | Config | ClassifierConfig | RecommenderExperiment
"""A shipped config's name, the path of a YAML file, a tree of settings, or a config that was read before."""
Overrides: TypeAlias = Sequence[str] | Mapping[str, Any]
"""Settings over the config's: ``["training.steps=100"]`` as on the command line, or ``{"training.steps": 100}``."""


@dataclass(frozen=True)
class Named:
    """A user's settings, and what they are an experiment with.

    Attributes:
        domain: ``generator``, ``classifier``, ``recommender`` or ``attributes``.
        tree: the settings.
    """

    domain: str
    tree: Tree

    @classmethod
    def read(cls, config: ConfigLike, overrides: Overrides = (), seed: int | None = None) -> "Named":
        """Read a config and lay ``overrides`` and the ``seed`` over it.

        Raises:
            UserError: a missing or malformed file, or a malformed override.
        """
        tree = read_settings(config if isinstance(config, str | Path | Mapping) else config.to_dict())
        if isinstance(overrides, str):
            raise UserError(f"overrides: expected a list or settings by name, got the one text {overrides!r}.")
        if isinstance(overrides, Mapping):
            for key, value in overrides.items():
                tree = merged(tree, _nested(key, value))
        else:
            tree = read_settings(tree, overrides)
        found = cls(domain_of(tree), tree)
        return found if seed is None else found.having("seed", seed)

    def with_tuned(self, folder: Path | str | None) -> "Named":
        """Return the settings with what ``msgm.tune`` chose in ``folder``, if one is given, over them."""
        return Named(self.domain, with_tuned(self.tree, [], folder))

    def having(self, key: str, value: Any) -> "Named":
        """Return the settings with the one at ``key`` (``section.name``) set."""
        return Named(self.domain, merged(self.tree, _nested(key, value)))

    def refuse_foreign(self, verb: str, own: Sequence[str], options: Mapping[str, Any]) -> None:
        """Refuse options of ``verb`` that experiments of this kind do not have.

        Args:
            verb: for the error.
            own: the options that there are.
            options: all options, by name; None, False and nothing of any kind count as not given.

        Raises:
            UserError: one that is given is not among them.
        """
        for name, value in options.items():
            if name not in own and value not in (None, False, "auto") and value != ():
                known = ", ".join(own) or "none"
                raise UserError(f"{verb}: {name} is no option of a {self.domain} experiment; it has {known}.")


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
