"""`splatsense study clip-gs`: the ablation of CLIP-GS (section 4) on one corpus, from triplets to tables, by one command.

Design
- `study_rows` says what the rows are, `study_runs` trains and measures one, `study_results` compares them, `study_report` and
  `study_plot` show it. Here is the order of work, and what is asked of the corpus.
- All rows of a seed come before those of the next: a study that is cut short has a whole table with fewer seeds.
- It may be killed at any moment. The same command goes on, inside the run that was interrupted, and finished runs are neither
  trained nor measured again. Tables are written after every run.
- The recipe is that of `splatsense train clip-gs`, flag by flag; rows replace a few of its settings.
- Nothing is chosen by the test split: every model is measured once, when it is trained. Choose the recipe with `--holdout`.
"""

import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splatsense.clip_gs.evaluation_set import RememberedTexts
from splatsense.clip_gs.mapped_shards import map_shard
from splatsense.clip_gs.pretrain_config import PretrainConfig
from splatsense.clip_gs.shards import shard_paths
from splatsense.clip_gs.study_plot import plot_study
from splatsense.clip_gs.study_report import PICTURE, as_json, blocks
from splatsense.clip_gs.study_report import TABLES as BLOCKS
from splatsense.clip_gs.study_results import Measured, compare_all
from splatsense.clip_gs.study_rows import ROWS, Data, Row, Run, check_recipe, plan_runs
from splatsense.clip_gs.study_runs import is_trained, measure_once, train_once, training_seconds
from splatsense.errors import DataError
from splatsense.files import atomic_write, locked
from splatsense.studies.page import check_page, write_into
from splatsense.studies.records import read_json, write_json

TABLES, FIGURES, PLOT = "study.md", "study.json", "study.png"


