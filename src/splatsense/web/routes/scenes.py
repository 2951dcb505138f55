"""`/api/assets/{id}/scene/...`: what models see in a scene, as one colour for each of its Gaussians."""

from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from splatsense.library.records import LARGEST_INTEGER
from splatsense.web.services import AssetId, Shared

router = APIRouter(prefix="/api/assets/{asset_id}/scene", tags=["scenes"])

Found = TypeVar("Found")
Gaussian = Annotated[int, Query(ge=0, le=LARGEST_INTEGER, description="number of a Gaussian, in the order of view.spz")]


class SceneRequest(BaseModel):
    """What to compute of a scene."""

    what: Literal["similarity", "segmentation"] = Field(description="features, or classes and instances")


@router.get("")
def scene(asset_id: AssetId, services: Shared) -> dict[str, Any]:
    """Whether the asset is a scene, which models can look into it or why none can, and what is computed already."""
    return services.scenes.describe(services.asset(asset_id))


@router.post("", status_code=202)
def compute(asset_id: AssetId, request: SceneRequest, services: Shared) -> dict[str, Any]:
    """Compute features, or classes and instances, in the background; the job's events and cancelling are those of all jobs."""
    return services.scenes.start(services.asset(asset_id), request.what).state()


@router.get("/similarity")
def similarity(asset_id: AssetId, services: Shared, gaussian: Gaussian) -> Response:
    """Three bytes (sRGB) for each Gaussian: a heat map of the cosine of its features with those of one Gaussian.

    `X-Darkest` is the cosine that is dark blue; 1 is yellow.
    """
    colors, low = _computed(services.scenes.similarity(services.asset(asset_id), gaussian))
    return _bytes(colors, {"X-Darkest": f"{low:.3f}"})


@router.get("/labels/{by}")
def labels(asset_id: AssetId, services: Shared, by: Literal["classes", "instances"]) -> Response:
    """Three bytes (sRGB) for each Gaussian: the colour of its class or instance."""
    return _bytes(_computed(services.scenes.labels(services.asset(asset_id), by)), {})


@router.get("/legend")
def legend(asset_id: AssetId, services: Shared) -> dict[str, Any]:
    """Classes and instances of the scene with their colours."""
    return _computed(services.scenes.legend(services.asset(asset_id)))


@router.get("/label")
def label(asset_id: AssetId, services: Shared, gaussian: Gaussian) -> dict[str, Any]:
    """Class, confidence and instance of one Gaussian."""
    return _computed(services.scenes.label_of(services.asset(asset_id), gaussian))


def _computed(found: Found | None) -> Found:
    if found is None:
        raise HTTPException(409, "That is not computed for this scene yet; POST to its /scene first.")
    return found


def _bytes(colors: Any, headers: dict[str, str]) -> Response:
    return Response(colors.tobytes(), media_type="application/octet-stream", headers=headers | {"Cache-Control": "no-store"})
