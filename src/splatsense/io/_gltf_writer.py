"""Writing Gaussians as glTF with KHR_gaussian_splatting; what is kept and how exact, `gltf_splat` says.

One node, one mesh, one primitive of points, an accessor for each attribute, all float32; `COLOR_0` gives viewers that do not
know the extension coloured points. A `.gltf` carries its buffer as base64, so that either form is one file.
"""

import base64
import json
import logging
import os
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from splatsense.errors import LimitError
from splatsense.files import atomic_write
from splatsense.gaussians import Gaussians
from splatsense.io._gltf_container import BINARY_CHUNK, JSON_CHUNK, MAGIC
from splatsense.io._json import Json
from splatsense.io._writing import checked_to_write
from splatsense.io.gltf_splat import EXTENSION, POINTS, SH_TERMS, SRGB

log = logging.getLogger("splatsense")

LARGEST_GLB = (1 << 32) - 1
ARRAY_BUFFER = 34962
BYTE, FLOAT = 5121, 5126


def write_gltf(gaussians: Gaussians, path: str | os.PathLike[str]) -> None:
    """Write a `.glb`, or a `.gltf` with its data inside, as the extension says.

    Raises:
        DataError: there are no Gaussians, or some have values that are not finite or out of range.
        LimitError: the file would be longer than the 4 GiB that glTF allows.
        FormatError: `path` cannot be written.
    """
    gaussians = checked_to_write(gaussians, path)
    if gaussians.sh_degree > 3:
        log.warning("%s: glTF has SH degrees 0 to 3; degree 4 is left out. Write .ply to keep it.", path)
    blocks = {name: value.contiguous().numpy() for name, value in _attributes(gaussians).items()}
    length = sum(block.nbytes for block in blocks.values())
    document = _document(blocks)
    if Path(path).suffix.lower() == ".gltf":
        data = base64.b64encode(b"".join(block.tobytes() for block in blocks.values())).decode()
        document["buffers"] = [{"byteLength": length, "uri": f"data:application/octet-stream;base64,{data}"}]
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(document), encoding="utf-8")
        return
    document["buffers"] = [{"byteLength": length}]
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 28 + len(text) + length
    if total > LARGEST_GLB:
        raise LimitError(f"{path}: would have {total} bytes; .glb ends at 4 GiB. Write .ply, or split the Gaussians.")
    with atomic_write(path) as temporary, temporary.open("wb") as handle:
        handle.write(struct.pack("<4sIIII", MAGIC, 2, total, len(text), JSON_CHUNK) + text)
        handle.write(struct.pack("<II", length, BINARY_CHUNK))
        for block in blocks.values():
            handle.write(block.data)


def _attributes(g: Gaussians) -> dict[str, Tensor]:
    """Attribute names and values, each row a multiple of four bytes, as buffers must be aligned."""
    linear = torch.where(g.rgb <= 0.04045, g.rgb / 12.92, ((g.rgb + 0.055) / 1.055) ** 2.4)
    fallback = (torch.cat([linear, g.opacities[:, None]], dim=1) * 255).round()
    attributes = {
        "POSITION": g.means,
        "COLOR_0": fallback.byte(),
        f"{EXTENSION}:ROTATION": normalize(g.quats, dim=1)[:, [1, 2, 3, 0]],
        f"{EXTENSION}:SCALE": g.scales,
        f"{EXTENSION}:OPACITY": g.opacities,
    }
    return attributes | dict(zip(SH_TERMS, g.sh[:, : len(SH_TERMS)].unbind(1), strict=False))


def _document(blocks: dict[str, np.ndarray]) -> Json:
    """The JSON of a file whose buffer holds the blocks one after the other."""
    views: list[Json] = []
    accessors: list[Json] = []
    offset = 0
    for index, (name, block) in enumerate(blocks.items()):
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": block.nbytes, "target": ARRAY_BUFFER})
        kind = "SCALAR" if block.ndim == 1 else f"VEC{block.shape[1]}"
        accessor: Json = {"bufferView": index, "componentType": FLOAT, "count": len(block), "type": kind}
        if name == "COLOR_0":
            accessor |= {"componentType": BYTE, "normalized": True}
        if name == "POSITION":
            accessor |= {"min": block.min(0).tolist(), "max": block.max(0).tolist()}
        accessors.append(accessor)
        offset += block.nbytes
    extension = {"kernel": "ellipse", "colorSpace": SRGB, "projection": "perspective", "sortingMethod": "cameraDistance"}
    primitive = {
        "attributes": {name: index for index, name in enumerate(blocks)},
        "mode": POINTS,
        "extensions": {EXTENSION: extension},
    }
    return {
        "asset": {"version": "2.0", "generator": "splatsense"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "bufferViews": views,
        "accessors": accessors,
    }
