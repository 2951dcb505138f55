"""`splatsense study gaussian-cross`: what pre-training of scenes is worth downstream, from rooms to tables, by one command.

Design
- `rows` says what is compared, `runs` trains and measures one run, `report` shows figures. Here is the order.
- All rows of a seed come before those of the next: a study that is cut short has whole tables with fewer seeds.
- It may be killed at any moment; the same command goes on, inside the run that was interrupted. Tables are written after
  every run, from the figures on disk.
- Fine-tuning starts from the linear probe of the same data, head included (LP-FT, arXiv 2202.10054).
- Nothing is chosen by the test split: settings are constants of `rows`, and every model is measured once.
- With `transfer` every model is also measured on scenes of another kind, as it is.
- Pre-training runs have one seed; `--seeds` are those of heads, augmentation, fine-tuning and draws of limited data.
"""

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from splatsense.errors import DataError
from splatsense.files import atomic_write, locked
from splatsense.gaussian_cross.model import load_backbone
from splatsense.gaussian_cross.sizes import Size
from splatsense.model_folder import find_model, read_card
from splatsense.scene_study.report import PICTURE, as_json, blocks, plot
from splatsense.scene_study.rows import (
    ABLATIONS,
    CONTRAST,
    MAIN,
    SCRATCH,
    UNTRAINED,
    Row,
    Table,
    downstream,
    plan_rows,
    pretraining,
    size_of,
)
from splatsense.scene_study.runs import FIGURES, TRANSFER, measured_on, pretrain_once, read_figures, run_once, train_once
from splatsense.scenes import list_scenes
from splatsense.segmentation.config import SegmentationConfig
from splatsense.studies.page import check_page, joined, markdown, write_into
from splatsense.studies.records import write_json
from splatsense.tables import counted

TABLES_FILE, FIGURES_FILE, PLOT_FILE = "study.md", "study.json", "study.png"
PRETRAINABLE = (MAIN, CONTRAST)


