"""`Uploads`: files that the page sends, kept in the library's folder under `uploads/`.

Design
- An upload is a folder with a random name; what was dropped together lies in it together, so that an OBJ finds its materials.
- Names come from strangers: each part of one must be a plain name, and the file must be of a kind that assets are made of.
- Bytes are written as they arrive, under a temporary name. The size is limited file by file, and some of the disk stays free.
- What cannot be indexed is deleted again.
"""

import secrets
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool

from splatsense.errors import DataError, LimitError
from splatsense.files import atomic_write
from splatsense.formats import ASSET_SUFFIXES
from splatsense.library import Library
from splatsense.web.settings import WebSettings

FOLDER = "uploads"
COMPANIONS = frozenset({".mtl", ".bin", ".png", ".jpg", ".jpeg", ".webp"})
"""What an OBJ or glTF file refers to."""
NAME_BYTES, DEPTH = 200, 8


class Uploads:
    """Uploads of one library."""

    def __init__(self, library: Library, settings: WebSettings) -> None:
        self._library, self._settings = library, settings
        self._root = library.path / FOLDER
        self._files: dict[str, set[Path]] = {}

    def begin(self) -> str:
        """Make an empty upload and return its id."""
        identity = secrets.token_hex(8)
        (self._root / identity).mkdir(parents=True)
        self._files[identity] = set()
        return identity

    async def receive(self, identity: str, name: str, parts: AsyncIterator[bytes]) -> int:
        """Write one file of an upload and return its size.

        Args:
            identity: of an upload that was begun here.
            name: of the file, with forward slashes between folders.
            parts: its bytes as they arrive.

        Raises:
            DataError: there is no such upload, or the name is not taken.
            LimitError: the upload has too many files, or the disk would be full.
        """
        files = self._open(identity)
        path = self._root / identity / checked_name(name)
        if len(files) >= self._settings.upload_files:
            raise LimitError(f"An upload holds {self._settings.upload_files:,} files at most; index a folder instead.")
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with atomic_write(path) as temporary, temporary.open("wb") as out:
            async for part in parts:
                await run_in_threadpool(self._write, out, part)
                size += len(part)
        files.add(path)
        return size

    def finish(self, identity: str) -> Path:
        """Close an upload to further files and return its folder. Raises DataError when there is no such upload."""
        if not self._open(identity):
            raise DataError("This upload holds no files.")
        del self._files[identity]
        return self._root / identity

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
        for identity in self._files:
            shutil.rmtree(self._root / identity, ignore_errors=True)

    def _write(self, out: BinaryIO, part: bytes) -> None:
        if shutil.disk_usage(self._root).free - len(part) < self._settings.free_bytes:
            raise LimitError("The disk of the library is nearly full; make some space and try again.")
        out.write(part)

    def _open(self, identity: str) -> set[Path]:
        if identity not in self._files:
            raise DataError("There is no such upload, or it is finished.")
        return self._files[identity]


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
