"""`Uploads`: files that the page sends, kept in the library's folder under `uploads/`.

Design
- An upload is a folder with a random name; what was dropped together lies in it together, so that an OBJ finds its materials.
- Names come from strangers: each part of one must be a plain name, and the file must be of a kind that assets are made of.
- Bytes are written as they arrive, under a temporary name. The size is limited file by file, and some of the disk stays free.
- An upload waits from its beginning until it has been indexed. How many wait, and their bytes, are limited together; whoever
  comes then is told to come again (429). One that its sender has left alone makes room for others.
- What cannot be indexed is deleted again.
"""

import os
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from splatsense.errors import DataError, LibraryError, LimitError
from splatsense.files import atomic_write
from splatsense.formats import ASSET_SUFFIXES
from splatsense.library import Library
from splatsense.tables import counted
from splatsense.web.settings import WebSettings

FOLDER = "uploads"
COMPANIONS = frozenset({".mtl", ".bin", ".png", ".jpg", ".jpeg", ".webp"})
"""What an OBJ or glTF file refers to."""
NAME_BYTES, DEPTH = 200, 8
RETRY_SECONDS = 30
"""When to come again, as the reply's Retry-After says."""


@dataclass
class _Upload:
    """One that waits: its files, how many more arrive, the bytes of all, and when the last ones came."""

    files: set[Path] = field(default_factory=set)
    arriving: int = 0
    size: int = 0
    touched: float = field(default_factory=time.monotonic)
    is_open: bool = True


class Uploads:
    """Uploads of one library."""

    def __init__(self, library: Library, settings: WebSettings) -> None:
        self._library, self._settings = library, settings
        self._root = library.path / FOLDER
        self._waiting: dict[str, _Upload] = {}
        self._lock = threading.Lock()

    def begin(self) -> str:
        """Make an empty upload and return its id.

        Raises:
            HTTPException: 429, too many wait.
            LibraryError: the library's folder cannot be written.
        """
        identity = secrets.token_hex(8)
        with self._lock:
            self._drop_idle()
            if len(self._waiting) >= self._settings.waiting_uploads:
                raise busy(f"No more than {counted(len(self._waiting), 'upload')} may wait to be indexed")
            try:
                (self._root / identity).mkdir(parents=True)
            except OSError as error:
                raise LibraryError(f"{self._root}: no upload can be kept here ({error.strerror}).") from error
            self._waiting[identity] = _Upload()
        return identity

    async def receive(self, identity: str, name: str, parts: AsyncIterator[bytes]) -> int:
        """Write one file of an upload and return its size.

        Args:
            identity: of an upload that was begun here.
            name: of the file, with forward slashes between folders.
            parts: its bytes as they arrive.

        Raises:
            DataError: there is no such upload, or the name is not taken or lies below that of a file.
            LimitError: the upload has too many files, or the disk would be full.
            HTTPException: 429, all that waits together would be too large.
        """
        path = self._root / identity / checked_name(name)
        with self._lock:
            upload = self._open(identity)
            if len(upload.files) + upload.arriving >= self._settings.upload_files:
                raise LimitError(f"An upload holds {self._settings.upload_files:,} files at most; index a folder instead.")
            upload.arriving += 1
        try:
            size = await self._receive(upload, path, parts)
            upload.files.add(path)
        except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
            # A part of the name is that of a file, or the upload was abandoned meanwhile.
            raise DataError(f"{name!r} does not fit what this upload holds; send it in another one.") from error
        finally:
            with self._lock:
                upload.arriving -= 1
        return size

    async def _receive(self, upload: _Upload, path: Path, parts: AsyncIterator[bytes]) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        size, before = 0, path.stat().st_size if path.is_file() else 0
        try:
            with atomic_write(path) as temporary, temporary.open("wb") as out:
                async for part in parts:
                    self._count(upload, len(part))
                    size += len(part)
                    await run_in_threadpool(write_part, out, part, self._settings)
        except BaseException:
            self._count(upload, -size)
            raise
        self._count(upload, -before)  # it was sent again
        return size

    def finish(self, identity: str) -> Path:
        """Close an upload to further files and return its folder.

        Raises:
            DataError: there is no such upload, it is empty, or a file is still arriving.
        """
        with self._lock:
            upload = self._open(identity)
            if upload.arriving:
                raise DataError(f"{counted(upload.arriving, 'file')} of this upload still arriving; index it afterwards.")
            if not upload.files:
                raise DataError("This upload holds no files.")
            upload.is_open = False
        return self._root / identity

    def settle(self, identity: str) -> None:
        """It waits no longer: it has been indexed, or never will be."""
        with self._lock:
            self._waiting.pop(identity, None)

    def abandon(self, identity: str) -> None:
        """Delete an upload that was begun and will not be finished. Raises DataError when there is no such upload."""
        self._open(identity)
        self.settle(identity)
        shutil.rmtree(self._root / identity, ignore_errors=True)

    def assets(self, folder: Path) -> list[Path]:
        """The files of an upload's folder that are assets and no companions of one."""
        return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ASSET_SUFFIXES and path.is_file())

    def discard(self, folder: Path, failed: Sequence[Path]) -> None:
        """Delete the files of an upload that could not be indexed, and all of it when nothing is left that could."""
        wanted = {path for path in failed if path.is_relative_to(folder)}
        for asset in self._library.failures():
            if asset.path in wanted:
                self._library.remove(asset)
        for path in wanted:
            path.unlink(missing_ok=True)
        if folder.is_dir() and not self.assets(folder):
            shutil.rmtree(folder)

    def close(self) -> None:
        """Delete what was begun and never finished."""
        for identity, upload in self._waiting.items():
            if upload.is_open:
                shutil.rmtree(self._root / identity, ignore_errors=True)

    def _count(self, upload: _Upload, size: int) -> None:
        """Add bytes to those that wait."""
        with self._lock:
            waiting = sum(one.size for one in self._waiting.values()) + size
            if size > 0 and waiting > self._settings.waiting_bytes:
                raise busy(f"Uploads that wait to be indexed may hold {self._settings.waiting_bytes:,} bytes together")
            upload.size += size
            upload.touched = time.monotonic()

    def _drop_idle(self) -> None:
        """Where there are too many, delete open uploads to which nothing has come for long."""
        before = time.monotonic() - self._settings.idle_seconds
        if len(self._waiting) >= self._settings.waiting_uploads:
            for identity in [key for key, one in self._waiting.items() if one.is_open and one.touched < before]:
                del self._waiting[identity]
                shutil.rmtree(self._root / identity, ignore_errors=True)

    def _open(self, identity: str) -> _Upload:
        upload = self._waiting.get(identity)
        if upload is None or not upload.is_open:
            raise DataError("There is no such upload, or it is finished.")
        return upload


