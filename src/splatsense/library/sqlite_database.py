"""A library in one SQLite file: how it is made, opened and migrated, and its errors in our words.

Design
- A new database is written under a temporary name and linked into place, so nobody ever sees half of one, and of two
  processes that make the same library one wins and both go on.
- WAL and foreign keys; `user_version` is the version of the tables. An older one is copied to `library.sqlite.v2.bak`, or
  whatever it is, and then migrated in one transaction, so a migration that is killed leaves the library as it was.
- In a folder that cannot be written, the file is opened as one that nobody changes.
"""

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from splatsense.errors import LibraryError

DATABASE = "library.sqlite"
SCHEMA_VERSION = 3
BUSY_SECONDS = 30.0
"""How long to wait for another process that is writing."""

SCHEMA = """
CREATE TABLE assets (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256      TEXT NOT NULL UNIQUE,
    status      TEXT NOT NULL CHECK (status IN ('ok', 'failed')),
    error       TEXT CHECK ((error IS NULL) = (status = 'ok')),
    gaussians   INTEGER NOT NULL DEFAULT 0,
    bounds      BLOB,                         -- six float32: smallest, then largest x, y, z of the means
    added       REAL NOT NULL,                -- seconds since 1970
    up          TEXT CHECK (up IN ('x', 'y', 'z', '-x', '-y', '-z')) -- axis that points up, where somebody said so
);
CREATE TABLE files (
    id            INTEGER PRIMARY KEY,
    asset_id      INTEGER NOT NULL REFERENCES assets (id) ON DELETE CASCADE,
    path          BLOB NOT NULL UNIQUE,       -- absolute, the bytes the file system gave
    relative_path BLOB NOT NULL,              -- seen from the library's folder
    name          TEXT NOT NULL,
    size          INTEGER NOT NULL,
    mtime_ns      INTEGER NOT NULL
);
CREATE INDEX files_of_asset ON files (asset_id);
CREATE TABLE models (
    hash     TEXT PRIMARY KEY,                -- of the weights
    name     TEXT NOT NULL,
    dim      INTEGER NOT NULL,
    epoch    BLOB NOT NULL,                   -- 16 random bytes, drawn again when an embedding changes or goes
    sequence INTEGER NOT NULL                 -- of the last embedding that was stored
);
CREATE TABLE embeddings (
    model    TEXT NOT NULL REFERENCES models (hash),
    asset_id INTEGER NOT NULL REFERENCES assets (id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,                -- counts up with every embedding of a model
    vector   BLOB NOT NULL,                   -- float32, unit length
    PRIMARY KEY (model, asset_id)
);
CREATE INDEX embeddings_of_asset ON embeddings (asset_id);
CREATE INDEX embeddings_in_sequence ON embeddings (model, sequence);
"""

MIGRATIONS = {
    1: """
CREATE TABLE models (hash TEXT PRIMARY KEY, name TEXT NOT NULL, dim INTEGER NOT NULL, epoch BLOB NOT NULL,
                     sequence INTEGER NOT NULL);
INSERT INTO models SELECT model, '', max(length(vector)) / 4, randomblob(16), max(asset_id) FROM embeddings GROUP BY model;
DROP TRIGGER embedding_inserted;
DROP TRIGGER embedding_updated;
DROP TRIGGER embedding_deleted;
DROP TABLE revisions;
CREATE TABLE new_embeddings (model TEXT NOT NULL REFERENCES models (hash),
    asset_id INTEGER NOT NULL REFERENCES assets (id) ON DELETE CASCADE, sequence INTEGER NOT NULL, vector BLOB NOT NULL,
    PRIMARY KEY (model, asset_id));
INSERT INTO new_embeddings SELECT model, asset_id, asset_id, vector FROM embeddings;
DROP TABLE embeddings;
ALTER TABLE new_embeddings RENAME TO embeddings;
CREATE INDEX embeddings_of_asset ON embeddings (asset_id);
CREATE INDEX embeddings_in_sequence ON embeddings (model, sequence);
CREATE TABLE new_files (id INTEGER PRIMARY KEY, asset_id INTEGER NOT NULL REFERENCES assets (id) ON DELETE CASCADE,
    path BLOB NOT NULL UNIQUE, relative_path BLOB NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL);
INSERT INTO new_files SELECT id, asset_id, CAST(path AS BLOB), CAST(relative_path AS BLOB), name, size, mtime_ns FROM files;
DROP TABLE files;
ALTER TABLE new_files RENAME TO files;
CREATE INDEX files_of_asset ON files (asset_id);
""",
    2: "ALTER TABLE assets ADD COLUMN up TEXT CHECK (up IN ('x', 'y', 'z', '-x', '-y', '-z'))",
}
"""What takes the tables of a version to the next."""


