"""Embedding of big folders through Ray Data (extra `ray`), on this machine or on all machines of a cluster.

Design
- A dataset of paths, mapped in batches by actors that hold the model. Files are independent and results are small, so Ray
  Data's streaming, its pool of actors and its backpressure are all that is needed. Strangers' files are read in processes
  beside each actor (`splatsense.library.reading`), so none takes a batch of others with it.
- Actors never see the library: results stream to the driver, which stores each in a transaction as it comes. A run that is
  stopped goes on from what is stored.
- The machines need this package of the same version, and the files and a model's folder under the same paths.
"""

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from splatsense.errors import LibraryError, SplatSenseError
from splatsense.geometry.upright import Axis
from splatsense.library.asset_files import seen_file
from splatsense.library.embedding_model import EmbeddingModel, resolve_model
from splatsense.library.ingest import Embedded, reason_of
from splatsense.library.reading import Readers
from splatsense.library.records import Indexed, SeenFile
from splatsense.model_folder import BUNDLED, find_model
from splatsense.upright import stood_up

BATCH = 16


def embedded_by_ray(
    files: Sequence[tuple[Path, Axis | None]], model: str | Path | EmbeddingModel, address: str, draw: bool
) -> Iterator[Embedded]:
    """Read and embed files on a Ray cluster; what became of each, in the order in which they are done.

    Args:
        files: asset files, and the axis of each that points up, where somebody said so.
        model: name, folder, or a loaded model, which is sent to the actors.
        address: of a cluster, or "local" for one on this machine.
        draw: also draw thumbnails.

    Raises:
        LibraryError: Ray Data is not installed, or the cluster cannot be reached.
    """
    try:
        ray = importlib.import_module("ray")
        data = importlib.import_module("ray.data")
    except ImportError as error:
        raise LibraryError('--ray: Ray Data is missing; pip install "splatsense[ray]".') from error
    if isinstance(model, (str, Path)) and BUNDLED not in (folder := find_model(model)).parents:
        model = folder.absolute()  # actors have another working directory
    owns = not ray.is_initialized()
    if owns:
        local = {"include_dashboard": False} if address == "local" else {}
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}} if address == "local" else None
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR", runtime_env=environment, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise LibraryError(f"--ray {address}: no Ray cluster can be reached ({error}).") from error
    try:
        actors = max(1, int(ray.cluster_resources().get("CPU", 1)))
        data.DataContext.get_current().enable_progress_bars = False
        items = [{"path": os.fsencode(path), "up": up or ""} for path, up in files]
        rows = data.from_items(items, override_num_blocks=-(-len(files) // BATCH))
        results = rows.map_batches(
            EmbeddingActor, batch_size=BATCH, fn_constructor_args=(model, draw), concurrency=(1, actors), num_cpus=1
        )
        for row in results.iter_rows():
            yield _embedded(row)
    finally:
        if owns:
            ray.shutdown()


class EmbeddingActor:
    """Reads and embeds batches of files. Ray Data calls it with columns."""

    def __init__(self, model: str | Path | EmbeddingModel, draw: bool) -> None:
        self._model, self._draw, self._readers = resolve_model(model), draw, Readers(1)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Columns of facts about each file of the columns `path` and `up`."""
        files = zip(batch["path"], batch["up"].tolist(), strict=True)
        rows = [self._embed(Path(os.fsdecode(path)), up or None) for path, up in files]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _embed(self, path: Path, up: Axis | None) -> dict[str, Any]:
        empty = {"path": os.fsencode(path), "up": up or "", "sha256": "", "size": 0, "mtime_ns": 0, "vector": b"",
                 "gaussians": 0, "bounds": b"", "thumbnail": b"", "error": ""}  # fmt: skip
        try:
            file = seen_file(path)
            empty |= {"sha256": file.sha256, "size": file.size, "mtime_ns": file.mtime_ns}
            reading = self._readers.read(path, self._draw, up).result()
            vector = self._model.encode_gaussians([stood_up(reading.gaussians, up)])[0].cpu().numpy().astype("<f4")
            if not np.isfinite(vector).all():
                return empty | {"error": "the model's embedding of it is not finite; look for extreme positions or scales."}
            bounds = reading.gaussians.bounds.cpu().numpy().astype("<f4").tobytes()
            return empty | {"vector": vector.tobytes(), "gaussians": len(reading.gaussians), "bounds": bounds,
                            "thumbnail": reading.thumbnail or b""}  # fmt: skip
        except (OSError, SplatSenseError) as error:
            return empty | {"error": os.fsencode(reason_of(error, path)).decode("utf-8", "backslashreplace")}


def _embedded(row: dict[str, Any]) -> Embedded:
    file = SeenFile(Path(os.fsdecode(row["path"])), int(row["size"]), int(row["mtime_ns"]), row["sha256"])
    if row["error"]:
        return Embedded(file, None, error=row["error"])
    vector, bounds = (np.frombuffer(row[name], "<f4") for name in ("vector", "bounds"))
    return Embedded(file, Indexed(file, vector, int(row["gaussians"]), bounds, row["up"] or None), row["thumbnail"] or None)
