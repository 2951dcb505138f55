"""What a library keeps records of: assets, files, models and embeddings, as `Store` takes and gives them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splatsense.geometry.upright import Axis

LARGEST_INTEGER = 2**63 - 1
"""What a database holds."""


@dataclass(frozen=True)
class Asset:
    """One asset of a library.

    Attributes:
        id: stays the same for as long as the content is in the library.
        path: absolute path of the file (the first one, if there are copies).
        name: the words of the file name.
        sha256: of the content, in hexadecimal.
        gaussians: how many Gaussians it has.
        bounds: smallest and largest x, y, z of their centres, in the file's own units; None for a failed one.
        added: seconds since 1970.
        size: of the file in bytes.
        error: why it could not be read, or None.
        up: the axis of its file that points up, if somebody said so; else None.
    """

    id: int
    path: Path
    name: str
    sha256: str
    gaussians: int
    bounds: tuple[tuple[float, ...], tuple[float, ...]] | None
    added: float
    size: int
    error: str | None = None
    up: Axis | None = None


@dataclass(frozen=True)
class SeenFile:
    """A file as it was found on disk; `sha256` is empty until somebody had to read it."""

    path: Path
    size: int
    mtime_ns: int
    sha256: str = ""


@dataclass(frozen=True)
class Known:
    """What the store knows about a content: its asset, whether the model has embedded it, why it failed, and what points up."""

    asset_id: int
    embedded: bool
    error: str | None
    up: Axis | None


@dataclass(frozen=True)
class Indexed:
    """An asset ready to be stored: its file, its embedding (dim,), two facts about its Gaussians, the axis said to be up."""

    file: SeenFile
    vector: np.ndarray
    gaussians: int
    bounds: np.ndarray
    up: Axis | None = None


@dataclass(frozen=True)
class ModelState:
    """One embedding model in a library.

    Attributes:
        hash: of its weights.
        name: what people call it; empty in libraries of the first version.
        dim: of its embeddings.
        count: how many assets it has embedded.
    """

    hash: str
    name: str
    dim: int
    count: int


@dataclass(frozen=True)
class Revision:
    """The state of a model's embeddings: within an epoch they only grow, and `sequence` is the last one's number."""

    epoch: bytes
    sequence: int


@dataclass(frozen=True)
class Embeddings:
    """Some embeddings of a model: ids (n,) int64 and vectors (n, dim) float32."""

    ids: np.ndarray
    vectors: np.ndarray