class SqliteDatabase:
    """The SQLite file of the library in `folder`. See `Database`.

    Args:
        folder: the library's folder.
        create: make the folder and the file if there are none.

    Raises:
        LibraryError: the folder is not a library, is damaged, locked, not writable, or of a newer version.
    """

    vector_in, vector_out = "?", "vector"

    def __init__(self, folder: Path, create: bool) -> None:
        self.path = folder / DATABASE
        self._lock = threading.RLock()
        _check_folder(folder, create)
        with _translated_errors(self.path):
            self._db = _connect(self.path)
        try:
            with _translated_errors(self.path):
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    @property
    def place(self) -> str:
        """The library's folder."""
        return str(self.path.parent)

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[tuple]:
        """See `Database`."""
        with self._lock, _translated_errors(self.path):
            return self._db.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def transaction(self, write: bool = True) -> Iterator[None]:
        """See `Database`."""
        with self._lock, _translated_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def to_value(self, vector: np.ndarray) -> bytes:
        """See `Database`."""
        return np.ascontiguousarray(vector, "<f4").tobytes()

    def from_value(self, value: bytes) -> np.ndarray:
        """See `Database`."""
        return np.frombuffer(value, "<f4")

    def vector_search(self, model: str) -> None:
        """None: SQLite does not search vectors."""

    def problems(self) -> list[str]:
        """What `PRAGMA integrity_check` and `PRAGMA foreign_key_check` find."""
        found = [row[0] for row in self.query("PRAGMA integrity_check") if row[0] != "ok"]
        found += [f"a row of {row[0]} refers to one of {row[2]} that is gone" for row in self.query("PRAGMA foreign_key_check")]
        return [f"{self.path}: {problem}" for problem in found]

    def close(self) -> None:
        """See `Database`."""
        with self._lock:
            self._db.close()

    def _prepare(self) -> None:
        db = self._db
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute("SELECT 1 FROM sqlite_master").fetchone()
        if version > SCHEMA_VERSION:
            raise LibraryError(
                f"{self.path.parent}: written by a newer splatsense (schema {version}, this one knows {SCHEMA_VERSION}); "
                "upgrade splatsense to open it."
            )
        if version < 1:
            raise LibraryError(f"{self.path}: is an SQLite file, but not one of a library; choose another folder.")
        if version < SCHEMA_VERSION:
            _migrate(db, self.path, version)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA synchronous = NORMAL")


def _connect(path: Path) -> sqlite3.Connection:
    """A connection; one to a file that nobody changes where the folder cannot be written and nothing is left in the WAL."""
    wal = path.with_name(f"{path.name}-wal")
    frozen = not os.access(path.parent, os.W_OK) and not (wal.exists() and wal.stat().st_size)
    options = "mode=ro&immutable=1" if frozen else "mode=rw"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}", BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True
    )


def _migrate(db: sqlite3.Connection, path: Path, version: int) -> None:
    """Copy the library, then take its tables to SCHEMA_VERSION; of several processes one does it."""
    _back_up(db, path, path.with_name(f"{path.name}.v{version}.bak"))
    db.execute("PRAGMA foreign_keys = OFF")  # tables are replaced; they are checked before the end
    db.execute("BEGIN IMMEDIATE")
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        for step in range(version, SCHEMA_VERSION):
            for statement in MIGRATIONS[step].split(";"):
                db.execute(statement)
        broken = db.execute("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise LibraryError(f"{path}: cannot be migrated, a row of {broken[0][0]} refers to nothing; run integrity_check.")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _back_up(db: sqlite3.Connection, path: Path, backup: Path) -> None:
    """Copy a database, unless a backup of this name exists; a copy appears under its name when it is complete."""
    if backup.exists():
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with contextlib.closing(sqlite3.connect(temporary)) as copy:
            db.backup(copy)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, backup)
    except OSError:  # a file system without hard links
        temporary.rename(backup)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _translated_errors(database: Path) -> Iterator[None]:
    """Turn SQLite's errors into a LibraryError that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise LibraryError(f"{database}: {_explain(error)}") from error


def _check_folder(folder: Path, create: bool) -> None:
    """Refuse what is surely no library; make an empty one where there is none and `create` allows it."""
    database = folder / DATABASE
    try:
        if database.is_file():
            if database.stat().st_size == 0:
                raise LibraryError(f"{database}: is empty, so its contents are lost; delete it and index the files again.")
            return
        if folder.exists() and not folder.is_dir():
            raise LibraryError(f"{folder}: is a file; a library is a folder.")
        if not create:
            what = "is not a library" if folder.exists() else "there is no library here"
            raise LibraryError(f"{folder}: {what}; make one with `splatsense add {folder} FILES`.")
        if folder.exists() and any(not entry.name.startswith((".", DATABASE)) for entry in folder.iterdir()):
            raise LibraryError(f"{folder}: holds other files and no library; give a new or empty folder for the library.")
        folder.mkdir(parents=True, exist_ok=True)
        _create_database(database)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise LibraryError(
            f"{folder}: no library can be opened or made here ({reason}); choose a folder you can write to."
        ) from error


def _create_database(database: Path) -> None:
    """Write an empty library under a temporary name and link it into place, unless another process was first."""
    temporary = database.with_name(f".{DATABASE}.{secrets.token_hex(6)}.tmp")
    try:
        with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as db:
            db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT; PRAGMA journal_mode = WAL;")
        try:
            os.link(temporary, database)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            temporary.rename(database)
    finally:
        temporary.unlink(missing_ok=True)


def _explain(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "another process is writing to this library; try again when it is done."
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return "cannot be opened for writing; check that you may write to this folder."
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return "is damaged or not an SQLite file; delete it and index the files again."
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return "the disk is full or fails; nothing stored is lost. Free some space and run the command again."
    if isinstance(error, sqlite3.ProgrammingError):
        return f"the library is closed or was used wrongly ({error})."
    return f"SQLite says: {error}."
