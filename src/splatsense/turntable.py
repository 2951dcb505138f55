"""`splatsense render`: pictures from around an asset or from given cameras, their depth and alpha, and a turntable animation.

Design
- Each asset gets a folder: `color_000.png`, `depth_000.png`, `alpha_000.png` and so on, `turntable.webp`, and
  `transforms.json`, which holds the cameras in the units of the asset's own file: nerfstudio and `load_cameras` read it.
- Given cameras (`--cameras`) are in the units and axes of the asset's file, as those are that it was trained from.
- `transforms.json` is written last and notes the settings and the file's size and time of change: an asset whose note fits is
  skipped, and an interrupted run goes on where it was.
- `view_files` says what each file holds.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from PIL import Image, ImageColor

from splatsense.batch import BatchReport, Input, run_batch
from splatsense.cameras import Cameras
from splatsense.errors import DataError
from splatsense.files import atomic_write
from splatsense.gaussians import Gaussians
from splatsense.geometry.upright import Axis
from splatsense.io import load_cameras
from splatsense.pictures import OUTLIER_FRACTION, Picture, draw, zoomed
from splatsense.upright import orbit, room_up
from splatsense.view_files import note_of, prepare, write_views

MAX_SIZE = 8192
SECONDS_PER_TURN = 4.0
WITH_CAMERAS = ("background", "shaded")  # settings that mean something beside given cameras


@dataclass(frozen=True)
class OrbitSettings:
    """Which pictures to draw."""

    views: int = 8
    """How many, evenly around the asset."""
    size: int = 512
    """Width and height in pixels."""
    elevation: float = 20.0
    """Degrees above the horizon."""
    azimuth: float = 30.0
    """Degrees of the first picture to the right of the front."""
    fov: float = 35.0
    """Perspective: the field of view in degrees of a camera that sees the whole asset, before it zooms to fill the picture."""
    up: Literal["auto", "x", "y", "z", "-x", "-y", "-z"] = "auto"
    """Which axis of the file points up; auto is y, but for rooms whose floor shows another."""
    background: str = "white"
    """A colour's name or #rrggbb, or "transparent"."""
    shaded: bool = False
    """Add light from above, which shows the shape of assets of one colour."""
    turntable: Literal["none", "webp", "gif"] = "none"
    """Also write an animation of one turn."""
    frames: int = 36
    """Pictures in the animation."""

    def __post_init__(self) -> None:
        for name, low, high in (("views", 1, 10_000), ("size", 1, MAX_SIZE), ("frames", 2, 1000)):
            if not low <= getattr(self, name) <= high:
                raise DataError(f"--{name} must lie between {low} and {high:,}, got {getattr(self, name)}.")
        if not 1 <= self.fov <= 150:
            raise DataError(f"--fov must lie between 1 and 150 degrees, got {self.fov}.")
        if not -89 <= self.elevation <= 89:
            raise DataError(f"--elevation must lie between -89 and 89 degrees, got {self.elevation}.")
        if not math.isfinite(self.azimuth):
            raise DataError(f"--azimuth must be a number of degrees, got {self.azimuth}.")
        if self.rgb is None and self.turntable == "gif":
            raise DataError(
                "--background transparent does not go with --turntable gif, whose pixels are all or nothing; use webp."
            )

    @property
    def rgb(self) -> tuple[int, int, int] | None:
        """The background as 8-bit sRGB, or None for transparent."""
        if self.background == "transparent":
            return None
        try:
            color = ImageColor.getrgb(self.background)
        except ValueError as error:
            raise DataError(f"--background {self.background!r} is not a colour; give a name or #rrggbb.") from error
        if color[3:] not in ((), (255,)):
            raise DataError(f"--background {self.background!r} is partly transparent; give #rrggbb, or transparent.")
        return color[0], color[1], color[2]


class Orbit:
    """An asset and cameras around it.

    Args:
        gaussians: the asset, in its file's own units.
        settings: which pictures to draw.

    Raises:
        DataError: there are no Gaussians.
    """

    def __init__(self, gaussians: Gaussians, settings: OrbitSettings = OrbitSettings()) -> None:
        self.settings = settings
        self._center, self._scale = gaussians.frame(OUTLIER_FRACTION)
        self._normalized = gaussians.normalized(OUTLIER_FRACTION)
        self._up: Axis = room_up(gaussians) or "y" if settings.up == "auto" else settings.up

    def cameras(self, count: int) -> Cameras:
        """`count` cameras in the frame of `picture`: the object's own, its longest half-extent 1."""
        s = self.settings
        return zoomed(self._normalized, orbit(self._up, count, s.size, s.elevation, s.azimuth, s.fov))

    def in_file_units(self, cameras: Cameras) -> Cameras:
        """The same cameras for the asset as its file has it."""
        world_to_camera = cameras.world_to_camera.double()
        rotation, shift = world_to_camera[:, :3, :3], world_to_camera[:, :3, 3]
        moved = world_to_camera.clone()
        moved[:, :3, 3] = shift / self._scale - rotation @ self._center.double()
        return Cameras(moved, cameras.K, cameras.width, cameras.height)

    def picture(self, camera: Cameras) -> Picture:
        """What one of `cameras` sees, with depth in the file's units."""
        picture = draw(self._normalized, camera, self.settings.shaded)
        return Picture(picture.color, picture.alpha, picture.depth / self._scale)

    def farthest(self, cameras: Cameras) -> float:
        """In the file's units, a depth that nothing but floaters exceeds."""
        return (float(cameras.centers.norm(dim=1).max()) + math.sqrt(3)) / self._scale

    def image(self, camera: Cameras) -> Image.Image:
        """What one of `cameras` sees, over the background."""
        return Image.fromarray(self.picture(camera).over(self.settings.rgb))


