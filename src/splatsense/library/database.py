"""The SQLite file under a library: its tables, how it is made and opened, and its errors in our words.

Design
- A new database is written under a temporary name and linked into place, so nobody ever sees half of one, and of two
  processes that make the same library one wins and both go on.
- WAL and foreign keys; `user_version` is the version of the tables.
"""

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from splatsense.errors import LibraryError

DATABASE = "library.sqlite"
SCHEMA_VERSION = 1
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
    added       REAL NOT NULL                 -- seconds since 1970
);
CREATE TABLE files (
    id            INTEGER PRIMARY KEY,
    asset_id      INTEGER NOT NULL REFERENCES assets (id) ON DELETE CASCADE,
    path          TEXT NOT NULL UNIQUE,       -- absolute
    relative_path TEXT NOT NULL,              -- seen from the library's folder
    name          TEXT NOT NULL,
    size          INTEGER NOT NULL,
    mtime_ns      INTEGER NOT NULL
);
CREATE INDEX files_of_asset ON files (asset_id);
CREATE TABLE embeddings (
    model    TEXT NOT NULL,                   -- hash of the weights
    asset_id INTEGER NOT NULL REFERENCES assets (id) ON DELETE CASCADE,
    vector   BLOB NOT NULL,                   -- float32, unit length
    PRIMARY KEY (model, asset_id)
);
CREATE INDEX embeddings_of_asset ON embeddings (asset_id);
CREATE TABLE revisions (model TEXT PRIMARY KEY, revision BLOB NOT NULL);
CREATE TRIGGER embedding_inserted AFTER INSERT ON embeddings BEGIN
    INSERT OR REPLACE INTO revisions VALUES (new.model, randomblob(16));
END;
CREATE TRIGGER embedding_updated AFTER UPDATE ON embeddings BEGIN
    INSERT OR REPLACE INTO revisions VALUES (new.model, randomblob(16));
END;
CREATE TRIGGER embedding_deleted AFTER DELETE ON embeddings BEGIN
    INSERT OR REPLACE INTO revisions VALUES (old.model, randomblob(16));
END;
"""


def open_database(folder: Path, create: bool) -> sqlite3.Connection:
    """A connection to the library in `folder`, which `create` allows to make; usable from any thread.

    Raises:
        LibraryError: the folder is not a library, is damaged, locked, not writable, or of a newer version.
    """
    _check_folder(folder, create)
    with translated_errors(folder):
        db = sqlite3.connect(folder / DATABASE, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        with translated_errors(folder):
            db.text_factory = os.fsdecode
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA synchronous = NORMAL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            db.execute("SELECT 1 FROM sqlite_master").fetchone()
        if version > SCHEMA_VERSION:
            raise LibraryError(
                f"{folder}: written by a newer splatsense (schema {version}, this one knows {SCHEMA_VERSION}); "
                "upgrade splatsense to open it."
            )
        if version < 1:
            raise LibraryError(f"{folder / DATABASE}: is an SQLite file, but not one of a library; choose another folder.")
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def translated_errors(folder: Path) -> Iterator[None]:
    """Turn SQLite's errors into a LibraryError that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise LibraryError(f"{folder / DATABASE}: {_explain(error)}") from error


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
    if name.startswith("SQLITE_FULL"):
        return "the disk is full; free some space and run the command again."
    if isinstance(error, sqlite3.ProgrammingError):
        return f"the library is closed or was used wrongly ({error})."
    return f"SQLite says: {error}."
