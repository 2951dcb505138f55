"""Export and import of a whole library as one folder that can be copied, archived and read without splatsense.

Layout
- `assets.json` (`export_listing.py`): format, version and one entry for each asset: sha256, file name, where it was, facts,
  its side files with their sha256, or the error.
- `assets/<sha256>/<name>`: the asset files, if they were asked for, with their side files (`side_files.py`: textures, captions)
  as they lay beside them.
- `embeddings/<hash>.safetensors`: `ids` (positions in assets.json, int64) and `vectors` (float32), with the model's name.
- `thumbnails/<sha256>.webp`: those that have been drawn.

An export is written under a temporary name and renamed when it is complete. An import adds to what is in a library and
may be repeated.
"""

import os
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from splatsense.errors import DataError, FormatError, LibraryError
from splatsense.files import sha256_of
from splatsense.library import thumbnails
from splatsense.library.export_listing import LISTING, entry_of, name_in_export, read_listing, write_listing
from splatsense.library.records import Asset, Indexed, SeenFile
from splatsense.library.side_files import is_plain, side_files
from splatsense.library.store import Store

FILES, EMBEDDINGS = "assets", "embeddings"  # folders of an export
UNIT_LENGTH = 1e-3  # how far from 1 the length of an embedding may be


@dataclass(frozen=True)
class Transfer:
    """What was exported or imported: assets, their embeddings of all models, and asset files and side files copied.

    `changed` are files that were left out because they hold another content than the one that was indexed.
    """

    assets: int
    embeddings: int
    files: int
    side_files: int = 0
    changed: tuple[Path, ...] = ()


def export_library(store: Store, folder: Path, files: bool = True) -> Transfer:
    """Write everything that a library knows, and its asset files, into a new folder.

    Args:
        store: of the library.
        folder: must not exist.
        files: also copy the asset files; those that are gone or have changed since are left out.

    Raises:
        LibraryError: the folder exists or cannot be written.
    """
    if folder.exists():
        raise LibraryError(f"{folder}: exists; name a new folder for the export.")
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.mkdir(parents=True)
        with store.snapshot():  # others wait for its end, so files are copied after it
            assets = [*store.all_assets(), *store.all_assets("failed")]
            stamps = {file.path: file.mtime_ns for _, file in store.files()}
            embeddings = _export_embeddings(store, temporary, assets)
        done = _export_files(store, temporary, assets, stamps, files)
        temporary.rename(folder)
    except OSError as error:
        raise LibraryError(f"{folder}: not exported ({error.strerror or error}); free some space or choose another.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return replace(done, embeddings=embeddings)


def import_library(store: Store, folder: Path, destination: Path) -> Transfer:
    """Add what an export holds to a library.

    Args:
        store: of the library.
        folder: of the export.
        destination: folder that the asset files are copied to; assets that were exported without files keep their places.

    Raises:
        FormatError: the folder is no export, is damaged, or of a newer version.
    """
    entries = read_listing(folder)
    copied = beside = 0
    seen: list[SeenFile] = []
    for entry in entries:
        path, was_copied = _place(entry, folder, destination)
        copied += was_copied
        beside += _place_side_files(entry, folder, destination)
        here = path.stat() if path.is_file() else None
        size, mtime_ns = (here.st_size, here.st_mtime_ns) if here else (entry["size"], entry["mtime_ns"])
        seen.append(SeenFile(path, size, mtime_ns, entry["sha256"]))
        if entry["error"] is not None:
            store.put_failed(seen[-1], entry["error"])
        thumbnail = folder / thumbnails.FOLDER / f"{entry['sha256'][:32]}.webp"
        if thumbnail.is_file():
            thumbnails.write_bytes(thumbnail.read_bytes(), thumbnails.thumbnail_path(store.folder, entry["sha256"]))
    embeddings = sum(_import_model(store, path, entries, seen) for path in sorted((folder / EMBEDDINGS).glob("*.safetensors")))
    return Transfer(len(entries), embeddings, copied, beside)


def _export_files(store: Store, folder: Path, assets: list[Asset], stamps: dict[Path, int], files: bool) -> Transfer:
    """Write the listing, thumbnails and, if asked for, the asset files with their side files."""
    copied = 0
    changed: list[Path] = []
    beside: dict[str, dict[str, str]] = {}
    for asset in assets:
        places = store.places(asset) if files else []
        target = folder / FILES / asset.sha256 / name_in_export(asset)
        source = next((place for place in places if _copy_if_unchanged(place, target, asset.sha256)), None)
        if source is not None:
            copied += 1
            beside[asset.sha256] = _copy_side_files(source, target.parent)
        elif places:
            changed.append(places[0])
        thumbnail = thumbnails.thumbnail_path(store.folder, asset.sha256)
        if thumbnail.is_file():
            (folder / thumbnails.FOLDER).mkdir(exist_ok=True)
            shutil.copyfile(thumbnail, folder / thumbnails.FOLDER / thumbnail.name)
    write_listing(folder, [entry_of(asset, stamps[asset.path], beside.get(asset.sha256, {})) for asset in assets])
    return Transfer(len(assets), 0, copied, sum(map(len, beside.values())), tuple(changed))


def _copy_if_unchanged(source: Path, target: Path, sha256: str) -> bool:
    """Copy a file; one that turns out to have another content is not kept, and its folder neither."""
    target.parent.mkdir(parents=True)
    shutil.copyfile(source, target)
    is_unchanged = sha256_of(target) == sha256
    if not is_unchanged:
        shutil.rmtree(target.parent)
    return is_unchanged


def _export_embeddings(store: Store, folder: Path, assets: list[Asset]) -> int:
    """Write the embeddings of every model; returns how many."""
    (folder / EMBEDDINGS).mkdir()
    position = {asset.id: index for index, asset in enumerate(assets)}
    embeddings = 0
    for model in store.models():
        parts = list(store.embeddings(model.hash))
        if parts:
            rows = np.array([position[asset_id] for part in parts for asset_id in part.ids.tolist()], np.int64)
            vectors = np.concatenate([part.vectors for part in parts])
            save_file(
                {"ids": rows, "vectors": vectors}, folder / EMBEDDINGS / f"{model.hash}.safetensors", {"name": model.name}
            )
            embeddings += len(rows)
    return embeddings


def _place(entry: dict[str, Any], folder: Path, destination: Path) -> tuple[Path, bool]:
    """Where an imported asset's file lies now, and whether it was copied there.

    Without a file in the export, its old place is taken only when it holds that content or nothing: an export that a stranger
    made must not turn another file of this machine into an asset.
    """
    source = folder / FILES / entry["sha256"] / Path(entry["name"]).name
    path = destination / entry["sha256"][:16] / source.name
    if source.is_file():
        if sha256_of(source) != entry["sha256"]:
            raise FormatError(f"{source}: is damaged, its content is not the one that was exported; copy the export again.")
        if path.is_file() and sha256_of(path) == entry["sha256"]:
            return path, False
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
        return path, True
    old = Path(os.fsdecode(bytes.fromhex(entry["path"])))
    if os.path.lexists(old) and (not old.is_file() or sha256_of(old) != entry["sha256"]):
        return path, False
    return old, False


def _copy_side_files(source: Path, folder: Path) -> dict[str, str]:
    """Copy the side files of an asset into its folder of the export; their names and sha256."""
    copied = {}
    for name in side_files(source):
        target = folder / name
        if target.exists():  # of the name that the asset has in the export
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.parent / name, target)
        copied[str(name)] = sha256_of(target)
    return copied


