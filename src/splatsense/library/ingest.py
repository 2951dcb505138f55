"""Indexing: of the files given, leave out what is known; read, embed and store the rest.

Design
- A file whose size and time of change are as recorded is not opened. Otherwise its content is hashed; a content that
  is known (a copy, a renamed or a touched file) is not read either, unless another axis is said to point up than before.
- One bad file never ends a run: it is recorded with the reason, reported, and not tried again until it changes, gets another
  name, or another axis is said to point up. One that is read with others beside it, as glTF is, is tried every time.
- Files are read ahead of the model, a few at a time; `splatsense.library.reading` says where.
- Memory stays flat: a batch for the model ends at 16 assets or 400,000 Gaussians. Each asset is stored in a transaction of its
  own, after its thumbnail. Whatever stops the run, those before are kept.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from splatsense.errors import DataError, FormatError, LibraryError, LimitError, SplatSenseError
from splatsense.files import sha256_of
from splatsense.geometry.upright import Axis, Up
from splatsense.library import thumbnails
from splatsense.library.asset_files import unread_file
from splatsense.library.embedding_model import EmbeddingModel
from splatsense.library.reading import Read, Reading
from splatsense.library.records import Indexed, Known, SeenFile
from splatsense.library.store import Store
from splatsense.tables import printable
from splatsense.training.progress import Progress
from splatsense.upright import stood_up

BATCH_ASSETS = 16
BATCH_GAUSSIANS = 400_000
READ_AHEAD = 16
READ_AHEAD_BYTES = 200 << 20  # of files; those beyond wait until some are read

OnError = Literal["report", "raise"]


@dataclass
class AddReport:
    """What `Library.add` did.

    Attributes:
        indexed: how many assets were read, embedded and stored.
        skipped: how many files were in the library already, as they are or as a copy.
        failed: (path, reason) of every file that could not be indexed, in order.
        archives: such as .zip, that were found in folders and passed over; what is in them was not indexed.
    """

    indexed: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Embedded:
    """What became of a file that was read and embedded elsewhere: `indexed`, or the error. No hash: it could not be opened."""

    file: SeenFile
    indexed: Indexed | None
    thumbnail: bytes | None = None
    error: str = ""


class Ingest:
    """One run of indexing.

    Args:
        store: where assets go.
        model: embeds them.
        read: reads files.
        on_error: "raise" ends the run at the first file that cannot be indexed.
        retry: try files again that failed before and have not changed since.
        draw: also draw thumbnails into the library's folder.
        up: axis of all these files that points up; "auto" forgets what was said before, None leaves it as it was.
    """

    def __init__(self, store: Store, model: EmbeddingModel, read: Read, on_error: OnError = "report", retry: bool = False,
                 draw: bool = False, up: Up | None = None) -> None:  # fmt: skip
        self.report = AddReport()
        self._store, self._model, self._on_error, self._retry = store, model, on_error, retry
        self._read_file, self._draw = read, draw
        self._up: Up | None = up
        self._reading: deque[tuple[SeenFile, Axis | None, Future[Reading]]] = deque()
        self._batch: list[tuple[SeenFile, Axis | None, Reading]] = []

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
            for _, _, future in self._reading:
                future.cancel()
            if shown:
                shown.close()
        self.report.failed.sort()
        return self.report

    def run_elsewhere(
        self, files: Sequence[Path], embed: Callable[[list[tuple[Path, Axis | None]]], Iterable[Embedded]], progress: bool
    ) -> AddReport:
        """As `run`, but `embed` reads and embeds the files that are new or have changed, in any order, given what points up."""
        pending: list[tuple[Path, Axis | None]] = []
        for path in files:
            try:
                file = unread_file(path)
            except (OSError, FormatError) as error:
                self._fail(SeenFile(path, 0, 0), error, None)
                continue
            known = self._store.known_file(file, self._model.hash)
            if known is None or self._is_wanted(known) or _may_be_mended(known, path):
                pending.append((path, self._up_of(known)))
            elif known.error is not None:
                self.report.failed.append((path, known.error))
            else:
                self.report.skipped += 1
        shown = Progress("indexing", len(files), self._done()) if progress and pending else None
        try:
            for item in embed(pending) if pending else ():
                self._put_embedded(item)
                if shown:
                    shown.advance(self._done() - shown.done, printable(item.file.path.name))
        finally:
            if shown:
                shown.close()
        self._store.drop_unseen()
        self.report.failed.sort()
        return self.report

    def _put_embedded(self, item: Embedded) -> None:
        known = self._store.known_content(item.file.sha256, self._model.hash)
        is_same = known is not None and known.error is None and not self._is_wanted(known)
        if known is not None and is_same and self._store.note_file(item.file, known.asset_id):
            self.report.skipped += 1
        elif item.indexed is None:
            error = FormatError(item.error) if item.file.sha256 else OSError(0, item.error)
            self._fail(item.file, error, self._up_of(known))
        elif item.indexed.up != self._up_of(known):  # a copy of an asset of which more is known than whoever read it knew
            self._take(item.file.path)
            self._flush()
        else:
            self._put(item.indexed, item.thumbnail)

    def _up_of(self, known: Known | None) -> Axis | None:
        """Which axis of an asset points up, by what is said now or was said before."""
        if self._up is None:
            return known.up if known is not None else None
        return None if self._up == "auto" else self._up

    def _is_wanted(self, known: Known) -> bool:
        """Whether something the store knows is to be read and embedded all the same."""
        again = not known.embedded if known.error is None else self._retry
        return again or known.up != self._up_of(known)

    def _done(self) -> int:
        return self.report.indexed + self.report.skipped + len(self.report.failed)

    def _take(self, path: Path) -> None:
        """Skip a file, fail it, or begin to read it."""
        file, known = SeenFile(path, 0, 0), None
        try:
            file = unread_file(path)
            known = self._store.known_file(file, self._model.hash)
            if known is not None and known.error is not None and not self._is_wanted(known) and not _may_be_mended(known, path):
                raise FormatError(f"{path}: {known.error}")
            if known is None or known.error is not None or self._is_wanted(known):
                file = replace(file, sha256=sha256_of(path))
                if any(file.sha256 == waiting.sha256 for waiting, _, _ in (*self._batch, *self._reading)):
                    self._flush()
                known = self._store.known_content(file.sha256, self._model.hash)
                if known is not None and not self._store.note_file(file, known.asset_id):
                    known = None
            if known is None or known.error is not None or self._is_wanted(known):  # under another name it may be no fault
                self._begin(file, self._up_of(known))
            else:
                self.report.skipped += 1
        except LibraryError:  # the library is at fault, not the file
            raise
        except (OSError, SplatSenseError) as error:
            self._fail(file, error, self._up_of(known))

    def _begin(self, file: SeenFile, up: Axis | None) -> None:
        """Begin to read a file, after taking in what was read as far as the limits of reading ahead ask for it."""
        while self._reading and (len(self._reading) >= READ_AHEAD or self._bytes_ahead() + file.size > READ_AHEAD_BYTES):
            self._finish()
        self._reading.append((file, up, self._read_file(file.path, self._draw, up)))

    def _bytes_ahead(self) -> int:
        return sum(file.size for file, _, _ in self._reading)

    def _finish(self) -> None:
        """Take in the file that has been read for longest; embed the batch when it is full."""
        file, up, future = self._reading.popleft()
        try:
            self._batch.append((file, up, future.result()))
        except LibraryError:
            raise
        except (OSError, SplatSenseError) as error:
            self._fail(file, error, up)
        if len(self._batch) >= BATCH_ASSETS or sum(len(read.gaussians) for _, _, read in self._batch) >= BATCH_GAUSSIANS:
            self._embed_batch()

    def _flush(self) -> None:
        while self._reading:
            self._finish()
        self._embed_batch()

    def _embed_batch(self) -> None:
        batch, self._batch = self._batch, []
        self._embed(batch)

    def _embed(self, batch: list[tuple[SeenFile, Axis | None, Reading]]) -> None:
        """Embed and store a batch; when the model refuses it, each asset on its own, to find which one."""
        if not batch:
            return
        try:
            vectors = self._model.encode_gaussians([stood_up(read.gaussians, up) for _, up, read in batch]).cpu().numpy()
            if not np.isfinite(vectors).all():
                raise DataError("the model's embedding of it is not finite; look for extreme positions or scales.")
        except (DataError, LimitError) as error:
            if len(batch) == 1:
                file, up, _ = batch[0]
                self._fail(file, error, up)
            else:
                for item in batch:
                    self._embed([item])
            return
        for (file, up, read), vector in zip(batch, vectors, strict=True):
            bounds = read.gaussians.bounds.cpu().numpy()
            self._put(Indexed(file, vector, len(read.gaussians), bounds, up), read.thumbnail)

    def _put(self, item: Indexed, thumbnail: bytes | None) -> None:
        if thumbnail is not None:
            path = thumbnails.thumbnail_path(self._store.folder, item.file.sha256, item.up)
            if not path.is_file():
                thumbnails.write_bytes(thumbnail, path)
        self._store.put_indexed(item, self._model.hash, self._model.name)
        self.report.indexed += 1

    def _fail(self, file: SeenFile, error: Exception, up: Axis | None) -> None:
        """Report a file; if the content is at fault, store the reason and what was to be up, so that it is not tried again."""
        if self._on_error == "raise":
            raise error
        reason = reason_of(error, file.path)
        if file.sha256 and not isinstance(error, OSError):
            self._store.put_failed(file, os.fsencode(reason).decode("utf-8", "backslashreplace"), up)
        self.report.failed.append((file.path, reason))


def _may_be_mended(known: Known, path: Path) -> bool:
    """Whether a file that failed may be whole by now though it has not changed itself: its other files may have come."""
    return known.error is not None and (path.suffix.lower() == ".gltf" or path.name == "meta.json")


def reason_of(error: Exception, path: Path) -> str:
    """Why a file could not be indexed, without its name in front."""
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return reason.removeprefix(f"{path}: ")