@dataclass(frozen=True)
class SceneStudyConfig:
    """What is compared."""

    scenes: str
    """folder of rooms with the splits train, val and test"""
    out: str
    """folder of the study: study.md, study.json, study.png and a folder for every run"""
    pretrained: tuple[str, ...] = ()
    """NAME=FOLDER of backbones that are trained already; the first of all, or gaussian-cross, is the one that is fine-tuned"""
    pretrain: tuple[str, ...] = ()
    """names of backbones to train first: gaussian-cross, scene-contrast"""
    ablations: tuple[str, ...] = tuple(ABLATIONS)
    """of the table of that name: GaussianCross with one setting changed"""
    tables: tuple[Table, ...] = get_args(Table)
    """some of the tables"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each row is trained once with each"""
    steps: int = 600
    """of each downstream run"""
    pretrain_steps: int = 4000
    """of each backbone of --pretrain"""
    ablation_steps: int = 1000
    """of each backbone of the table of ablations"""
    size: Size = "tiny"
    """of backbones that are trained here"""
    split: str = "test"
    """that is measured on, once"""
    transfer: str = ""
    """folder of other labelled scenes, such as homes, or of splits of them: models are measured on those of --split as well"""
    write: str = ""
    """page of Markdown whose tables, between markers, are replaced when all is done"""

    def __post_init__(self) -> None:
        given = [entry.partition("=") for entry in self.pretrained]
        if any(not name or not folder for name, _, folder in given):
            raise DataError("--pretrained: give each as NAME=FOLDER.")
        names = [name for name, _, _ in given] + list(self.pretrain)
        if len(set(names)) < len(names) or not names:
            raise DataError("--pretrained and --pretrain: name one or more different backbones.")
        taken = [name for name in names if name in (SCRATCH, UNTRAINED) or "/" in name]
        if taken:
            raise DataError(f"--pretrained {taken[0]}=...: {SCRATCH}, {UNTRAINED} and what has a / are no names of backbones.")
        for flag, chosen, known in (("pretrain", self.pretrain, PRETRAINABLE), ("ablations", self.ablations, tuple(ABLATIONS))):
            unknown = [name for name in chosen if name not in known]
            if unknown:
                raise DataError(f"--{flag} {unknown[0]}: choose from {' '.join(known)}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise DataError("--seeds: name one or more different seeds.")
        if min(self.steps, self.pretrain_steps, self.ablation_steps) < 1:
            raise DataError("--steps, --pretrain-steps and --ablation-steps: must be at least 1.")
        if not self.tables:
            raise DataError(f"--tables: name some of {' '.join(get_args(Table))}.")


def study(config: SceneStudyConfig) -> str:
    """Train and measure every row of the study of GaussianCross with every seed, and write tables, figures and a plot.

    Args:
        config: What is compared.

    Returns:
        The tables.

    Raises:
        DataError, FormatError: scenes or backbones that are missing or do not fit.
        CheckpointError: the folder holds runs with other settings or other backbones.
    """
    list_scenes(config.scenes, "train")
    measured = _measured(config)
    if config.write:
        check_page(Path(config.write), ("setup", *config.tables, *(["transfer"] if config.transfer else []), PICTURE))
    given = {name: folder for name, _, folder in (entry.partition("=") for entry in config.pretrained)}
    for folder in given.values():
        load_backbone(folder)
    names = sorted([*given, *config.pretrain], key=lambda name: name != MAIN)
    if names[0] in given:
        size_of(given[names[0]])  # that rows from scratch have too
    with locked(Path(config.out), "study"):
        models = given | {name: _pretrain(config, "pretrained", name, config.pretrain_steps) for name in config.pretrain}
        compared = (MAIN, *config.ablations) if "ablations" in config.tables else ()
        ablated = {name: _pretrain(config, "ablations", name, config.ablation_steps) for name in compared}
        return _Study(config, {name: models[name] for name in names}, ablated, measured).run()


def _measured(config: SceneStudyConfig) -> dict[str, tuple[str, str]]:
    """Folder and split of what every model is measured on, by the name of its file of figures."""
    measured = {FIGURES: (config.scenes, config.split)}
    if config.transfer:
        holds_scenes = any(Path(config.transfer).glob("*/coord.npy"))
        measured[TRANSFER] = (config.transfer, "" if holds_scenes else config.split)
    arrays = ["segment20.npy", *(["instance.npy"] if "instances" in config.tables else [])]
    lacking = [scene / name for place in measured.values() for scene in list_scenes(*place) for name in arrays]
    lacking = [path for path in lacking if not path.is_file()]
    if lacking:
        raise DataError(f"{lacking[0]}: does not exist; the scenes that are measured on need labels.")
    return measured


def _pretrain(config: SceneStudyConfig, place: str, name: str, steps: int) -> str:
    folder, cache = Path(config.out) / place / name, Path(config.out) / "teacher-features"
    return str(pretrain_once(pretraining(name, config.scenes, folder, config.size, steps, cache)))


class _Study:
    def __init__(
        self, config: SceneStudyConfig, models: dict[str, str], ablated: dict[str, str], measured: dict[str, tuple[str, str]]
    ) -> None:
        self.config, self.models, self.ablated, self.measured = config, models, ablated, measured
        self.out = Path(config.out)
        self.rows = plan_rows(list(models), config.ablations, config.tables)

    def run(self) -> str:
        work = [(row, seed) for seed in self.config.seeds for row in self.rows]
        start, left = time.monotonic(), sum(self._is_new(row, seed) for row, seed in work)
        done = 0
        for row, seed in work:
            is_new = self._is_new(row, seed)
            if is_new:
                _tell(f"{len(work) - left + done} of {len(work)} runs are done", start, done, left, f"{row.name}, seed {seed}")
            if row.start:
                train_once(self._settings(row.start, seed))
            run_once(self._settings(row, seed), self.measured)
            done += is_new
            self._write()
        return self._write(self.config.write)

    def _settings(self, row: Row, seed: int) -> SegmentationConfig:
        pretrained = self.ablated if row.table == "ablations" else self.models
        backbone = str(self._folder(row.start, seed) / "model") if row.start else pretrained.get(row.model, "")
        first = next(iter(self.models.values()))
        return downstream(row, seed, self.config.scenes, self._folder(row, seed), backbone, first, self.config.steps)

    def _folder(self, row: Row, seed: int) -> Path:
        return self.out / "runs" / row.name / f"seed-{seed}"

    def _is_new(self, row: Row, seed: int) -> bool:
        return not all((self._folder(row, seed) / name).is_file() for name in self.measured)

    def _figures(self, name: str) -> dict[str, dict[int, dict[str, Any]]]:
        """Figures on disk, by row and seed; those of another split, or of other scenes, will be measured again."""
        on, found = measured_on(*self.measured[name]), {}
        for row in self.rows:
            paths = {seed: self._folder(row, seed) / name for seed in self.config.seeds}
            known = {seed: read_figures(path) for seed, path in paths.items() if path.is_file()}
            found[row.name] = {seed: one for seed, one in known.items() if one["measured_on"] == on}
        return found

    def _write(self, page: str = "") -> str:
        """Write what is known into the folder of the study, and into a page; the tables."""
        figures = self._figures(FIGURES)
        transfer = self._figures(TRANSFER) if TRANSFER in self.measured else None
        folders = self.models | {f"ablations/{name}": folder for name, folder in self.ablated.items()}
        cards = {name: read_card(find_model(folder)) for name, folder in folders.items()}
        facts = {"models": {name: {"folder": folders[name], "card": card} for name, card in cards.items()}}
        write_json(self.out / FIGURES_FILE, as_json(self.rows, figures, facts, transfer))
        of_models = {name: cards[name] for name in self.models}
        made = blocks(self.rows, figures, self._setup(figures, transfer, of_models), transfer)
        text = "\n\n".join(made.values())
        with atomic_write(self.out / TABLES_FILE) as temporary:
            Path(temporary).write_text(text + "\n", "utf-8")
        plot(self.rows, figures, self.out / PLOT_FILE)
        if page:
            picture = Path(page).with_name(f"{Path(page).stem}-study.png")
            plot(self.rows, figures, picture)
            write_into(Path(page), made | {PICTURE: f"![Every run; the line is the mean]({picture.name})"})
        return text

    def _setup(
        self,
        figures: dict[str, dict[int, dict[str, Any]]],
        transfer: dict[str, dict[int, dict[str, Any]]] | None,
        cards: dict[str, dict[str, Any]],
    ) -> str:
        """What all rows have in common, and what they were made with."""
        measured = [one for each in figures.values() for one in each.values()]
        counts = {split: len(list_scenes(self.config.scenes, split)) for split in ("train", self.config.split)}
        lengths = {f"{name} {_steps(card)}" for name, card in cards.items()}
        rows = [
            ["", ""],
            ["scenes", ", ".join(f"{count} of {split}" for split, count in counts.items())],
            ["pre-training, steps", joined(lengths)],
            ["backbones", joined({f"{name} ({card['sha256'][:12]})" for name, card in cards.items()})],
            *([["ablations", f"{self.config.ablation_steps:,} steps of pre-training each"]] if self.ablated else []),
            ["downstream runs", f"{self.config.steps} steps, seeds {', '.join(map(str, self.config.seeds))}"],
            *([] if transfer is None else [["transfer", self._transferred(transfer)]]),
            ["measured", joined({f"{one['date']}, {one['machine']}" for one in measured})],
            ["code", joined({one["code"] for one in measured})],
        ]
        return markdown(rows)

    def _transferred(self, transfer: dict[str, dict[int, dict[str, Any]]]) -> str:
        """How many scenes, and how many of the classes occur in them."""
        count = len(list_scenes(*self.measured[TRANSFER]))
        points = next((one["points"] for each in transfer.values() for one in each.values()), {})
        classes = f", with {sum(map(bool, points.values()))} of {len(points)} classes" if points else ""
        return f"{counted(count, 'scene')}{classes}"


def _steps(card: dict[str, Any]) -> str:
    return f"{card['training']['steps']:,}" if "training" in card and "steps" in card["training"] else "unknown"


def _tell(text: str, start: float, done: int, left: int, following: str) -> None:
    """On stderr, how far the study is and how long it may take, were all runs as long as those so far."""
    if done:
        minutes = (time.monotonic() - start) / done * (left - done) / 60
        text += f", about {minutes / 60:.1f} h left" if minutes > 90 else f", about {math.ceil(minutes)} min left"
    print(f"study: {text}; next: {following}", file=sys.stderr, flush=True)