def write_part(out: BinaryIO, part: bytes, settings: WebSettings) -> None:
    """Write bytes of a stranger into a file. Raises LimitError when that would leave too little of its disk."""
    disk = os.fstatvfs(out.fileno())
    if disk.f_bavail * disk.f_frsize - len(part) < settings.free_bytes:
        raise LimitError("The disk of the server is nearly full; make some space and try again.")
    out.write(part)


def busy(what: str) -> HTTPException:
    """The reply to whoever comes when enough is waiting already."""
    return HTTPException(429, f"{what}; try again when some are done.", {"Retry-After": str(RETRY_SECONDS)})


def checked_name(name: str) -> Path:
    """A relative path out of a stranger's file name.

    Raises:
        DataError: a part of it is no plain name, or it is of a kind that is not taken.
    """
    parts = name.split("/")
    for part in parts:
        if not part or part.startswith(".") or "\\" in part or not part.isprintable() or len(part.encode()) > NAME_BYTES:
            raise DataError(f"{name!r} is no name that files are taken under; rename it.")
    if len(parts) > DEPTH:
        raise DataError(f"{name!r} lies more than {DEPTH} folders deep.")
    suffix = Path(parts[-1]).suffix.lower()
    if suffix not in ASSET_SUFFIXES | COMPANIONS:
        known = ", ".join(sorted(ASSET_SUFFIXES))
        raise DataError(f"{parts[-1]!r} is no 3D asset; these are taken: {known}.")
    return Path(*parts)
