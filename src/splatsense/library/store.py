"""`Store`: what a library knows, in a database that is the truth for everything else in its folder.

Design
- An asset is a content: one row for each sha256. A file is a place where that content was seen; a copy, a renamed
  or a moved file is another place of the same asset, so it is neither indexed twice nor given a new id.
- A content that could not be read is kept too, with the reason, so that it is not tried again until it changes or another
  axis is said to point up.
- Which axis points up is of the content, where somebody said so. When it changes, no embedding holds any more, of no model.
- Embeddings are float32 vectors, one for each asset and model. Each gets the next number of its model's sequence, and its
  transaction holds the model's row to its end, so whoever has seen a number has seen all before it. Whatever else changes
  embeddings draws a new random epoch. So a copy (`splatsense.library.vectors`) knows what it lacks.
- One short transaction for each asset: a process can be killed at any moment, and several can write at once.
- Paths are stored as the bytes the file system gave, so every file name survives.
"""

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from splatsense.errors import LibraryError
from splatsense.geometry.upright import Axis
from splatsense.library.asset_files import is_gone
from splatsense.library.database import open_database
from splatsense.library.names import asset_name
from splatsense.library.records import LARGEST_INTEGER, Asset, Embeddings, Indexed, Known, ModelState, Revision, SeenFile

ASSET_COLUMNS = "a.id, f.path, f.name, a.sha256, a.gaussians, a.bounds, a.added, f.size, a.error, a.up"
FIRST_FILE = "assets a JOIN files f ON f.id = (SELECT min(id) FROM files WHERE asset_id = a.id)"
PART = 500  # ids in one statement
CHUNK = 10_000  # embeddings read at a time


