"""Small undamaged assets of every format: what our writers write, what is built here by hand, and what a folder holds.

A format that `splatsense.io` learns to write is picked up from `WRITERS`. One that it only reads needs a maker in
`packed_seeds` or `point_seeds`, or a file in the folder given as `--corpus`; `tools/fuzz.py` says which have neither.
"""

import io
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image
from torch.nn.functional import normalize

from fuzzing.case import Case, Files
from fuzzing.packed_seeds import packed_files
from fuzzing.point_seeds import point_files
from splatsense.errors import SplatSenseError
from splatsense.gaussians import Gaussians
from splatsense.io import WRITERS, _sniffing, save

DC = [f"f_dc_{index}" for index in range(3)]
SCALE = [f"scale_{index}" for index in range(3)]
ROTATION = [f"rot_{index}" for index in range(4)]


def make_seeds(corpus: Path | None = None) -> list[Case]:
    """All seeds; those of formats that this build does not read are left out."""
    found = [*_written_files(), *_ply_files(), *_mesh_files(), *point_files()]
    found += packed_files(*(_written(suffix, 5, 2) for suffix in (".ply", ".sog", ".npz")))
    found += [(path.name, {path.name: path.read_bytes()}) for path in (sorted(corpus.iterdir()) if corpus else ())]
    return [Case(kind, main, files) for main, files in found if (kind := _kind(Case("", main, files)))]


def _kind(case: Case) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            kind = _sniffing.sniff(case.write(Path(folder)))
        except SplatSenseError:
            return None
    return "compressed.ply" if case.main.endswith("compressed.ply") else kind


def _gaussians(count: int, degree: int) -> Gaussians:
    random = torch.Generator().manual_seed(count)
    return Gaussians(
        torch.randn(count, 3, generator=random),
        normalize(torch.randn(count, 4, generator=random), dim=1),
        torch.rand(count, 3, generator=random) * 0.1 + 1e-4,
        torch.rand(count, generator=random),
        torch.randn(count, (degree + 1) ** 2, 3, generator=random),
    )


def _written(suffix: str, count: int, degree: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(_gaussians(count, degree), Path(folder) / f"a{suffix}")
        return (Path(folder) / f"a{suffix}").read_bytes()


def _written_files() -> Iterator[Files]:
    """One asset for each writer and SH degree, and one of some hundred Gaussians, more than a chunk of any format."""
    for suffix in WRITERS:
        for count, degree in ((7, 0), (7, 1), (7, 3), (600, 0)):
            yield f"a{suffix}", {f"a{suffix}": _written(suffix, count, degree)}


def _table(names: list[str], count: int = 5) -> dict[str, np.ndarray]:
    values = np.random.default_rng(count).normal(size=(len(names), count))
    return dict(zip(names, values, strict=True))


def _ply(columns: dict[str, np.ndarray], form: str = "binary_little_endian", kind: str = "float", faces: int = 0) -> bytes:
    count = len(next(iter(columns.values())))
    lines = ["ply", f"format {form} 1.0", "comment a seed", f"element vertex {count}"]
    lines += [f"property {kind} {name}" for name in columns]
    lines += [f"element face {faces}", "property list uchar int vertex_indices"] if faces else []
    corners = [[index % count, (index + 1) % count, (index + 2) % count] for index in range(faces)]
    rows = np.stack(list(columns.values()), 1)
    if form == "ascii":
        text = [" ".join(f"{value:.6g}" for value in row) for row in rows] + [f"3 {a} {b} {c}" for a, b, c in corners]
        return "\n".join([*lines, "end_header", *text, ""]).encode()
    order = ">" if "big" in form else "<"
    body = rows.astype(order + ("f8" if kind == "double" else "f4")).tobytes()
    body += b"".join(struct.pack(order + "B3i", 3, *face) for face in corners)
    return "\n".join([*lines, "end_header\n"]).encode() + body


def _ply_files() -> Iterator[Files]:
    splat = ["x", "y", "z", *DC, "opacity", *SCALE, *ROTATION]
    rich = ["x", "y", "z", "nx", "ny", "nz", *DC, *(f"f_rest_{index}" for index in range(9)), "opacity", *SCALE, *ROTATION]
    cloud = ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"]
    for form in ("ascii", "binary_little_endian", "binary_big_endian"):
        for kind in ("float", "double"):
            yield "a.ply", {"a.ply": _ply(_table(rich), form, kind)}
            yield "a.ply", {"a.ply": _ply(_table(cloud), form, kind)}
        yield "a.ply", {"a.ply": _ply(_table(["x", "y", "z"]), form, faces=4)}
    yield "a.ply", {"a.ply": _ply(_table([name for name in splat if name != "scale_2"]))}
    yield "a.ply", {"a.ply": _ply(_table(["x", "y", "z", "red", "green", "blue", "opacity", *SCALE, *ROTATION]))}


def _png(width: int = 2, height: int = 2) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress((b"\0" + bytes(range(3 * width))) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _mesh_files() -> Iterator[Files]:
    box = trimesh.creation.box()
    box.visual = trimesh.visual.TextureVisuals(uv=box.vertices[:, :2], image=_image())
    colored = trimesh.creation.icosphere(subdivisions=0)
    colored.visual.vertex_colors = np.arange(len(colored.vertices) * 4, dtype=np.uint8).reshape(-1, 4)
    for mesh in (box, colored):
        yield "a.stl", {"a.stl": trimesh.exchange.stl.export_stl(mesh)}
        yield "a.stl", {"a.stl": trimesh.exchange.stl.export_stl_ascii(mesh).encode()}
        scene = trimesh.Scene([mesh])
        yield "a.glb", {"a.glb": trimesh.exchange.gltf.export_glb(scene)}
        yield "a.glb", {"a.glb": trimesh.exchange.gltf.export_glb(scene, extension_draco=True)}
        parts = trimesh.exchange.gltf.export_gltf(scene)
        yield "model.gltf", dict(parts)
    obj = "mtllib a.mtl\nv 0 0 0\nv 1 0 0 0.5 0.5 0.5\nv 0 1 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nvn 0 0 1\n"
    obj += "usemtl m\nf 1/1/1 2/2/1 3/3/1\nf 2//1 3//1 4//1\nf 1 2 4 3\nf -1 -2 -3\n"
    mtl = "newmtl m\nKd 0.5 0.4 0.3\nd 0.9\nmap_Kd t.png\n"
    yield "a.obj", {"a.obj": obj.encode(), "a.mtl": mtl.encode(), "t.png": _png()}


def _image() -> Image.Image:
    return Image.open(io.BytesIO(_png()))
