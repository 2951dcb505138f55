"""glTF 2.0 files, text or binary, down to the numbers of an accessor; what the numbers mean is for the caller.

Design
- A buffer is the binary chunk, a base64 data URI or a file beside the glTF; a URI that leaves the folder, or is not a file,
  is an error. Only the bytes that `byteLength` names are kept.
- Every index, range and count is checked against what is there before anything is allocated; an accessor is a view of its
  buffer until it is converted to float32.
- Reading takes the size of the buffers, and four times the size of a text file with base64 in it.
"""

import base64
import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from splatsense.errors import FormatError, LimitError
from splatsense.files import open_referred, open_to_read
from splatsense.io._json import Json, integer, member, objects, parse_object

MAGIC = b"glTF"
JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942
LARGEST_JSON = 16 << 20
"""Bytes of JSON without buffers in it; a file of splats has a few thousand."""
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
DATA_URI = re.compile(r"data:[\w.+/-]*(;[\w=.+-]+)*;base64,")


@dataclass
class Document:
    """A glTF file: its JSON, and its buffers, which are read when an accessor wants them."""

    path: Path
    json: Json
    binary: memoryview | None
    size: int
    _lists: dict[str, list[Json]] = field(default_factory=dict)
    _buffers: dict[object, memoryview] = field(default_factory=dict)

    def entries(self, kind: str) -> list[Json]:
        """The list `kind` of the file ("accessors", "nodes", ...), checked once; empty if there is none."""
        if kind not in self._lists:
            self._lists[kind] = objects(self.json, kind, str(self.path))
        return self._lists[kind]

    def get(self, kind: str, index: object, referrer: str) -> tuple[Json, str]:
        """Entry `index` of the list `kind`, and what errors call it."""
        entries = self.entries(kind)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(entries):
            raise FormatError(f"{self.path}: {referrer} refers to {kind}[{index!r}] of {len(entries)}; export the file again.")
        return entries[index], f"{self.path}: {kind}[{index}]"

    def view(self, index: object, referrer: str) -> tuple[memoryview, int]:
        """The bytes of a buffer view, and its stride, 0 when its elements follow each other."""
        view, where = self.get("bufferViews", index, referrer)
        compressions = [name for name in member(view, "extensions", where) if "compression" in name]
        if compressions:
            raise FormatError(
                f"{where}: is compressed with {compressions[0]}, which this version does not read; export it plain."
            )
        buffer = self._buffer(view.get("buffer"), where)
        offset = integer(view, "byteOffset", where, 0, default=0)
        length = integer(view, "byteLength", where, 1)
        if offset + length > len(buffer):
            raise FormatError(f"{where}: ends at byte {offset + length} of a buffer of {len(buffer)}; the file is cut off.")
        stride = integer(view, "byteStride", where, 4, 252) if "byteStride" in view else 0
        return buffer[offset : offset + length], stride

    def count(self, index: object, referrer: str) -> int:
        """Number of elements of an accessor."""
        accessor, where = self.get("accessors", index, referrer)
        return integer(accessor, "count", where, 1)

    def array(self, index: object, referrer: str, kind: str) -> tuple[np.ndarray, str]:
        """The elements of an accessor, a view of its buffer, and the type of its components, such as "u1 normalized".

        Args:
            kind: "SCALAR", "VEC3" or "VEC4".
        """
        accessor, where = self.get("accessors", index, referrer)
        code = integer(accessor, "componentType", where, 0)
        if accessor.get("type") != kind or code not in COMPONENTS:
            found = f"{accessor.get('type')!s:.40} of component type {code}"
            raise FormatError(f"{where}: {referrer} is {found}, not {kind}; export the file again.")
        if "sparse" in accessor or "bufferView" not in accessor:
            how = "sparse" if "sparse" in accessor else "without a buffer view"
            raise FormatError(f"{where}: {referrer} is {how}, which Gaussians cannot be; export the file again.")
        dtype, width = np.dtype(COMPONENTS[code]), WIDTHS[kind]
        data, stride = self.view(accessor["bufferView"], where)
        stride = stride or dtype.itemsize * width
        offset = integer(accessor, "byteOffset", where, 0, default=0)
        count = integer(accessor, "count", where, 1)
        end = offset + stride * (count - 1) + dtype.itemsize * width
        if end > len(data) or stride < dtype.itemsize * width:
            raise FormatError(
                f"{where}: its {count} elements end at byte {end} of a buffer view of {len(data)}; the file is damaged."
            )
        array = np.ndarray((count, width), dtype, data, offset, (stride, dtype.itemsize))
        return array, dtype.str[1:] + (" normalized" if accessor.get("normalized") is True else "")

    def _buffer(self, index: object, referrer: str) -> memoryview:
        buffer, where = self.get("buffers", index, referrer)
        if index not in self._buffers:
            length = integer(buffer, "byteLength", where, 1)
            data = self._load(buffer.get("uri"), index == 0, length, where)
            if len(data) < length:
                raise FormatError(f"{where}: has {len(data)} of {length} bytes; the file is cut off. Copy or export it again.")
            self._buffers[index] = data[:length]
        return self._buffers[index]

    def _load(self, uri: object, is_first: bool, length: int, where: str) -> memoryview:
        if uri is None and is_first and self.binary is not None:
            return self.binary
        if not isinstance(uri, str):
            raise FormatError(f"{where}: has no uri and there is no binary chunk for it; export the file again.")
        if uri.startswith("data:"):
            start = DATA_URI.match(uri)
            try:
                return memoryview(base64.b64decode(uri[start.end() :] if start else "?", validate=True))
            except ValueError as error:
                raise FormatError(f"{where}: its data URI is not base64 ({error}); export the file again.") from error
        path = self._beside(uri, where)
        with open_referred(path, where) as handle:
            if path.stat().st_size < length:
                raise FormatError(f"{path}: has {path.stat().st_size} bytes, but {where} wants {length}; copy it again.")
            return memoryview(handle.read(length))

    def _beside(self, uri: str, where: str) -> Path:
        """The file that a relative URI means, which must lie in the folder of the glTF or below."""
        name = unquote(uri).replace("\\", "/")
        folder = os.path.realpath(self.path.parent)
        if re.match(r"/|[A-Za-z][\w+.-]*:", name) or ".." in name.split("/") or "\0" in name:
            raise FormatError(f"{where}: its uri {uri[:80]!r} is not a file beside the glTF; put it there and name it plainly.")
        path = self.path.parent / name
        if not Path(os.path.realpath(path)).is_relative_to(folder):
            raise FormatError(f"{where}: its uri {uri[:80]!r} leads out of {folder}; copy the file there.")
        return path


