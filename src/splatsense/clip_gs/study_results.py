"""What the figures of the study's runs say: mean and spread over seeds, and which row is ahead of which.

Two things make a difference uncertain: the seeds of training, and which objects happen to be in the test split. A row counts as
ahead when it is so with every seed (runs of the same seed are paired: they see the same objects in the same order) and the 95 %
bootstrap interval over the test objects of the difference (each object paired with itself, mean over the seeds) is above zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from splatsense.clip_gs.bootstrap import Interval, mean_interval
from splatsense.clip_gs.study_rows import COMPARISONS, Row

Verdict = Literal["ahead", "behind", "not told apart"]


@dataclass(frozen=True)
class Measured:
    """A row and its figures.

    Attributes:
        row: of the study.
        figures: of its run of each seed, as `study_runs` keeps them; the teacher has the same for all.
        seconds: of training by seed.
        missing: why there are no figures, or "".
    """

    row: Row
    figures: Mapping[int, Mapping[str, Any]]
    seconds: Mapping[int, float]
    missing: str = ""

    def values(self, metric: str) -> dict[int, float]:
        """A metric by seed, where it could be measured."""
        return {seed: one["metrics"][metric] for seed, one in self.figures.items() if metric in one["metrics"]}


@dataclass(frozen=True)
class Comparison:
    """One row against another, by zero-shot top-1 in [0, 1].

    Attributes:
        row: name.
        against: name of the other.
        differences: row minus the other, by seed.
        interval: 95 %, of their mean, over the test objects.
        objects: that both were measured on.
        paper: difference that the paper has, or None.
    """

    row: str
    against: str
    differences: Mapping[int, float]
    interval: Interval
    objects: int
    paper: float | None = None

    @property
    def verdict(self) -> Verdict:
        """Ahead or behind with every seed and beyond the interval, or neither."""
        if self.interval[0] > 0 and min(self.differences.values()) > 0:
            return "ahead"
        if self.interval[1] < 0 and max(self.differences.values()) < 0:
            return "behind"
        return "not told apart"

    @property
    def agrees(self) -> str:
        """Whether the verdict is the paper's: yes, no, open; or "" where the paper has none."""
        if self.paper is None:
            return ""
        if self.verdict == "not told apart":
            return "open"
        return "yes" if (self.verdict == "ahead") == (self.paper > 0) else "no"


def compare_all(measured: Mapping[str, Measured]) -> list[Comparison]:
    """The comparisons of `COMPARISONS` of which both rows were measured with a common seed."""
    found = []
    for name, other, paper in COMPARISONS:
        if name in measured and other in measured and set(measured[name].figures) & set(measured[other].figures):
            found.append(compare(measured[name], measured[other], None if paper is None else paper / 100))
    return found


def compare(one: Measured, other: Measured, paper: float | None = None) -> Comparison:
    """Compare by the seeds and test objects that both have; there is at least one of each."""
    seeds = sorted(set(one.figures) & set(other.figures))
    pairs = [(one.figures[seed]["correct"], other.figures[seed]["correct"]) for seed in seeds]
    keys = sorted(set.intersection(*(set(correct) for pair in pairs for correct in pair)))
    by_seed = torch.tensor([[ours[key] - theirs[key] for key in keys] for ours, theirs in pairs], dtype=torch.float64)
    differences = dict(zip(seeds, by_seed.mean(1).tolist(), strict=True))
    interval = mean_interval(by_seed.mean(0))
    return Comparison(one.row.name, other.row.name, differences, interval, len(keys), paper)
