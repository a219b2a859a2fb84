"""Reading settings: YAML files that extend one another, ``key.sub=value`` overrides, and errors in one sentence.

Nothing in a config is computed: ``${...}`` and ``???`` are text. Scalars and keys stay as written until their field is
known (``msgm.fields``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from msgm.configs import find, shipped
from msgm.errors import UserError
from msgm.fields import FINITE, Plain, Tree, described, merged
from msgm.ids import shown
from msgm.reading import BoundedLoader, read_text, read_yaml, yaml_errors
from msgm.shapes import MAX_DEPTH

Source: TypeAlias = str | Path | Mapping[str, Any] | None
"""Where settings come from: a file that the user names, the name of a shipped config, or a plain tree."""

MAX_NODES = 100_000
"""Scalars, lists and keys of a config at most, those that its anchors repeat among them."""
MAP, TEXT, SEQUENCE, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("map", "str", "seq", "merge"))
FLOW = ("[", "{", "'", '"')
"""What the value of an override begins with where it is YAML; any other is text as it stands."""
ADDED = {
    "data.classes": "folders",
    "data.background": "white",
    "data.frame": 0,
    "data.broken": "refuse",
    "seeds": 1,
    "retrains": 1,
    "training.cond_drop": 0.1,
    "sampling.guidance": 1.0,
    "network.classes": 0,
    "training.gradient_checkpointing": False,
}
"""Settings that came after the first version, and are not empty where they change nothing."""
RETIRED = ("training.channels_last",)
"""Settings of earlier versions that decide nothing any more: images' networks always have their channels last."""


def read_settings(source: Source, overrides: Sequence[str] = ()) -> Tree:
    """Return a tree of settings: what the file extends, the file over it, and each ``key.sub=value`` over that.

    Raises:
        UserError: neither a file nor a shipped config, a malformed file, a file that extends itself, or a malformed
            override.
    """
    tree = dict(source) if isinstance(source, Mapping) else {} if source is None else _read(find(source))
    for override in overrides:
        tree = merged(tree, _override(override))
    return tree


def parse_settings(text: str, source: str) -> Any:
    """Return the tree of one YAML document, None of an empty one; scalars without quotes are ``Plain``.

    Raises:
        UserError: no valid YAML, a key given twice, a tag, or more or deeper than a config can be; begins with
            ``source``.
    """
    with yaml_errors(source):
        node = _Loader(text).get_single_node()
        return None if node is None else _Builder(source).build(node, 0)


def dump_yaml(tree: Tree) -> str:
    """Return a plain tree as YAML, with quotes around texts that would be read as something else."""
    return str(yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _read(path: Path, children: tuple[Path, ...] = ()) -> Tree:
    if path.resolve() in children:
        raise UserError(f"{path}: it extends itself, directly or through other files.")
    tree = parse_settings(read_text(path), str(path))
    if tree is None or (isinstance(tree, Plain) and tree.is_null):
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected settings by name at the top, found {described(tree)}.")
    parent = tree.pop("extends", None)
    if parent is None or (isinstance(parent, Plain) and parent.is_null):
        return tree
    if not isinstance(parent, str):
        raise UserError(
            f"{path}: extends: expected the path of one file or the name of a config, got {described(parent)}."
        )
    try:
        extended = find(parent, path.parent)
    except UserError as error:
        raise UserError(f"{path}: extends: {error}") from None
    return merged(_read(extended, (*children, path.resolve())), tree)


def _override(text: str) -> Tree:
    """Return the tree of one ``key.sub=value``."""
    key, equals, value = text.partition("=")
    names = [name.strip() for name in key.split(".")]
    source = f"--set {shown(text)[1:-1]}"
    if not equals or not all(names):
        raise UserError(f"{source}: expected key.sub=value.")
    value = value.strip()
    if value.startswith(FLOW):
        tree: Any = parse_settings(value, source)
    else:
        tree = Plain(_printable(value, source))
    for name in reversed(names):
        tree = {_printable(name, source): tree}
    return dict(tree)


def _printable(text: str, source: str) -> str:
    """Return a text that can be written to a file in UTF-8 and named to the system."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{source}: {text[:60]!a} holds a character that no text can hold.")
    return text


class _Loader(BoundedLoader):
    """Resolves nothing but ``<<``; a scalar with a tag of its own counts as quoted."""

    yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # noqa: RUF012

    def compose_scalar_node(self, anchor: Any) -> Any:
        tagged = self.peek_event().tag is not None
        node = super().compose_scalar_node(anchor)
        node.style = "'" if tagged and node.style is None else node.style
        return node


class _Builder:
    """Builds the tree of a YAML document and limits its size, which anchors could multiply without bound."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.count = 0

    def build(self, node: Any, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            raise self._refused(node, f"it is larger or deeper than a config can be, {MAX_NODES} values")
        if node.tag not in (MAP, TEXT, SEQUENCE, MERGE):
            raise self._refused(node, f"tags such as {node.tag} are not read here")
        if isinstance(node, yaml.MappingNode):
            return self._settings(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, depth + 1) for item in node.value]
        return (Plain if node.style is None else str)(_printable(node.value, self.source))

    def _settings(self, node: Any, depth: int) -> Tree:
        found: Tree = {}
        inherited: Tree = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._refused(key, "a key is no plain name")
            if key.tag == MERGE:
                inherited = self._inherited(value, depth) | inherited
                continue
            if key.value in found:
                raise self._refused(key, f"the key {shown(key.value)} stands in it twice")
            found[str(self.build(key, depth + 1))] = self.build(value, depth + 1)
        return inherited | found

    def _inherited(self, node: Any, depth: int) -> Tree:
        """Return the settings that ``<<`` inherits from one set or several; earlier sets take precedence."""
        found: Tree = {}
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(part, yaml.MappingNode):
                raise self._refused(part, "<< takes settings by name")
            found = self.build(part, depth + 1) | found
        return found

    def _refused(self, node: Any, what: str) -> UserError:
        mark = node.start_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})"
        return UserError(f"{self.source} is no valid YAML: {what}{place}.")


