"""`/api/assets/...`: one asset: facts, neighbours, statistics, its picture, the viewer's file, downloads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from splatsense.errors import LibraryError
from splatsense.formats import without_suffix
from splatsense.info import info_of
from splatsense.library.thumbnails import thumbnail_path
from splatsense.web.conversions import Conversions
from splatsense.web.services import AssetId, Shared

router = APIRouter(prefix="/api/assets", tags=["assets"])

ORIGINAL = "original"
BYTES = "application/octet-stream"
UNCHANGING = {"Cache-Control": "private, max-age=31536000, immutable"}
"""For what is named by the content's hash."""
reading, drawing = threading.Lock(), threading.Lock()
"""Whoever reads a file for its statistics, or draws it, waits for the one before: each may need gigabytes."""


class LentFile(FileResponse):
    """A converted file, which is given back when it has been sent or whoever asked has gone."""

    def __init__(self, path: Path, conversions: Conversions, **options: Any) -> None:
        super().__init__(path, **options)
        self._conversions = conversions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._conversions.give_back(Path(self.path))


@router.get("/{asset_id}")
def asset(asset_id: AssetId, services: Shared) -> dict[str, Any]:
    """What the library knows about an asset."""
    return services.described(services.asset(asset_id))


@router.get("/{asset_id}/neighbours")
def neighbours(asset_id: AssetId, services: Shared, limit: Annotated[int, Query(ge=1, le=100)] = 12) -> list[dict[str, Any]]:
    """The assets most like this one, best first, without itself."""
    found = services.asset(asset_id)
    hits = services.searching.find([(services.searching.asset(found.id), 1.0)], limit + 1)
    return [services.described(hit.asset) | {"score": round(hit.score, 4)} for hit in hits if hit.id != found.id][:limit]


@router.get("/{asset_id}/statistics")
def statistics(asset_id: AssetId, services: Shared) -> dict[str, Any]:
    """Read the asset's file and say what it holds and what may be wrong with it, as `splatsense info` does."""
    found = services.asset(asset_id)
    with reading, _gone():
        path, read = services.library.file(found), services.library.read(found)
        facts = info_of(path, read.gaussians, read.said).to_json()
    del facts["path"]
    return facts


@router.get("/{asset_id}/thumbnail")
def thumbnail(asset_id: AssetId, services: Shared) -> FileResponse:
    """A picture of 256 x 256 pixels (WebP)."""
    found = services.asset(asset_id)
    path = thumbnail_path(services.library.path, found.sha256, found.up)
    if not path.is_file():  # those that are there do not wait for one that is being drawn
        with drawing, _gone():
            path = services.library.thumbnail(found)
    return FileResponse(path, headers=UNCHANGING, media_type="image/webp")


@router.get("/{asset_id}/view.spz")
def view(asset_id: AssetId, services: Shared) -> FileResponse:
    """The asset for the viewer: SPZ, centred, with a longest half-extent of 1."""
    found = services.asset(asset_id)
    with _gone():
        path = services.conversions.view(found)
    return LentFile(path, services.conversions, headers=UNCHANGING, media_type=BYTES)


@router.get("/{asset_id}/file")
def download(asset_id: AssetId, services: Shared, format: Annotated[str, Query(max_length=20)] = ORIGINAL) -> FileResponse:
    """The asset's file as it is ("original"), or as a splat of another format (".ply", ".spz", ...)."""
    found = services.asset(asset_id)
    name = (found.path.name if format == ORIGINAL else f"{without_suffix(found.path).name}{format}").encode("utf-8", "replace")
    options: dict[str, Any] = {"filename": name.decode(), "headers": {"Cache-Control": "no-store"}, "media_type": BYTES}
    with _gone():
        if format == ORIGINAL:
            return FileResponse(services.library.file(found, check=True), **options)
        return LentFile(services.conversions.convert(found, format), services.conversions, **options)


@contextmanager
def _gone() -> Iterator[None]:
    """Reply 410 where a file is gone or has changed."""
    try:
        yield
    except LibraryError as error:
        raise HTTPException(410, str(error)) from error
