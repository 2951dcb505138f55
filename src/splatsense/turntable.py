"""`splatsense render`: pictures from around an asset, their depth and alpha, and a turntable animation.

Design
- Each asset gets a folder: `color_000.png`, `depth_000.png`, `alpha_000.png` and so on, `turntable.webp`, and
  `transforms.json`, which holds the cameras in the units of the asset's own file: nerfstudio and `load_cameras` read it.
- `transforms.json` is written last and notes the settings and the file's size and time of change: an asset whose note fits is
  skipped, and an interrupted run goes on where it was.
- Depth is 16-bit; `depth_unit_scale_factor` in transforms.json times a value gives the file's units, 0 means nothing
  there, and floaters far behind the asset have the largest value.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image, ImageColor

from splatsense.batch import BatchReport, Input, run_batch
from splatsense.cameras import Cameras
from splatsense.errors import DataError, SplatSenseError
from splatsense.files import atomic_write
from splatsense.gaussians import Gaussians
from splatsense.io.transforms_json import write_transforms_json
from splatsense.pictures import OUTLIER_FRACTION, Picture, draw, zoomed

MAX_SIZE = 8192
CAMERAS = "transforms.json"
NOTE = "splatsense"  # entry of transforms.json
SECONDS_PER_TURN = 4.0
DEPTH_STEPS = 65535


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
    up: Literal["y", "z"] = "y"
    """Which axis of the file points up."""
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

    def cameras(self, count: int) -> Cameras:
        """`count` cameras in the frame of `picture`: the object's own, its longest half-extent 1."""
        s = self.settings
        return zoomed(self._normalized, Cameras.orbit(count, s.size, s.elevation, s.azimuth, s.fov, up=s.up))

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
    folder.mkdir(parents=True, exist_ok=True)
    _forget_former(folder)
    cameras = orbit.cameras(settings.views)
    step = orbit.farthest(cameras) / DEPTH_STEPS
    names, extras = [], []
    for index in range(settings.views):
        picture = orbit.picture(cameras[index : index + 1])
        depth = (picture.depth / step).round().clamp(0, DEPTH_STEPS).to(torch.int32).numpy().astype(np.uint16)
        alpha = (picture.alpha.clamp(0, 1) * 255).round().byte().numpy()
        files = {"color": picture.over(settings.rgb), "depth": depth, "alpha": alpha}
        for kind, values in files.items():
            _write_png(folder / f"{kind}_{index:03d}.png", values)
        names.append(f"color_{index:03d}.png")
        extras.append({"depth_file_path": f"depth_{index:03d}.png", "mask_path": f"alpha_{index:03d}.png"})
    if settings.turntable != "none":
        write_turntable(orbit, folder / f"turntable.{settings.turntable}")
    entries = {"depth_unit_scale_factor": step, NOTE: note or {}}
    write_transforms_json(folder / CAMERAS, orbit.in_file_units(cameras), names, extras, entries)


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
    paths: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...")],
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("renders"),
    orbit: OrbitSettings = OrbitSettings(),
    force: bool = False,
) -> int:
    """Draw pictures from around assets, with depth, alpha and cameras, and a turntable animation if asked for.

    Each asset gets a folder with color_000.png, depth_000.png, alpha_000.png and so on, and transforms.json with the cameras,
    as nerfstudio reads it. Assets that are drawn already are passed over.

    Args:
        paths: Files, or folders of them.
        out: Folder for the pictures.
        orbit: Which pictures.
        force: Draw again what is drawn already.
    """
    return render_files(paths, out, orbit, force).tell("drawn")


def render_files(paths: Sequence[Path], out: Path, settings: OrbitSettings, force: bool = False) -> BatchReport:
    """Draw every asset among `paths` and in the folders among them, each into a folder of `out`.

    Args:
        force: also draw those again whose pictures are there, drawn with these settings from this content.
    """
    from splatsense.library.ingest import load_asset

    def work(item: Input) -> bool:
        status = item.path.stat()
        note = {"source": item.path.name, "bytes": status.st_size, "changed": status.st_mtime_ns, **asdict(settings)}
        folder = out / item.name
        if not force and _former(folder).get(NOTE) == note:
            return False
        render_orbit(load_asset(item.path), folder, settings, note)
        return True

    return run_batch("drawing", paths, out, work)


def _former(folder: Path) -> dict[str, Any]:
    """What transforms.json in a folder says, or nothing."""
    try:
        content = json.loads((folder / CAMERAS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _forget_former(folder: Path) -> None:
    """Take away the pictures of a former run, all and only those that its transforms.json names."""
    former = _former(folder)
    if not former:
        return
    if NOTE not in former:
        raise SplatSenseError(f"{folder / CAMERAS}: was not written by `splatsense render`; choose another output folder.")
    for kind in ("color", "depth", "alpha"):
        for index in range(len(former.get("frames", []))):
            (folder / f"{kind}_{index:03d}.png").unlink(missing_ok=True)
    for kind in ("webp", "gif"):
        (folder / f"turntable.{kind}").unlink(missing_ok=True)
    (folder / CAMERAS).unlink()


def _write_png(path: Path, values: np.ndarray) -> None:
    with atomic_write(path) as temporary:
        Image.fromarray(values).save(temporary, "PNG")