class Store:
    """What the library in `folder` knows.

    Args:
        folder: the library's folder.
        create: make the library if there is none.
        url: of a PostgreSQL database; None for an SQLite file in the folder.

    Raises:
        LibraryError: there is no library and `create` is false, it is damaged, locked, not writable or of a newer version,
            or the server cannot be reached.
    """

    def __init__(self, folder: Path, create: bool = True, url: str | None = None) -> None:
        self.folder = folder
        self.database = open_database(folder, url, create)

    @property
    def place(self) -> str:
        """The library's folder, or its server and database."""
        return self.database.place

    def close(self) -> None:
        """Close the database. The store cannot be used afterwards."""
        self.database.close()

    def known_file(self, file: SeenFile, model: str) -> Known | None:
        """What is known about a path whose size and time of change are as they were, else None."""
        return self._known(
            "f.path = ? AND f.size = ? AND f.mtime_ns = ?", (model, os.fsencode(file.path), file.size, file.mtime_ns)
        )

    def known_content(self, sha256: str, model: str) -> Known | None:
        """What is known about a content, wherever it was seen, else None."""
        return self._known("a.sha256 = ?", (model, sha256))

    def note_file(self, file: SeenFile, asset_id: int) -> bool:
        """Record a place of an asset, and forget those that no longer exist; false when the asset itself has been forgotten."""
        with self.database.transaction():
            is_known = bool(self._query("SELECT 1 FROM assets WHERE id = ?", (asset_id,)))
            if is_known:
                self._put_file(file, asset_id)
        return is_known

    def put_indexed(self, item: Indexed, model: str, name: str = "") -> int:
        """Store an embedded asset and return its id; a content that is stored already is updated.

        Args:
            item: what to store.
            model: hash of the weights that embedded it.
            name: of that model.
        """
        bounds = np.ascontiguousarray(item.bounds, "<f4").tobytes()
        with self.database.transaction():
            asset_id, up = self._query(
                "INSERT INTO assets (sha256, status, gaussians, bounds, added, up) VALUES (?, 'ok', ?, ?, ?, ?) "
                "ON CONFLICT (sha256) DO UPDATE SET status = 'ok', error = NULL, gaussians = excluded.gaussians, "
                "bounds = excluded.bounds RETURNING id, up",
                (item.file.sha256, item.gaussians, bounds, time.time(), item.up),
            )[0]
            if up != item.up:
                self._query("UPDATE assets SET up = ? WHERE id = ?", (item.up, asset_id))
                self._begin_epochs([asset_id])
                self._query("DELETE FROM embeddings WHERE asset_id = ?", (asset_id,))
            self._put_embedding(asset_id, item.vector, model, name)
            self._put_file(item.file, asset_id)
        return asset_id

    def put_failed(self, file: SeenFile, error: str, up: Axis | None = None) -> None:
        """Store that a content, with this axis up, cannot be read, and why. What another model could embed stays as it is."""
        with self.database.transaction():
            self._query(
                "INSERT INTO assets (sha256, status, error, added, up) VALUES (?, 'failed', ?, ?, ?) ON CONFLICT (sha256) "
                "DO UPDATE SET error = excluded.error, up = excluded.up WHERE assets.status = 'failed'",
                (file.sha256, error.replace("\0", "\\x00"), time.time(), up),
            )
            self._put_file(file, self._query("SELECT id FROM assets WHERE sha256 = ?", (file.sha256,))[0][0])

    def remove(self, asset_id: int) -> None:
        """Forget an asset, its files and its embeddings."""
        with self.database.transaction():
            self._delete([asset_id])

    def forget_files(self, paths: Sequence[Path]) -> None:
        """Forget places; contents that no file has any more stay until `drop_unseen`."""
        with self.database.transaction():
            for path in paths:
                self._query("DELETE FROM files WHERE path = ?", (os.fsencode(path),))

    def drop_unseen(self) -> None:
        """Forget contents that no file has any more, because the files were overwritten."""
        unseen = "SELECT id FROM assets WHERE NOT EXISTS (SELECT 1 FROM files WHERE asset_id = assets.id)"
        if self._query(f"{unseen} LIMIT 1"):
            with self.database.transaction():
                self._delete([row[0] for row in self._query(unseen)])

    def find_assets(self, ids: Sequence[int]) -> dict[int, Asset]:
        """Those assets of these ids that are in the library and have a file."""
        found: dict[int, Asset] = {}
        ids = [asset_id for asset_id in ids if 0 < asset_id <= LARGEST_INTEGER]
        for start in range(0, len(ids), PART):
            part = ids[start : start + PART]
            rows = self._query(f"SELECT {ASSET_COLUMNS} FROM {FIRST_FILE} WHERE a.id IN ({','.join('?' * len(part))})", part)
            found |= {row[0]: _asset(row) for row in rows}
        return found

    def all_assets(self, status: str = "ok") -> list[Asset]:
        """Every asset of a status ("ok" or "failed"), in the order of their ids."""
        rows = self._query(f"SELECT {ASSET_COLUMNS} FROM {FIRST_FILE} WHERE a.status = ? ORDER BY a.id", (status,))
        return [_asset(row) for row in rows]

    def count(self) -> int:
        """How many assets could be read."""
        return self._query("SELECT count(*) FROM assets WHERE status = 'ok'")[0][0]

    def files(self) -> list[tuple[int, SeenFile]]:
        """Every file with the id of its asset, failed ones too, in the order in which they were first seen."""
        rows = self._query("SELECT f.asset_id, f.path, f.size, f.mtime_ns, a.sha256 FROM files f "
                           "JOIN assets a ON a.id = f.asset_id ORDER BY f.id")  # fmt: skip
        return [(row[0], SeenFile(_path(row[1]), *row[2:])) for row in rows]

    def places(self, asset: Asset) -> list[Path]:
        """The files of an asset that exist now, whatever they hold: as recorded, or in the same place seen from the folder."""
        rows = self._query("SELECT path, relative_path FROM files WHERE asset_id = ? ORDER BY id", (asset.id,))
        candidates = [_path(row[0]) for row in rows] + [self.folder / _path(row[1]) for row in rows]
        return [path for path in dict.fromkeys(candidates) if os.path.isfile(path)]

    def models(self) -> list[ModelState]:
        """Every model that has embedded assets, in the order of their names."""
        rows = self._query("SELECT m.hash, m.name, m.dim, count(e.asset_id) FROM models m LEFT JOIN embeddings e "
                           "ON e.model = m.hash GROUP BY m.hash, m.name, m.dim ORDER BY m.name, m.hash")  # fmt: skip
        return [ModelState(*row) for row in rows]

    def revision(self, model: str) -> Revision | None:
        """The state of a model's embeddings; None when there never was one."""
        rows = self._query("SELECT epoch, sequence FROM models WHERE hash = ?", (model,))
        return Revision(*rows[0]) if rows else None

    def dim(self, model: str) -> int:
        """Of a model's embeddings; 0 when there never was one."""
        rows = self._query("SELECT dim FROM models WHERE hash = ?", (model,))
        return rows[0][0] if rows else 0

    def embedding(self, asset_id: int, model: str) -> np.ndarray | None:
        """(dim,) float32 embedding of an asset by a model, or None."""
        rows = self._query(
            f"SELECT {self.database.vector_out} FROM embeddings WHERE model = ? AND asset_id = ?", (model, asset_id)
        )
        return self.database.from_value(rows[0][0]) if rows else None

    def has_embeddings(self, model: str) -> bool:
        """Whether a model has embedded any asset."""
        return bool(self._query("SELECT 1 FROM embeddings WHERE model = ? LIMIT 1", (model,)))

    def count_embeddings(self, model: str) -> int:
        """How many assets a model has embedded."""
        return self._query("SELECT count(*) FROM embeddings WHERE model = ?", (model,))[0][0]

    def snapshot(self) -> AbstractContextManager[None]:
        """A block in which all that is read is of one moment."""
        return self.database.transaction(write=False)

    def embeddings(self, model: str, after: int = -1) -> Iterator[Embeddings]:
        """All embeddings of a model, or those with numbers `after` one, some thousands at a time, ids ascending.

        Use it in a `snapshot`. Raises LibraryError when they differ in length.
        """
        last, order = -1, "AND sequence > ?" if after >= 0 else "AND ? < 0"
        while True:
            rows = self._query(
                f"SELECT asset_id, {self.database.vector_out} FROM embeddings WHERE model = ? AND asset_id > ? {order} "
                f"ORDER BY asset_id LIMIT {CHUNK}",
                (model, last, after),
            )
            if not rows:
                return
            vectors = [self.database.from_value(row[1]) for row in rows]
            if len({len(vector) for vector in vectors}) > 1:
                raise LibraryError(f"{self.place}: embeddings of one model differ in length; `splatsense library verify`.")
            last = rows[-1][0]
            yield Embeddings(np.array([row[0] for row in rows], np.int64), np.stack(vectors))

    def _known(self, condition: str, values: tuple) -> Known | None:
        rows = self._query(
            "SELECT a.id, e.model IS NOT NULL, a.error, a.up FROM assets a LEFT JOIN files f ON f.asset_id = a.id "
            f"LEFT JOIN embeddings e ON e.asset_id = a.id AND e.model = ? WHERE {condition} LIMIT 1", values
        )  # fmt: skip
        return Known(rows[0][0], bool(rows[0][1]), *rows[0][2:]) if rows else None

    def _put_embedding(self, asset_id: int, vector: np.ndarray, model: str, name: str) -> None:
        """The next in the model's sequence; one that replaces another begins a new epoch."""
        sequence, dim = self._query(
            "INSERT INTO models (hash, name, dim, epoch, sequence) VALUES (?, ?, ?, ?, 1) ON CONFLICT (hash) "
            "DO UPDATE SET sequence = models.sequence + 1, name = excluded.name RETURNING sequence, dim",
            (model, name, len(vector), secrets.token_bytes(16)),
        )[0]
        if dim != len(vector):
            raise LibraryError(f"{self.place}: {name or model[:12]} gave {len(vector)} dimensions, and {dim} before.")
        replaced = self._query("DELETE FROM embeddings WHERE model = ? AND asset_id = ? RETURNING 1", (model, asset_id))
        if replaced:
            self._query("UPDATE models SET epoch = ? WHERE hash = ?", (secrets.token_bytes(16), model))
        self._query(
            f"INSERT INTO embeddings (model, asset_id, sequence, vector) VALUES (?, ?, ?, {self.database.vector_in})",
            (model, asset_id, sequence, self.database.to_value(vector)),
        )

    def _put_file(self, file: SeenFile, asset_id: int) -> None:
        path = os.fsencode(file.path)
        relative = os.fsencode(os.path.relpath(file.path, self.folder))
        name = asset_name(file.path).encode("utf-8", "replace").decode()
        for row in self._query("SELECT id, path FROM files WHERE asset_id = ?", (asset_id,)):
            if is_gone(row[1]):
                self._query("DELETE FROM files WHERE id = ?", (row[0],))
        self._query(
            "INSERT INTO files (asset_id, path, relative_path, name, size, mtime_ns) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET "
            "asset_id = excluded.asset_id, relative_path = excluded.relative_path, name = excluded.name, "
            "size = excluded.size, mtime_ns = excluded.mtime_ns",
            (asset_id, path, relative, name, file.size, file.mtime_ns),
        )

    def _delete(self, ids: Sequence[int]) -> None:
        """Delete assets; every model that had embedded one begins a new epoch."""
        for start in range(0, len(ids), PART):
            part = ids[start : start + PART]
            self._begin_epochs(part)
            self._query(f"DELETE FROM assets WHERE id IN ({','.join('?' * len(part))})", part)

    def _begin_epochs(self, ids: Sequence[int]) -> None:
        """Begin a new epoch of every model that has embedded one of some assets."""
        self._query(
            "UPDATE models SET epoch = ? WHERE hash IN "
            f"(SELECT model FROM embeddings WHERE asset_id IN ({','.join('?' * len(ids))}))",
            (secrets.token_bytes(16), *ids),
        )

    def _query(self, statement: str, values: Sequence = ()) -> list[tuple]:
        return self.database.query(statement, values)


def _path(value: bytes) -> Path:
    return Path(os.fsdecode(value))


def _asset(row: tuple) -> Asset:
    asset_id, path, name, sha256, gaussians, bounds, added, size, error, up = row
    corners = None
    if bounds is not None:
        low, high = np.frombuffer(bounds, "<f4").reshape(2, 3).tolist()
        corners = (tuple(low), tuple(high))
    return Asset(asset_id, _path(path), name, sha256, gaussians, corners, added, size, error, up)
