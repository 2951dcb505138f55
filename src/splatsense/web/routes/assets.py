"""`/api/assets/...`: one asset: facts, neighbours, statistics, its picture, the viewer's file, downloads."""

import threading
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from splatsense.errors import LibraryError
from splatsense.formats import without_suffix
from splatsense.info import file_info
from splatsense.library import Asset
from splatsense.web.services import AssetId, Services, Shared

router = APIRouter(prefix="/api/assets", tags=["assets"])

ORIGINAL = "original"
UNCHANGING = {"Cache-Control": "private, max-age=31536000, immutable"}
"""For what is named by the content's hash."""
reading = threading.Lock()


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
    path = _file(services.asset(asset_id), services)
    with reading:
        facts = file_info(path).to_json()
    del facts["path"]
    return facts


@router.get("/{asset_id}/thumbnail")
def thumbnail(asset_id: AssetId, services: Shared) -> FileResponse:
    """A picture of 256 x 256 pixels (WebP)."""
    found = services.asset(asset_id)
    with services.drawing:
        try:
            path = services.library.thumbnail(found)
        except LibraryError as error:
            raise HTTPException(410, str(error)) from error
    return FileResponse(path, headers=UNCHANGING, media_type="image/webp")


@router.get("/{asset_id}/view.spz")
def view(asset_id: AssetId, services: Shared) -> FileResponse:
    """The asset for the viewer: SPZ, centred, with a longest half-extent of 1."""
    found = services.asset(asset_id)
    _file(found, services)
    return FileResponse(services.conversions.view(found), headers=UNCHANGING, media_type="application/octet-stream")


@router.get("/{asset_id}/file")
def download(asset_id: AssetId, services: Shared, format: Annotated[str, Query(max_length=20)] = ORIGINAL) -> FileResponse:
    """The asset's file as it is ("original"), or as a splat of another format (".ply", ".spz", ...)."""
    found = services.asset(asset_id)
    source = _file(found, services)
    path = source if format == ORIGINAL else services.conversions.convert(found, format)
    name = source.name if format == ORIGINAL else f"{without_suffix(source).name}{format}"
    name = name.encode("utf-8", "replace").decode()
    return FileResponse(path, filename=name, headers={"Cache-Control": "no-store"}, media_type="application/octet-stream")


def _file(asset: Asset, services: Services) -> Any:
    try:
        return services.library.file(asset)
    except LibraryError as error:
        raise HTTPException(410, str(error)) from error
