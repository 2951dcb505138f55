"""One run of the study of GaussianCross: train it unless it is trained, measure it once, keep a record of both."""

import hashlib
import math
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from splatsense.gaussian_cross.pretrain import pretrain
from splatsense.gaussian_cross.pretrain_config import PretrainConfig
from splatsense.model_folder import CONFIG, find_model, read_card
from splatsense.scene_contrast.config import ContrastConfig
from splatsense.scene_contrast.pretrain import pretrain_contrast
from splatsense.scenes import list_scenes
from splatsense.segmentation.config import SegmentationConfig
from splatsense.segmentation.evaluate import Scores, score_scenes
from splatsense.segmentation.model import load_segmentation_model
from splatsense.segmentation.train import train_segmentation
from splatsense.studies.records import RECORD, check_record, code_version, keep_record, machine, read_json, write_json
from splatsense.training.metrics import SPEED, read_metrics

FIGURES, TRANSFER = "figures.json", "transfer.json"


def pretrain_once(config: PretrainConfig | ContrastConfig) -> Path:
    """The model folder of a pre-training run, trained as far as it is not yet.

    Raises:
        CheckpointError: the folder holds a run with other settings.
    """
    if (Path(config.out) / "model" / CONFIG).is_file():
        check_record(Path(config.out) / RECORD, config.settings())
        return Path(config.out) / "model"
    keep_record(Path(config.out) / RECORD, config.settings())
    return pretrain_contrast(config) if isinstance(config, ContrastConfig) else pretrain(config)


def train_once(config: SegmentationConfig) -> Path:
    """The model folder of a downstream run, trained as far as it is not yet.

    Raises:
        CheckpointError: the folder holds a run with other settings, or that started from another backbone.
    """
    keep_record(Path(config.out) / RECORD, recorded(config))
    folder = Path(config.out) / "model"
    return folder if (folder / CONFIG).is_file() else train_segmentation(config)


def run_once(config: SegmentationConfig, measured: Mapping[str, tuple[str, str]]) -> None:
    """Train a downstream run and measure it, as far as that is not done yet.

    Args:
        config: of the run.
        measured: folder and split of the scenes it is measured on, by the name of the file that keeps the figures.

    Raises:
        CheckpointError: the folder holds a run with other settings, or that started from another backbone.
    """
    folder = train_once(config)
    for name, (scenes, split) in measured.items():
        path, on = Path(config.out) / name, measured_on(scenes, split)
        if not path.is_file() or read_figures(path)["measured_on"] != on:
            write_json(path, {"measured_on": on, **_measure(folder, config, scenes, split)})


def _measure(folder: Path, config: SegmentationConfig, scenes: str, split: str) -> dict[str, Any]:
    model = load_segmentation_model(folder)
    scores = score_scenes(model, scenes, split, progress=True)
    return {
        "metrics": _metrics(scores),
        "iou": scores.semantic.figures()["iou"],
        "points": dict(zip(model.labels.names, scores.matrix.sum(1).tolist(), strict=True)),
        "scenes": model.card["scenes"],
        "code": code_version(),
        "date": date.today().isoformat(),
        "machine": machine(),
        "seconds": training_seconds(config),
    }


def measured_on(scenes: str, split: str) -> dict[str, str]:
    """What figures are of: a split and the fingerprint of its scenes."""
    return {"split": split, "scenes": fingerprint(scenes, split)}


def read_figures(path: Path) -> dict[str, Any]:
    """Figures that `run_once` wrote. Raises FormatError when the file is damaged."""
    return read_json(path, "measured_on", "metrics", "scenes", "code", "date", "machine", "seconds")


def recorded(config: SegmentationConfig) -> dict[str, Any]:
    """What decides the result of a run, the weights of its backbone among it."""
    given = "" if config.starts_random else read_card(find_model(config.backbone)).get("sha256", "")
    return config.settings() | {"backbone_sha256": given}


def fingerprint(scenes: str, split: str) -> str:
    """Changes with the names of the scenes of a split and the sizes of their points."""
    rows = [f"{folder.name} {(folder / 'coord.npy').stat().st_size}" for folder in list_scenes(scenes, split)]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def training_seconds(config: SegmentationConfig) -> float:
    """What the steps of a run took, over all its starts."""
    before, seconds = 0, 0.0
    for line in read_metrics(Path(config.out) / SPEED):
        seconds += (line["step"] - before) * config.batch_size / line["objects_per_second"]
        before = line["step"]
    return seconds


def _metrics(scores: Scores) -> dict[str, float]:
    report = scores.semantic
    more = {"present_iou": report.present_iou, "overall_accuracy": report.overall_accuracy}
    return scores.headline() | {name: value for name, value in more.items() if not math.isnan(value)}
