"""One run of the study of GaussianCross: train it unless it is trained, measure it once, keep a record of both."""

import hashlib
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

FIGURES = "figures.json"


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


def run_once(config: SegmentationConfig, split: str) -> dict[str, Any]:
    """Figures of a downstream run on a split, trained and measured as far as it is not yet.

    Raises:
        CheckpointError: the folder holds a run with other settings, or that started from another backbone.
    """
    out, settings = Path(config.out), recorded(config)
    keep_record(out / RECORD, settings)
    path = out / FIGURES
    measured_on = {"split": split, "scenes": fingerprint(config.scenes, split)}
    if path.is_file() and (known := read_figures(path))["measured_on"] == measured_on:
        return known
    is_trained = (out / "model" / CONFIG).is_file()
    model = load_segmentation_model(out / "model" if is_trained else train_segmentation(config))
    scores = score_scenes(model, config.scenes, split, progress=True)
    figures = {
        "measured_on": measured_on,
        "metrics": _metrics(scores),
        "iou": scores.semantic.figures()["iou"],
        "scenes": model.card["scenes"],
        "code": code_version(),
        "date": date.today().isoformat(),
        "machine": machine(),
        "seconds": training_seconds(config),
    }
    write_json(path, figures)
    return figures


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
    return scores.headline() | {"overall_accuracy": scores.semantic.overall_accuracy}
