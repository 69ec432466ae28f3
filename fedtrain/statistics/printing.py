"""A result of statistics on standard output: tables, pictures, what left and what it cost."""

import json
import sys
from pathlib import Path

from fedtrain.report.tables import make_console
from fedtrain.statistics.result import StatisticsResult, describe_guarantee
from fedtrain.statistics.tables import render_correlation, render_figures


def print_result(
    result: StatisticsResult,
    *,
    pictures: Path | None = None,
    as_json: bool = False,
    seeded: bool = False,
) -> None:
    """Print a result, and draw it where pictures are wanted.

    Args:
        result: What a sum told.
        pictures: Folder for the pictures; None: none.
        as_json: Print one JSON object instead of tables.
        seeded: Whether the noise follows from a simulation's seed.
    """
    figures, drawn = result.figures, list[Path]()
    if pictures is not None:
        from fedtrain.statistics.pictures import draw_statistics

        drawn = draw_statistics(figures, pictures)
    if as_json:
        sys.stdout.write(json.dumps(result.to_json(), allow_nan=False) + "\n")
        return
    console = make_console(sys.stdout)
    for table in render_figures(figures):
        console.print(table)
    correlation = render_correlation(figures)
    if correlation is not None:
        console.print(correlation)
    weights = figures.compute_class_weights()
    if weights is not None and len(set(weights)) > 1:
        sys.stdout.write(f"To balance the classes: training.class_weights = {weights}\n")
    print_guarantee(result, seeded=seeded)
    for path in drawn:
        sys.stdout.write(f"{path}\n")


def print_guarantee(result: StatisticsResult, *, sums: int = 1, seeded: bool = False) -> None:
    """Print what left the sites, and what it cost.

    Args:
        result: Of one of the sums.
        sums: How many there were like it.
        seeded: Whether the noise follows from a simulation's seed.
    """
    console = make_console(sys.stdout)
    for line in describe_guarantee(result, sums=sums):
        console.print(line)
    if seeded and result.cost is not None:
        console.print(
            "The noise of a simulation follows from run.seed: keep it secret where the figures are"
            " published."
        )
