"""Point clouds to start from: text, PCD in its three encodings, LAS, LAZ and E57."""

import io
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import laspy
import numpy as np
import pye57

from fuzzing.case import Files

COUNT = 6


def point_files() -> Iterator[Files]:
    """One small file of every kind of point cloud."""
    rows = np.random.default_rng(0).normal(size=(COUNT, 3)).astype("<f4")
    text = "".join(f"{x:.4f} {y:.4f} {z:.4f} 10 200 255\n" for x, y, z in rows)
    yield "a.xyz", {"a.xyz": text.encode()}
    yield "a.pts", {"a.pts": f"{COUNT}\n{text}".encode()}
    yield "a.csv", {"a.csv": ("//X,Y,Z,R,G,B\n" + text.replace(" ", ",")).encode()}
    for encoding, body in _pcd_bodies(rows).items():
        yield "a.pcd", {"a.pcd": _pcd_header(encoding) + body}
    yield "a.las", {"a.las": _las("1.2", 3)}
    yield "a.las", {"a.las": _las("1.4", 7)}
    yield "a.laz", {"a.laz": _las("1.2", 2, compressed=True)}
    yield "a.e57", {"a.e57": _e57(rows)}


def _pcd_header(encoding: str) -> bytes:
    lines = ["# .PCD v0.7", "VERSION 0.7", "FIELDS x y z rgb", "SIZE 4 4 4 4", "TYPE F F F U", "COUNT 1 1 1 1"]
    lines += [f"WIDTH {COUNT}", "HEIGHT 1", "VIEWPOINT 0 0 0 1 0 0 0", f"POINTS {COUNT}", f"DATA {encoding}\n"]
    return "\n".join(lines).encode()


def _pcd_bodies(rows: np.ndarray) -> dict[str, bytes]:
    colors = np.arange(COUNT, dtype="<u4") * 0x102030
    text = "".join(f"{x:.4f} {y:.4f} {z:.4f} {rgb}\n" for (x, y, z), rgb in zip(rows, colors, strict=True))
    records = np.hstack([rows.view("<u4"), colors[:, None]])
    columns = records.T.tobytes()
    packed = b"".join(bytes([len(run) - 1]) + run for run in (columns[at : at + 32] for at in range(0, len(columns), 32)))
    compressed = struct.pack("<2I", len(packed), len(columns)) + packed
    return {"ascii": text.encode(), "binary": records.tobytes(), "binary_compressed": compressed}


def _las(version: str, point_format: int, compressed: bool = False) -> bytes:
    header = laspy.LasHeader(version=version, point_format=point_format)
    header.scales, header.offsets = np.full(3, 0.001), np.array([500_000.0, 5_200_000.0, 300.0])
    las = laspy.LasData(header)
    las.x, las.y, las.z = header.offsets[:, None] + np.random.default_rng(1).random((3, COUNT))
    las.red = las.green = las.blue = np.arange(COUNT, dtype="u2") * 9000
    buffer = io.BytesIO()
    las.write(buffer, do_compress=compressed)
    return buffer.getvalue()


def _e57(rows: np.ndarray) -> bytes:
    fields = {f"cartesian{axis}": column.astype("f8") for axis, column in zip("XYZ", rows.T, strict=True)}
    fields |= {f"color{name}": np.arange(COUNT, dtype="u1") for name in ("Red", "Green", "Blue")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.e57"
        with pye57.E57(str(path), mode="w") as file:
            file.write_scan_raw(fields)
        return path.read_bytes()