@dataclass(frozen=True)
class StudyConfig:
    """What is compared."""

    surface: tuple[str, ...] = ()
    """folders like --triplets, in their order, built with --method surface; without them the rows on them are left out"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each row is trained once with each"""
    rows: tuple[str, ...] = ()
    """some of the rows, by the names in docs/clip-gs.md; by default all"""
    labels: str = "furniture"
    """label set that test objects are classified by; "" takes the labels that occur"""
    write: str = ""
    """page of Markdown whose tables, between markers, are replaced when all is done"""

    def __post_init__(self) -> None:
        unknown = [name for name in self.rows if name not in ROWS]
        if unknown:
            raise DataError(f"--rows: there is no row {', '.join(unknown)}; choose from {' '.join(ROWS)}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise DataError("--seeds: name one or more different seeds.")


DEFAULT = StudyConfig()


def study(recipe: PretrainConfig, config: StudyConfig = DEFAULT) -> str:
    """Train and measure every row of the ablation with every seed, and write tables, figures and a plot.

    The folder of the study, `--out`, gets study.md, study.json, study.png and a folder for every run.

    Args:
        recipe: What all rows have in common.
        config: What is compared.

    Returns:
        The tables.

    Raises:
        DataError: settings that no study can have, or triplets without labelled test objects.
        CheckpointError: the folder holds runs with other settings or other triplets.
    """
    rows = [row for name, row in ROWS.items() if name in (config.rows or ROWS)]
    surface = config.surface if any(row.uses_surface for row in rows) else ()
    check_recipe(recipe, surface, rows)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise DataError("study clip-gs: runs in one process; start it without torchrun or accelerate launch.")
    if config.write:
        check_page(Path(config.write), (*BLOCKS, PICTURE))
    for folder in (recipe.triplets[0], *surface[:1]):
        _check_test_split(folder)
    with locked(Path(recipe.out), "study"):
        return _Study(recipe, config, rows, surface).run()


class _Study:
    def __init__(self, recipe: PretrainConfig, config: StudyConfig, rows: Sequence[Row], surface: Sequence[str]) -> None:
        self.recipe, self.config, self.out = recipe, config, Path(recipe.out)
        self.runs = plan_runs(recipe, surface, config.seeds)
        self.folders: dict[Data, Sequence[str]] = {"triplets": recipe.triplets, "surface": surface}
        self.rows = rows
        self.held = _gaussians_held(recipe.triplets)
        self.missing = {row.name: reason for row in self.rows if (reason := self._why_not(row))}
        self.teachers: dict[str, RememberedTexts] = {}

    def run(self) -> str:
        work = [(row, seed) for seed in self.config.seeds for row in self.rows
                if not row.is_teacher and row.name not in self.missing]  # fmt: skip
        waiting = dict.fromkeys(
            self.runs[row.name, seed].config.out for row, seed in work if not is_trained(self.runs[row.name, seed].config)
        )
        pace = _Pace(len({self.runs[row.name, seed].config.out for row, seed in work}), len(waiting))
        for row, seed in work:
            run = self.runs[row.name, seed]
            if run.config.out in waiting:
                pace.tell(f"{row.name}, seed {seed}")
            self._train_and_measure(row, run)
            if run.config.out in waiting:
                del waiting[run.config.out]
                pace.done += 1
            self._write()
        pace.tell("")
        return self._write(self.config.write)

    def _why_not(self, row: Row) -> str:
        """The reason to leave a row out, or ""."""
        if row.uses_surface and not self.config.surface:
            return "no folders of --surface were given"
        if row.changes.get("gaussians", 0) > self.held:
            return f"half of the training objects hold {self.held:,} Gaussians or fewer"
        return ""

    def _train_and_measure(self, row: Row, run: Run) -> None:
        if run.stage and not is_trained(run.config):
            train_once(run.stage)
        model, data = train_once(run.config), self.folders[row.tested_on][0]
        measure_once(
            model, self._figures(row, run), data, self.config.labels, self.teachers, self._teacher_figures(row.tested_on)
        )

    def _figures(self, row: Row, run: Run) -> Path:
        return Path(run.config.out) / f"figures-{row.tested_on}.json"

    def _teacher_figures(self, data: Data) -> Path:
        return self.out / "teacher" / f"figures-{data}.json"

    def _measured(self, row: Row) -> Measured:
        """What is on disk about a row."""
        if row.is_teacher:
            path = self._teacher_figures(row.tested_on)
            found = dict.fromkeys(self.config.seeds, read_json(path)) if path.exists() else {}
            return Measured(row, found, {}, "" if found else "it is measured together with the first model")
        if row.name in self.missing:
            return Measured(row, {}, {}, self.missing[row.name])
        figures, seconds = {}, {}
        for seed in self.config.seeds:
            run = self.runs[row.name, seed]
            if self._figures(row, run).exists():
                figures[seed] = read_json(self._figures(row, run))
                parts = [run.config, run.stage] if run.stage else [run.config]
                seconds[seed] = sum(map(training_seconds, parts))
        return Measured(row, figures, seconds, "" if figures else "not run yet")

    def _write(self, page: str = "") -> str:
        """Write what is known into the folder of the study, and into a page; the tables."""
        measured = {row.name: self._measured(row) for row in self.rows}
        comparisons = compare_all(measured)
        runs = {f"{name} {seed}": run for (name, seed), run in self.runs.items() if name in measured}
        write_json(self.out / FIGURES, as_json(self.recipe, self.config.seeds, measured, comparisons, runs))
        made = blocks(self.recipe, self.config.seeds, measured, comparisons, runs)
        text = "\n\n".join(made.values())
        with atomic_write(self.out / TABLES) as temporary:
            Path(temporary).write_text(text + "\n", "utf-8")
        if not any(one.figures for one in measured.values()):
            return text
        plot_study(measured, self.out / PLOT)
        if page:
            picture = Path(page).with_name(f"{Path(page).stem}-study.png")
            plot_study(measured, picture)
            write_into(Path(page), made | {PICTURE: f"![Top-1 of every run; the line is the mean]({picture.name})"})
        return text


def _gaussians_held(folders: Sequence[str]) -> int:
    """Half of the training objects hold at most so many Gaussians."""
    counts = [stored.count for path in shard_paths(folders) for _, stored, info in map_shard(path) if info["split"] == "train"]
    return int(statistics.median(counts)) if counts else 0


def _check_test_split(folder: str) -> None:
    """Raise DataError when nothing could be measured on a folder, which otherwise shows after the first run."""
    if not any(info["split"] == "test" and info["label"] for path in shard_paths([folder]) for _, _, info in map_shard(path)):
        raise DataError(f"{folder}: holds no test object with a label; the first folder is the one that is measured on.")


class _Pace:
    """Says on stderr how many runs are done and how long those left will take, all runs having the same budget."""

    def __init__(self, total: int, left: int) -> None:
        self.total, self.left, self.done, self.start = total, left, 0, time.monotonic()

    def tell(self, following: str) -> None:
        """Before a run, or in the end."""
        remaining = self.left - self.done
        text = f"study: {self.total - remaining} of {self.total} runs are trained"
        if self.done and remaining:
            minutes = (time.monotonic() - self.start) / self.done * remaining / 60
            text += f", about {minutes / 60:.1f} h left" if minutes > 90 else f", about {math.ceil(minutes)} min left"
        print(text + (f"; next: {following}" if following else ""), file=sys.stderr, flush=True)
