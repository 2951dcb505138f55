"""`Scenes`: what models see in a scene: likeness to a point, classes, instances, as one colour for each of its Gaussians.

Design
- A scene is an asset of many Gaussians, whatever it shows. Each Gaussian that can be seen is a point for the network, as in
  `splatsense segment` and `splatsense similar`; the rest stays grey.
- What the network says is computed once, by a `SceneJob` in the background, and kept in `SceneCache` under the hashes of the
  content and of the model. The cosine with one point is then a product of matrix and vector.
- A job hears of being cancelled between two layers of the network, by a hook before each.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import nn
from torch.nn.functional import normalize

from splatsense.errors import DataError
from splatsense.labels import UNLABELLED_COLOR
from splatsense.library import Asset, Library
from splatsense.segmentation.export import distinct_colors, instance_colors, semantic_colors
from splatsense.segmentation.predict import TILE_VOXELS, Prediction, predict, voxel_features
from splatsense.segmentation.scan import LEAST_OPACITY, Scan, ScanSettings, points_of_gaussians, scan_of_cloud
from splatsense.segmentation.segment import heat_colors
from splatsense.web.jobs import Job, Jobs
from splatsense.web.scene_cache import SceneCache
from splatsense.web.scene_models import Choice, SceneModels
from splatsense.web.settings import WebSettings

What = Literal["similarity", "segmentation"]
VERSION = 2
"""Of what is kept; raise it when the same model says something else."""
BLOCK = 65_536  # rows of half precision that are multiplied at once
LISTED_INSTANCES = 200
FIELDS = ("semantic", "confidence", "instance", "instance_labels", "instance_scores")


class SceneJob(Job):
    """Compute one thing about a scene.

    Args:
        asset: the scene.
        compute: given this job, computes and keeps it.
    """

    kind = "scene"

    def __init__(self, asset: Asset, compute: Callable[["SceneJob"], None]) -> None:
        super().__init__(f"Scene {asset.name}")
        self._compute = compute

    def _work(self) -> None:
        self._compute(self)

    @contextmanager
    def watching(self, network: nn.Module, tiles: int) -> Iterator[None]:
        """In the block, progress follows the layers of a network that runs on so many tiles."""
        layers = [module for module in network.modules() if not any(module.children())]
        done = 0

        def before(module: nn.Module, inputs: Any) -> None:
            nonlocal done
            self.check()
            done += 1
            self.change(done=min(done, self._total))

        self.change(total=len(layers) * tiles, current="Computing")
        hooks = [layer.register_forward_pre_hook(before) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class Scenes:
    """The scenes of one library."""

    def __init__(self, library: Library, settings: WebSettings, jobs: Jobs, models: SceneModels) -> None:
        self._library, self._settings, self._jobs, self._models = library, settings, jobs, models
        self._cache = SceneCache(library.path, settings.scene_cache_bytes)
        self._running: dict[str, SceneJob] = {}
        self._lock, self._computing = threading.Lock(), threading.Lock()

    def is_scene(self, asset: Asset) -> bool:
        """Whether it has enough Gaussians to be one."""
        return asset.gaussians >= self._settings.scene_gaussians

    def describe(self, asset: Asset) -> dict[str, Any]:
        """What can be asked of an asset: for likeness and for classes, the model or why there is none, and what is ready."""
        about: dict[str, Any] = {"is_scene": self.is_scene(asset)}
        for what in ("similarity", "segmentation"):
            choice, job = self._choice(what), self._running.get(self._name(asset, what))
            about[what] = {
                "model": choice.name,
                "reason": choice.reason or self._refusal(asset),
                "ready": self._cache.has(self._name(asset, what)),
                "job": job.id if job is not None and not job.is_over else None,
            }
        return about

    def start(self, asset: Asset, what: What) -> Job:
        """Compute in the background what is not there yet; the job that does so already, if there is one.

        Raises:
            DataError: there is no model for it, or the asset is no scene or too large a one.
        """
        reason = self._choice(what).reason or self._refusal(asset)
        if reason:
            raise DataError(reason)
        compute = self._features if what == "similarity" else self._labels
        with self._lock:
            self._running = {name: job for name, job in self._running.items() if not job.is_over}
            name = self._name(asset, what)
            if name not in self._running:

                def work(job: SceneJob) -> None:
                    if self._cache.get(name) is None:  # a job that has ended, or another server, may have computed it
                        compute(job, asset, name)

                self._running[name] = SceneJob(asset, work)
                self._jobs.start(self._running[name])
            return self._running[name]

    def similarity(self, asset: Asset, gaussian: int) -> tuple[UInt8[np.ndarray, "n 3"], float] | None:
        """Colours of all Gaussians by the cosine of their features with those of one, and the cosine that is darkest.

        None when the features are not computed. Raises DataError when there is no such Gaussian or it cannot be seen.
        """
        arrays = self._cache.get(self._name(asset, "similarity"))
        if arrays is None:
            return None
        row = _row(arrays["seen"], gaussian)
        with self._computing:
            values = cosines(arrays["features"], arrays["features"][arrays["voxel"][row]])[arrays["voxel"]]
        return _spread(heat_colors(values), arrays["seen"]), float(np.quantile(values, 0.05))

    def labels(self, asset: Asset, by: Literal["classes", "instances"]) -> UInt8[np.ndarray, "n 3"] | None:
        """Colours of all Gaussians by class or instance; None when not computed. Raises DataError without instances."""
        arrays = self._cache.get(self._name(asset, "segmentation"))
        if arrays is None:
            return None
        prediction, labels = _prediction(arrays), self._models.head().labels
        if by == "instances" and not self._models.head().has_instances:
            raise DataError(f"{self._models.segmentation.name} tells classes only; a model of instances is needed.")
        colors = semantic_colors(prediction, labels) if by == "classes" else instance_colors(prediction)
        return _spread(colors, arrays["seen"])

    def legend(self, asset: Asset) -> dict[str, Any] | None:
        """The classes of a scene, most frequent first, and its instances, surest first; None when they are not computed."""
        arrays = self._cache.get(self._name(asset, "segmentation"))
        if arrays is None:
            return None
        prediction, labels = _prediction(arrays), self._models.head().labels
        counts = np.bincount(prediction.semantic, minlength=len(labels))
        present = [index for index in np.argsort(-counts, kind="stable").tolist() if counts[index]]
        found = np.argsort(-prediction.instance_scores, kind="stable")[:LISTED_INSTANCES].tolist()
        colors = distinct_colors(len(prediction.instance_labels))
        return {
            "has_instances": self._models.head().has_instances,
            "classes": [
                {
                    "name": labels.names[index],
                    "color": _hex(labels.colors[index]),
                    "share": round(counts[index] / counts.sum(), 4),
                }
                for index in present
            ],
            "instances": [
                {
                    "class": labels.names[prediction.instance_labels[number]],
                    "color": _hex(colors[number]),
                    "score": round(float(prediction.instance_scores[number]), 3),
                }
                for number in found
            ],
        }

    def label_of(self, asset: Asset, gaussian: int) -> dict[str, Any] | None:
        """Class, confidence and instance of one Gaussian; None when they are not computed. Raises DataError as `similarity`."""
        arrays = self._cache.get(self._name(asset, "segmentation"))
        if arrays is None:
            return None
        row, prediction = _row(arrays["seen"], gaussian), _prediction(arrays)
        instance = int(prediction.instance[row])
        return {
            "class": self._models.head().labels.names[prediction.semantic[row]],
            "confidence": round(float(prediction.confidence[row]), 3),
            "instance": instance if instance >= 0 else None,
        }

    def _choice(self, what: str) -> Choice:
        return self._models.similarity if what == "similarity" else self._models.segmentation

    def _refusal(self, asset: Asset) -> str:
        if not self.is_scene(asset):
            return f"This asset has fewer than {self._settings.scene_gaussians:,} Gaussians; it is taken for an object."
        if asset.gaussians > self._settings.scene_most:
            return f"This scene has more than {self._settings.scene_most:,} Gaussians; thin it out first."
        return ""

    def _name(self, asset: Asset, what: str) -> str:
        up = "" if asset.up is None else f".{asset.up}"
        return f"{asset.sha256[:32]}{up}-{what}-{self._choice(what).hash[:12]}-{VERSION}"

    def _features(self, job: SceneJob, asset: Asset, name: str) -> None:
        scan, seen = self._read(job, asset)
        model = self._models.backbone()
        with job.watching(model.network, _tiles(scan, model.voxel)):
            features, voxel = voxel_features(model.network, scan.points, model.voxel)
        half = normalize(features, dim=1).half().numpy()
        self._cache.put(name, {"seen": seen, "voxel": voxel.numpy().astype(np.int32), "features": half})

    def _labels(self, job: SceneJob, asset: Asset, name: str) -> None:
        scan, seen = self._read(job, asset)
        model = self._models.head()
        with job.watching(model.network, _tiles(scan, model.voxel)):
            prediction = predict(model, scan.points)
        self._cache.put(name, {"seen": seen} | {field: getattr(prediction, field) for field in FIELDS})

    def _read(self, job: SceneJob, asset: Asset) -> tuple[Scan, np.ndarray]:
        """The points of a scene, and which of its Gaussians they are."""
        job.change(current="Reading the file")
        gaussians = self._library.read(asset).gaussians
        job.check()
        seen = (gaussians.opacities >= LEAST_OPACITY).numpy()
        settings = ScanSettings(up=asset.up or "auto")
        return scan_of_cloud(points_of_gaussians(gaussians, asset.name), asset.name, settings), seen


def cosines(features: np.ndarray, query: np.ndarray) -> Float32[np.ndarray, " m"]:
    """Products of rows of unit length, in half precision, with one of them; in float32, within [-1, 1]."""
    vector = query.astype(np.float32)
    parts = [features[start : start + BLOCK].astype(np.float32) @ vector for start in range(0, len(features), BLOCK)]
    return np.clip(np.concatenate(parts), -1, 1)


def _row(seen: np.ndarray, gaussian: int) -> int:
    """Of a Gaussian among those that are seen."""
    if not 0 <= gaussian < len(seen):
        raise DataError(f"This scene has {len(seen):,} Gaussians; there is none with the number {gaussian}.")
    if not seen[gaussian]:
        raise DataError("This Gaussian can hardly be seen; choose a point on a surface.")
    return int(np.count_nonzero(seen[:gaussian]))


def _spread(colors: np.ndarray, seen: np.ndarray) -> UInt8[np.ndarray, "n 3"]:
    """Colours of all Gaussians, of which those that cannot be seen have none."""
    spread = np.full((len(seen), 3), UNLABELLED_COLOR, np.uint8)
    spread[seen] = colors
    return spread


def _prediction(arrays: Mapping[str, np.ndarray]) -> Prediction:
    return Prediction(**{field: arrays[field] for field in FIELDS})


def _tiles(scan: Scan, voxel: float) -> int:
    """How many tiles the network will run on."""
    cells = torch.floor((scan.points.coord - scan.points.coord.amin(0)) / voxel).int()

    def halved(voxels: int) -> int:
        return 1 if voxels <= TILE_VOXELS else halved(voxels // 2) + halved(voxels - voxels // 2)

    return halved(len(torch.unique(cells, dim=0)))


def _hex(color: np.ndarray) -> str:
    return "#" + bytes(color.astype(np.uint8)).hex()
