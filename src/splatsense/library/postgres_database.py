"""A library in a PostgreSQL database with pgvector (extra `postgres`), which many machines write to and search at once.

Design
- The tables are those of `sqlite_database`, in the connection's current schema, so that a database can hold several
  libraries: `postgresql://host/db?options=-csearch_path%3Dmy_assets,public`. The schema must exist.
- Making and migrating take an advisory lock, so of several processes one does it, in one transaction.
- Every search runs in the server: exact, unless somebody adds an index of pgvector's.
- A connection that the server closed is opened again by the next call, but never in the middle of a transaction.
"""

import contextlib
import importlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from splatsense.errors import LibraryError

SCHEMA_VERSION = 3  # counted together with SQLite's: the same tables
LOCK = 0x53504C41545345  # of whoever makes or migrates the tables
CONNECT_SECONDS = 10
SCHEMA = """
CREATE TABLE library (version INTEGER NOT NULL);
INSERT INTO library VALUES ({version});
CREATE TABLE assets (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256      TEXT NOT NULL UNIQUE,
    status      TEXT NOT NULL CHECK (status IN ('ok', 'failed')),
    error       TEXT CHECK ((error IS NULL) = (status = 'ok')),
    gaussians   BIGINT NOT NULL DEFAULT 0,
    bounds      BYTEA,
    added       DOUBLE PRECISION NOT NULL,
    up          TEXT CHECK (up IN ('x', 'y', 'z', '-x', '-y', '-z'))
);
CREATE TABLE files (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asset_id      BIGINT NOT NULL REFERENCES assets (id) ON DELETE CASCADE,
    path          BYTEA NOT NULL UNIQUE,
    relative_path BYTEA NOT NULL,
    name          TEXT NOT NULL,
    size          BIGINT NOT NULL,
    mtime_ns      BIGINT NOT NULL
);
CREATE INDEX files_of_asset ON files (asset_id);
CREATE TABLE models (
    hash     TEXT PRIMARY KEY,
    name     TEXT NOT NULL,
    dim      INTEGER NOT NULL,
    epoch    BYTEA NOT NULL,
    sequence BIGINT NOT NULL
);
CREATE TABLE embeddings (
    model    TEXT NOT NULL REFERENCES models (hash),
    asset_id BIGINT NOT NULL REFERENCES assets (id) ON DELETE CASCADE,
    sequence BIGINT NOT NULL,
    vector   vector NOT NULL,
    PRIMARY KEY (model, asset_id)
);
CREATE INDEX embeddings_of_asset ON embeddings (asset_id);
CREATE INDEX embeddings_in_sequence ON embeddings (model, sequence);
"""

MIGRATIONS = {2: "ALTER TABLE assets ADD COLUMN up TEXT CHECK (up IN ('x', 'y', 'z', '-x', '-y', '-z'))"}
"""What takes the tables of a version to the next; before 2 there were none."""


