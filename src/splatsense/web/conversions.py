"""`Conversions`: assets as files of other formats, made on demand and kept for a while in a temporary folder.

Design
- The viewer gets every asset as SPZ, centred and with its longest half-extent 1, whatever its own format and units are: the
  browser never parses a stranger's file, and one camera fits all. A scene whose floor lies across another axis than y is
  stood up; the Gaussians keep their order.
- One conversion at a time, since each may need gigabytes. The files used longest ago go when there are too many.
"""

import tempfile
import threading
from pathlib import Path

import torch

from splatsense.errors import DataError
from splatsense.formats import WRITABLE
from splatsense.gaussians import Gaussians
from splatsense.io import save
from splatsense.library import Asset, Library
from splatsense.pictures import OUTLIER_FRACTION
from splatsense.segmentation.scan import AXES, LEAST_OPACITY, detect_up, points_of_gaussians
from splatsense.web.settings import WebSettings

FORMATS = tuple(suffix for suffix in WRITABLE if suffix != ".gltf")
"""What an asset can be downloaded as: all that `save` writes into one file."""


class Conversions:
    """Converted files of one library's assets.

    Args:
        library: the library.
        settings: most bytes of files that are kept, and what a scene is.
    """

    def __init__(self, library: Library, settings: WebSettings) -> None:
        self._library, self._limit, self._scene = library, settings.cache_bytes, settings.scene_gaussians
        self._folder = tempfile.TemporaryDirectory(prefix="splatsense-")
        self._lock = threading.Lock()
        self._sizes: dict[Path, int] = {}

    def convert(self, asset: Asset, suffix: str) -> Path:
        """The asset in another format.

        Raises:
            DataError: the format is none of `FORMATS`.
            SplatSenseError: the asset's file is gone or cannot be read.
        """
        if suffix not in FORMATS:
            raise DataError(f"{suffix!r} cannot be written; use one of {', '.join(FORMATS)}.")
        return self._made(asset, suffix, normalized=False)

    def view(self, asset: Asset) -> Path:
        """The asset for the viewer: SPZ, centred, with a longest half-extent of 1.

        Raises:
            SplatSenseError: the asset's file is gone or cannot be read.
        """
        return self._made(asset, ".spz", normalized=True)

    def close(self) -> None:
        """Delete all files."""
        self._folder.cleanup()

    def _made(self, asset: Asset, suffix: str, normalized: bool) -> Path:
        path = Path(self._folder.name) / f"{asset.sha256}{'-view' if normalized else ''}{suffix}"
        with self._lock:
            size = self._sizes.pop(path, None)
            if size is None:
                gaussians = self._library.load(self._library.file(asset))
                save(self._normalized(gaussians) if normalized else gaussians, path)
                size = path.stat().st_size
            self._sizes[path] = size  # at the end: used last
            while sum(self._sizes.values()) > self._limit and len(self._sizes) > 1:
                oldest = next(iter(self._sizes))
                del self._sizes[oldest]
                oldest.unlink(missing_ok=True)
        return path

    def _normalized(self, gaussians: Gaussians) -> Gaussians:
        return (upright(gaussians) if len(gaussians) >= self._scene else gaussians).normalized(OUTLIER_FRACTION)


def upright(gaussians: Gaussians) -> Gaussians:
    """A scene turned by quarter turns so that y is up, unless y is up already or its floor does not show."""
    if not bool((gaussians.opacities >= LEAST_OPACITY).any()):
        return gaussians
    cloud = points_of_gaussians(gaussians)
    assert cloud.normals is not None
    y_and_z_swapped = [0, 2, 1]  # what does not show is taken for z there, for y here
    axis, sign = AXES[detect_up(cloud.points[:, y_and_z_swapped], cloud.normals[:, y_and_z_swapped])]
    axis = y_and_z_swapped[axis]
    if (axis, sign) == (1, 1.0):
        return gaussians
    turn = torch.zeros(3, 3)
    turn[1, axis] = sign
    turn[2, (axis + 1) % 3] = sign
    turn[0, (axis + 2) % 3] = 1
    return gaussians.transform(rotation=turn)