def render_orbit(gaussians: Gaussians, folder: Path, settings: OrbitSettings, note: dict[str, Any] | None = None) -> None:
    """Write pictures from around an asset into a folder, which is made if need be, and `transforms.json` last.

    Args:
        note: kept in transforms.json.

    Raises:
        DataError: there are no Gaussians.
        FormatError: the folder cannot be written.
    """
    orbit = Orbit(gaussians, settings)
    cameras = orbit.cameras(settings.views)
    pictures = (orbit.picture(cameras[index : index + 1]) for index in range(settings.views))
    prepare(folder)
    if settings.turntable != "none":
        write_turntable(orbit, folder / f"turntable.{settings.turntable}")
    write_views(folder, orbit.in_file_units(cameras), pictures, settings.rgb, orbit.farthest(cameras), note or {})


def render_views(
    gaussians: Gaussians,
    folder: Path,
    cameras: Cameras,
    images: Sequence[str],
    settings: OrbitSettings = OrbitSettings(),
    note: dict[str, Any] | None = None,
) -> None:
    """Write what given cameras see into a folder, which is made if need be, and `transforms.json` last.

    Args:
        gaussians: the asset, in its file's own units.
        cameras: V cameras in those units.
        images: V names of the images that the cameras took, kept in transforms.json.
        settings: the background and the light; the rest is about orbits.
        note: kept in transforms.json.

    Raises:
        DataError: there are no Gaussians, no cameras or not as many images, or the images would be too large.
        FormatError: the folder cannot be written.
    """
    if not len(cameras) or len(images) != len(cameras):
        raise DataError(
            f"render_views: {len(cameras)} cameras and {len(images)} names of images; give one for each of at least one."
        )
    if max(cameras.width, cameras.height) > MAX_SIZE:
        raise DataError(
            f"--cameras: images of {cameras.width} x {cameras.height} pixels; at most {MAX_SIZE:,} a side are drawn."
        )
    center, scale = gaussians.frame(OUTLIER_FRACTION)
    farthest = float((cameras.centers - center).norm(dim=1).max()) + math.sqrt(3) / scale
    pictures = (draw(gaussians, cameras[index : index + 1], settings.shaded) for index in range(len(cameras)))
    prepare(folder)
    write_views(folder, cameras, pictures, settings.rgb, farthest, note or {}, [{"image": name} for name in images])


def write_turntable(orbit: Orbit, path: Path) -> None:
    """Write one turn around an asset as an animation that repeats: .webp or .gif."""
    settings = orbit.settings
    cameras = orbit.cameras(settings.frames)
    images = [orbit.image(cameras[index : index + 1]) for index in range(settings.frames)]
    milliseconds = round(1000 * SECONDS_PER_TURN / settings.frames)
    options: dict[str, Any] = {"quality": 85, "method": 4} if path.suffix == ".webp" else {"optimize": False, "disposal": 2}
    with atomic_write(path) as temporary:
        images[0].save(
            temporary, path.suffix[1:], save_all=True, append_images=images[1:], duration=milliseconds, loop=0, **options
        )


def render_command(
    paths: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...", help_behavior_hint="(required)")],
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("renders"),
    orbit: OrbitSettings = OrbitSettings(),
    cameras: Annotated[Path | None, tyro.conf.arg(metavar="FILE|DIR")] = None,
    force: bool = False,
) -> int:
    """Draw pictures from around assets or from given cameras, with depth and alpha, and a turntable animation if asked for.

    Each asset gets a folder with color_000.png, depth_000.png, alpha_000.png and so on, and transforms.json with the cameras,
    as nerfstudio reads it. Assets that are drawn already are passed over.

    Args:
        paths: Files, or folders of them.
        out: Folder for the pictures.
        orbit: Which pictures.
        cameras: Draw what these see, in the assets' units and axes: a transforms.json, or the folder of a COLMAP model.
        force: Draw again what is drawn already.
    """
    return render_files(paths, out, orbit, force, cameras).tell("drawn", out)


def render_files(
    paths: Sequence[Path], out: Path, settings: OrbitSettings, force: bool = False, cameras: Path | None = None
) -> BatchReport:
    """Draw every asset among `paths` and in the folders among them, each into a folder of `out`.

    Args:
        force: also draw those again whose pictures are there, drawn with these settings from this content.
        cameras: what `load_cameras` reads, to draw from instead of an orbit.

    Raises:
        DataError: there are no paths, or a setting of orbits stands beside `cameras`.
        FormatError: `cameras` cannot be read.
    """
    from splatsense.library.reading import load_asset

    given, drawn_with = None, asdict(settings)
    if cameras is not None:
        for each in fields(settings):
            if each.name not in WITH_CAMERAS and getattr(settings, each.name) != each.default:
                raise DataError(f"--{each.name} is about orbits and does not go with --cameras; leave one of them out.")
        given = load_cameras(cameras)
        drawn_with["cameras"] = _hash_of(*given)

    def work(item: Input) -> bool:
        status = item.path.stat()
        note = {"source": item.path.name, "bytes": status.st_size, "changed": status.st_mtime_ns, **drawn_with}
        folder = out / item.name
        if not force and note_of(folder) == note:
            return False
        if given is None:
            render_orbit(load_asset(item.path), folder, settings, note)
        else:
            render_views(load_asset(item.path), folder, *given, settings, note)
        return True

    return run_batch("drawing", paths, out, work)


def _hash_of(cameras: Cameras, images: Sequence[str]) -> str:
    numbers = torch.cat([cameras.world_to_camera.flatten(), cameras.K.flatten()]).double().numpy().tobytes()
    return hashlib.sha256(numbers + repr((cameras.width, cameras.height, list(images))).encode()).hexdigest()
