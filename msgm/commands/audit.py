"""``msgm classifier audit``: its options, and what it prints."""

import argparse
from pathlib import Path
from typing import Any

from msgm.cards.claims import NOT_TESTED


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("target", type=Path, metavar="TARGET.npz", help="logits of the model to audit")
    parser.add_argument("--original", type=Path, required=True, metavar="FILE", help="those of the model before")
    parser.add_argument(
        "--retrains",
        type=Path,
        required=True,
        nargs="+",
        metavar="FILE",
        help="those of models trained without the items; at least five make a band",
    )
    parser.add_argument("--goal", choices=["removal", "suppression"], default="removal", help="what was asked")
    parser.add_argument("--target", dest="kind", choices=["observed", "latent", "concept"], default="observed")
    parser.add_argument("--scope", choices=["instances", "class"], help="by default read off the labels")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the report and the card")


def run(options: argparse.Namespace) -> None:
    """Audit, print the verdicts and the numbers, and say where the report is."""
    from msgm.cards.views import headline, number_headings, number_table, verdict
    from msgm.classifier.audit import Asked, audit

    asked = Asked(options.goal, options.kind, options.scope)
    made = audit(options.target, options.original, options.retrains, options.out, asked)
    lead, statement = headline(made.card)
    print(f"{lead}. {statement}\n")
    for claim in made.card["claims"]:
        print(f"{claim['level']} {claim['name']}: {verdict(claim)}{_because(claim)}")
    for control in made.card["controls"]:
        print(f"{control['name']}: {control['verdict']}; {control['evidence']}")
    for section in made.card["numbers"]:
        rows = [cells[:-1] for cells in number_table(made.card, section)]
        print(f"\n{section.capitalize()}" + ("" if rows else f": {NOT_TESTED}"))
        _print(number_headings(made.card)[:-1], rows)
    print(f"\nwrote {made.run.report}, card.html, card.md, card.json")


def _because(claim: dict[str, Any]) -> str:
    return f": {claim['reasons'][0]}" if claim["reasons"] and claim["claimed"] else ""


def _print(head: list[str], rows: list[list[str]]) -> None:
    lines = [head, *rows] if rows else []
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))] if lines else []
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
