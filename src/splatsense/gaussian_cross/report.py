"""The report of a pre-training run: how well scenes that are never trained on are rendered, in numbers and pictures over time.

Measured on fixed views of fixed validation scenes, masked as in training:
- "psnr_validation": of the rendered colours, in dB, over all pixels of a view, averaged over views.
- "depth_validation": mean of |D - D*| / D* over pixels with measured depth, averaged over views.
- "cosine_validation": mean cosine of the lifted features and the teacher's, centred as in training.
- "rank_validation": effective rank of the backbone's features.

Two controls say what these numbers are worth: a picture that is constant, with each view's own mean colour, depth and feature;
and the network as it was before training.
"""

import html
import json
import math
from pathlib import Path

import torch
from torch.nn.functional import cosine_similarity

from splatsense.errors import DataError
from splatsense.files import atomic_write
from splatsense.gaussian_cross.collapse import effective_rank
from splatsense.gaussian_cross.dataset import SceneSet, TrainingBatch
from splatsense.gaussian_cross.pretrain_model import GaussianCross, Prediction
from splatsense.gaussian_cross.report_pictures import FeatureColors, draw_views
from splatsense.tables import table
from splatsense.training.metrics import METRICS, SPEED, read_metrics

REPORT, FOLDER = "report.html", "report"
DRAWN_SCENES, DRAWN_VIEWS = 3, 2


class Evaluation:
    """Measures and draws the network as it is when called.

    Args:
        model: that is being trained; still untrained when this is made, for the second control.
        scenes: that are never trained on.
        out: folder of the run.

    Attributes:
        controls: numbers of the controls "constant" and "untrained".

    Raises:
        DataError: a scene cannot be used.
    """

    def __init__(self, model: GaussianCross, scenes: SceneSet, out: Path) -> None:
        self.model, self.out = model, out
        height = model.decoder.config.height
        self.batches = [scenes.fixed_sample(row, height) for row in range(len(scenes))]
        self.colors = FeatureColors([self._centered(batch) for batch in self.batches])
        self.controls = {"constant": self._constant(), "untrained": self._measure()[0]}
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        with atomic_write(out / FOLDER / "controls.json") as temporary:
            temporary.write_text(json.dumps(self.controls, indent=2) + "\n")

    def __call__(self) -> dict[str, float]:
        """Metrics, and a picture in the folder `report`, numbered in the order of the evaluations."""
        metrics, shown = self._measure()
        views = []
        for batch, prediction in zip(self.batches[:DRAWN_SCENES], shown, strict=True):
            views += draw_views(batch, prediction, self.colors, self._centered(batch), DRAWN_VIEWS)
        step = 1 + max([_number(path) for path in (self.out / FOLDER).glob("views-*.png")], default=0)
        with atomic_write(self.out / FOLDER / f"views-{step:04d}.png") as temporary:
            self.colors.sheet(views).save(temporary, "PNG")
        return metrics

    @torch.no_grad()
    def _measure(self) -> tuple[dict[str, float], list[Prediction]]:
        """Means over the scenes, and what is predicted for those that are drawn."""
        training = self.model.training
        self.model.eval()
        rows, shown = [], []
        device = next(self.model.parameters()).device
        for index, batch in enumerate(self.batches):
            prediction = self.model.predict(batch.to(device))
            rows.append(self._scene(batch, prediction))
            if index < DRAWN_SCENES:
                shown.append(prediction)
        self.model.train(training)
        return _mean(rows), shown

    def _scene(self, batch: TrainingBatch, prediction: Prediction) -> dict[str, float]:
        rendering, targets = prediction.rendering, batch.targets
        metrics = {
            "psnr_validation": psnr(rendering.color.cpu(), targets.color),
            "depth_validation": relative_depth_error(rendering.depth.cpu(), targets.depth),
            "rank_validation": effective_rank(prediction.backbone.cpu()),
        }
        centered = self._centered(batch)
        if prediction.features is not None and centered is not None:
            metrics["cosine_validation"] = float(cosine_similarity(prediction.features.cpu(), centered, dim=-1).mean())
        return metrics

    def _centered(self, batch: TrainingBatch) -> torch.Tensor | None:
        features = batch.targets.features
        return None if features is None else features - self.model.teacher_center.cpu()

    def _constant(self) -> dict[str, float]:
        """Each view's own mean colour, depth and feature."""
        rows = []
        for batch in self.batches:
            targets = batch.targets
            valid = targets.depth > 0
            depth = (targets.depth.sum((1, 2)) / valid.sum((1, 2)).clamp_min(1))[:, None, None].expand_as(targets.depth)
            row = {
                "psnr_validation": psnr(targets.color.mean((1, 2), keepdim=True).expand_as(targets.color), targets.color),
                "depth_validation": relative_depth_error(depth, targets.depth),
            }
            centered = self._centered(batch)
            if centered is not None:
                mean = centered.mean((1, 2), keepdim=True).expand_as(centered)
                row["cosine_validation"] = float(cosine_similarity(mean, centered, dim=-1).mean())
            rows.append(row)
        return _mean(rows)

    def write_report(self, batch_size: int) -> None:
        """Write `report.html`: metrics over time, controls and pictures. Raises DataError when nothing was evaluated."""
        lines = [line for line in read_metrics(self.out / METRICS) if "psnr_validation" in line]
        if not lines:
            raise DataError(f"{self.out}: nothing was evaluated yet.")
        minutes = minutes_at(self.out, [line["step"] for line in lines], batch_size)
        names = [name for name in lines[-1] if name.endswith("_validation")]
        header = ["step", "minutes", *(name.removesuffix("_validation") for name in names)]
        rows = [[control, "", *(_shown(values.get(name)) for name in names)] for control, values in self.controls.items()]
        rows += [
            [str(line["step"]), f"{at:.0f}", *(_shown(line.get(name)) for name in names)]
            for line, at in zip(lines, minutes, strict=True)
        ]
        pictures = sorted((self.out / FOLDER).glob("views-*.png"), key=_number)
        with atomic_write(self.out / REPORT) as temporary:
            temporary.write_text(_page(table([header, *rows], "<" + ">" * (len(header) - 1)), pictures))


