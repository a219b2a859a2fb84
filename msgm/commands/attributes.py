"""``msgm recommender attributes`` and ``msgm recommender erasures``: their options, and what they print."""

import argparse

from msgm.arguments import GO_ON, Commands, command, config, print_cards, seed, tuned, workers
from msgm.commands import compare


def add(commands: Commands) -> None:
    """Add both commands."""
    text = "take users' attributes out of models by every erasure, and attack what is left"
    attributes = command(commands, "attributes", compare.run, text)
    config(attributes)
    seed(attributes)
    attributes.add_argument("--out", metavar="DIR", help="where to write; by default runs/NAME")
    attributes.add_argument(
        "--only", metavar="ERASURE,ERASURE", help="run only these besides the controls; the report shows all there are"
    )
    attributes.add_argument("--models", metavar="NAME,NAME", help="run only these models of the config")
    tuned(attributes)
    workers(attributes)
    attributes.set_defaults(go_on=GO_ON)

    erasures = command(commands, "erasures", _erasures, "print the cards of erasures, which take attributes out")
    erasures.add_argument("names", metavar="NAME", nargs="*", help="all when none is given")


def _erasures(options: argparse.Namespace) -> None:
    from msgm.recommender.erasure.erasures import CARDS

    print_cards(options.names, CARDS, "erasure")
