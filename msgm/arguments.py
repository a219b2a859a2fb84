"""Arguments that commands share. Nothing heavy is imported here, so that ``--help`` answers at once."""

import argparse
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeAlias

from msgm.devices import NAMES, Names
from msgm.errors import UserError, known, nearest

GO_ON = "Run the same command again to go on."
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the one-sentence error, without the usage text."""
        self.exit(2, f"msgm: {message}; see {self.prog} --help.\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is not a choice, and name the nearest one."""
        choices = action.choices or [value]
        if value in choices:
            return
        key = "/".join(action.option_strings) or str(action.metavar or action.dest)
        try:
            known(value, list(choices), key, "choice")
        except UserError as error:
            self.exit(2, f"msgm: {error}\n")


def command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    """Add a command that ``run`` performs."""
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    added.set_defaults(perform=run, go_on="Go on with --resume.")
    return added


def config(parser: argparse.ArgumentParser, also: str = "") -> None:
    """Add CONFIG and ``--set``."""
    text = f"YAML file of the experiment, or the name of a config that msgm brings along, such as digits/vp{also}"
    parser.add_argument("config", metavar="CONFIG", help=text)
    overrides(parser)


def experiment(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG, ``--set`` and what ``common`` adds."""
    config(parser)
    common(parser)


def metrics(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--metrics``."""
    parser.add_argument("--metrics", metavar="NAME,NAME", help=text)


def settings(options: argparse.Namespace) -> list[str]:
    """Return ``--set`` and ``--seed`` as overrides of a config."""
    return options.set + ([] if options.seed is None else [f"seed={options.seed}"])


def overrides(parser: argparse.ArgumentParser) -> None:
    """Add ``--set``."""
    parser.add_argument(
        "--set", metavar="KEY.SUB=VALUE", action="append", default=[], help="override a setting; repeatable"
    )


def common(parser: argparse.ArgumentParser) -> None:
    """Add ``--out``, ``--seed``, ``--device`` and ``--threads``."""
    parser.add_argument("--out", metavar="DIR", help="where to write; by default below runs/, named as the config")
    seed(parser)
    parser.add_argument(
        "--download", action="store_true", help="let data sets and weights that are missing be fetched from the network"
    )
    text = "where to compute: cuda:1 takes the second GPU; auto takes cuda where there is one, else cpu"
    parser.add_argument("--device", choices=Names(NAMES), default="auto", help=text)
    threads(parser)


def seed(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed``."""
    parser.add_argument("--seed", type=whole(0), metavar="N", help="seed of the run")


def received(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust`` to a command that reads a folder which somebody else may have made."""
    parser.add_argument(
        "--trust", action="store_true", help="run the Python files, and open the files, that the folder names"
    )


def workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--jobs`` and ``--cluster``."""
    text = "make and measure N models at a time, each in a process of its own, which share the threads"
    parser.add_argument("--jobs", type=whole(1), metavar="N", default=1, help=text)
    text = "have the workers of a dask scheduler make and measure the models; they see the same folders"
    parser.add_argument("--cluster", metavar="ADDRESS", help=text)


def threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``."""
    text = "threads to compute with; by default OMP_NUM_THREADS, else one for each core that is free when work starts"
    parser.add_argument("--threads", type=whole(1), metavar="N", help=text)


def whole(least: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from ``least`` up to 63 bits, for argparse."""

    def read(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) < 2**63:
            return int(text)
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, got {text[:40]!r}")

    return read


def tuned(parser: argparse.ArgumentParser) -> None:
    """Add ``--tuned``."""
    text = "take the settings that msgm tune chose in this folder, over those of the config and of --set"
    parser.add_argument("--tuned", metavar="DIR", help=text)


def fresh_chain(parser: argparse.ArgumentParser) -> None:
    """Add ``--fresh-chain``."""
    text = (
        "start a new history: what --from was asked to forget before is data to retain again, and the card says so; "
        "without it, earlier requests stay forgotten"
    )
    parser.add_argument("--fresh-chain", action="store_true", help=text)


def names(text: str) -> list[str]:
    """Return the names in ``a,b``."""
    return [name.strip() for name in text.split(",")]


def print_cards(wanted: Iterable[str], entries: Mapping[str, Any], what: str) -> None:
    """Print the cards of parts, all when none is wanted.

    Args:
        wanted: names of parts.
        entries: name to a part.
        what: the kind of part, for the error.
    """
    for name in list(wanted) or entries:
        if name not in entries:
            known = list(entries)
            raise UserError(f"unknown {what} {name!r}; known: {', '.join(known)}.{nearest(name, known)}")
        print_card(name, entries[name])


def print_card(title: str, part: Any) -> None:
    """Print the card of one part, indented below its title."""
    from msgm.registry import card

    print(f"{title}\n" + "\n".join(f"  {line}".rstrip() for line in card(part).split("\n")) + "\n")