def _place_side_files(entry: dict[str, Any], folder: Path, destination: Path) -> int:
    """Copy the side files of an imported asset beside it; returns how many were not there yet."""
    copied = 0
    for name, sha256 in entry.get("side_files", {}).items():
        source, target = folder / FILES / entry["sha256"] / name, destination / entry["sha256"][:16] / name
        if not is_plain(name) or name == entry["name"]:
            raise FormatError(f"{folder / LISTING}: {name[:80]!r} is no name of a side file; this is not an exported library.")
        if not source.is_file() or sha256_of(source) != sha256:
            raise FormatError(f"{source}: is missing or damaged; copy the export again.")
        if not (target.is_file() and sha256_of(target) == sha256):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            copied += 1
    return copied


def _import_model(store: Store, path: Path, entries: list[dict[str, Any]], seen: list[SeenFile]) -> int:
    """Store the embeddings of one model, an asset in each transaction; those that are there already are passed over."""
    try:
        with safe_open(path, "np") as file:
            rows, vectors = file.get_tensor("ids"), file.get_tensor("vectors")
            name = (file.metadata() or {}).get("name", "")
        if rows.shape != vectors.shape[:1] or vectors.ndim != 2 or vectors.dtype != np.float32:
            raise DataError("ids and vectors do not fit together")
        if len(rows) and (rows.min() < 0 or rows.max() >= len(entries)):
            raise DataError("an embedding is of no asset")
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < UNIT_LENGTH))  # NaN is wrong too
        if len(wrong):
            raise DataError(f"row {wrong[0]}: the embedding is not finite and of unit length")
        failed = next((row for row in rows.tolist() if entries[row]["error"] is not None), None)
        if failed is not None:
            raise DataError(f"an embedding is of asset {failed + 1}, which could not be read")
    except (OSError, SafetensorError, DataError) as error:
        raise FormatError(f"{path}: is damaged ({error}); copy the export again.") from error
    for row, vector in zip(rows.tolist(), vectors, strict=True):
        known = store.known_content(seen[row].sha256, path.stem)
        if known is not None and known.embedded:
            store.note_file(seen[row], known.asset_id)
            continue
        bounds = np.array(entries[row]["bounds"], np.float32)
        store.put_indexed(Indexed(seen[row], vector, entries[row]["gaussians"], bounds), path.stem, name)
    return len(rows)
