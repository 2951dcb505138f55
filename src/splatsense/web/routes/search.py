"""`/api/search` and `/api/queries`: find assets by words, pictures, assets and mixtures of them."""

import time
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from splatsense.errors import DataError
from splatsense.formats import ASSET_SUFFIXES
from splatsense.library.records import LARGEST_INTEGER
from splatsense.library.search import IMAGE_SUFFIXES
from splatsense.web.services import Services, Shared, temporary_file
from splatsense.web.uploads import write_part

router = APIRouter(prefix="/api", tags=["search"])

MOST_RESULTS = 1_000
LONGEST_TEXT = 500


class Part(BaseModel):
    """One part of a query: exactly one of words, an asset of the library, or something dropped, and its weight."""

    text: str | None = Field(None, max_length=LONGEST_TEXT, description="words")
    asset: int | None = Field(None, ge=-LARGEST_INTEGER, le=LARGEST_INTEGER, description="id of an asset of the library")
    query: str | None = Field(None, max_length=64, description="id that POST /api/queries gave")
    weight: float = Field(1.0, ge=-1, le=1, description="its say; a negative one leads away from it")


class SearchRequest(BaseModel):
    """What to look for, where, and how many; without parts, the newest assets come."""

    parts: list[Part] = Field([], max_length=8)
    tags: list[str] = Field([], max_length=50, description="assets must have one of them")
    folder: str = Field("", max_length=4_096, description="assets must lie in it")
    size: Literal["", "small", "medium", "large", "huge"] = Field("", description="by the number of Gaussians")
    offset: int = Field(0, ge=0, le=LARGEST_INTEGER)
    limit: int = Field(60, ge=1, le=200)


@router.post("/search")
def search(request: SearchRequest, services: Shared) -> JSONResponse:
    """The assets closest to a query, best first; `score` is the cosine of the embeddings."""
    return JSONResponse(_search(request, services))


@router.get("/search")
def search_words(
    services: Shared, q: Annotated[str, Query(max_length=LONGEST_TEXT)], limit: Annotated[int, Query(ge=1, le=200)] = 10
) -> JSONResponse:
    """The assets closest to words, for scripts."""
    return JSONResponse(_search(SearchRequest.model_validate({"parts": [{"text": q}], "limit": limit}), services))


def _search(request: SearchRequest, services: Services) -> dict[str, Any]:
    start = time.monotonic()
    snapshot = services.catalogue.snapshot()
    among = snapshot.select(request.tags, request.folder, request.size)
    matching = len(services.library) if among is None else len(among)
    parts = [(_vector(part, services), part.weight) for part in request.parts if part.weight]
    with services.searching.turns:
        if parts and len(snapshot):
            hits = services.searching.find(parts, min(request.offset + request.limit, MOST_RESULTS), among)[request.offset :]
            results = [services.described(hit.asset) | {"score": round(hit.score, 4)} for hit in hits]
            matching = min(matching, MOST_RESULTS)
        else:
            ids = snapshot.ids if among is None else among
            newest = ids[::-1][request.offset : request.offset + request.limit].tolist()
            results = [services.described(asset) for asset in services.library.present(newest)]
    return {"results": results, "matching": matching, "milliseconds": round(1e3 * (time.monotonic() - start), 1)}


@router.post("/queries", status_code=201)
async def drop(request: Request, services: Shared, name: Annotated[str, Query(max_length=255)]) -> dict[str, Any]:
    """Remember a picture or an asset file, sent as the body, to search by; `name` says by its suffix what it is."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in IMAGE_SUFFIXES | ASSET_SUFFIXES:
        raise DataError(f"{name!r} is neither a picture nor a 3D asset.")
    is_picture = suffix in IMAGE_SUFFIXES
    path = temporary_file(suffix)
    try:
        with path.open("wb") as out:
            async for part in request.stream():
                await run_in_threadpool(write_part, out, part, services.settings)
        dropped = await run_in_threadpool(services.searching.drop, path, is_picture)
    except Exception as error:
        error.args = tuple(str(argument).replace(str(path), name) for argument in error.args)
        raise
    finally:
        path.unlink()
    return {"id": dropped.id, "kind": dropped.kind, "name": name}


@router.get("/queries/{identity}/thumbnail")
def dropped_thumbnail(identity: str, services: Shared) -> Response:
    """A small picture of what was dropped."""
    return Response(services.searching.dropped(identity).thumbnail, media_type="image/webp")


def _vector(part: Part, services: Services) -> Any:
    given = [value for value in (part.text, part.asset, part.query) if value is not None]
    if len(given) != 1:
        raise DataError("A part of a query is one of words, an asset or something dropped.")
    if part.text is not None:
        return services.searching.text(part.text)
    if part.asset is not None:
        return services.searching.asset(services.asset(part.asset).id)
    return services.searching.dropped(part.query or "").vector
