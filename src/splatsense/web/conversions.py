"""`Conversions`: assets as files of other formats, made on demand and kept for a while in a temporary folder.

Design
- The viewer gets every asset as SPZ, centred and with its longest half-extent 1, whatever its own format and units are: the
  browser never parses a stranger's file, and one camera fits all. What has another axis than y up, because somebody said so
  or because its floor shows it, is stood up, as in thumbnails; the Gaussians keep their order.
- SPZ's steps grow with the largest coordinate, so floaters far away would spoil the rest: beyond `FARTHEST` they are brought
  nearer and made invisible.
- One conversion at a time, since each may need gigabytes; what is converted already does not wait for it.
- The files used longest ago go when there are too many, but none while it is being sent.
"""

import tempfile
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

from splatsense.errors import DataError
from splatsense.formats import WRITABLE
from splatsense.gaussians import Gaussians
from splatsense.geometry.upright import Axis
from splatsense.io import save
from splatsense.library import Asset, Library
from splatsense.pictures import OUTLIER_FRACTION
from splatsense.upright import room_up, stood_up
from splatsense.web.settings import WebSettings

FORMATS = tuple(suffix for suffix in WRITABLE if suffix != ".gltf")
"""What an asset can be downloaded as: all that `save` writes into one file."""

FARTHEST = 1000.0
"""Half-extents from the middle of an asset to what its view shows."""


class Conversions:
    """Converted files of one library's assets. Whoever gets one gives it back; until then it stays.

    Args:
        library: the library.
        settings: most bytes of files that are kept, and what a scene is.
    """

    def __init__(self, library: Library, settings: WebSettings) -> None:
        self._library, self._limit, self._scene = library, settings.cache_bytes, settings.scene_gaussians
        self._folder = tempfile.TemporaryDirectory(prefix="splatsense-")
        self._converting = threading.Lock()
        self._lock = threading.Lock()
        self._sizes: dict[Path, int] = {}
        self._lent: Counter[Path] = Counter()

    def convert(self, asset: Asset, suffix: str) -> Path:
        """The asset in another format.

        Raises:
            DataError: the format is none of `FORMATS`.
            SplatSenseError: the asset's file is gone, has changed or cannot be read.
        """
        if suffix not in FORMATS:
            raise DataError(f"{suffix!r} cannot be written; use one of {', '.join(FORMATS)}.")
        return self._made(asset, suffix, normalized=False)

    def view(self, asset: Asset) -> Path:
        """The asset for the viewer: SPZ, centred, with a longest half-extent of 1.

        Raises:
            SplatSenseError: the asset's file is gone, has changed or cannot be read.
        """
        return self._made(asset, ".spz", normalized=True)

    def give_back(self, path: Path) -> None:
        """A file that `convert` or `view` gave has been used."""
        with self._lock:
            self._lent[path] -= 1
            self._trim()

    def close(self) -> None:
        """Delete all files."""
        self._folder.cleanup()

    def _made(self, asset: Asset, suffix: str, normalized: bool) -> Path:
        stem = f"{asset.sha256}-view{asset.up or ''}" if normalized else asset.sha256
        path = Path(self._folder.name) / f"{stem}{suffix}"
        if self._lend(path):
            return path
        with self._converting:
            if not self._lend(path):  # nobody made it meanwhile
                gaussians = self._library.read(asset).gaussians
                save(self._normalized(gaussians, asset.up) if normalized else gaussians, path)
                with self._lock:
                    self._sizes[path] = path.stat().st_size
                    self._lent[path] += 1
                    self._trim()
        return path

    def _lend(self, path: Path) -> bool:
        """Lend a file, if there is such a one."""
        with self._lock:
            size = self._sizes.pop(path, None)
            if size is None:
                return False
            self._sizes[path] = size  # at the end: used last
            self._lent[path] += 1
        return True

    def _trim(self) -> None:
        """Delete what was used longest ago and is not lent, down to the limit; what was used last stays."""
        for path in list(self._sizes)[:-1]:
            if sum(self._sizes.values()) <= self._limit:
                return
            if not self._lent[path]:
                del self._sizes[path], self._lent[path]
                path.unlink(missing_ok=True)

    def _normalized(self, gaussians: Gaussians, up: Axis | None) -> Gaussians:
        normalized = stood_up(gaussians, up or room_up(gaussians, self._scene)).normalized(OUTLIER_FRACTION)
        near = (normalized.means.abs() <= FARTHEST).all(1)
        if bool(near.all()):
            return normalized
        return replace(normalized, means=normalized.means.clamp(-FARTHEST, FARTHEST), opacities=normalized.opacities * near)
