"""`/api/library` and `/api/map`: what the library holds as a whole."""

from typing import Any

from fastapi import APIRouter

from splatsense.formats import ARCHIVE_SUFFIXES, ASSET_SUFFIXES
from splatsense.tables import printable
from splatsense.web.conversions import FORMATS
from splatsense.web.services import Shared
from splatsense.web.uploads import COMPANIONS

router = APIRouter(prefix="/api", tags=["library"])


@router.get("/library")
def library(services: Shared) -> dict[str, Any]:
    """The library's name, size, filters and limits."""
    snapshot = services.catalogue.snapshot()
    return {
        "name": printable(services.library.path.name),
        "model": services.library.model.name,
        "assets": len(services.library),
        "failed": len(services.library.failures()),
        **snapshot.counts(),
        "formats": {
            "read": sorted(ASSET_SUFFIXES),
            "companions": sorted(COMPANIONS),
            "archives": sorted(ARCHIVE_SUFFIXES),
            "write": list(FORMATS),
        },
        "upload_bytes": services.settings.upload_bytes,
        "can_index_folders": services.settings.is_local,
        "scene_gaussians": services.settings.scene_gaussians,
    }


@router.get("/failures")
def failures(services: Shared) -> list[dict[str, Any]]:
    """The files that could not be read, with the reasons."""
    return [
        {"id": asset.id, "file": printable(asset.path), "reason": printable(asset.error)}
        for asset in services.library.failures()
    ]


@router.get("/map")
def positions(services: Shared) -> dict[str, Any]:
    """Every asset as a point: the embeddings on their two directions of largest variance (PCA), in [-1, 1]."""
    snapshot = services.catalogue.snapshot()
    return {
        "ids": snapshot.ids.tolist(),
        "names": snapshot.names,
        "versions": snapshot.versions,
        "x": snapshot.positions[:, 0].round(4).tolist(),
        "y": snapshot.positions[:, 1].round(4).tolist(),
        "tag": snapshot.tags[:, 0].tolist(),
        "labels": list(snapshot.labels),
    }
