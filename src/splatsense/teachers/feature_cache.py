"""Dense features of images, computed once and kept on disk in half precision, within a bound.

Design
- A file holds one image's features and is named after the hash of its pixels, in a folder named after the teacher's: it is
  never stale, and scenes that are moved or copied find theirs.
- Files appear when they are complete, so processes may share a folder.
- Beyond the bound those used longest ago go first, and what is gone is computed again.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from splatsense.errors import DataError
from splatsense.files import atomic_write
from splatsense.teachers.interface import DenseTeacher

LARGEST = torch.finfo(torch.half).max
SPARE = 0.9  # part of the bound that is left when files are deleted, so that this is rare


class FeatureCache:
    """A teacher whose answers are kept.

    Args:
        teacher: the frozen model.
        folder: of the cache; made when missing. None keeps nothing.
        limit: bytes of the files of this teacher.

    Raises:
        DataError: `limit` is negative.
    """

    def __init__(self, teacher: DenseTeacher, folder: str | Path | None, limit: int = 4 << 30) -> None:
        if limit < 0:
            raise DataError(f"FeatureCache: the limit must not be negative, got {limit}.")
        self.teacher, self.limit = teacher, limit
        self.folder = None if folder is None else Path(folder) / teacher.hash[:16]
        self._bytes = 0
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._bytes = sum(size for _, size, _ in self._files())

    def features(self, images: Sequence[Float[Tensor, "_ _ 3"]]) -> Float[Tensor, "n h w d"]:
        """Features (N, h, w, d), rounded to half precision, of images (H, W, 3) of one size, sRGB in [0, 1].

        Raises:
            DataError: the images differ in size, or a feature is not finite or too large for half precision.
        """
        found = [self._one(image) for image in images]
        if len({part.shape for part in found}) > 1:
            raise DataError(f"FeatureCache: images differ in size: {sorted({tuple(image.shape[:2]) for image in images})}.")
        return torch.stack(found).float()

    def _one(self, image: Tensor) -> Tensor:
        if self.folder is None:
            return self._computed(image)
        pixels = (image * 255).round().byte().contiguous().numpy()
        digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
        path = self.folder / f"{digest[:32]}.npy"
        kept = self._read(path)
        if kept is not None:
            return kept
        features = self._computed(image)
        self._write(path, features.numpy())
        return features

    def _computed(self, image: Tensor) -> Tensor:
        features = self.teacher.encode_dense(image[None])[0]
        most = float(features.abs().max())
        if not most <= LARGEST:  # NaN is not
            raise DataError(
                f"teacher {self.teacher.name}: gives features up to {most:,.0f}; they are kept in half precision, which "
                f"ends at {LARGEST:,.0f}. Check its weights, or use another teacher."
            )
        return features.half()

    def _read(self, path: Path) -> Tensor | None:
        """None when it is not there, or not whole: a crash of the machine may leave an empty file."""
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        with contextlib.suppress(OSError):  # a folder that may only be read; or another process made room
            os.utime(path)
        return torch.from_numpy(array) if array.ndim == 3 and array.shape[2] == self.teacher.dim else None

    def _write(self, path: Path, array: np.ndarray) -> None:
        if array.nbytes > self.limit:
            return
        with atomic_write(path) as temporary, temporary.open("wb") as opened:
            np.save(opened, array, allow_pickle=False)
            size = opened.tell()
        self._bytes += size
        if self._bytes > self.limit:
            self._shrink()

    def _shrink(self) -> None:
        files = sorted(self._files())
        self._bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._bytes <= SPARE * self.limit:
                break
            path.unlink(missing_ok=True)
            self._bytes -= size

    def _files(self) -> list[tuple[int, int, Path]]:
        """(time of last use, bytes, path) of what is kept."""
        assert self.folder is not None
        found = []
        for path in self.folder.glob("*.npy"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process made room
                continue
            found.append((status.st_mtime_ns, status.st_size, path))
        return found
