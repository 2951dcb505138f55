"""What the tests of several formats share: random Gaussians, and PLY files written value by value with the struct module,
so that the reader is not tested against our own writer."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from splatsense.errors import SplatSenseError
from splatsense.gaussians import Gaussians
from splatsense.io import load

CODES = {"float": "f", "float32": "f", "double": "d", "uchar": "B", "ushort": "H", "int": "i"}


def _make_gaussians(count: int, degree: int = 0, seed: int = 0) -> Gaussians:
    random = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=random),
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=random), dim=1),
        scales=torch.rand(count, 3, generator=random) * 0.1 + 1e-4,
        opacities=torch.rand(count, generator=random),
        sh=torch.randn(count, (degree + 1) ** 2, 3, generator=random),
    )


def _splat_rows(count: int = 5, degree: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [f"f_rest_{index}" for index in range(3 * ((degree + 1) ** 2 - 1))]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    values = np.random.default_rng(seed).normal(size=(len(names), count)).astype(np.float32)
    return dict(zip(names, values, strict=True))


def _write_ply_by_hand(
    path: Path,
    columns: dict[str, np.ndarray],
    kind: str | dict[str, str] = "float",
    form: str = "binary_little_endian",
    line_end: str = "\n",
    comments: tuple[str, ...] = (),
    before: tuple[str, bytes] = ("", b""),
    after: tuple[str, bytes] = ("", b""),
) -> Path:
    """Write `columns` as vertices; `before` and `after` are the header lines and the bytes of other elements."""
    kinds = {name: kind if isinstance(kind, str) else kind.get(name, "float") for name in columns}
    rows = list(zip(*(column.tolist() for column in columns.values()), strict=True))
    lines = ["ply", f"format {form} 1.0", *comments, *before[0].splitlines(), f"element vertex {len(rows)}"]
    lines += [f"property {kinds[name]} {name}" for name in columns]
    lines += [*after[0].splitlines(), "end_header"]
    if form == "ascii":
        body = "".join(" ".join(map(repr, row)) + line_end for row in rows).encode()
    else:
        layout = struct.Struct((">" if "big" in form else "<") + "".join(CODES[kind] for kind in kinds.values()))
        body = b"".join(layout.pack(*row) for row in rows)
    path.write_bytes("".join(line + line_end for line in lines).encode() + before[1] + body + after[1])
    return path


@pytest.fixture(scope="session")
def make_gaussians():
    return _make_gaussians


@pytest.fixture(scope="session")
def splat_rows():
    return _splat_rows


@pytest.fixture(scope="session")
def write_ply_by_hand():
    return _write_ply_by_hand


def _loads_or_says_why(path: Path) -> None:
    """Loading a damaged file either works or raises one of our own errors that names it; anything else fails the test."""
    try:
        gaussians = load(path)
    except SplatSenseError as error:
        if str(path) not in str(error):
            raise
    else:
        assert torch.isfinite(gaussians.means).all()


@pytest.fixture(scope="session")
def loads_or_says_why():
    return _loads_or_says_why
