"""`create_app`: the application of one library, for any ASGI server."""

import mimetypes
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

import splatsense
from splatsense.library import Library
from splatsense.web.guard import Guard
from splatsense.web.replies import handle_errors
from splatsense.web.routes import assets, jobs, library, scenes, search
from splatsense.web.scene_models import SceneModels
from splatsense.web.services import Services
from splatsense.web.settings import WebSettings

STATIC = Path(str(resources.files("splatsense.web").joinpath("static")))
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class PageFiles(StaticFiles):
    """The files of the page; browsers ask each time whether they have changed."""

    def file_response(self, *args, **kwargs):
        """A file, or "not modified"."""
        reply = super().file_response(*args, **kwargs)
        reply.headers["Cache-Control"] = "no-cache"
        return reply


def create_app(opened: Library, settings: WebSettings | None = None, models: SceneModels | None = None) -> FastAPI:
    """The page and the API of a library. The caller closes the library when the application has shut down.

    Args:
        opened: the library.
        settings: limits and addresses; by default for this machine alone.
        models: that look into scenes; by default the bundled ones.
    """
    settings, models = settings or WebSettings(), models or SceneModels()
    for suffix, kind in MEDIA_TYPES.items():  # a machine's own tables may say otherwise
        mimetypes.add_type(kind, suffix)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.services = services = Services.of(opened, settings, models)
        yield
        services.close()

    app = FastAPI(
        title="SplatSense",
        version=splatsense.__version__,
        description="A library of 3D assets, searched by words, pictures and other assets.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    handle_errors(app)
    for routes in (library, search, assets, scenes, jobs):
        app.include_router(routes.router)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/api", include_in_schema=False)
    def api_page() -> FileResponse:
        return FileResponse(STATIC / "api.html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", PageFiles(directory=STATIC), name="static")
    app.add_middleware(Guard, settings=settings, page=STATIC / "index.html", body_limit=_body_limit(settings))
    return app


def _body_limit(settings: WebSettings) -> Callable[[str, str], int]:
    def limit(method: str, path: str) -> int:
        if method == "PUT" and path.startswith("/api/uploads/"):
            return settings.upload_bytes
        return settings.query_bytes if method == "POST" and path == "/api/queries" else settings.request_bytes

    return limit
