"""PLY files: Gaussian splats as the 3DGS code base writes them (Kerbl et al. 2023), and plain point clouds.

Design
- A splat file stores raw values: log scales, logit opacities, quaternions of any length, and the higher SH bands as
  `f_rest_*` with the channel varying slowest. Reading activates them, writing undoes it.
- Properties are found by name, so their order, their number type and the byte order of the file do not matter, and
  properties and elements that mean nothing here are passed over.
- 2D Gaussians (Huang et al. 2024) have two scales; they get a third along their normal, `SURFEL_THICKNESS` times the
  smaller of the two. Files with `red green blue` instead of `f_dc_*` (nerfstudio's rgb mode) have SH degree 0.
- Writing keeps everything finite: opacities of 0 and 1 become logits of -30 and 30, scales below 1e-30 become 1e-30.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from splatsense.errors import FormatError
from splatsense.files import atomic_write
from splatsense.gaussians import Gaussians
from splatsense.io._cleaning import clean_gaussians
from splatsense.io._columns import full_intensity
from splatsense.io._ply_container import Header, check_size, fill, read_header
from splatsense.io._writing import checked_to_write
from splatsense.io.point_cloud import PointCloud
from splatsense.spherical_harmonics import SH_C0

POSITION = ("x", "y", "z")
NORMAL = ("nx", "ny", "nz")
DC = ("f_dc_0", "f_dc_1", "f_dc_2")
SCALE = ("scale_0", "scale_1", "scale_2")
ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
COLOR_NAMES = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))

LOGIT_LIMIT = 30.0
SMALLEST_SCALE = 1e-30
SURFEL_THICKNESS = 1e-3
ROWS_PER_WRITE = 1 << 13


def read_ply(path: str | os.PathLike[str]) -> Gaussians:
    """Read a Gaussian splat of SH degree 0 to 4 from a binary or ASCII PLY file.

    Rows with values that are not finite or a quaternion of zeros are left out with a warning in the log.

    Raises:
        FormatError: the file is missing, cut off, damaged, or holds no Gaussians; says what it seems to be instead.
        DataError: no Gaussian in it is usable.
    """
    header = read_header(Path(path))
    color_names, axes = _splat_layout(header)
    rest = _rest_count(header) // 3  # SH terms of each channel after the first
    count = _vertex_count(header)
    means, quats, scales = np.empty((count, 3), "f4"), np.empty((count, 4), "f4"), np.empty((count, 3), "f4")
    opacities, sh = np.empty(count, "f4"), np.empty((count, 1 + rest, 3), "f4")
    color_names += tuple(f"f_rest_{channel * rest + term}" for term in range(rest) for channel in range(3))
    columns = {POSITION: means, ROTATION: quats, SCALE[:axes]: scales[:, :axes], "opacity": opacities}
    fill(header, "vertex", columns | {color_names: sh.reshape(count, -1)})
    torch.from_numpy(scales[:, :axes]).exp_()
    if axes == 2:
        scales[:, 2] = SURFEL_THICKNESS * scales[:, :2].min(1)
    if color_names[0] != DC[0]:
        rgb = sh[:, 0]
        rgb[:] = (rgb / full_intensity(_vertex_properties(header)[color_names[0]] or "", rgb) - 0.5) / SH_C0
    return clean_gaussians(
        path,
        torch.from_numpy(means),
        torch.from_numpy(quats),
        torch.from_numpy(scales),
        torch.from_numpy(opacities).sigmoid_(),
        torch.from_numpy(sh),
    )


def _splat_layout(header: Header) -> tuple[tuple[str, ...], int]:
    """The properties that give the colour, and the number of scales: 3, or 2 for 2D Gaussians."""
    properties = _vertex_properties(header)
    colors = _color_names(header) if properties.keys().isdisjoint(DC) else None
    axes = 2 if properties.keys() >= set(SCALE[:2]) and SCALE[2] not in properties else 3
    missing = [name for name in (*POSITION, *(colors or DC), "opacity", *SCALE[:axes], *ROTATION) if name not in properties]
    if missing:
        raise FormatError(f"{header.path}: not a Gaussian splat: it lacks {', '.join(missing)}. {describe(header)}")
    return colors or DC, axes


def write_ply(gaussians: Gaussians, path: str | os.PathLike[str], ascii: bool = False) -> None:
    """Write a Gaussian splat with the properties, their order and the zero normals of the 3DGS code base.

    Args:
        ascii: text instead of little-endian binary: four times the size, exact all the same.

    Raises:
        DataError: there are no Gaussians, or some have values that are not finite or out of range.
        FormatError: `path` cannot be written.
    """
    gaussians = checked_to_write(gaussians, path)
    rest = [f"f_rest_{index}" for index in range(3 * (gaussians.sh.shape[1] - 1))]
    names = [*POSITION, *NORMAL, *DC, *rest, "opacity", *SCALE, *ROTATION]
    header = [
        "ply",
        f"format {'ascii' if ascii else 'binary_little_endian'} 1.0",
        f"element vertex {len(gaussians)}",
        *(f"property float {name}" for name in names),
        "end_header\n",
    ]
    with atomic_write(path) as temporary, temporary.open("wb") as handle:
        handle.write("\n".join(header).encode("ascii"))
        for start in range(0, len(gaussians), ROWS_PER_WRITE):
            rows = _raw_rows(gaussians[start : start + ROWS_PER_WRITE])
            if ascii:
                np.savetxt(handle, rows, fmt="%.9g")
            else:
                handle.write(rows.astype("<f4", copy=False).data)


def _raw_rows(g: Gaussians) -> np.ndarray:
    """(N, 14 + 3 K) float32 rows before activation, in the order of the file."""
    logits = torch.logit(g.opacities.double()).clamp(-LOGIT_LIMIT, LOGIT_LIMIT).float()
    log_scales = g.scales.double().clamp_min(SMALLEST_SCALE).log().float()
    rest = g.sh[:, 1:].transpose(1, 2).flatten(1)
    parts = [g.means, torch.zeros_like(g.means), g.sh[:, 0], rest, logits[:, None], log_scales, g.quats]
    return torch.cat(parts, dim=1).numpy()


def read_point_cloud(path: str | os.PathLike[str], also: Sequence[str] = ()) -> PointCloud:
    """Read the vertices of a PLY file as points, with their colours and normals if it has them.

    Colours are `red green blue` (or `diffuse_red ...`, or `r g b`) as 8-bit or 16-bit integers, or as floats from 0 to 1
    or 0 to 255. Points that are not finite are left out with a warning in the log. Coordinates in doubles that lie far from
    the origin are moved to it, see `PointCloud.origin`.

    Args:
        path: of the file.
        also: further properties to read, into `PointCloud.columns`.

    Raises:
        FormatError: the file is missing, cut off, damaged, or has no x, y, z, or not these properties.
        DataError: no point in it is usable.
    """
    header = read_header(Path(path))
    properties = _vertex_properties(header)
    missing = [name for name in (*POSITION, *also) if name not in properties]
    if missing:
        raise FormatError(f"{path}: not a point cloud: its vertices lack {', '.join(missing)}. {describe(header)}")
    count = _vertex_count(header)
    # As the other readers of points: doubles are kept until a cloud far from the origin has been moved to it.
    points = np.empty((count, 3), "f8" if any(properties[name] == "f8" for name in POSITION) else "f4")
    columns: dict[str | tuple[str, ...], np.ndarray] = {}
    columns |= dict(zip(POSITION, points.T, strict=True))
    color_names = _color_names(header)
    colors = normals = None
    if color_names:
        colors = np.empty((count, 3), "f4")
        columns |= dict(zip(color_names, colors.T, strict=True))
    if properties.keys() >= set(NORMAL):
        normals = np.empty((count, 3), "f4")
        columns |= dict(zip(NORMAL, normals.T, strict=True))
    fill(header, "vertex", columns)
    further = {name: np.empty(count) for name in also}
    if further:
        fill(header, "vertex", {**further})  # on its own: a property may be asked for that is a colour too
    if colors is not None and color_names is not None:
        with np.errstate(invalid="ignore"):  # a signalling NaN; from_file leaves it out
            colors /= full_intensity(properties[color_names[0]] or "", colors)
    return PointCloud.from_file(path, points, colors, normals, further)


def is_splat(header: Header) -> bool:
    """Whether the vertices carry anything that only Gaussians have, complete or not."""
    return any(name.startswith(("f_dc_", "rot_", "scale_")) for name in _vertex_properties(header))


def is_mesh(header: Header) -> bool:
    """Whether the file declares faces."""
    return "face" in header.elements and header.elements["face"].count > 0


def describe(header: Header) -> str:
    """One sentence on what a PLY file seems to hold, for error messages."""
    properties = _vertex_properties(header)
    if "packed_position" in properties:
        return "It is a compressed PLY as SuperSplat writes it; use load or read_compressed_ply."
    if is_splat(header):
        return "It seems to be an incomplete Gaussian splat; export it again."
    if is_mesh(header):
        return f"It seems to be a mesh of {header.elements['face'].count} faces."
    if properties.keys() >= set(POSITION):
        return f"It seems to be a point cloud ({', '.join(properties)})."
    found = ", ".join(f"{element.name} ({', '.join(element.properties)})" for element in header.elements.values())
    return f"It declares {found or 'nothing'}."


def _vertex_properties(header: Header) -> dict[str, str | None]:
    vertex = header.elements.get("vertex")
    return vertex.properties if vertex else {}


def _vertex_count(header: Header) -> int:
    """Number of vertices, after checking that the file can hold that many: nothing larger than the file is allocated."""
    vertex = header.elements["vertex"]
    if not vertex.count:
        raise FormatError(f"{header.path}: is empty: it declares 0 vertices.")
    check_size(header, "vertex")
    return vertex.count


def _color_names(header: Header) -> tuple[str, str, str] | None:
    """The properties that hold red, green and blue, if there are any."""
    return next((names for names in COLOR_NAMES if _vertex_properties(header).keys() >= set(names)), None)


def _rest_count(header: Header) -> int:
    names = {name for name in _vertex_properties(header) if name.startswith("f_rest_")}
    missing = [name for name in (f"f_rest_{index}" for index in range(len(names))) if name not in names]
    if missing or len(names) not in (0, 9, 24, 45, 72):
        raise FormatError(
            f"{header.path}: has {len(names)} f_rest properties{f', but no {missing[0]}' if missing else ''}; "
            "spherical harmonics of degree 0 to 4 have 0, 9, 24, 45 or 72."
        )
    return len(names)