class PostgresDatabase:
    """The library in the PostgreSQL database at `url`. See `Database`.

    Args:
        url: postgresql://USER@HOST:PORT/DATABASE; a password is better kept in PGPASSWORD or ~/.pgpass.
        create: make the tables if there are none.

    Raises:
        LibraryError: psycopg is not installed, the server cannot be reached, has no pgvector, or holds no library.
    """

    vector_in, vector_out = "?::real[]::vector", "vector_send(vector)"

    def __init__(self, url: str, create: bool) -> None:
        try:
            self._psycopg = importlib.import_module("psycopg")
        except ImportError as error:
            raise LibraryError('--store postgresql: psycopg is missing; pip install "splatsense[postgres]".') from error
        self._url, self._lock, self._closed = url, threading.RLock(), False
        self._place = "--store postgresql://"  # never the password
        with self._translated_errors():
            info = self._psycopg.conninfo.conninfo_to_dict(url)
            self._place = f"postgresql://{info.get('host', '')}/{info.get('dbname', '')}"
            self._connection = self._connect()
        try:
            self._prepare(create)
        except BaseException:
            self._connection.close()
            raise

    @property
    def place(self) -> str:
        """Host and database, without user and password."""
        return self._place

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[tuple]:
        """See `Database`."""
        with self._lock, self._translated_errors():
            if self._connection.closed and not self._closed:
                self._connection = self._connect()
            with self._connection.cursor(binary=True) as cursor:
                cursor.execute(statement.replace("?", "%s"), values)
                return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def transaction(self, write: bool = True) -> Iterator[None]:
        """See `Database`."""
        with self._lock:
            self.query("SELECT 1")  # opens a lost connection again before the transaction begins
            with self._translated_errors(), self._connection.transaction():
                if not write:
                    self.query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                yield

    def to_value(self, vector: np.ndarray) -> list[float]:
        """See `Database`."""
        return vector.astype(np.float32).tolist()

    def from_value(self, value: bytes) -> np.ndarray:
        """See `Database`; pgvector sends four bytes of header, then big-endian float32."""
        return np.frombuffer(value, ">f4", offset=4).astype("<f4")

    def vector_search(self, model: str) -> "PostgresSearch":
        """See `Database`."""
        return PostgresSearch(self, model)

    def problems(self) -> list[str]:
        """Nothing: PostgreSQL checks the pages it reads by itself."""
        return []

    def close(self) -> None:
        """See `Database`."""
        with self._lock:
            self._closed = True
            self._connection.close()

    def _connect(self) -> Any:
        return self._psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_SECONDS)

    def _prepare(self, create: bool) -> None:
        """Make the tables if there are none and `create` allows it; migrate older ones and refuse newer ones."""
        with self.transaction():
            self.query("SELECT pg_advisory_xact_lock(?)", (LOCK,))
            if self.query("SELECT current_schema()")[0][0] is None:
                raise LibraryError(f"{self.place}: the schema that search_path names does not exist; CREATE SCHEMA makes it.")
            exists = self.query("SELECT to_regclass(current_schema() || '.library') IS NOT NULL")[0][0]
            if not exists:
                if not create:
                    raise LibraryError(f"{self.place}: there is no library here; `splatsense add --store` makes one.")
                self.query("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
                for statement in SCHEMA.format(version=SCHEMA_VERSION).split(";"):
                    if statement.strip():
                        self.query(statement)
            version = self.query("SELECT version FROM library")[0][0]
            for step in range(version, SCHEMA_VERSION):
                self.query(MIGRATIONS[step])
                self.query("UPDATE library SET version = ?", (step + 1,))
        if version > SCHEMA_VERSION:
            raise LibraryError(
                f"{self.place}: written by a newer splatsense (schema {version}, this one knows {SCHEMA_VERSION}); "
                "upgrade splatsense to open it."
            )

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Turn psycopg's errors into a LibraryError that says what to do."""
        try:
            yield
        except self._psycopg.Error as error:
            raise LibraryError(f"{self._place}: {self._explain(error)}") from error

    def _explain(self, error: Exception) -> str:
        errors = self._psycopg.errors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if self._closed:
            return "the library is closed."
        if isinstance(error, errors.DiskFull):
            return "the server's disk is full; nothing stored is lost. Free some space and run the command again."
        if isinstance(error, errors.FeatureNotSupported | errors.UndefinedFile):
            return f"the server has no pgvector ({reason}); install it there."
        if isinstance(error, errors.InsufficientPrivilege):
            return f"this user may not do that ({reason}); ask for CREATE, SELECT, INSERT, UPDATE and DELETE."
        if isinstance(error, errors.LockNotAvailable | errors.DeadlockDetected | errors.QueryCanceled):
            return f"another process is writing to this library ({reason}); try again."
        if isinstance(error, self._psycopg.OperationalError):
            return f"the server cannot be reached or closed the connection ({reason}); check that it runs, and try again."
        return f"PostgreSQL says: {reason}."


class PostgresSearch:
    """pgvector's search among the embeddings of a model. See `database.VectorSearch`."""

    def __init__(self, database: PostgresDatabase, model: str) -> None:
        self._database, self._model = database, model

    def top_k(self, query: np.ndarray, k: int, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Ids and inner products of the k largest, best first; equal ones in the order of ids."""
        database = self._database
        chosen, ids = ("", ()) if among is None else ("AND asset_id = ANY(?) ", (among.tolist(),))
        rows = database.query(
            f"SELECT asset_id, -(vector <#> {database.vector_in}) AS score FROM embeddings WHERE model = ? {chosen}"
            "ORDER BY score DESC, asset_id LIMIT ?",
            (database.to_value(query), self._model, *ids, k),
        )
        return np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.float32)
