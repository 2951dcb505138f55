"""Limited data (Hou et al. 2021, arXiv 2012.09165): few scenes, or few annotated points in each, chosen by seed or by a file.

- Scenes: 1, 5, 10 or 20 % of the training scenes; a text file of scene names, one a line, such as ScanNet's published
  `tasks/scenes/1.txt`, chooses them instead.
- Annotations: 20, 50, 100 or 200 points of each scene keep their labels. Published lists are pickles (`points20`) of arrays by
  scene name and are not read; `convert` them to a folder of `<scene>.npy` or one `.npz` with the same arrays, once.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int64

from splatsense.errors import DataError, FormatError
from splatsense.files import open_to_read


def draw_scenes(names: Sequence[str], share: float, seed: int) -> list[str]:
    """A share of scenes, at least one, in their order; larger shares of the same seed contain smaller ones.

    Args:
        names: of all scenes.
        share: in (0, 1].
        seed: of the draw.
    """
    if not 0 < share <= 1:
        raise DataError(f"--scene-share: must lie in (0, 1], got {share}.")
    count = max(1, round(share * len(names)))
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    chosen = set(ranked[:count])
    return [name for name in names if name in chosen]


def listed_scenes(names: Sequence[str], path: Path) -> list[str]:
    """The scenes that a text file names, one a line, in the order of `names`.

    Raises:
        FormatError: the file is missing or not text.
        DataError: it names a scene that is not there.
    """
    with open_to_read(path) as handle:
        content = handle.read()
    try:
        listed = {line.strip().removesuffix(".pth") for line in content.decode("utf-8").splitlines() if line.strip()}
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is no text file of scene names, one a line.") from error
    missing = sorted(listed - set(names))
    if missing or not listed:
        what = f"names {missing[0]}, which is not among the {len(names)} scenes" if missing else "names no scene"
        raise DataError(f"{path}: {what}; give the scenes that the list was made for.")
    return [name for name in names if name in listed]


def draw_points(labels: Int64[np.ndarray, " n"], count: int, name: str, seed: int) -> Int64[np.ndarray, " k"]:
    """`count` labelled points of a scene, in order; all of them where there are fewer. A function of labels, name and seed."""
    if count < 1:
        raise DataError(f"--points: must be at least 1, got {count}.")
    labelled = np.flatnonzero(labels >= 0)
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    order = np.random.default_rng(int.from_bytes(digest[:8], "little")).permutation(len(labelled))
    return np.sort(labelled[order[:count]])


class PointLists(Mapping[str, np.ndarray]):
    """Annotated points by scene name, from a folder of `<scene>.npy` or an `.npz`, each an array of indices into the scene.

    Raises:
        FormatError: the path is neither.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            self._files = {file.stem: file for file in sorted(path.glob("*.npy"))}
            return
        try:
            with open_to_read(path) as handle, np.load(handle, allow_pickle=False) as archive:
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise ValueError("no .npz")
                self._files = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, AttributeError, TypeError, BadZipFile) as error:
            raise FormatError(
                f"{path}: is no .npz or folder of .npy files with the annotated points of each scene. Published lists are "
                "pickles; docs/segmentation.md says how to convert them."
            ) from error

    def __getitem__(self, name: str) -> Int64[np.ndarray, " k"]:
        if name not in self._files:
            raise DataError(f"{self.path}: lists no points of {name}.")
        try:
            values = self._files[name]
            rows = np.load(values, allow_pickle=False) if isinstance(values, Path) else values
        except (OSError, ValueError, EOFError) as error:
            raise FormatError(f"{self.path}: the list of {name} cannot be read ({error}).") from error
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise FormatError(f"{self.path}: the list of {name} is no array of indices.")
        return rows.astype(np.int64)

    def __iter__(self):
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def only_points(labels: Int64[np.ndarray, " n"], rows: Int64[np.ndarray, " k"], where: str) -> Int64[np.ndarray, " n"]:
    """Labels of the points in `rows`, -1 elsewhere. Raises DataError when a row is outside the scene."""
    if len(rows) and not (rows.min() >= 0 and rows.max() < len(labels)):
        raise DataError(f"{where}: point {rows.max()} is listed, but the scene has {len(labels)}; it is of another scene.")
    kept = np.full_like(labels, -1)
    kept[rows] = labels[rows]
    return kept
