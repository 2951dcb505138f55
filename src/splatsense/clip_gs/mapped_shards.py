"""The Gaussians of shards, mapped into memory instead of read: what training draws from.

Processes on one machine share the pages, which the system drops when memory is short: a corpus may be larger than memory. A
start reads it once, for its hash. See `shards` for what a shard holds.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splatsense.errors import FormatError

GAUSSIANS, INFO = "gaussians.safetensors", "json"
FIELDS = ("means", "quats", "scales", "opacities", "rgb")
HEADER_LENGTH = 8  # bytes in front of a safetensors header that say how long it is


@dataclass(frozen=True, slots=True)
class StoredGaussians:
    """The Gaussians of one object in a shard.

    Attributes:
        data: (bytes,) uint8, a safetensors file with tensors of `FIELDS` in half precision.
        count: of Gaussians.
    """

    data: Tensor
    count: int

    def columns(self) -> dict[str, Tensor]:
        """Views of the file: means (n, 3), quats (n, 4), scales (n, 3), opacities (n,) and rgb (n, 3)."""
        header, start = _header(self.data)
        found = {}
        for name in FIELDS:
            first, last = header[name]["data_offsets"]
            found[name] = self.data[start + first : start + last].view(torch.float16).view(header[name]["shape"])
        return found


def map_shard(path: Path) -> Iterator[tuple[str, StoredGaussians, dict[str, Any]]]:
    """Key, Gaussians and info of every sample, in order. Raises FormatError when the shard is damaged."""
    try:
        content = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
        stored: dict[str, StoredGaussians] = {}
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                data = content[member.offset_data : member.offset_data + member.size]
                if len(data) != member.size:
                    raise ValueError(f"{member.name} is cut short")
                if extension == GAUSSIANS:
                    stored[key] = StoredGaussians(data, _count(data))
                elif extension == INFO:
                    yield key, stored.pop(key), json.loads(bytes(data.numpy()))
    except (tarfile.TarError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise FormatError(f"{path}: damaged shard ({error}); remove it and build the triplets again.") from error
    if stored:
        raise FormatError(f"{path}: sample {next(iter(stored))!r} has no .json: cut short; build the triplets again.")


def _count(data: Tensor) -> int:
    """Number of Gaussians, once every field is seen to be there, in half precision and whole."""
    header, start = _header(data)
    for name in FIELDS:
        first, last = header[name]["data_offsets"]
        values = torch.Size(header[name]["shape"]).numel()
        if header[name]["dtype"] != "F16" or last - first != 2 * values or not 0 <= start + first <= start + last <= len(data):
            raise ValueError(f"{name} of the Gaussians is not half precision, or is cut short")
    return header["means"]["shape"][0]


def _header(data: Tensor) -> tuple[dict[str, Any], int]:
    """A safetensors header, and where the data behind it begins."""
    start = HEADER_LENGTH + int.from_bytes(bytes(data[:HEADER_LENGTH].numpy()), "little")
    return json.loads(bytes(data[HEADER_LENGTH:start].numpy())), start
