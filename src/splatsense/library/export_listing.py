"""The listing of an exported library, `assets.json`: written from assets, and read with every field checked.

An export may come from a stranger, so nothing in a listing is used before it was found to be of the right type, and a name to
be a name and no path.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from splatsense.errors import FormatError
from splatsense.geometry.upright import AXES
from splatsense.library.records import LARGEST_INTEGER, Asset

FORMAT, VERSION = "splatsense-library", 1
LISTING = "assets.json"
FACTS = {"name": str, "path": str, "gaussians": int, "size": int, "mtime_ns": int}
"""What every asset has, apart from its hash, and the types."""


def write_listing(folder: Path, entries: list[dict[str, Any]]) -> None:
    """Write the listing of an export, whose assets are `entries`."""
    listing = {"format": FORMAT, "version": VERSION, "assets": entries}
    (folder / LISTING).write_text(json.dumps(listing, indent=1) + "\n", "utf-8")


def entry_of(asset: Asset, mtime_ns: int, side_files: dict[str, str]) -> dict[str, Any]:
    """An asset as JSON.

    Args:
        asset: of the library.
        mtime_ns: when its file was changed last.
        side_files: names and sha256 of those that were exported with it.
    """
    return {
        "sha256": asset.sha256,
        "name": name_in_export(asset),
        "path": os.fsencode(asset.path).hex(),  # it may be no text
        "gaussians": asset.gaussians,
        "bounds": asset.bounds,
        "size": asset.size,
        "mtime_ns": mtime_ns,
        "side_files": side_files,
        "error": asset.error,
        "up": asset.up,
    }


def name_in_export(asset: Asset) -> str:
    """Name of an asset's file without bytes that are no text."""
    return asset.path.name.encode("utf-8", "replace").decode()


def read_listing(folder: Path) -> list[dict[str, Any]]:
    """The assets of an export. Raises FormatError when there is no listing, or when it is damaged or of a newer version."""
    path = folder / LISTING
    try:
        listing = json.loads(path.read_text("utf-8"))
        if listing["format"] != FORMAT:
            raise FormatError(f"{path}: is not the listing of an exported library.")
        version, entries = listing["version"], listing["assets"]
        if version > VERSION:
            raise FormatError(f"{path}: exported by a newer splatsense (version {version}); upgrade splatsense to import it.")
        for row, entry in enumerate(entries, 1):
            fault = _fault(entry)
            if fault:
                raise ValueError(f"asset {row} of {len(entries)}: {fault}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path}: missing or damaged ({error}); this is not an exported library.") from error
    return entries


def _fault(entry: Any) -> str:
    """What is wrong with an asset of a listing, or nothing."""
    if not isinstance(entry, dict) or not _is_hexadecimal(entry.get("sha256"), 32):
        return "it has no sha256"
    for name, kind in FACTS.items():
        if type(entry.get(name)) is not kind:
            return f"{name!r} is missing or not of type {kind.__name__}"
        if kind is int and not (-LARGEST_INTEGER if name == "mtime_ns" else 0) <= entry[name] <= LARGEST_INTEGER:
            return f"{name!r} is {str(entry[name])[:40]}, out of its range"
    if not _is_hexadecimal(entry["path"]) or b"\0" in bytes.fromhex(entry["path"]):
        return "its path is not hexadecimal, or none"
    if entry["name"] in ("", ".", "..") or "/" in entry["name"] or "\0" in entry["name"]:
        return "its name is not that of a file"
    if "error" not in entry or not (entry["error"] is None or isinstance(entry["error"], str)):
        return "'error' is missing or no text"
    if not (_is_text(entry["name"]) and _is_text(entry["error"] or "")):
        return "its name or error is no text"
    if entry["error"] is None and not _are_bounds(entry.get("bounds")):
        return "'bounds' are missing or not twice three numbers"
    if entry.get("up") not in (None, *AXES):  # exports of the first version have none
        return "'up' is no axis"
    side = entry.get("side_files", {})
    if not isinstance(side, dict) or not all(isinstance(sha256, str) for sha256 in side.values()):
        return "side files without names or hashes"
    return ""


def _is_hexadecimal(text: Any, size: int | None = None) -> bool:
    try:
        return size in (None, len(bytes.fromhex(text)))
    except (TypeError, ValueError):
        return False


def _is_text(value: str) -> bool:
    """Whether it is made of characters: JSON may escape halves of one."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _are_bounds(value: Any) -> bool:
    try:
        with np.errstate(over="ignore"):
            bounds = np.array(value, np.float32)
    except (TypeError, ValueError):
        return False
    return bounds.shape == (2, 3) and bool(np.isfinite(bounds).all())
