"""`Conversions`: assets as files of other formats, made on demand and kept for a while in a temporary folder.

Design
- The viewer gets every asset as SPZ, centred and with its longest half-extent 1, whatever its own format and units are: the
  browser never parses a stranger's file, and one camera fits all.
- One conversion at a time, since each may need gigabytes. The files used longest ago go when there are too many.
"""

import tempfile
import threading
from pathlib import Path

from splatsense.errors import DataError
from splatsense.formats import WRITABLE
from splatsense.io import save
from splatsense.library import Asset, Library
from splatsense.pictures import OUTLIER_FRACTION

FORMATS = tuple(suffix for suffix in WRITABLE if suffix != ".gltf")
"""What an asset can be downloaded as: all that `save` writes into one file."""


class Conversions:
    """Converted files of one library's assets.

    Args:
        library: the library.
        limit: most bytes of files that are kept.
    """

    def __init__(self, library: Library, limit: int) -> None:
        self._library, self._limit = library, limit
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
                save(gaussians.normalized(OUTLIER_FRACTION) if normalized else gaussians, path)
                size = path.stat().st_size
            self._sizes[path] = size  # at the end: used last
            while sum(self._sizes.values()) > self._limit and len(self._sizes) > 1:
                oldest = next(iter(self._sizes))
                del self._sizes[oldest]
                oldest.unlink(missing_ok=True)
        return path
