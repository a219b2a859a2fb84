"""``msgm config NAME`` prints a config that msgm brings along; ``msgm init [NAME]`` writes one to change."""

import argparse
import re
from pathlib import Path

from msgm import configs
from msgm.arguments import Commands, command, config
from msgm.errors import UserError

TEMPLATE = "folder"
"""The config that ``msgm init`` writes where no name is given: one's own images in a folder."""
EXTENDS = re.compile(r"^extends: *([^#\s]+)", re.MULTILINE)


def add(commands: Commands) -> None:
    """Add both commands."""
    printed = command(commands, "config", _config, "print a config as it is written, or with --whole every setting")
    config(printed)
    printed.add_argument("--whole", action="store_true", help="every setting with its value, defaults included")

    text = "write a config with comments into the working folder, for you to change"
    written = command(commands, "init", _init, text)
    written.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        default=TEMPLATE,
        help=f"see msgm configs; by default {TEMPLATE}, for images of your own",
    )
    written.add_argument("--out", metavar="FILE", type=Path, help="by default NAME.yaml, with - for /")


def _config(options: argparse.Namespace) -> None:
    if options.whole or options.set:
        from msgm.domains import load
        from msgm.settings import dump_yaml

        print(dump_yaml(load(options.config, options.set).to_dict()), end="")
    else:
        from msgm.reading import read_text

        print(read_text(configs.find(options.config)), end="")


def _init(options: argparse.Namespace) -> None:
    path = configs.shipped(options.name)
    if path is None:
        raise UserError(configs.unknown(options.name))
    out = options.out or Path(f"{options.name.removesuffix('.yaml').replace('/', '-')}.yaml")
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(_standing_alone(path))
    except FileExistsError:
        raise UserError(f"{out} exists already; give another --out.") from None
    print(f"wrote {out}; msgm data {out} lists what would be forgotten")


def _standing_alone(path: Path) -> str:
    """Return a shipped config's text; the config that it extends is named so that it is found from any folder."""

    def named(match: re.Match[str]) -> str:
        parent = (path.parent / match[1]).resolve().relative_to(configs.FOLDER.resolve())
        return f"extends: {parent.with_suffix('').as_posix()}"

    return EXTENDS.sub(named, path.read_text("utf-8"))
