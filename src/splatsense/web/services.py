"""`Services`: everything the routes share for one library, and how assets look as JSON."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi import Path as PathParameter
from starlette.exceptions import HTTPException

from splatsense.errors import LibraryError
from splatsense.library import Asset, Library
from splatsense.library.records import LARGEST_INTEGER
from splatsense.tables import printable
from splatsense.web.catalogue import Catalogue, version_of
from splatsense.web.conversions import Conversions
from splatsense.web.jobs import Jobs
from splatsense.web.scene_models import SceneModels
from splatsense.web.scenes import Scenes
from splatsense.web.searching import Searching
from splatsense.web.settings import WebSettings
from splatsense.web.uploads import Uploads


@dataclass(frozen=True)
class Services:
    """What one server has."""

    library: Library
    settings: WebSettings
    catalogue: Catalogue
    searching: Searching
    jobs: Jobs
    uploads: Uploads
    conversions: Conversions
    scenes: Scenes

    @classmethod
    def of(cls, library: Library, settings: WebSettings, models: SceneModels) -> "Services":
        """Services of a library. `close` them."""
        jobs = Jobs()
        return cls(
            library,
            settings,
            Catalogue(library),
            Searching(library),
            jobs,
            Uploads(library, settings),
            Conversions(library, settings),
            Scenes(library, settings, jobs, models),
        )

    def close(self) -> None:
        """Stop the jobs and delete what is temporary. The library stays open."""
        self.jobs.close()
        self.uploads.close()
        self.conversions.close()

    def asset(self, asset_id: int) -> Asset:
        """One asset. Raises HTTPException 404 when there is none of this id."""
        try:
            return self.library.asset(asset_id)
        except LibraryError as error:
            raise HTTPException(404, f"No asset has the id {asset_id}.") from error

    def described(self, asset: Asset) -> dict[str, Any]:
        """An asset as JSON."""
        tags = self.catalogue.snapshot().tags_of(asset.id)
        return {
            "id": asset.id,
            "name": asset.name,
            "file": printable(asset.path.name),
            "folder": printable(asset.path.parent),
            "bytes": asset.size,
            "gaussians": asset.gaussians,
            "bounds": asset.bounds,
            "added": asset.added,
            "up": asset.up,
            "version": version_of(asset),
            "is_scene": self.scenes.is_scene(asset),
            "tags": [{"label": label, "probability": round(probability, 3)} for label, probability in tags],
        }


def temporary_file(suffix: str) -> Path:
    """An empty temporary file."""
    with tempfile.NamedTemporaryFile(prefix="splatsense-", suffix=suffix, delete=False) as opened:
        return Path(opened.name)


def _services(request: Request) -> Services:
    return request.app.state.services


Shared = Annotated[Services, Depends(_services)]
AssetId = Annotated[int, PathParameter(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER, description="id of an asset")]
