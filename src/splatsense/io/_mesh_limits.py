"""What a mesh file declares, checked before a parser believes it: sizes that its bytes cannot hold cost memory and time.

glTF lets a few hundred bytes declare any amount: accessors without data are zeros, many accessors may share one piece of
data, and many nodes one mesh. The limits leave room for every such use that a real asset makes.
"""

import struct
from typing import Any

from splatsense.errors import FormatError, LimitError
from splatsense.io._gltf_container import JSON_CHUNK, MAGIC
from splatsense.io._json import Json, objects, parse_object

ITEM_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
ITEMS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
EXPANSION = 64
"""Accessors may declare this many times the bytes of the file and FREE_BYTES more; Draco's best ratio is below that."""
FREE_BYTES = 1 << 26
INSTANCED_FACES = 2_000_000
"""Faces that repeated use of meshes may add to those stored."""
TEXTURE_PIXELS = 1 << 26


def check_gltf(data: bytes, name: str) -> None:
    """Check the sizes that a glTF or GLB document declares.

    Raises:
        FormatError: it is cut off, or no JSON document of glTF.
        LimitError: its accessors declare far more than its bytes can hold.
    """
    document = parse_object(_gltf_text(data, name), name)
    declared = sum(map(_accessor_bytes, objects(document, "accessors", name)))
    limit = EXPANSION * len(data) + FREE_BYTES
    if declared > limit and not _has_external_buffers(objects(document, "buffers", name)):
        raise LimitError(
            f"{name}: its accessors declare {declared} bytes, which {len(data)} bytes cannot hold; export it again."
        )
    if declared > limit * EXPANSION:
        raise LimitError(f"{name}: its accessors declare {declared} bytes; export it again, or in parts.")


def _gltf_text(data: bytes, name: str) -> bytes:
    if not data.startswith(MAGIC):
        return data
    length, kind = struct.unpack_from("<II", data, 12) if len(data) >= 20 else (0, 0)
    if kind != JSON_CHUNK or 20 + length > len(data):
        raise FormatError(f"{name}: damaged: its first chunk is cut off or not JSON. Copy or export it again.")
    return data[20 : 20 + length]


def _accessor_bytes(accessor: Json) -> int:
    """Bytes that an accessor declares; 0 where it makes no sense, which the parser will say."""
    if not isinstance(accessor.get("count"), int):
        return 0
    component, shape = accessor.get("componentType"), accessor.get("type")
    size = ITEM_BYTES.get(component, 0) if isinstance(component, int) else 0
    return max(0, accessor["count"]) * size * (ITEMS.get(shape, 0) if isinstance(shape, str) else 0)


def _has_external_buffers(buffers: list[Json]) -> bool:
    uris = [buffer.get("uri") for buffer in buffers]
    return any(isinstance(uri, str) and not uri.startswith("data:") for uri in uris)


def check_faces(scene: Any, name: str) -> None:
    """Check how many faces a trimesh scene has once every use of a mesh has its own copy.

    Raises:
        LimitError: repeated use makes far more of them than are stored.
    """
    counts = {key: len(getattr(geometry, "faces", ())) for key, geometry in scene.geometry.items()}
    stored = sum(counts.values())
    drawn = sum(counts.get(scene.graph[node][1], 0) for node in scene.graph.nodes_geometry)
    if drawn > stored + INSTANCED_FACES:
        raise LimitError(f"{name}: repeats its {stored} faces until there are {drawn}; export fewer copies.")
