"""Writing SOG files; what they are and how exact, `sog` says.

Design
- Gaussians are sorted along a Z curve through their stored positions: neighbours look alike, which is what makes lossless
  images of them small. The order is returned, so that labels can follow.
- The same Gaussians give the same bytes: nothing is drawn at random and the archive carries no time.
"""

import json
import logging
import os
import zipfile

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.errors import LimitError
from splatsense.files import atomic_write
from splatsense.gaussians import Gaussians
from splatsense.geometry.serialize import serial_order
from splatsense.io._images import LONGEST_SIDE, encode_rgba
from splatsense.io._json import Json
from splatsense.io._palette import value_codebook, vector_palette
from splatsense.io._smallest_three import HALF_SQRT_2, drop_largest
from splatsense.io._writing import checked_to_write
from splatsense.io.ply import SMALLEST_SCALE
from splatsense.io.sog import BANDS, META, PALETTE, PALETTE_COLUMNS

log = logging.getLogger("splatsense")


def write_sog(gaussians: Gaussians, path: str | os.PathLike[str]) -> Tensor:
    """Write a bundled SOG file of version 2.

    Returns:
        order: (N,) int64, the permutation that the file is in: its Gaussian i is `gaussians[order[i]]`. Labels of single
        Gaussians stay aligned as `labels[order]`.

    Raises:
        DataError: there are no Gaussians, or some have values that are not finite or out of range.
        LimitError: there are more than an image can hold, some 268 million.
        FormatError: `path` cannot be written.

    Example:
        >>> order = write_sog(scene, "scene.sog")
        >>> np.save("labels.npy", labels[order])
    """
    g = checked_to_write(gaussians, path)
    if g.sh_degree > 3:
        log.warning("%s: .sog files have SH degrees 0 to 3; degree 4 is left out. Write .ply to keep it.", path)
    logged = g.means.double().abs().log1p().copysign(g.means)
    order = serial_order(logged, "z", bits=20)
    images, sections = _encode(logged[order], g[order], str(path))
    meta = {"version": 2, "asset": {"generator": "splatsense"}, "count": len(g), **sections}
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in (*images.items(), (META, json.dumps(meta).encode())):
            archive.writestr(zipfile.ZipInfo(name), data)
    return order


def _encode(logged: Tensor, g: Gaussians, where: str) -> tuple[dict[str, bytes], Json]:
    """The images by file name, and what `meta.json` says about each group of them; `logged` are the means as stored."""
    low, high = logged.amin(0), logged.amax(0)
    extent = torch.where(high > low, high - low, 1)
    steps = ((logged - low) / extent * 65535).round().numpy().astype(np.uint16)
    images = {"means_l.webp": _image(steps & 255, where=where), "means_u.webp": _image(steps >> 8, where=where)}
    sections: Json = {"means": {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]}}

    log_scales = g.scales.double().clamp_min(SMALLEST_SCALE).log().float()
    codebook, indices = value_codebook(log_scales.numpy())
    images["scales.webp"] = _image(indices, where=where)
    sections["scales"] = {"codebook": codebook.tolist(), "files": ["scales.webp"]}

    images["quats.webp"] = _image(*_pack_quats(g.quats), where=where)
    sections["quats"] = {"files": ["quats.webp"]}

    codebook, indices = value_codebook(g.sh[:, 0].numpy())
    alpha = (g.opacities * 255).round().numpy().astype(np.uint8)
    images["sh0.webp"] = _image(indices, alpha, where=where)
    sections["sh0"] = {"codebook": codebook.tolist(), "files": ["sh0.webp"]}
    terms = min(g.sh.shape[1] - 1, BANDS[-1])
    if terms:
        palette, labels = vector_palette(g.sh[:, 1 : terms + 1].flatten(1).numpy(), PALETTE)
        codebook, indices = value_codebook(palette)
        rows = -(-len(palette) // PALETTE_COLUMNS)
        pixels = np.full((rows * PALETTE_COLUMNS * terms, 4), 255, np.uint8)
        pixels[: len(palette) * terms, :3] = indices.reshape(-1, 3)
        images["shN_centroids.webp"] = encode_rgba(pixels.reshape(rows, -1, 4))
        images["shN_labels.webp"] = _image(np.stack([labels & 255, labels >> 8, 0 * labels], axis=1), where=where)
        names = ["shN_centroids.webp", "shN_labels.webp"]
        bands = BANDS.index(terms)
        sections["shN"] = {"count": len(palette), "bands": bands, "codebook": codebook.tolist(), "files": names}
    return images, sections


def _image(rgb: np.ndarray, alpha: np.ndarray | int = 255, *, where: str) -> bytes:
    """A lossless WebP with a pixel for each of the N rows, sides a multiple of four as other writers make them."""
    width = -(-int(np.ceil(len(rgb) ** 0.5)) // 4) * 4
    height = -(-len(rgb) // width // 4) * 4
    if max(width, height) > LONGEST_SIDE:
        raise LimitError(f"{where}: {len(rgb)} Gaussians do not fit a WebP image; split them or write .ply.")
    pixels = np.full((width * height, 4), 255, np.uint8)
    pixels[: len(rgb), :3] = rgb
    pixels[: len(rgb), 3] = alpha
    return encode_rgba(pixels.reshape(height, width, 4))


def _pack_quats(quats: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) bytes of the smallest components and (N,) bytes 252 to 255 that say which one is left out."""
    largest, others = drop_largest(normalize(quats.double(), dim=1).numpy())
    return ((others * HALF_SQRT_2 + 0.5) * 255).round().astype(np.uint8), (252 + largest).astype(np.uint8)
