"""The furniture that is drawn: real where it is at hand, boxes of its sizes elsewhere. Nothing is fetched.

The boxes are in libraries of the same form, names and splits (those of the tests), with as many faces as furniture has at the
median, in patches of colours: what costs time is alike, but not what depends on shapes and colours.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from splatsense.corpora.furniture import INSTALLED

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from box_furniture import DEFAULT_SIZE, SIZES, write_libraries

PLACES = (INSTALLED, Path("cache"))  # of an installed Sweet Home 3D, and where the commands that need furniture fetch it to
BOXES = "splatsense-boxes-"
CELLS, PATCH = 16, 4  # squares along each edge of a box, and along each edge of a patch
COLORS = ("red", "white", "navy_blue", "pale_green", "amber", "charcoal", "lavendar")  # of Sweet Home 3D


@contextmanager
def furniture_libraries(given: Path | None) -> Iterator[Path]:
    """The folder of the furniture libraries; prints which it is."""
    found = given or next((place for place in PLACES if any(place.rglob("*.sh3f"))), None)
    if found:
        print(f"furniture of {found}")
        yield found
        return
    with tempfile.TemporaryDirectory(prefix=BOXES) as folder:
        write_libraries(Path(folder), fine_box)
        print(f"boxes of {12 * CELLS**2:,} faces instead of furniture, which is neither installed nor in {PLACES[1]}/")
        yield Path(folder)


def is_furniture(libraries: Path) -> bool:
    """Whether these are real ones."""
    return not libraries.name.startswith(BOXES)


def fine_box(role: str) -> str:
    """OBJ file of a box as large as furniture of that role, y up, in patches of random colours."""
    width, depth, height = SIZES.get(role, DEFAULT_SIZE)
    size = np.array([width, height, depth]) / 100
    steps = np.arange(CELLS + 1) / CELLS
    u, v = (grid.ravel() for grid in np.meshgrid(steps, steps, indexing="ij"))
    lines: list[str] = []
    random = np.random.default_rng(list(role.encode()))
    corners = [(i, j) for i in range(CELLS) for j in range(CELLS)]
    for side in range(6):
        axis, far = divmod(side, 2)
        points = np.insert(np.stack([u, v], 1), axis, far, axis=1) * size
        lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in points]
        first = 1 + side * len(points)
        colors = random.choice(COLORS, (CELLS // PATCH, CELLS // PATCH))
        for i, j in corners:
            a = first + i * (CELLS + 1) + j
            quad = (a, a + CELLS + 1, a + CELLS + 2, a + 1)
            lines.append(f"usemtl {colors[i // PATCH, j // PATCH]}")
            lines.append("f " + " ".join(map(str, quad if (axis == 1) != bool(far) else quad[::-1])))
    return "\n".join(lines) + "\n"
