"""`SceneCache`: what models said of scenes, kept in the library's folder under `scenes/` because it takes minutes to compute.

Everything in it can be computed again: it may be deleted at any time, and the files used longest ago go when there are too
many. They are `.npz` without pickles; one that cannot be read is deleted.
"""

import contextlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from splatsense.errors import FormatError
from splatsense.files import atomic_write

log = logging.getLogger("splatsense.web")

FOLDER = "scenes"
IN_MEMORY = 2


class SceneCache:
    """Named sets of arrays.

    Args:
        library: the library's folder.
        limit: most bytes of files that are kept; the newest is kept in any case.
    """

    def __init__(self, library: Path, limit: int) -> None:
        self._folder, self._limit = library / FOLDER, limit
        self._memory: OrderedDict[str, Mapping[str, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def has(self, name: str) -> bool:
        """Whether there are arrays of this name; those on disk may still turn out to be damaged."""
        return name in self._memory or self._path(name).is_file()

    def get(self, name: str) -> Mapping[str, np.ndarray] | None:
        """The arrays of this name, or None."""
        with self._lock:
            arrays = self._memory.get(name)
            arrays = self._read(name) if arrays is None else arrays
            if arrays is not None:
                self._remember(name, arrays)
            return arrays

    def put(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays. A folder that cannot be written is no error: they are kept in memory, as long as there is room."""
        with self._lock:
            self._remember(name, arrays)
            try:
                self._folder.mkdir(exist_ok=True)
                with atomic_write(self._path(name)) as temporary, temporary.open("wb") as out:
                    np.savez(out, allow_pickle=False, **dict(arrays))
            except (OSError, FormatError) as error:
                log.warning("%s; what was computed of this scene is kept in memory only.", error)
            self._make_room(self._path(name))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npz"

    def _remember(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        self._memory[name] = arrays
        self._memory.move_to_end(name)
        while len(self._memory) > IN_MEMORY:
            self._memory.popitem(last=False)

    def _read(self, name: str) -> Mapping[str, np.ndarray] | None:
        path = self._path(name)
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
            with contextlib.suppress(OSError):  # of another user, or in a folder that cannot be written
                os.utime(path)  # used now
            return arrays
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, BadZipFile) as error:
            log.warning("%s: is damaged (%s); it is computed again.", path, error)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return None

    def _make_room(self, kept: Path) -> None:
        """Delete files used longest ago until the rest is small enough."""
        try:
            files = [(path.stat().st_mtime, path.stat().st_size, path) for path in self._folder.glob("*.npz")]
            total = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if total > self._limit and path != kept:
                    path.unlink(missing_ok=True)
                    total -= size
        except OSError as error:  # another server of this library deletes too
            log.info("%s: %s", self._folder, error)
