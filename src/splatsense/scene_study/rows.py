"""What the study of GaussianCross compares, as data: pre-training runs, and rows, each a model under a downstream protocol.

Settings of the rows were fixed on the validation rooms and hold for all models of a table alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from splatsense.errors import DataError
from splatsense.gaussian_cross.model import load_backbone
from splatsense.gaussian_cross.pretrain_config import PretrainConfig
from splatsense.gaussian_cross.sizes import Size
from splatsense.gaussian_cross.unet import UNET_SIZES
from splatsense.scene_contrast.config import ContrastConfig
from splatsense.segmentation.config import RANDOM, Protocol, SegmentationConfig
from splatsense.segmentation.recipes import Limits, rooms20

Table = Literal["probe", "finetune", "scenes", "points", "instances", "ablations"]
MAIN, CONTRAST, UNTRAINED, SCRATCH = "gaussian-cross", "scene-contrast", "random", "scratch"
SHARES, COUNTS = (0.01, 0.05, 0.1, 0.2), (20, 50, 100, 200)
CUBOID_SIDE = 10.0  # metres, wide enough for every room

ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "no-color": ("without the colour term", {"color_weight": 0.0}),
    "no-depth": ("without the depth term", {"depth_weight": 0.0}),
    "no-semantic": ("without the semantic term", {"semantic_weight": 0.0}),
    "no-masking": ("without masking", {"mask_ratio": 0.0}),
    "no-cuboid": (f"without cuboid normalisation ({CUBOID_SIDE:g} m for all)", {"cuboid_side": CUBOID_SIDE}),
    "no-pruning": ("without pruning", {"threshold": 0.0}),
    "unet": ("with a 3D U-Net of three levels", {"levels": 3}),
}
"""Pre-training runs that differ from GaussianCross's in one setting: title and the setting."""

TITLES = {MAIN: "GaussianCross", CONTRAST: "contrastive", UNTRAINED: "random weights", SCRATCH: "from scratch"} | {
    name: f"GaussianCross {title}" for name, (title, _) in ABLATIONS.items()
}

PROBE: dict[str, Any] = {"cached": True, "batch_size": 4, "crop_points": 4096}


@dataclass(frozen=True)
class Row:
    """A model under a protocol.

    Attributes:
        table: it stands in.
        model: "random", "scratch", or a pre-trained model's name.
        limits: what is left of the training data.
        is_probe: whether, with limited data, it is a linear probe.
    """

    table: Table
    model: str
    limits: Mapping[str, float] = field(default_factory=dict)
    is_probe: bool = False

    @property
    def name(self) -> str:
        """Of its folder."""
        amount = [f"{value:g}" for value in self.limits.values()]
        return "-".join([self.table, *amount, self.model, *(["probe"] if self.is_probe else [])])

    @property
    def title(self) -> str:
        """For a reader."""
        return TITLES.get(self.model, self.model) + (", linear probe" if self.is_probe else "")

    @property
    def protocol(self) -> Protocol:
        """How the model is trained."""
        if self.table in ("probe", "ablations") or self.is_probe:
            return "probe"
        return "scratch" if self.model == SCRATCH else "finetune"

    @property
    def start(self) -> "Row | None":
        """The linear probe on the same data that fine-tuning starts from."""
        if self.protocol != "finetune":
            return None
        return Row(self.table, self.model, self.limits, is_probe=True) if self.limits else Row("probe", self.model)


def plan_rows(models: Sequence[str], ablations: Sequence[str], tables: Sequence[Table]) -> list[Row]:
    """All rows of the tables asked for: every model is probed, the first one is fine-tuned against training from scratch.

    A row comes after the one it starts from.

    Args:
        models: names of the pre-trained ones.
        ablations: names of `ABLATIONS`; they are compared with a GaussianCross that is trained as long as they are.
        tables: names of tables.
    """
    first = models[0]
    rows = [Row("probe", model) for model in (UNTRAINED, *models)]
    rows += [Row("finetune", model) for model in (SCRATCH, first)]
    for share in SHARES:
        rows += _limited("scenes", {"scene_share": share}, first)
    for count in COUNTS:
        rows += _limited("points", {"points": count}, first)
    rows += [Row("instances", model) for model in (SCRATCH, first)]
    rows += [Row("ablations", model) for model in (MAIN, *ablations)]
    return [row for row in rows if row.table in tables]


def _limited(table: Table, limits: Mapping[str, float], model: str) -> list[Row]:
    return [Row(table, SCRATCH, limits), Row(table, model, limits, is_probe=True), Row(table, model, limits)]


def downstream(row: Row, seed: int, scenes: str, out: Path, backbone: str, first: str, steps: int) -> SegmentationConfig:
    """The settings of a run.

    Limited data is drawn by the seed, the same for all rows; backbones of random weights have the size and the voxels of the
    first pre-trained one.

    Args:
        row: of the study.
        seed: of the run.
        scenes: folder of splits of scenes.
        out: folder of the run.
        backbone: folder of the model it starts from; of no meaning to rows that start from random weights.
        first: folder of the first pre-trained model.
        steps: of the run.
    """
    size, voxel = size_of(first), load_backbone(first).voxel
    if row.model in (UNTRAINED, SCRATCH):
        backbone = "" if row.model == SCRATCH else RANDOM + size
    else:
        voxel = load_backbone(backbone).voxel
    limits = Limits(**dict(row.limits), limit_seed=seed)  # pyright: ignore[reportArgumentType]
    task = "instance" if row.table == "instances" else "semantic"
    config = rooms20(scenes, str(out), task, limits, protocol=row.protocol, backbone=backbone, seed=seed)
    changes = PROBE if row.protocol == "probe" else {}
    return replace(config, voxel=voxel, size=size, steps=steps, val_split="none", name=row.name, **changes)


def size_of(folder: str) -> str:
    """The size of a pre-trained backbone. Raises DataError when it is none that can be trained from scratch."""
    config = load_backbone(folder).network.config
    for name, known in UNET_SIZES.items():
        if known == config:
            return name
    raise DataError(f"--pretrained {folder}: its backbone is of none of the sizes {', '.join(UNET_SIZES)}.")


def pretraining(name: str, scenes: str, out: Path, size: Size, steps: int, cache: Path) -> PretrainConfig | ContrastConfig:
    """The settings of a pre-training run of the study: GaussianCross's, an ablation's, or the contrastive baseline's.

    Args:
        name: `MAIN`, `CONTRAST` or one of `ABLATIONS`.
        scenes: corpus; its train split is used.
        out: folder of the run.
        size: of the backbone.
        steps: of the run.
        cache: of the teacher's features, shared by all.
    """
    if name == CONTRAST:
        return ContrastConfig((scenes,), str(out), size, name=name, steps=steps)
    changes = ABLATIONS[name][1] if name in ABLATIONS else {}
    config = PretrainConfig((scenes,), str(out), size, cache=str(cache), name=name, steps=steps)
    return replace(config, **changes)