def psnr(color: torch.Tensor, target: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images (V, H, W, 3) in [0, 1], averaged over the views."""
    errors = (color - target).square().flatten(1).mean(1).tolist()
    return sum(-10 * math.log10(max(error, 1e-12)) for error in errors) / len(errors)


def relative_depth_error(depth: torch.Tensor, target: torch.Tensor) -> float:
    """Mean of |D - D*| / D* over pixels (V, H, W) with D* > 0, averaged over the views that have some."""
    valid = target > 0
    error = torch.where(valid, (depth - target).abs() / target.clamp_min(1e-9), 0).flatten(1).sum(1)
    counts = valid.flatten(1).sum(1)
    return float((error / counts.clamp_min(1))[counts > 0].mean())


def minutes_at(out: Path, steps: list[int], batch_size: int) -> list[float]:
    """How long training had taken by each step, from `speed.jsonl`; evaluations and interruptions are not counted."""
    passed, times = 0.0, {0: 0.0}
    before = 0
    for line in read_metrics(out / SPEED):
        passed += (line["step"] - before) * batch_size / line["objects_per_second"] / 60
        before = line["step"]
        times[before] = passed
    return [times[max(step for step in times if step <= wanted)] for wanted in steps]


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _page(numbers: str, pictures: list[Path]) -> str:
    parts = [f"<h2>{html.escape(path.stem)}</h2><img src='{FOLDER}/{html.escape(path.name)}'>" for path in pictures[::-1]]
    return (
        "<!doctype html><meta charset='utf-8'><title>GaussianCross pre-training</title>"
        "<style>body{font:14px sans-serif;margin:2em}img{max-width:100%}</style><h1>GaussianCross pre-training</h1>"
        "<p>Scenes that were never trained on. The first two rows are controls: a constant picture with each view's own mean "
        "colour, depth and feature, and the network before training.</p>"
        f"<pre>{html.escape(numbers)}</pre><img src='metrics.png'>" + "".join(parts) + "\n"
    )
