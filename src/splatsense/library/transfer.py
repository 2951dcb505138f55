"""Export and import of a whole library as one folder that can be copied, archived and read without splatsense.

Layout
- `assets.json` (`export_listing.py`): format, version and one entry for each asset: sha256, file name, where it was, facts,
  its side files with their sha256, or the error.
- `assets/<sha256>/<name>`: the asset files, if they were asked for, with their side files (`side_files.py`: textures, captions)
  as they lay beside them.
- `embeddings/<hash>.safetensors`: `ids` (positions in assets.json, int64) and `vectors` (float32), with the model's name.
- `thumbnails/<sha256>.webp`: those that have been drawn.

An export is written under a temporary name and renamed when it is complete. People go on using the library meanwhile: a file
that goes, changes or cannot be read is left out and reported, and the rest is exported. An import adds to what is in a library
and may be repeated.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from splatsense.errors import DataError, FormatError, LibraryError
from splatsense.files import NAME_CHARACTERS, sha256_of
from splatsense.library import thumbnails
from splatsense.library.export_listing import LISTING, entry_of, name_in_export, read_listing, write_listing
from splatsense.library.records import Asset, Indexed, SeenFile
from splatsense.library.side_files import is_plain, side_files
from splatsense.library.store import Store

FILES, EMBEDDINGS = "assets", "embeddings"  # folders of an export
UNIT_LENGTH = 1e-3  # how far from 1 the length of an embedding may be
PART = 1 << 20  # bytes that are copied at a time
CHANGED, GONE = "has changed since it was indexed", "is gone"


@dataclass(frozen=True)
class Transfer:
    """What was exported or imported: assets, their embeddings of all models, and asset files and side files copied.

    `unread` is how many of the assets are files that could not be read when they were added. `left_out` are the files that were
    not exported, each with the reason: it has changed since it was indexed, is gone, or cannot be read.
    """

    assets: int
    embeddings: int
    files: int
    side_files: int = 0
    unread: int = 0
    left_out: tuple[tuple[Path, str], ...] = ()


def export_library(store: Store, folder: Path, files: bool = True) -> Transfer:
    """Write everything that a library knows, and its asset files, into a new folder.

    Args:
        store: of the library.
        folder: must not exist.
        files: also copy the asset files; those that are gone, have changed since or cannot be read are left out.

    Raises:
        LibraryError: the folder exists or cannot be written.
    """
    if os.path.exists(folder):
        raise LibraryError(f"{folder}: exists; name a new folder for the export.")
    temporary = folder.with_name(f".{folder.name[:NAME_CHARACTERS]}.{secrets.token_hex(6)}.tmp")
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
        here = path.stat() if os.path.isfile(path) else None  # Path.is_file raises where a name is too long
        size, mtime_ns = (here.st_size, here.st_mtime_ns) if here else (entry["size"], entry["mtime_ns"])
        seen.append(SeenFile(path, size, mtime_ns, entry["sha256"]))
        if entry["error"] is not None:
            store.put_failed(seen[-1], entry["error"], entry.get("up"))
        thumbnail = thumbnails.thumbnail_path(folder, entry["sha256"], entry.get("up"))
        if thumbnail.is_file():
            thumbnails.write_bytes(
                thumbnail.read_bytes(), thumbnails.thumbnail_path(store.folder, entry["sha256"], entry.get("up"))
            )
    embeddings = sum(_import_model(store, path, entries, seen) for path in sorted((folder / EMBEDDINGS).glob("*.safetensors")))
    return Transfer(len(entries), embeddings, copied, beside, sum(entry["error"] is not None for entry in entries))


def _export_files(store: Store, folder: Path, assets: list[Asset], stamps: dict[Path, int], files: bool) -> Transfer:
    """Write the listing, thumbnails and, if asked for, the asset files with their side files."""
    copied = 0
    left_out: list[tuple[Path, str]] = []
    beside: dict[str, dict[str, str]] = {}
    for asset in assets:
        if files:
            target = folder / FILES / asset.sha256 / name_in_export(asset)
            source, reason = _copy_asset(store.places(asset), target, asset.sha256)
            if source is None:
                left_out.append((asset.path, reason))
            else:
                copied += 1
                beside[asset.sha256], reasons = _copy_side_files(source, target.parent)
                left_out += reasons
        thumbnail = thumbnails.thumbnail_path(store.folder, asset.sha256, asset.up)
        if thumbnail.is_file():
            (folder / thumbnails.FOLDER).mkdir(exist_ok=True)
            with contextlib.suppress(_UnreadableError):  # deleted a moment ago; it is drawn again when it is asked for
                _copy(thumbnail, folder / thumbnails.FOLDER / thumbnail.name)
    write_listing(folder, [entry_of(asset, stamps[asset.path], beside.get(asset.sha256, {})) for asset in assets])
    unread = sum(asset.error is not None for asset in assets)
    return Transfer(len(assets), 0, copied, sum(map(len, beside.values())), unread, tuple(left_out))


def _copy_asset(places: list[Path], target: Path, sha256: str) -> tuple[Path | None, str]:
    """Copy the first of the places that holds a content: which one; None and the reason where none does."""
    reason = GONE
    target.parent.mkdir(parents=True)
    for place in places:
        try:
            if _copy(place, target) == sha256:
                return place, ""
            reason = CHANGED
        except _UnreadableError as error:
            reason = str(error)
    shutil.rmtree(target.parent)
    return None, reason


class _UnreadableError(Exception):
    """A file that is to be copied cannot be read; the message is the reason. Errors of writing stay what they are."""


def _copy(source: Path, target: Path) -> str:
    """Copy a file; the sha256 of what was copied. Raises _UnreadableError; nothing is left at `target` then."""
    digest = hashlib.sha256()
    try:
        with target.open("wb") as out:
            for part in _parts(source):
                digest.update(part)
                out.write(part)
    except _UnreadableError:
        target.unlink()
        raise
    return digest.hexdigest()


def _parts(source: Path) -> Iterator[bytes]:
    """What is in a file, some of it at a time."""
    try:
        with source.open("rb") as handle:
            while part := handle.read(PART):
                yield part
    except FileNotFoundError as error:
        raise _UnreadableError(GONE) from error
    except OSError as error:
        raise _UnreadableError(f"cannot be read ({error.strerror or error})") from error


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
    if os.path.isfile(source):
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


def _copy_side_files(source: Path, folder: Path) -> tuple[dict[str, str], list[tuple[Path, str]]]:
    """Copy the side files of an asset into its folder of the export: their names and sha256, and why some were left out."""
    copied, reasons = {}, []
    for name in side_files(source):
        target = folder / name
        if target.exists():  # of the name that the asset has in the export
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            copied[str(name)] = _copy(source.parent / name, target)
        except _UnreadableError as error:
            reasons.append((source.parent / name, str(error)))
    return copied, reasons


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
    """Store the embeddings of one model, an asset in each transaction.

    Those that are there already are passed over, and so are those of assets that here have another axis up.
    """
    try:
        with safe_open(path, "np") as file:
            rows, vectors = file.get_tensor("ids"), file.get_tensor("vectors")
            name = (file.metadata() or {}).get("name", "")
        if rows.shape != vectors.shape[:1] or vectors.ndim != 2 or (rows.dtype, vectors.dtype) != (np.int64, np.float32):
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
    except (OSError, SafetensorError, DataError, TypeError) as error:  # TypeError: of a number that NumPy has not
        raise FormatError(f"{path}: is damaged ({error}); copy the export again.") from error
    for row, vector in zip(rows.tolist(), vectors, strict=True):
        known, up = store.known_content(seen[row].sha256, path.stem), entries[row].get("up")
        if known is not None and known.error is None and (known.embedded or known.up != up):
            store.note_file(seen[row], known.asset_id)
            continue
        bounds = np.array(entries[row]["bounds"], np.float32)
        store.put_indexed(Indexed(seen[row], vector, entries[row]["gaussians"], bounds, up), path.stem, name)
    return len(rows)
