"""Join comparisons of several seeds into one table: mean and 95% t-interval of every number.

Example: ``python scripts/seeds.py runs/seed0 runs/seed1 runs/seed2``.
"""

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

from scipy.stats import t

from msgm.reading import read_json

COLUMNS = {
    "UR %": lambda row: 100 * row["unlearning_ratio"]["value"],
    "closed-set UR %": lambda row: 100 * row["unlearning_ratio_closed_set"]["value"],
    "junk %": lambda row: 100 * row["junk_rate"],
    "copy %": lambda row: 100 * row["copy_rate"],
    "NLL retain": lambda row: row["nll"]["retain"]["mean"],
    "NLL forget": lambda row: row["nll"]["forget"]["mean"],
}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    options = parser.parse_args()
    reports = [read_json(run / "report.json") for run in options.runs]
    print(f"seeds {', '.join(str(report['seed']) for report in reports)}; mean ± half the 95% t-interval\n")
    print("| row | " + " | ".join(COLUMNS) + " |")
    print("| --- |" + " ---: |" * len(COLUMNS))
    for name in [row["name"] for row in reports[0]["rows"]]:
        found = [next(row for row in report["rows"] if row["name"] == name) for report in reports]
        print(f"| {name} | " + " | ".join(spread([column(row) for row in found]) for column in COLUMNS.values()) + " |")
    accuracy = [100 * report["judge"]["heldout_accuracy"] for report in reports]
    print(f"\njudge's held-out accuracy {spread(accuracy)} %")


def spread(values: list[Any]) -> str:
    """Return ``mean ± half-width`` of a 95% t-interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.2f} ± {half:.2f}"


if __name__ == "__main__":
    main()
