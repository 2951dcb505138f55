import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from splatsense.library import Library
from splatsense.web.app import create_app
from splatsense.web.catalogue import Catalogue
from splatsense.web.scene_models import SceneModels
from splatsense.web.settings import WebSettings

OBJECTS = Path(str(resources.files("splatsense").joinpath("assets"))) / "objects"
CHOSEN = (
    "oakChair",
    "plasticChair",
    "oakTable",
    "sofa",
    "lamp2",
    "littlePlant",
    "toiletsUnit",
    "basketball",
    "forkLift",
    "bookcase",
)
ORIGIN = {"host": "127.0.0.1:8765"}
SECONDS = 120.0  # that anything may take on a busy machine


@pytest.fixture(scope="session")
def objects(tmp_path_factory) -> Path:
    """Ten of the bundled splats, in two folders."""
    root = tmp_path_factory.mktemp("objects")
    for index, name in enumerate(CHOSEN):
        folder = root / ("furniture" if index < 6 else "things")
        folder.mkdir(exist_ok=True)
        shutil.copy(OBJECTS / f"{name}.splat", folder)
    return root


@pytest.fixture(scope="session")
def indexed(objects, tmp_path_factory) -> Path:
    """A library of the ten, by the bundled model."""
    path = tmp_path_factory.mktemp("indexed") / "library"
    with Library(path) as library:
        assert library.add(objects, progress=False).indexed == len(CHOSEN)
        for asset in library.assets():
            library.thumbnail(asset)
        Catalogue(library).snapshot()  # keeps the embeddings of the labels
    return path


@pytest.fixture(scope="session")
def shared_client(indexed) -> Iterator[TestClient]:
    """The real application over that library, for tests that change nothing."""
    with Library(indexed) as library, app_client(library) as client:
        yield client


@pytest.fixture
def library_copy(indexed, tmp_path) -> Path:
    """A copy of that library, to change."""
    return shutil.copytree(indexed, tmp_path / "library")


@pytest.fixture
def client(library_copy) -> Iterator[TestClient]:
    """The real application over a copy, for tests that change the library."""
    with Library(library_copy) as library, app_client(library) as opened:
        yield opened


@contextmanager
def app_client(
    library: Library, settings: WebSettings | None = None, models: SceneModels | None = None
) -> Iterator[TestClient]:
    """A client of the real application."""
    app = create_app(library, settings, models)
    with TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=False) as client:
        yield client


@contextmanager
def serving(library: Library, settings: WebSettings | None = None, models: SceneModels | None = None) -> Iterator[str]:
    """A real server on a real port; its address."""
    import uvicorn

    from splatsense.web.serve import listening_socket, server_config

    listener = listening_socket("127.0.0.1", 0)
    server = uvicorn.Server(server_config(create_app(library, settings, models)))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        listener.close()


def wait_until(condition) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def events_of(client: TestClient, job: str) -> list[dict]:
    """All states of a job that the server sends, to the last."""
    with client.stream("GET", f"/api/jobs/{job}/events") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line.removeprefix("data: ")) for line in reply.iter_lines() if line.startswith("data: ")]


def raw_request(address: str, text: bytes, pause: float = 0.0) -> bytes:
    """What a server answers to bytes that no client library would send."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        connection.sendall(text)
        time.sleep(pause)
        reply = b""
        while part := connection.recv(65_536):
            reply += part
    return reply
