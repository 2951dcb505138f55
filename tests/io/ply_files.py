"""PLY files written value by value with the struct module, so that the reader is not tested against our own writer."""

import struct
from pathlib import Path

import numpy as np

SPLAT_NAMES = [
    "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2",
    "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
]  # fmt: skip
CODES = {"float": "f", "float32": "f", "double": "d", "uchar": "B", "ushort": "H", "int": "i"}


def with_rest(bands: int) -> list[str]:
    """Property names of a splat with `bands` higher SH coefficients per channel, in the order of the 3DGS code base."""
    return SPLAT_NAMES[:9] + [f"f_rest_{index}" for index in range(3 * bands)] + SPLAT_NAMES[9:]


def random_rows(names: list[str], count: int, seed: int = 0) -> list[dict[str, float]]:
    """Rows of float32 values by property name."""
    values = np.random.default_rng(seed).normal(size=(count, len(names))).astype(np.float32)
    return [dict(zip(names, map(float, row), strict=True)) for row in values]


def write(
    path: Path,
    rows: list[dict[str, float]],
    kinds: dict[str, str],
    form: str = "binary_little_endian",
    line_end: str = "\n",
    comments: tuple[str, ...] = (),
    before: tuple[str, bytes] = ("", b""),
    after: tuple[str, bytes] = ("", b""),
) -> Path:
    """Write `rows` with the properties and types of `kinds`; `before` and `after` are the header and bytes of other elements."""
    lines = ["ply", f"format {form} 1.0", *comments, *before[0].splitlines(), f"element vertex {len(rows)}"]
    lines += [f"property {kind} {name}" for name, kind in kinds.items()]
    lines += [*after[0].splitlines(), "end_header"]
    header = "".join(line + line_end for line in lines).encode()
    if form == "ascii":
        body = "".join(" ".join(repr(row[name]) for name in kinds) + line_end for row in rows).encode()
    else:
        order = ">" if "big" in form else "<"
        layout = struct.Struct(order + "".join(CODES[kind] for kind in kinds.values()))
        body = b"".join(layout.pack(*(row[name] for name in kinds)) for row in rows)
    path.write_bytes(header + before[1] + body + after[1])
    return path
