"""The study as a picture: top-1 of every run as a dot, the mean of its row as a line."""

from collections.abc import Mapping
from pathlib import Path

from splatsense.clip_gs.study_results import Measured
from splatsense.studies.dots import plot_dots


def plot_study(measured: Mapping[str, Measured], path: Path) -> None:
    """Draw zero-shot top-1 of the rows that were measured into a PNG. Raises DataError when none was."""
    plot_dots({one.row.title: one.values("top1") for one in measured.values()}, path, "zero-shot top-1")
