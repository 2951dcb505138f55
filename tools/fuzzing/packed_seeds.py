"""Packed splats that our own writers do not write: other versions of SPZ, SPZ inside glTF, KSPLAT, SOG that is not bundled."""

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Iterator

import gaussforge
import numpy as np

from fuzzing.case import Files

SPZ_HEADER_BYTES, POSITION_BYTES, HALVES_BYTES = 16, 9, 6
FLAGS_AT, HAS_EXTENSIONS = 14, 2
AXES_RECORD = struct.pack("<3I", 0xADBE0003, 4, 6)


def packed_files(ply: bytes, sog: bytes, npz: bytes) -> Iterator[Files]:
    """Files made of those that `splatsense.io` writes of the same Gaussians.

    Args:
        ply: a splat of some SH degree up to 2.
        sog: the same, bundled.
        npz: the same.
    """
    yield "a.ksplat", {"a.ksplat": _converted(ply, "ksplat")}
    spz = {f"version {version}": _converted(ply, "spz", version) for version in (2, 4)}
    plain = bytearray(gzip.decompress(spz["version 2"]))
    spz["plain"] = bytes(plain)
    spz["version 1"] = gzip.compress(_version_1(plain), mtime=0)
    plain[FLAGS_AT] |= HAS_EXTENSIONS
    spz["axes"] = gzip.compress(bytes(plain) + AXES_RECORD, mtime=0)
    for data in spz.values():
        yield "a.spz", {"a.spz": data}
    yield "a.glb", {"a.glb": _glb_of_spz(spz["version 2"])}
    with zipfile.ZipFile(io.BytesIO(sog)) as archive:
        yield "meta.json", {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **np.load(io.BytesIO(npz)))
    yield "a.npz", {"a.npz": buffer.getvalue()}


def _converted(ply: bytes, kind: str, version: int = 3) -> bytes:
    return gaussforge.GaussForge().convert(ply, "ply", kind, spz_version=version)["data"]


def _version_1(plain: bytearray) -> bytes:
    """An SPZ payload of version 2 with its positions as float16."""
    (count,) = struct.unpack_from("<I", plain, 8)
    header = bytearray(plain[:SPZ_HEADER_BYTES])
    header[4] = 1
    return bytes(header + bytes(HALVES_BYTES * count) + plain[SPZ_HEADER_BYTES + POSITION_BYTES * count :])


def _glb_of_spz(spz: bytes) -> bytes:
    extension = {"KHR_gaussian_splatting": {"extensions": {"KHR_gaussian_splatting_compression_spz_2": {"bufferView": 0}}}}
    document = {
        "asset": {"version": "2.0"},
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"mode": 0, "attributes": {}, "extensions": extension}]}],
        "buffers": [{"byteLength": len(spz)}],
        "bufferViews": [{"buffer": 0, "byteLength": len(spz)}],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    spz += bytes(-len(spz) % 4)
    rest = struct.pack("<I4s", len(spz), b"BIN\0") + spz
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON") + text + rest
