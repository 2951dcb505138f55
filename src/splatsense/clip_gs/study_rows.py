"""The rows of the CLIP-GS study (paper, section 4, ablations; ours besides), what they are compared with, and their runs.

Design
- A row is a recipe with a few settings changed. Everything else, the number of passes over the objects above all, is the same.
- Rows whose settings come out equal share their runs; a row may also measure another row's runs on other objects.
- With a point-cloud stage, half of the passes go to it: the budget is that of the other rows.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from splatsense.clip_gs.pretrain_config import PretrainConfig
from splatsense.errors import DataError

Data = Literal["triplets", "surface"]
"""Which folders: those of `--triplets`, or those of `--surface`."""

SET_BY_ROWS = ("tokenizer", "voting", "init", "seed", "name", "holdout")
ANY_DIM = 384  # of embeddings; no setting of a row depends on it


@dataclass(frozen=True)
class Row:
    """One row of the tables.

    Attributes:
        name: on the command line, and of the folder of its runs.
        title: in the tables.
        changes: to the recipe.
        trained_on: folders.
        tested_on: folders, of whose first the test split is measured.
        stage: whether a point-cloud model is trained first, for half of the passes.
        is_teacher: nothing is trained; the frozen teacher classifies rendered views.
    """

    name: str
    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    trained_on: Data = "triplets"
    tested_on: Data = "triplets"
    stage: bool = False
    is_teacher: bool = False

    @property
    def uses_surface(self) -> bool:
        """Whether it needs surface-converted triplets."""
        return "surface" in (self.trained_on, self.tested_on)


FULL = {"tokenizer": "refinement", "voting": "softmax"}
ROWS = {
    row.name: row
    for row in (
        Row("points", "point cloud: position and colour", {"tokenizer": "points", "voting": "none"}),
        Row("attributes", "all attributes, no tokenizer", {"tokenizer": "attributes", "voting": "none"}),
        Row("tokenizer", "+ GS tokenizer", {"tokenizer": "refinement", "voting": "none"}),
        Row("voting-raw", "+ image voting, raw", {"tokenizer": "refinement", "voting": "raw"}),
        Row("voting-softmax", "+ image voting, softmax: the full method", FULL),
        Row("pretrained", "full, half of it a point-cloud stage", FULL, stage=True),
        Row("surface", "full, surface-converted", FULL, "surface", "surface"),
        Row("surface-to-fitted", "trained on surface-converted, tested on fitted", FULL, "surface", "triplets"),
        Row("fitted-to-surface", "trained on fitted, tested on surface-converted", FULL, "triplets", "surface"),
        Row("gaussians-1024", "full, 1,024 Gaussians", FULL | {"gaussians": 1024}),
        Row("gaussians-4096", "full, 4,096 Gaussians", FULL | {"gaussians": 4096}),
        Row("gaussians-10000", "full, 10,000 Gaussians", FULL | {"gaussians": 10_000}),
        Row("teacher", "teacher on rendered views", is_teacher=True),
    )
}

COMPARISONS: tuple[tuple[str, str, float | None], ...] = (
    ("attributes", "points", -2.1),
    ("tokenizer", "attributes", 3.1),
    ("voting-raw", "tokenizer", 0.6),
    ("voting-softmax", "tokenizer", 0.6),
    ("voting-softmax", "voting-raw", None),
    ("voting-softmax", "points", 1.6),
    ("pretrained", "voting-softmax", None),
    ("surface", "voting-softmax", None),
    ("surface-to-fitted", "voting-softmax", None),
    ("fitted-to-surface", "surface", None),
    ("gaussians-1024", "gaussians-4096", None),
    ("gaussians-10000", "gaussians-4096", None),
    ("voting-softmax", "teacher", None),
)
"""A row, the row it is compared with, and by how many points of top-1 the paper has it ahead, where it has both."""


@dataclass(frozen=True)
class Run:
    """One training run of a row.

    Attributes:
        config: of the run; its `out` is the run's folder.
        stage: the point-cloud run it starts from, if any.
    """

    config: PretrainConfig
    stage: PretrainConfig | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result, but for where it lies and what it is called."""
        settings = self.config.settings() | {"name": "", "init": ""}
        return settings | ({"stage": self.stage.settings() | {"name": ""}} if self.stage else {})


def check_recipe(recipe: PretrainConfig, surface: Sequence[str], rows: Sequence[Row]) -> None:
    """Raise DataError for settings that rows set, for folders that do not pair up, and for what `rows` cannot be made of."""
    usual = PretrainConfig(triplets=recipe.triplets, out=recipe.out)
    given = [f"--{name}" for name in SET_BY_ROWS if getattr(recipe, name) != getattr(usual, name)]
    if given:
        raise DataError(f"{', '.join(given)}: set by the rows of the study; leave out.")
    if surface and len(surface) != len(recipe.triplets):
        raise DataError(f"--surface: needs one folder for each of the {len(recipe.triplets)} of --triplets.")
    staged = [row.name for row in rows if row.stage]
    if staged and recipe.epochs < 2:
        raise DataError(f"--epochs: must be at least 2, one for each stage of {staged[0]}; or leave it out with --rows.")


def plan_runs(recipe: PretrainConfig, surface: Sequence[str], seeds: Sequence[int]) -> dict[tuple[str, int], Run]:
    """The run behind every row that can be trained and every seed. Where it lies does not depend on which rows are asked for.

    Args:
        recipe: whose `out` is the folder of the study.
        surface: folders of surface-converted triplets; without them there are no runs on them.
        seeds: of the runs.
    """
    size_own = replace(recipe, gaussians=0, patches=1, patch_size=1).encoder(ANY_DIM).gaussians
    recipe = replace(recipe, gaussians=recipe.gaussians or size_own)
    planned: dict[tuple[str, int], Run] = {}
    same: dict[str, Run] = {}
    for row in ROWS.values():
        if row.is_teacher or (row.trained_on == "surface" and not surface):
            continue
        if row.stage and recipe.epochs < 2:
            continue
        for seed in seeds:
            run = _run(row, recipe, surface, seed)
            planned[row.name, seed] = same.setdefault(json.dumps(run.settings, sort_keys=True), run)
    return planned


def _run(row: Row, recipe: PretrainConfig, surface: Sequence[str], seed: int) -> Run:
    folders = recipe.triplets if row.trained_on == "triplets" else tuple(surface)
    out = str(Path(recipe.out) / "runs" / row.name / f"seed-{seed}")
    config = replace(recipe, triplets=folders, out=out, name=f"{row.name}-{seed}", seed=seed, **row.changes)
    if not row.stage:
        return Run(config)
    first = replace(config, tokenizer="points", voting="none", epochs=recipe.epochs // 2, out=f"{out}/point-cloud-stage")
    rest = replace(config, epochs=recipe.epochs - first.epochs, init=f"{first.out}/model")
    return Run(rest, first)
