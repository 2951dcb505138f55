"""Is a library whole? `verify` looks without changing anything; `rebuild` makes everything anew that can be.

The truth is the database and the asset files. Vectors, FAISS indexes and thumbnails are made from them, so a fault there is
repaired by `rebuild`; an embedding that is missing or damaged, by indexing its file again.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from splatsense.errors import FormatError, LibraryError
from splatsense.files import sha256_of
from splatsense.library import thumbnails
from splatsense.library.asset_files import unread_file
from splatsense.library.index import VectorIndex, read_index
from splatsense.library.records import Asset, Embeddings
from splatsense.library.store import Store
from splatsense.library.vectors import VectorCache

UNIT_TOLERANCE = 1e-3
LEFT_OVER_SECONDS = 3600  # after which a temporary file is that of a process that was killed


@dataclass
class VerifyReport:
    """What `verify` found.

    Attributes:
        assets: how many could be read when they were indexed.
        embeddings: how many there are, of all models.
        problems: what is wrong with the library, each with the remedy.
        missing: assets of which no file exists any more. They are still found; their files may be on a disk that is away.
        changed: files whose content is not the one that was indexed, to be indexed again.
    """

    assets: int = 0
    embeddings: int = 0
    problems: list[str] = field(default_factory=list)
    missing: list[Asset] = field(default_factory=list)
    changed: list[Path] = field(default_factory=list)


def verify(store: Store, contents: bool = False) -> VerifyReport:
    """Check the database, every embedding, the vectors files and thumbnails, and whether the files are still there.

    Args:
        store: of the library.
        contents: also read every file and compare its hash; otherwise only its size and time of change.
    """
    report = VerifyReport(problems=store.database.problems())
    with store.snapshot():  # others may write meanwhile
        report.assets, assets = store.count(), store.all_assets()
        _verify_embeddings(store, {asset.id for asset in assets}, report)
        _verify_vectors_files(store, report)
    for asset in assets:
        if not store.places(asset):
            report.missing.append(asset)
        thumbnail = thumbnails.thumbnail_path(store.folder, asset.sha256, asset.up)
        if thumbnail.exists() and not _opens(thumbnail):
            report.problems.append(f"{thumbnail}: is damaged; `splatsense library rebuild` draws it again.")
    report.changed = list(_changed_files(store, contents))
    return report


def rebuild(store: Store, caches: list[VectorCache]) -> int:
    """Delete damaged and unused thumbnails and write the vectors files again; returns how many thumbnails went.

    Raises:
        LibraryError: the database itself is damaged.
    """
    problems = store.database.problems()
    if problems:
        raise LibraryError(f"{problems[0]}; the database itself is damaged: restore a copy, or index the files again.")
    used = {thumbnails.thumbnail_path(store.folder, asset.sha256, asset.up).name for asset in store.all_assets()}
    gone = 0
    folder = store.folder / thumbnails.FOLDER
    for path in folder.iterdir() if folder.is_dir() else ():
        if _is_left_over(path) if path.name.startswith(".") else path.name not in used or not _opens(path):
            path.unlink(missing_ok=True)
            gone += 1
    for cache in caches:
        cache.rebuild()
    return gone


def _verify_embeddings(store: Store, ids: set[int], report: VerifyReport) -> None:
    """Every embedding must be of its model's length, of unit length and of an asset; every asset must have one."""
    embedded: set[int] = set()
    for model in store.models():
        name = model.name or model.hash[:12]
        try:
            for part in store.embeddings(model.hash):
                report.embeddings += len(part.ids)
                embedded |= set(part.ids.tolist())
                lengths = np.linalg.norm(part.vectors.astype(np.float64), axis=1)
                wrong = part.vectors.shape[1] != model.dim or not np.all(np.abs(lengths - 1) < UNIT_TOLERANCE)
                if wrong:
                    bad = part.ids[~(np.abs(lengths - 1) < UNIT_TOLERANCE)].tolist() or part.ids.tolist()
                    report.problems.append(
                        f"{store.place}: {len(bad)} embeddings by {name} are damaged, first of asset {bad[0]}; "
                        "remove these assets and add their files again."
                    )
        except (LibraryError, ValueError) as error:
            report.problems.append(str(error))
    lost = sorted(ids - embedded)
    if lost:
        report.problems.append(
            f"{store.place}: {len(lost)} assets have no embedding, first asset {lost[0]}; add their files again."
        )


def _verify_vectors_files(store: Store, report: VerifyReport) -> None:
    """A vectors file that claims to be of the present epoch must hold what the database holds."""
    for model in store.models():
        revision = store.revision(model.hash)
        for path in sorted(store.folder.glob(f"vectors-*{model.hash[:12]}.f32")):
            index = read_index(path, revision.epoch) if revision else None
            if index is None or revision is None or index.revision.sequence > revision.sequence:
                continue  # of another epoch, or written a moment ago: the next search looks at that itself
            with contextlib.suppress(LibraryError, ValueError):  # embeddings that cannot be read were reported before
                if not _is_copy(index, store.embeddings(model.hash)):
                    report.problems.append(f"{path}: differs from the database; `splatsense library rebuild` repairs it.")


def _is_copy(index: VectorIndex, stored: Iterator[Embeddings]) -> bool:
    """Whether every row of a vectors file is as it is stored; embeddings that are newer than the file are passed over."""
    row = 0
    for part in stored:
        kept = np.isin(part.ids, index.ids)
        rows = slice(row, row + int(kept.sum()))
        if not (np.array_equal(part.ids[kept], index.ids[rows]) and np.array_equal(part.vectors[kept], index.vectors[rows])):
            return False
        row = rows.stop
    return row == len(index)


def _changed_files(store: Store, contents: bool) -> Iterator[Path]:
    for _, file in store.files():
        try:
            now = unread_file(file.path)
            if (now.size, now.mtime_ns) == (file.size, file.mtime_ns) and not contents:
                continue
            if sha256_of(file.path) != file.sha256:
                yield file.path
        except FormatError:  # a folder or a pipe by now
            yield file.path
        except OSError:
            continue  # gone or away: counted as missing when it is the asset's only file


def _is_left_over(path: Path) -> bool:
    """Whether a temporary file is none that another process is writing now."""
    try:
        return time.time() - path.stat().st_mtime > LEFT_OVER_SECONDS
    except FileNotFoundError:
        return False


def _opens(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True
