"""`Database`: what `Store` asks of SQLite and of PostgreSQL, so that every statement is written once.

Statements are SQL that both understand, with `?` for values. Bytes are BLOB or BYTEA. Only vectors differ: `vector_in` and
`vector_out` are the SQL around them, `to_value` and `from_value` what passes in and out.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from splatsense.errors import LibraryError

POSTGRES_SCHEMES = ("postgresql://", "postgres://")


@runtime_checkable
class VectorSearch(Protocol):
    """Nearest neighbours among the embeddings of one model."""

    def top_k(self, query: np.ndarray, k: int, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Ids and cosines of the k nearest embeddings (of `among`), best first; equal ones in the order of ids."""
        ...


@runtime_checkable
class Database(Protocol):
    """One connection, usable from any thread; calls take turns. Its errors are LibraryErrors that say what to do."""

    vector_in: str
    """SQL that makes a vector of a value."""
    vector_out: str
    """SQL that gives the vector of an embedding as bytes."""

    @property
    def place(self) -> str:
        """Where it is, for messages; without a password."""
        ...

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[tuple]:
        """The rows that a statement gives; on its own, it is a transaction."""
        ...

    def transaction(self, write: bool = True) -> AbstractContextManager[None]:
        """All queries in the block are one transaction, all or nothing; where they only read, they see one moment."""
        ...

    def to_value(self, vector: np.ndarray) -> Any:
        """What stands for (dim,) float32 in `vector_in`."""
        ...

    def from_value(self, value: bytes) -> np.ndarray:
        """The (dim,) float32 vector that `vector_out` gave."""
        ...

    def vector_search(self, model: str) -> VectorSearch | None:
        """The database's own search among the embeddings of a model; None where a copy of them is to be searched."""
        ...

    def problems(self) -> list[str]:
        """What the database's own check of its files finds wrong."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def open_database(folder: Path, url: str | None, create: bool) -> Database:
    """The database of a library: the SQLite file in its folder, or PostgreSQL at `url`.

    Raises:
        LibraryError: there is no library and `create` is false, it is damaged, locked, not writable or of a newer version,
            or the server cannot be reached.
    """
    if url is None:
        from splatsense.library.sqlite_database import SqliteDatabase

        return SqliteDatabase(folder, create)
    if not url.startswith(POSTGRES_SCHEMES):
        raise LibraryError(
            f"--store {url.partition('://')[0]}: give postgresql://USER@HOST/DATABASE, or nothing for a file in the folder."
        )
    from splatsense.library.postgres_database import PostgresDatabase

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LibraryError(f"{folder}: cannot be made ({error.strerror}); thumbnails and caches need a folder.") from error
    return PostgresDatabase(url, create)
