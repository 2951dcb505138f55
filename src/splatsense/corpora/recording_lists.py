"""Which files and cameras make the frames of a recording, in the forms of 7-Scenes and of TUM.

- 7-Scenes (Shotton et al. 2013): `frame-000000.color.png`, `.depth.png` in millimetres with 65535 for none, `.pose.txt` with
  four rows of camera to world.
- TUM (Sturm et al. 2012): `rgb.txt` and `depth.txt` list time and file, `groundtruth.txt` time, position and quaternion xyzw of
  the camera in the world. Colour and depth are joined to the pairs closest in time, each used once, as the benchmark's
  `associate.py` does, then the closest camera is taken; none may be off by more than 20 ms. Depth has 5000 units a metre.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splatsense.errors import FormatError
from splatsense.files import open_to_read
from splatsense.io._text_table import is_number

MOST_APART = 0.02  # seconds
MILLIMETRE, TUM_UNIT = 1 / 1000, 1 / 5000
COLOR_ENDINGS = (".color.png", ".color.jpg", ".color.jpeg")
UNIT_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class Recording:
    """The frames of a recording before their images are looked at.

    Attributes:
        color: image files.
        depth: depth files.
        camera_to_world: (V, 4, 4) float64, OpenCV axes.
        depth_scale: metres in one unit of the depth files.
        left_out: what was passed over and why, in words.
    """

    color: list[Path]
    depth: list[Path]
    camera_to_world: np.ndarray
    depth_scale: float
    left_out: list[str]


def list_seven_scenes(folder: Path) -> Recording:
    """The frames of a folder in the form of 7-Scenes that have all of colour, depth and a finite camera.

    Raises:
        FormatError: a matrix is not four rows of four numbers.
    """
    color, depth, cameras, incomplete, lost = [], [], [], 0, 0
    stems = {re.sub(r"\.(color|depth|pose)\.\w+$", "", path.name) for path in folder.glob("frame-*.*.*")}
    for stem in sorted(stems):
        image = next((path for ending in COLOR_ENDINGS if (path := folder / f"{stem}{ending}").is_file()), None)
        depth_file, camera_file = folder / f"{stem}.depth.png", folder / f"{stem}.pose.txt"
        if image is None or not depth_file.is_file() or not camera_file.is_file():
            incomplete += 1
            continue
        camera = read_matrix(camera_file, 4)
        if not np.isfinite(camera).all():
            lost += 1
            continue
        color.append(image)
        depth.append(depth_file)
        cameras.append(camera)
    left_out = _counted({"without colour, depth or camera": incomplete, "whose camera is not finite": lost})
    return Recording(color, depth, np.array(cameras).reshape(-1, 4, 4), MILLIMETRE, left_out)


def read_matrix(path: Path, size: int) -> np.ndarray:
    """(size, size) float64 of a text file. Raises FormatError when it holds anything else."""
    with open_to_read(path) as handle:
        words = handle.read(1 << 16).decode("latin-1").replace(",", " ").split()
    if len(words) != size * size or not all(map(is_number, words)):
        raise FormatError(f"{path}: is not {size} rows of {size} numbers; export it again.")
    return np.array(words, np.float64).reshape(size, size)


def list_tum(folder: Path) -> Recording:
    """The frames of a folder in the form of TUM whose colour, depth and camera are of one time.

    Raises:
        FormatError: a list is missing or damaged, or a quaternion is not of unit length.
    """
    color, depth = (_read_files(folder / name) for name in ("rgb.txt", "depth.txt"))
    times, cameras, lost = _read_trajectory(folder / "groundtruth.txt")
    pairs = associate(np.array([time for time, _ in color]), np.array([time for time, _ in depth]))
    chosen, missing, apart = [], 0, 0
    for of_color, of_depth in pairs:
        time = depth[of_depth][0]
        nearest = int(np.abs(times - time).argmin()) if len(times) else -1
        if nearest < 0 or abs(times[nearest] - time) > MOST_APART:
            apart += 1
        elif not (color[of_color][1].is_file() and depth[of_depth][1].is_file()):
            missing += 1
        else:
            chosen.append((color[of_color][1], depth[of_depth][1], cameras[nearest]))
    apart += len(color) - len(pairs)
    left_out = _counted({"without depth or camera of their time": apart, "whose files are missing": missing})
    left_out += [f"{lost} cameras that are not finite"] if lost else []
    matrices = np.array([camera for _, _, camera in chosen]).reshape(-1, 4, 4)
    return Recording([c for c, _, _ in chosen], [d for _, d, _ in chosen], matrices, TUM_UNIT, left_out)


def associate(first: np.ndarray, second: np.ndarray, most_apart: float = MOST_APART) -> list[tuple[int, int]]:
    """Pairs of indices into two lists of times, closest pairs first served, each time used once; in order of `first`."""
    order = np.argsort(second, kind="stable")
    low = np.searchsorted(second[order], first - most_apart)
    high = np.searchsorted(second[order], first + most_apart, side="right")
    candidates = [(abs(first[i] - second[j]), i, int(j)) for i in range(len(first)) for j in order[low[i] : high[i]]]
    taken_first: set[int] = set()
    taken_second: set[int] = set()
    pairs = []
    for _, i, j in sorted(candidates):
        if i not in taken_first and j not in taken_second:
            pairs.append((i, j))
            taken_first.add(i)
            taken_second.add(j)
    return sorted(pairs)


def _read_files(path: Path) -> list[tuple[float, Path]]:
    """Times and files of rgb.txt or depth.txt."""
    rows = []
    for number, line in _lines(path):
        words = line.split(maxsplit=1)
        if len(words) != 2 or not is_number(words[0]):
            raise FormatError(f"{path}: line {number} is not a time and a file: {line[:80]!r}. Correct or delete it.")
        rows.append((float(words[0]), path.parent / words[1].strip()))
    return rows


def _read_trajectory(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """(T,) times, (T, 4, 4) camera to world, and how many rows were not finite."""
    rows = []
    for number, line in _lines(path):
        words = line.split()
        if len(words) != 8 or not all(map(is_number, words)):
            raise FormatError(f"{path}: line {number} is not time tx ty tz qx qy qz qw: {line[:80]!r}. Correct or delete it.")
        rows.append((number, *map(float, words)))
    table = np.array(rows, np.float64).reshape(-1, 9)
    finite = np.isfinite(table).all(1)
    table = table[finite]
    length = np.linalg.norm(table[:, 5:], axis=1)
    wrong = np.abs(length - 1) > UNIT_TOLERANCE
    if wrong.any():
        row = int(wrong.argmax())
        raise FormatError(
            f"{path}: line {int(table[row, 0])}: its quaternion has length {length[row]:.3f}, not 1. Export it again."
        )
    x, y, z, w = (table[:, 5:] / length[:, None]).T
    matrices = np.zeros((len(table), 4, 4))
    matrices[:, 0, :3] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], axis=1)
    matrices[:, 1, :3] = np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], axis=1)
    matrices[:, 2, :3] = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], axis=1)
    matrices[:, :3, 3] = table[:, 2:5]
    matrices[:, 3, 3] = 1
    return table[:, 1], matrices, int((~finite).sum())


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines that are neither empty nor comments."""
    with open_to_read(path) as handle:
        text = handle.read().decode("utf-8", "replace")
    numbered = enumerate((line.strip() for line in text.splitlines()), 1)
    return [(number, line) for number, line in numbered if line and not line.startswith("#")]


def _counted(frames: dict[str, int]) -> list[str]:
    return [f"{count} frames {why}" for why, count in frames.items() if count]
