"""SplatSense: search, tag and classify 3D Gaussian splats by what they show.

Everything here is imported on first use, so `import splatsense` costs nothing.

Example:
    >>> import splatsense as ss
    >>> library = ss.Library("my_assets")
    >>> library.add("downloads/")
    >>> library.search("wooden chair", k=3)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splatsense.cameras import Cameras
    from splatsense.clip_gs.model import ClipGS, load_model
    from splatsense.errors import CheckpointError, DataError, FormatError, LibraryError, LimitError, SplatSenseError
    from splatsense.gaussians import Gaussians
    from splatsense.io import load, save
    from splatsense.library import AddReport, Asset, Hit, Library
    from splatsense.render import RasterSettings, render, render_batch

__all__ = [
    "AddReport",
    "Asset",
    "Cameras",
    "CheckpointError",
    "ClipGS",
    "DataError",
    "FormatError",
    "Gaussians",
    "Hit",
    "Library",
    "LibraryError",
    "LimitError",
    "RasterSettings",
    "SplatSenseError",
    "load",
    "load_model",
    "render",
    "render_batch",
    "save",
]

_MODULES = {
    "splatsense.cameras": ["Cameras"],
    "splatsense.clip_gs.model": ["ClipGS", "load_model"],
    "splatsense.errors": ["CheckpointError", "DataError", "FormatError", "LibraryError", "LimitError", "SplatSenseError"],
    "splatsense.gaussians": ["Gaussians"],
    "splatsense.io": ["load", "save"],
    "splatsense.library": ["AddReport", "Asset", "Hit", "Library"],
    "splatsense.render": ["RasterSettings", "render", "render_batch"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__version__: str


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'splatsense' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def _version() -> str:
    """The version of this code: of a source tree that in its pyproject.toml, and "+source"; else of the installed package."""
    import tomllib
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if pyproject.is_file():
        project = tomllib.loads(pyproject.read_text("utf-8")).get("project", {})
        if project.get("name") == "splatsense":
            return f"{project['version']}+source"
    try:
        return version("splatsense")
    except PackageNotFoundError:  # a copy of the source folder alone
        return "0.0.0+source"
