"""Furniture libraries with the real names and splits, and a box of a usual size for each model: for tests and benchmarks."""

import csv
import io
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

DEFAULT_SIZE = (30, 25, 25)
SIZES = {  # width, depth, height in centimetres
    "double_bed": (160, 208, 70), "single_bed": (100, 205, 60), "bunk_bed": (110, 205, 165), "wardrobe": (120, 60, 200),
    "nightstand": (45, 40, 48), "dresser": (120, 50, 80), "tv_stand": (135, 46, 50), "cabinet": (100, 40, 150),
    "sofa": (190, 85, 85), "corner_sofa": (235, 150, 85), "armchair": (80, 80, 85), "chair": (45, 50, 90),
    "office_chair": (63, 63, 95), "dining_table": (140, 85, 74), "small_table": (62, 62, 74), "coffee_table": (110, 55, 45),
    "desk": (140, 70, 74), "bookcase": (90, 35, 185), "shelf": (60, 35, 120), "television": (78, 20, 55),
    "lower_cabinet": (60, 60, 85), "dishwasher": (60, 60, 85),
    "sink_cabinet": (100, 60, 88), "upper_cabinet": (60, 38, 75), "stove": (60, 60, 85),
    "fridge": (60, 65, 180), "range_hood": (60, 40, 40), "toilet": (40, 65, 75), "washbasin": (56, 45, 90),
    "bathtub": (165, 72, 58), "shower": (79, 79, 205), "door": (90, 15, 205), "window": (100, 25, 120),
    "french_window": (110, 25, 205), "plant": (55, 55, 85), "floor_lamp": (33, 33, 170), "pendant_lamp": (40, 40, 50),
    "ceiling_lamp": (30, 30, 6), "table_lamp": (28, 28, 45), "computer": (35, 30, 25), "cup": (9, 9, 10),
    "piano": (140, 50, 110),
    "picture": (50, 3, 35), "radiator": (65, 12, 60), "rug": (150, 200, 2), "bath_mat": (60, 40, 2), "curtain": (130, 6, 220),
    "blind": (80, 5, 120), "shower_curtain": (90, 8, 180), "wall_lamp": (20, 12, 26), "wall_clock": (27, 18, 40),
}  # fmt: skip
ELEVATIONS = {"window": 88, "upper_cabinet": 145, "pendant_lamp": 170}
LIBRARIES = {  # name of the archive -> name of the library in ids
    "Scopia": "Scopia", "BlendSwap-CC-BY": "Blend Swap CC-BY", "BlendSwap-CC-0": "Blend Swap CC-0",
    "KatorLegaz": "Kator Legaz", "SH3D-default": "eTeks",
}  # fmt: skip
QUADS = ("1 2 3 4", "5 6 7 8", "1 2 6 5", "2 3 7 6", "3 4 8 7", "4 1 5 8")
CUBE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0 1\nv 1 0 1\nv 1 1 1\nv 0 1 1\n" + "".join(f"f {q}\n" for q in QUADS)


def _catalogue(rows: list[dict[str, str]]) -> str:
    lines = []
    for number, row in enumerate(rows, 1):
        lines += [f"{name}#{number}={value}" for name, value in row.items()]
    return "\n".join(lines)


def _entry(identifier: str, role: str) -> dict[str, str]:
    width, depth, height = SIZES.get(role, DEFAULT_SIZE)
    return {
        "id": identifier, "name": role.replace("_", " "), "tags": "", "category": "Rooms", "icon": "/box.png",
        "model": f"/{role}.obj", "width": str(width), "depth": str(depth),
        "height": str(height), "elevation": str(ELEVATIONS.get(role, 0)),
        "creator": "nobody",
    }  # fmt: skip


def write_libraries(folder: Path, model: Callable[[str], str] = lambda role: CUBE) -> None:
    """Four .sh3f libraries and a sweethome3d.jar that has textures, too.

    Args:
        folder: where they go.
        model: makes the OBJ file of a role that pieces play in rooms; it is stretched to the size in the catalogue.
    """
    text = resources.files("splatsense.corpora.rooms").joinpath("pieces.csv").read_text("utf-8")
    pieces: dict[str, list[tuple[str, str]]] = {library: [] for library in LIBRARIES}
    for row in csv.DictReader(text.splitlines()):
        library, name = row["key"].split("_", 1)
        pieces[library].append((f"{LIBRARIES[library]}#{name}", row["role"]))
    for library, rows in pieces.items():
        is_default = library == "SH3D-default"
        inside = "com/eteks/sweethome3d/io/" if is_default else ""
        path = folder / ("sweethome3d.jar" if is_default else f"{library}.sh3f")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            name = "DefaultFurnitureCatalog" if is_default else "PluginFurnitureCatalog"
            archive.writestr(f"{inside}{name}.properties", _catalogue([_entry(*row) for row in rows]))
            for role in sorted({role for _, role in rows}):
                archive.writestr(f"{role}.obj", model(role))
            archive.writestr("box.png", b"")
            if is_default:
                _add_textures(archive, inside)


def _add_textures(archive: zipfile.ZipFile, inside: str) -> None:
    rows = []
    photographs = [("Wooden floor", "Floor"), ("Tiles", "Floor"), ("Stone", "Wall"), ("Bricks", "Wall")]
    for number, (name, use) in enumerate(photographs):
        image = np.random.default_rng(number).integers(60, 200, (16, 16, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "png")
        archive.writestr(f"texture{number}.png", stream.getvalue())
        rows.append({"id": f"t#{number}", "name": name, "category": use, "image": f"/texture{number}.png", "width": "40",
                     "height": "30"})  # fmt: skip
    archive.writestr(f"{inside}DefaultTexturesCatalog.properties", _catalogue(rows))
