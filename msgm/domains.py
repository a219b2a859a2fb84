"""The domains: finds the domain of a config or a report by name, and imports it when needed.

A plugin's domain is made known by ``register``; its configs say ``domain: NAME`` and, so that the command line finds
it, ``plugins: [FILE]``.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from msgm import __version__
from msgm.cards import stored
from msgm.errors import UserError, known
from msgm.fields import Tree, typed
from msgm.plugins import load_files, load_received
from msgm.settings import Source, domain_of, domain_over, read_settings
from msgm.study.client import Client, Settings
from msgm.study.judging import SCHEMA

_DOMAINS: dict[str, str | Client[Any]] = {
    "generator": "msgm.generator.compare:GENERATORS",
    "classifier": "msgm.classifier.compare:CLASSIFIERS",
    "recommender": "msgm.recommender.compare:RECOMMENDERS",
    "attributes": "msgm.recommender.erasure.compare:ATTRIBUTES",
}
_KINDS = {None: "generator", "recommender-attributes": "attributes"}
"""Kinds of reports that are not called as their domain is."""


def register(client: Client[Any]) -> Client[Any]:
    """Register a plugin's domain for configs with ``domain: NAME`` and reports of its kind; return it.

    Raises:
        UserError: msgm has a domain of this name.
    """
    if isinstance(_DOMAINS.get(client.name), str):
        raise UserError(f"domain: {client.name!r} is one of msgm's own; take another name.")
    _DOMAINS[client.name] = client
    return client


def find(name: str) -> Client[Any]:
    """Return a domain by its name.

    Raises:
        UserError: there is none.
    """
    found = _DOMAINS[known(name, list(_DOMAINS), "domain", "domain")]
    if isinstance(found, str):
        module, _, member = found.partition(":")
        found = getattr(import_module(module), member)
    return found


def load(source: Source, overrides: Sequence[str] = ()) -> Settings:
    """Return the experiment of a config of any domain, with its defaults.

    Raises:
        UserError: a missing or malformed file, an unknown key, a wrong type, or a value out of range.

    Example:
        >>> type(load("classifier/digits")).__name__
        'ClassifierConfig'
    """
    config = read_settings(source)
    whole = read_settings(config, overrides)
    settings: Settings = of_config(config, whole).load(whole)
    return settings


def of_config(config: Tree, whole: Tree) -> Client[Any]:
    """Return the domain of a config's own settings; where they leave it open, that of the whole with overrides.

    Raises:
        UserError: as of ``of_settings``.
    """
    return of_settings(whole | {"domain": domain_over(config, whole)})


def of_settings(tree: Tree) -> Client[Any]:
    """Return the domain of a config; its plugins are imported first where it is of none of msgm's own.

    Raises:
        UserError: there is none of the name that it gives, or a plugin cannot be imported.
    """
    name = domain_of(tree)
    if name not in _DOMAINS:
        load_files(typed(tree.get("plugins", []), list[str], "plugins"))
    return find(name)


def of_report(report: dict[str, Any]) -> Client[Any]:
    """Return the domain of a report.

    Raises:
        UserError: there is none of its kind.
    """
    kind = report.get("kind")
    return find(_KINDS.get(kind, str(kind)))


def read_report(path: Path) -> dict[str, Any]:
    """Read the report of a comparison; one of an earlier version is converted to the present format.

    A report of a newer version is refused. The plugins that its run's config names are imported where it is of none of
    the domains that are known.

    Raises:
        UserError: the file is missing or damaged, the report is no comparison's or a newer version's, or it needs
            plugins that the user does not trust.
    """
    report = stored.read_report(path)
    if report.get("schema", 1) > SCHEMA:
        raise UserError(f"{path} was written by a newer version of msgm than this one, {__version__}.")
    config = path.parent / "config.yaml"
    if report.get("kind") not in {*_DOMAINS, *_KINDS} and config.is_file():
        load_files(typed(load_received(path.parent).get("plugins", []), list[str], f"{config}: plugins"))
    try:
        client = of_report(report)
    except UserError as error:
        raise UserError(f"{path}: kind: expected the name of a domain; {error}") from None
    with stored.showing(path):
        return client.upgraded(report)
