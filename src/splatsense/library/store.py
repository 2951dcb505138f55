"""`Store`: what a library knows, in one SQLite file that is the truth for everything else in its folder.

Design
- An asset is a content: one row for each sha256. A file is a place where that content was seen; a copy, a renamed
  or a moved file is another place of the same asset, so it is neither indexed twice nor given a new id.
- A content that could not be read is kept too, with the reason, so that it is not tried again until it changes.
- Embeddings are float32 blobs, one for each asset and model. Triggers draw a new random revision for a model with
  every change, which is how a vectors file (`splatsense.library.index`) knows that it is stale.
- One short transaction for each call: a process can be killed at any moment, and several can write at once. The
  connection may be used from several threads; calls take turns.
- Paths are stored as the bytes the file system gave, so every file name survives.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splatsense.errors import LibraryError
from splatsense.library.database import open_database, translated_errors
from splatsense.library.names import asset_name

ASSET_COLUMNS = "a.id, f.path, f.name, a.sha256, a.gaussians, a.bounds, a.added, f.size, a.error"
FIRST_FILE = "assets a JOIN files f ON f.id = (SELECT min(id) FROM files WHERE asset_id = a.id)"


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


@dataclass(frozen=True)
class SeenFile:
    """A file as it was found on disk; `sha256` is empty until somebody had to read it."""

    path: Path
    size: int
    mtime_ns: int
    sha256: str = ""


@dataclass(frozen=True)
class Known:
    """What the store knows about a content: its asset, whether the model has embedded it, and why it failed, if it did."""

    asset_id: int
    embedded: bool
    error: str | None


@dataclass(frozen=True)
class Indexed:
    """An asset ready to be stored: its file, its embedding (dim,) and two facts about its Gaussians."""

    file: SeenFile
    vector: np.ndarray
    gaussians: int
    bounds: np.ndarray


class Store:
    """The SQLite file of the library in `folder`.

    Args:
        folder: the library's folder.
        create: make the folder and the file if there are none.

    Raises:
        LibraryError: the folder is not a library, is damaged, locked, not writable, or of a newer version.
    """

    def __init__(self, folder: Path, create: bool = True) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._db = open_database(folder, create)

    def close(self) -> None:
        """Close the file. The store cannot be used afterwards."""
        with self._lock:
            self._db.close()

    def known_file(self, file: SeenFile, model: str) -> Known | None:
        """What is known about a path whose size and time of change are as they were, else None."""
        return self._known("f.path = CAST(? AS TEXT) AND f.size = ? AND f.mtime_ns = ?",
                           (model, os.fsencode(file.path), file.size, file.mtime_ns))  # fmt: skip

    def known_content(self, sha256: str, model: str) -> Known | None:
        """What is known about a content, wherever it was seen, else None."""
        return self._known("a.sha256 = ?", (model, sha256))

    def note_file(self, file: SeenFile, asset_id: int) -> None:
        """Record a place of a known asset; places of it that no longer exist are forgotten."""
        with self._transaction():
            self._put_file(file, asset_id)

    def put_indexed(self, batch: Sequence[Indexed], model: str) -> None:
        """Store a batch of embedded assets in one transaction; a content stored meanwhile by another process is updated."""
        with self._transaction() as db:
            for item in batch:
                bounds = np.ascontiguousarray(item.bounds, np.float32).tobytes()
                asset_id = db.execute(
                    "INSERT INTO assets (sha256, status, gaussians, bounds, added) VALUES (?, 'ok', ?, ?, ?) "
                    "ON CONFLICT (sha256) DO UPDATE SET status = 'ok', error = NULL, gaussians = excluded.gaussians, "
                    "bounds = excluded.bounds RETURNING id",
                    (item.file.sha256, item.gaussians, bounds, time.time()),
                ).fetchone()[0]
                vector = np.ascontiguousarray(item.vector, np.float32).tobytes()
                db.execute("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", (model, asset_id, vector))
                self._put_file(item.file, asset_id)

    def put_failed(self, file: SeenFile, error: str) -> None:
        """Store that a content cannot be read, and why. What another model could embed stays as it is."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO assets (sha256, status, error, added) VALUES (?, 'failed', ?, ?) "
                "ON CONFLICT (sha256) DO UPDATE SET error = excluded.error WHERE status = 'failed'",
                (file.sha256, error, time.time()),
            )
            self._put_file(file, db.execute("SELECT id FROM assets WHERE sha256 = ?", (file.sha256,)).fetchone()[0])

    def remove(self, asset_id: int) -> None:
        """Forget an asset, its files and its embeddings."""
        with self._transaction() as db:
            db.execute("DELETE FROM assets WHERE id = ?", (asset_id,))

    def drop_unseen(self) -> None:
        """Forget contents that no file has any more, because the files were overwritten."""
        with self._transaction() as db:
            db.execute("DELETE FROM assets WHERE NOT EXISTS (SELECT 1 FROM files WHERE asset_id = assets.id)")

    def assets(self, ids: Sequence[int]) -> list[Asset]:
        """The assets of these ids, in this order. Raises LibraryError for an id that is not in the library."""
        found: dict[int, Asset] = {}
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            rows = self._query(f"SELECT {ASSET_COLUMNS} FROM {FIRST_FILE} WHERE a.id IN ({','.join('?' * len(part))})", part)
            found |= {row[0]: _asset(row) for row in rows}
        missing = [asset_id for asset_id in ids if asset_id not in found]
        if missing:
            raise LibraryError(f"{self.folder}: no asset has the id {missing[0]}; `assets()` lists them.")
        return [found[asset_id] for asset_id in ids]

    def all_assets(self, status: str = "ok") -> list[Asset]:
        """Every asset of a status ("ok" or "failed"), in the order of their ids."""
        rows = self._query(f"SELECT {ASSET_COLUMNS} FROM {FIRST_FILE} WHERE a.status = ? ORDER BY a.id", (status,))
        return [_asset(row) for row in rows]

    def count(self) -> int:
        """How many assets could be read."""
        return self._query("SELECT count(*) FROM assets WHERE status = 'ok'")[0][0]

    def paths(self) -> list[Path]:
        """Every file ever seen and not forgotten, failed ones too."""
        return [Path(row[0]) for row in self._query("SELECT path FROM files ORDER BY id")]

    def moved_path(self, asset: Asset) -> Path | None:
        """A file of the asset that exists now: as recorded, or in the same place seen from the library's folder."""
        rows = self._query("SELECT path, relative_path FROM files WHERE asset_id = ? ORDER BY id", (asset.id,))
        candidates = [Path(row[0]) for row in rows] + [self.folder / row[1] for row in rows]
        return next((path for path in candidates if path.is_file()), None)

    def revision(self, model: str) -> bytes | None:
        """Random bytes that change whenever an embedding of the model does; None when there never was one."""
        rows = self._query("SELECT revision FROM revisions WHERE model = ?", (model,))
        return rows[0][0] if rows else None

    def embedding(self, asset_id: int, model: str) -> np.ndarray | None:
        """(dim,) float32 embedding of an asset by a model, or None."""
        rows = self._query("SELECT vector FROM embeddings WHERE model = ? AND asset_id = ?", (model, asset_id))
        return np.frombuffer(rows[0][0], np.float32) if rows else None

    def embeddings(self, model: str) -> tuple[bytes | None, list[int], list[bytes]]:
        """The revision, the ids in ascending order and the raw vectors of a model, from one snapshot."""
        with self._transaction("BEGIN"):
            revision = self.revision(model)
            rows = self._query("SELECT asset_id, vector FROM embeddings WHERE model = ? ORDER BY asset_id", (model,))
        return revision, [row[0] for row in rows], [row[1] for row in rows]

    def _known(self, condition: str, values: tuple) -> Known | None:
        rows = self._query(
            "SELECT a.id, e.model IS NOT NULL, a.error FROM assets a LEFT JOIN files f ON f.asset_id = a.id "
            f"LEFT JOIN embeddings e ON e.asset_id = a.id AND e.model = ? WHERE {condition} LIMIT 1", values
        )  # fmt: skip
        return Known(rows[0][0], bool(rows[0][1]), rows[0][2]) if rows else None

    def _put_file(self, file: SeenFile, asset_id: int) -> None:
        path = os.fsencode(file.path)
        relative = os.fsencode(os.path.relpath(file.path, self.folder))
        name = asset_name(file.path).encode("utf-8", "replace").decode()
        for row in self._query("SELECT id, path FROM files WHERE asset_id = ?", (asset_id,)):
            if not os.path.lexists(row[1]):
                self._db.execute("DELETE FROM files WHERE id = ?", (row[0],))
        self._db.execute(
            "INSERT INTO files (asset_id, path, relative_path, name, size, mtime_ns) "
            "VALUES (?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?) ON CONFLICT (path) DO UPDATE SET "
            "asset_id = excluded.asset_id, relative_path = excluded.relative_path, name = excluded.name, "
            "size = excluded.size, mtime_ns = excluded.mtime_ns",
            (asset_id, path, relative, name, file.size, file.mtime_ns),
        )

    def _query(self, statement: str, values: Sequence = ()) -> list[tuple]:
        with self._lock, translated_errors(self.folder):
            return self._db.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with self._lock, translated_errors(self.folder):
            self._db.execute(begin)
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def _asset(row: tuple) -> Asset:
    asset_id, path, name, sha256, gaussians, bounds, added, size, error = row
    corners = None
    if bounds is not None:
        low, high = np.frombuffer(bounds, np.float32).reshape(2, 3).tolist()
        corners = (tuple(low), tuple(high))
    return Asset(asset_id, Path(path), name, sha256, gaussians, corners, added, size, error)