class _Dumper(yaml.SafeDumper):
    """Quotes also texts such as 1e3, which are numbers to every reader of YAML 1.2, and escapes unusual line ends."""

    def represent_str(self, data: str) -> Any:
        unusual = any(character in "\r\x85\u2028\u2029\ufeff" for character in data)
        return self.represent_scalar(TEXT, data, '"' if unusual else None)


_Dumper.add_representer(str, _Dumper.represent_str)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FINITE, list("-+.0123456789"))


def module_of(path: Path) -> str | None:
    """Return ``classifier``, ``recommender`` or a plugin's domain for a config or run folder of it; else None."""
    try:
        if path.is_dir():  # received: nothing that it names is opened
            keys = read_yaml(path / "config.yaml", dict[str, Any])
        else:
            path = path if path.exists() else shipped(path) or path
            keys = _read(path) if path.suffix in (".yaml", ".yml") else {}
    except UserError:
        return None  # whoever reads it says what is wrong with it
    found = domain_of(keys)
    return {"generator": None, "attributes": "recommender"}.get(found, found)


DECIDING = {"domain", "process", "models", "requests", "methods", "shares"}
"""Settings by which a config is known to be of a domain."""
INSTEAD = {"request": "requests", "rows": "methods", "evaluation": "metrics and options"}
"""What generators' settings are called in a comparison of classifiers or recommenders."""


def domain_of(tree: Mapping[str, Any]) -> str:
    """Return the domain of a config: ``generator``, ``classifier``, ``recommender``, ``attributes``, or a plugin's.

    ``attributes`` are the comparisons that take attributes of users out of recommenders. A plugin's domain is the one
    that the config names with ``domain``. A config with a ``process`` is of generators, so that errors on unknown
    settings refer to theirs.
    """
    if "domain" in tree:
        return str(tree["domain"])
    if "process" in tree:
        return "generator"
    if "models" in tree:
        return "attributes" if {"attribute", "erasures", "surfaces"} & set(tree) else "recommender"
    return "classifier" if {"requests", "methods", "shares"} & set(tree) else "generator"


def domain_of_config(source: Source, overrides: Sequence[str] = ()) -> str:
    """Return the domain of a config, which its file decides; overrides decide where the file leaves it open.

    Raises:
        UserError: as of ``read_settings``.
    """
    tree = read_settings(source)
    return domain_over(tree, read_settings(tree, overrides))


def domain_over(config: Tree, whole: Tree) -> str:
    """Return the domain of a config's own settings; where they leave it open, that of the whole with overrides."""
    return domain_of(config if DECIDING & set(config) else whole)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return ``key: old -> new`` for every setting in which two trees differ."""
    found: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        if key not in old and _as_before(f"{prefix}{key}", new[key]):
            continue
        if f"{prefix}{key}".endswith(RETIRED):
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif _spelt(before) != _spelt(after):
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found


def _as_before(key: str, value: Any) -> bool:
    """Return whether a setting that an earlier version's file lacks has the value that reproduces that version."""
    return value in ([], {}, None) or (key in ADDED and ADDED[key] == value)


def _spelt(value: Any) -> Any:
    """Return a value as a config spells it: ids and classes, texts now, were numbers in the first version's files."""
    if isinstance(value, list):
        return [_spelt(item) for item in value]
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return {key: _spelt(item) for key, item in value.items()} if isinstance(value, dict) else value


def refuse_other(path: Path, stored: dict[str, Any] | None, wanted: dict[str, Any], fixed: Sequence[str]) -> None:
    """Refuse a run folder whose stored settings, if there are any, differ from those wanted in the keys ``fixed``.

    Raises:
        UserError: they differ.
    """
    if stored is None:
        return
    changed = differences({key: stored.get(key) for key in fixed}, {key: wanted[key] for key in fixed})
    if changed:
        listed = "; ".join(changed[:3])
        raise UserError(f"{path} holds an experiment with other settings ({listed}); give another --out.")