def read_document(path: Path) -> Document:
    """Parse the JSON of a `.glb` or `.gltf` file, whichever it is by content.

    Raises:
        FormatError: it is missing, cut off, damaged, or not glTF 2.
        LimitError: its JSON is larger than a file of splats has.
    """
    with open_to_read(path) as handle:
        data = memoryview(handle.read())
    if bytes(data[:4]) != MAGIC:
        document = Document(path, parse_object(bytes(data), str(path)), None, len(data))
    else:
        json_data, binary = _chunks(path, data)
        document = Document(path, parse_object(json_data, f"{path}: JSON chunk"), binary, len(data))
    asset = document.json.get("asset")
    if not isinstance(asset, dict) or not str(asset.get("version", "")).startswith("2."):
        raise FormatError(f"{path}: is not glTF 2: its asset is {str(asset)[:60]}; export it as glTF 2.0.")
    return document


def _chunks(path: Path, data: memoryview) -> tuple[bytes, memoryview | None]:
    """The JSON and the binary chunk of a GLB file."""
    if len(data) < 20:
        raise FormatError(
            f"{path}: cut off: {len(data)} bytes are less than the header of a .glb file. Copy or export it again."
        )
    version, length, json_length, kind = struct.unpack_from("<IIII", data, 4)
    if version != 2:
        raise FormatError(f"{path}: is version {version} of .glb; export it as glTF 2.0.")
    if length > len(data) or 20 + json_length > length or kind != JSON_CHUNK:
        raise FormatError(
            f"{path}: cut off or damaged: the header promises {length} bytes, {json_length} of them JSON, "
            f"but the file has {len(data)}. Copy or export it again."
        )
    if json_length > LARGEST_JSON:
        raise LimitError(f"{path}: its JSON takes {json_length} bytes; a file of splats has less than {LARGEST_JSON}.")
    position = 20 + json_length
    while position + 8 <= length:
        chunk_length, kind = struct.unpack_from("<II", data, position)
        if position + 8 + chunk_length > length:
            raise FormatError(f"{path}: the chunk at byte {position} claims {chunk_length} bytes; the file is cut off.")
        if kind == BINARY_CHUNK:
            return bytes(data[20 : 20 + json_length]), data[position + 8 : position + 8 + chunk_length]
        position += 8 + chunk_length
    return bytes(data[20 : 20 + json_length]), None
