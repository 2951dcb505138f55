"""`splatsense serve`: the page of a library on this machine."""

import contextlib
import errno
import os
import secrets
import socket
import threading
import webbrowser
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import tyro
import uvicorn
from starlette.types import ASGIApp

from splatsense.errors import DataError
from splatsense.library import Library
from splatsense.tables import counted, short_path
from splatsense.web.app import create_app
from splatsense.web.catalogue import Catalogue
from splatsense.web.protocol import PromptProtocol
from splatsense.web.scene_models import SceneModels
from splatsense.web.settings import WebSettings

StoreUrl = Annotated[str | None, tyro.conf.arg(metavar="URL")]
Token = Annotated[str | None, tyro.conf.arg(metavar="TOKEN")]
ModelName = Annotated[str | None, tyro.conf.arg(metavar="MODEL")]
LibraryFolder = Annotated[Path, tyro.conf.arg(metavar="LIBRARY")]
TOKEN_VARIABLE = "SPLATSENSE_TOKEN"
LAST_PORT = 65_535
BACKLOG = 256
SHUTDOWN_SECONDS = 3


def serve(
    library: LibraryFolder,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: Token = None,
    open: bool = False,
    model: str = "clip-gs-tiny",
    store: StoreUrl = None,
    scene_model: ModelName = None,
    segmentation_model: ModelName = None,
) -> int:
    """Show a library as a page in the browser, until Ctrl+C.

    Args:
        library: Folder of the library; made when it does not exist.
        host: Address to listen on. One that other machines can reach needs the token of the link that is printed.
        port: Port to listen on; 0 takes any free one.
        token: Asked of all who use the page. SPLATSENSE_TOKEN in the environment is better: lists of processes do not show it.
        open: Open the page in the browser.
        model: A bundled model's name, or the folder of one.
        store: postgresql://USER@HOST/DATABASE of a library that machines share; the folder then holds caches only.
        scene_model: Model that compares the points of scenes: a folder, or a bundled one's name.
        segmentation_model: Model that tells classes and instances in scenes, likewise.
    """
    settings, models = settings_for(host, token), SceneModels(scene_model, segmentation_model)
    with listening_socket(host, port) as listener, Library(library, model, store=store) as opened:
        Catalogue(opened).snapshot()
        opened.embed_text("anything")  # loads the model, so that the first search does not wait for it
        link = page_link(settings, listener.getsockname()[1])
        print(
            f"{short_path(opened.path)}: {counted(len(opened), 'asset')}. Open {link} in a browser; Ctrl+C stops.", flush=True
        )
        if open:
            threading.Timer(0.5, webbrowser.open, [link]).start()
        with contextlib.suppress(KeyboardInterrupt):  # the server is down by then
            uvicorn.Server(server_config(create_app(opened, settings, models))).run(sockets=[listener])
    return 0


def settings_for(host: str, token: str | None) -> WebSettings:
    """Settings of an address: one that others can reach gets a random token where neither caller nor environment gives one.

    Raises:
        DataError: the token is empty.
    """
    token = os.environ.get(TOKEN_VARIABLE) if token is None else token
    if token is None:
        try:
            return WebSettings(host)
        except DataError:
            token = secrets.token_urlsafe(24)
    return WebSettings(host, token)


def page_link(settings: WebSettings, port: int) -> str:
    """What to open in a browser."""
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    name = socket.gethostname() if name in ("0.0.0.0", "[::]") else name
    return f"http://{name}:{port}/" + (f"?token={quote(settings.token, safe='')}" if settings.token else "")


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Raises:
        DataError: the address is not one of this machine, or the port is none, or taken.
    """
    if not 0 <= port <= LAST_PORT:  # getaddrinfo would take it modulo 65536
        raise DataError(f"--port {port}: must lie between 0 and {LAST_PORT}.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise DataError(f"--host {host}: is no address ({error.strerror}).") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # who connects before the server runs waits for it
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise DataError(f"--port {port}: is taken by another program; --port 0 takes any free one.") from error
        raise DataError(f"--host {host} --port {port}: cannot be listened on ({error.strerror}).") from error
    return listener


def server_config(app: ASGIApp) -> uvicorn.Config:
    """How the server runs: one process, this thread, nothing said about single requests."""
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        http=PromptProtocol,
        loop="asyncio",
        backlog=BACKLOG,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
