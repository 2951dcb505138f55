"""Indexing: find the files, leave out what is known, read, embed and store the rest in small batches.

Design
- A file whose size and time of change are as recorded is not opened. Otherwise its content is hashed; a content that
  is known (a copy, a renamed or a touched file) is not read either.
- One bad file never ends a run: it is recorded with the reason, reported, and not tried again until it changes.
- Memory stays flat: a batch ends at 16 assets or 400,000 Gaussians, is stored in one transaction, and is let go.
  Whatever stops the run, the batches before are kept.
"""

import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from splatsense.errors import DataError, FormatError, LibraryError, LimitError, SplatSenseError
from splatsense.formats import ASSET_SUFFIXES
from splatsense.gaussians import Gaussians
from splatsense.library.embedding_model import EmbeddingModel
from splatsense.library.names import printable
from splatsense.library.store import Indexed, SeenFile, Store
from splatsense.training.progress import Progress

log = logging.getLogger("splatsense")

BATCH_ASSETS = 16
BATCH_GAUSSIANS = 400_000

OnError = Literal["report", "raise"]


@dataclass
class AddReport:
    """What `Library.add` did.

    Attributes:
        indexed: how many assets were read, embedded and stored.
        skipped: how many files were in the library already, as they are or as a copy.
        failed: (path, reason) of every file that could not be indexed, in order.
    """

    indexed: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)


def find_files(paths: Iterable[Path], leave_out: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """All asset files among `paths` and in the folders among them, absolute, each once; and the paths that give none.

    Folders are searched to any depth and through symbolic links, each real folder once. Hidden files and folders are
    passed over; so is the folder `leave_out`. A file named outright is taken whatever its suffix.
    """
    files: dict[Path, None] = {}
    failed: list[tuple[Path, str]] = []
    seen = {_identity(leave_out)}
    for path in paths:
        path = Path(os.path.abspath(path))
        if not path.is_dir():
            if path.exists():
                files[path] = None
            else:
                failed.append((path, "no such file or folder"))
            continue
        is_new, failures = _identity(path) not in seen, len(failed)
        found = list(_walk(path, seen, failed))
        if is_new and not found and len(failed) == failures:
            failed.append((path, f"no asset files in this folder ({' '.join(sorted(ASSET_SUFFIXES))})"))
        files |= dict.fromkeys(found)
    return list(files), failed


def _walk(folder: Path, seen: set[tuple[int, int] | None], failed: list[tuple[Path, str]]) -> Iterator[Path]:
    identity = _identity(folder)
    if identity in seen:
        return
    seen.add(identity)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        failed.append((folder, f"this folder cannot be searched ({error.strerror})"))
        return
    is_sog = any(entry.name == "means_l.webp" for entry in entries)  # not bundled: its meta.json stands for it
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if os.path.isdir(entry.path):
            yield from _walk(Path(entry.path), seen, failed)
        elif os.path.splitext(entry.name)[1].lower() in ASSET_SUFFIXES or (is_sog and entry.name == "meta.json"):
            yield Path(entry.path)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Ingest:
    """One run of indexing.

    Args:
        store: where assets go.
        model: embeds them.
        on_error: "raise" ends the run at the first file that cannot be indexed.
        retry: try files again that failed before and have not changed since.
    """

    def __init__(self, store: Store, model: EmbeddingModel, on_error: OnError = "report", retry: bool = False) -> None:
        self.report = AddReport()
        self._store, self._model, self._on_error, self._retry = store, model, on_error, retry
        self._batch: list[tuple[SeenFile, Gaussians]] = []

    def run(self, files: Sequence[Path], progress: bool) -> AddReport:
        """Index `files` and return the report. An interrupt passes through; what was stored is kept."""
        shown = Progress("indexing", len(files)) if progress and files else None
        try:
            for path in files:
                self._take(path)
                if shown:
                    shown.advance(self._done() - shown.done, printable(path.name))
            self._flush()
            self._store.drop_unseen()
            if shown:
                shown.advance(self._done() - shown.done)
        finally:
            if shown:
                shown.close()
        self.report.failed.sort()
        return self.report

    def _done(self) -> int:
        return self.report.indexed + self.report.skipped + len(self.report.failed)

    def _take(self, path: Path) -> None:
        """Skip, fail or read one file; embed the batch when it is full."""
        file = SeenFile(path, 0, 0)
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise FormatError(f"{path}: is not a regular file.")
            file = SeenFile(path, status.st_size, status.st_mtime_ns)
            known = self._store.known_file(file, self._model.hash)
            if known is None or (known.error is None and not known.embedded) or (known.error is not None and self._retry):
                file = replace(file, sha256=_sha256(path))
                if any(file.sha256 == waiting.sha256 for waiting, _ in self._batch):
                    self._flush()
                known = self._store.known_content(file.sha256, self._model.hash)
                if known is not None:
                    self._store.note_file(file, known.asset_id)
            if known is not None and known.embedded:
                self.report.skipped += 1
            elif known is not None and known.error is not None and not self._retry:
                raise FormatError(f"{path}: {known.error}")
            else:
                self._batch.append((file, load_asset(path)))
        except LibraryError:  # the library is at fault, not the file
            raise
        except (OSError, SplatSenseError) as error:
            self._fail(file, error)
        if len(self._batch) >= BATCH_ASSETS or sum(len(gaussians) for _, gaussians in self._batch) >= BATCH_GAUSSIANS:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        self._embed(batch)

    def _embed(self, batch: list[tuple[SeenFile, Gaussians]]) -> None:
        """Embed and store a batch; when the model refuses it, each asset on its own, to find which one."""
        if not batch:
            return
        try:
            vectors = self._model.encode_gaussians([gaussians for _, gaussians in batch]).cpu().numpy()
            if not np.isfinite(vectors).all():
                raise DataError("the model's embedding of it is not finite; look for extreme positions or scales.")
        except (DataError, LimitError) as error:
            if len(batch) == 1:
                self._fail(batch[0][0], error)
            else:
                for item in batch:
                    self._embed([item])
            return
        facts = [(file, vector, len(g), g.bounds.cpu().numpy()) for (file, g), vector in zip(batch, vectors, strict=True)]
        self._store.put_indexed([Indexed(*fact) for fact in facts], self._model.hash)
        self.report.indexed += len(batch)

    def _fail(self, file: SeenFile, error: Exception) -> None:
        """Report a file; store the reason too if the content is at fault, so that it is not tried again."""
        if self._on_error == "raise":
            raise error
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        reason = reason.removeprefix(f"{file.path}: ")
        if file.sha256 and not isinstance(error, OSError):
            self._store.put_failed(file, os.fsencode(reason).decode("utf-8", "backslashreplace"))
        self.report.failed.append((file.path, reason))


def load_asset(path: Path) -> Gaussians:
    """The Gaussians of an asset file. Raises SplatSenseError whatever goes wrong in reading it."""
    from splatsense.io import load

    try:
        return load(path)
    except (SplatSenseError, OSError):
        raise
    except MemoryError as error:
        raise LimitError(f"{path}: needs more memory than there is.") from error
    except Exception as error:  # a run over thousands of files must outlive a defect in one reader
        log.exception("%s: unexpected error", printable(path))
        raise FormatError(f"{path}: cannot be read; {type(error).__name__}: {error}. Please report this file.") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def seen_file(path: Path) -> SeenFile:
    """A file with the hash of its content. Raises FormatError when it cannot be read."""
    try:
        status = path.stat()
        return SeenFile(path, status.st_size, status.st_mtime_ns, _sha256(path))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).") from error
