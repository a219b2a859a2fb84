"""``msgm completion bash|zsh|fish``: a script with which a shell completes commands, options and names of configs."""

import argparse
from collections.abc import Callable, Iterator

from msgm import configs
from msgm.arguments import Commands, command

SHELLS = ("bash", "zsh", "fish")
FOLDERS = ("DIR", "RUN", "MODEL")
FILES = ("FILE",)


def add(commands: Commands, top: Callable[[], argparse.ArgumentParser]) -> None:
    """Add the command; ``top`` returns the parser of all commands."""
    text = 'print a script for your shell: put eval "$(msgm completion bash)" into ~/.bashrc'
    printed = command(commands, "completion", lambda options: print(script(top(), options.shell)), text)
    printed.add_argument("shell", choices=SHELLS, help="the shell that is to read it")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script for a shell in ``SHELLS``; ``parser`` is that of all commands, and is marked for it."""
    import shtab

    for one in _parsers(parser):
        for action in one._actions:
            kind = _completed(action)
            if kind is not None:
                action.complete = kind  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of all commands below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _parsers(below)


def _completed(action: argparse.Action) -> dict[str, object] | None:
    """Return the completion of an argument in shtab's form; None if there is none."""
    import shtab

    if action.dest == "config":
        return _config_names()
    if action.metavar in FOLDERS:
        return dict(shtab.DIRECTORY)
    return dict(shtab.FILE) if action.metavar in FILES else None


def _config_names() -> dict[str, object]:
    """Return how a config is completed: by the names of the shipped ones, or by files."""
    names = " ".join(configs.names())
    bash = f'_msgm_configs() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}\n'
    fish = f"function _msgm_configs\n  printf '%s\\n' {names}\n  __fish_complete_path (commandline -ct)\nend\n"
    return {
        "bash": "_msgm_configs",
        "zsh": f"{{compadd -- {names}; _files}}",
        "fish": "(_msgm_configs)",
        "preamble": {"bash": bash, "fish": fish},
    }
