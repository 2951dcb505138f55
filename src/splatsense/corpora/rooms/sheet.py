"""Contact sheets of rooms: what a person looks at to judge them. Drawn from the files of a room alone.

A sheet shows the plan (fused points from above without the ceiling, boxes of the furniture with a line at their front, the
camera's path), views, depth, labels in ScanNet's colours, and the fused cloud from a corner.
"""

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image, ImageDraw

from splatsense.corpora.rooms.boxes import Box
from splatsense.corpora.rooms.build import read_json
from splatsense.corpora.rooms.record import ROOM_FILE
from splatsense.errors import DataError
from splatsense.files import atomic_write
from splatsense.labels import SCANNET20
from splatsense.scenes import Scene, load_scene

TILE = (320, 240)
COLUMNS = 4
VIEWS = 6
GREY = np.array([70, 70, 70], np.uint8)  # unlabelled points
TITLE = 16
DEPTH_SHOWN = 5.0  # metres that are white
CEILING = 0.25  # metres below the ceiling that plans leave out


def sheets(
    rooms: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ROOM...", help_behavior_hint="(required)")],
    out: Annotated[Path, tyro.conf.arg(metavar="IMAGE")],
) -> int:
    """Draw a contact sheet of rooms made by `splatsense corpora rooms`: plan, views, depth, labels, fused cloud.

    Args:
        rooms: Folders of rooms, such as OUT/train/train_0000.
        out: Image file to write, such as sheet.png.
    """
    if not rooms:
        raise DataError("corpora sheet: name at least one folder of a room.")
    parts = [draw_sheet(folder) for folder in rooms]
    sheet = Image.new("RGB", (parts[0].width, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    suffix = out.suffix.lower().lstrip(".") or "png"
    with atomic_write(out) as temporary:
        sheet.save(temporary, format="jpeg" if suffix == "jpg" else suffix)
    print(out)
    return 0


def draw_sheet(folder: str | Path) -> Image.Image:
    """The contact sheet of one room: a title and three rows of four pictures.

    Raises:
        FormatError: the folder is no room of this corpus, or a file of it is damaged.
    """
    folder = Path(folder)
    described, scene = read_json(folder / ROOM_FILE), load_scene(folder)
    if scene.frames is None or scene.color is None or scene.semantic20 is None:
        raise DataError(f"{folder}: has no frames, colours or labels; make the room again.")
    views = np.linspace(0, len(scene.frames) - 1, VIEWS).round().astype(int).tolist()
    frames = [scene.frames.frame(i) for i in views]
    labels = np.where((scene.semantic20 >= 0)[:, None], SCANNET20.colors[scene.semantic20], GREY)
    photos = [Image.fromarray((color * 255).round().astype(np.uint8)) for color, _ in frames]
    depths = [Image.fromarray(np.clip(depth * (255 / DEPTH_SHOWN), 0, 255).astype(np.uint8)) for _, depth in frames]
    tiles = [
        _plan(scene, scene.color, described, path=True), *photos[:3],
        _plan(scene, labels, described, path=False), *photos[3:],
        _corner(scene, scene.color, described), _corner(scene, labels, described), depths[1], depths[4],
    ]  # fmt: skip
    width, height = TILE
    sheet = Image.new("RGB", (COLUMNS * width, TITLE + height * (len(tiles) // COLUMNS)), "white")
    ImageDraw.Draw(sheet).text((4, 2), _title(folder, described, scene), fill="black")
    for i, tile in enumerate(tiles):
        sheet.paste(tile.convert("RGB").resize(TILE), (i % COLUMNS * width, TITLE + i // COLUMNS * height))
    return sheet


def _title(folder: Path, described: dict[str, Any], scene: Scene) -> str:
    width, depth, height = described["size"]
    shape = "L-shaped" if described["notch"] else "rectangle"
    return (
        f"{folder.name} (synthetic)  {described['kind']}, {shape} {width:.1f} x {depth:.1f} x {height:.1f} m, "
        f"{len(described['placed'])} pieces, {len(scene):,} points"
    )


def _plan(scene: Scene, colors: np.ndarray, described: dict[str, Any], path: bool) -> Image.Image:
    """The points below the ceiling from straight above, with boxes and the camera's path."""
    width, depth, height = described["size"]
    scale = 0.9 * min(TILE[0] / width, TILE[1] / depth)
    left, bottom = (TILE[0] - scale * width) / 2, (TILE[1] + scale * depth) / 2
    below = scene.coord[:, 2] < height - CEILING
    xy = np.column_stack([left + scale * scene.coord[below, 0], bottom - scale * scene.coord[below, 1]])
    image = Image.fromarray(_painted(xy, -scene.coord[below, 2], colors[below], 2))
    draw = ImageDraw.Draw(image)

    def pixel(point: np.ndarray | tuple[float, float]) -> tuple[float, float]:
        return left + scale * float(point[0]), bottom - scale * float(point[1])

    for placed in described["placed"]:
        box = Box(*(placed[name] for name in ("x", "y", "width", "depth", "bottom", "top", "yaw")))
        if placed["support"] == -1:
            draw.polygon([pixel(corner) for corner in box.corners], outline=(255, 230, 0))
            draw.line([pixel((box.x, box.y)), pixel(box.at(0, -box.depth / 2))], fill=(255, 120, 0))
    if path and scene.frames is not None:
        draw.line([pixel(center[:2]) for center in scene.frames.cameras.centers.numpy()], fill=(0, 200, 255), width=2)
    return image


def _corner(scene: Scene, colors: np.ndarray, described: dict[str, Any]) -> Image.Image:
    """The points below the ceiling seen from above a corner of the room; walls on the near side are left out."""
    width, depth, height = described["size"]
    points = scene.coord
    inner = (points[:, 0] > 0.08) & (points[:, 1] > 0.08) & (points[:, 2] < height - CEILING)
    eye = np.array([-0.55 * width, -0.55 * depth, 1.5 * height + 0.35 * max(width, depth)])
    forward = np.array([width / 2, depth / 2, 0.35 * height]) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    local = (points[inner] - eye) @ np.stack([right, np.cross(forward, right), forward]).T
    distance = math.hypot(width, depth) * 1.25
    focal = 0.5 * TILE[0] * distance / (0.66 * math.hypot(width, depth))
    xy = local[:, :2] / local[:, 2:] * focal + np.array(TILE) / 2
    return Image.fromarray(_painted(xy, local[:, 2], colors[inner], 2))


def _painted(xy: np.ndarray, distance: np.ndarray, colors: np.ndarray, size: int) -> np.ndarray:
    """Squares of `size` pixels at `xy`, near ones over far ones, on white."""
    image = np.full((TILE[1], TILE[0], 3), 255, np.uint8)
    order = np.argsort(-distance, kind="stable")
    column, row = np.floor(xy[order]).astype(int).T
    for down in range(size):
        for along in range(size):
            x, y = column + along, row + down
            seen = (x >= 0) & (x < TILE[0]) & (y >= 0) & (y < TILE[1])
            image[y[seen], x[seen]] = colors[order][seen]
    return image
