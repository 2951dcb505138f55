"""Small pictures of assets, drawn by our own rasteriser and kept in the library's folder under the content's hash."""

from io import BytesIO
from pathlib import Path

from PIL import Image

from splatsense.errors import FormatError, LibraryError
from splatsense.files import atomic_write
from splatsense.gaussians import Gaussians
from splatsense.geometry.upright import Axis
from splatsense.pictures import OUTLIER_FRACTION, zoomed
from splatsense.pictures import draw as draw_picture
from splatsense.upright import orbit, room_up

FOLDER = "thumbnails"
SIZE = 256
ELEVATION, AZIMUTH = 20.0, 30.0
ABOVE = 50.0  # degrees, to look into a room over its walls
WHITE = (255, 255, 255)
QUALITY, METHOD = 90, 2  # of WebP: 0 is fastest, 6 smallest


def thumbnail_path(library: Path, sha256: str, up: Axis | None = None) -> Path:
    """Where the thumbnail of a content lies, whether or not it has been drawn; `up` if somebody said what points up."""
    return library / FOLDER / f"{sha256[:32]}{'' if up is None else f'.{up}'}.webp"


def draw(gaussians: Gaussians, size: int = SIZE, up: Axis | None = None) -> Image.Image:
    """A (size, size) picture of an asset on white, from 20 degrees above and 30 to the right of its front.

    Unless `up` says what points up, objects are taken to have y up, and rooms stand on their floor (`splatsense.upright`).
    Rooms are seen from 50 degrees above, over their walls. Light from above the camera's left shoulder shows the shape of an
    object that has one colour. Raises DataError when there are no Gaussians.
    """
    normalized = gaussians.normalized(OUTLIER_FRACTION)
    floor = room_up(gaussians)
    camera = zoomed(normalized, orbit(up or floor or "y", 1, size, ELEVATION if floor is None else ABOVE, AZIMUTH))
    return Image.fromarray(draw_picture(normalized, camera, shaded=True).over(WHITE))


def encode(gaussians: Gaussians, up: Axis | None = None) -> bytes:
    """Draw an asset and give the picture as WebP. Raises DataError when there are no Gaussians."""
    encoded = BytesIO()
    draw(gaussians, up=up).save(encoded, "WEBP", quality=QUALITY, method=METHOD)
    return encoded.getvalue()


def write_bytes(picture: bytes, path: Path) -> None:
    """Write an encoded picture; its folder is made if need be. Raises LibraryError when that cannot be done."""
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_bytes(picture)
    except (OSError, FormatError) as error:
        raise LibraryError(f"thumbnail {error}; nothing stored is lost.") from error
