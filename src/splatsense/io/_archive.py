"""Zip archives from strangers, read in memory: nothing is extracted to disk, and nothing in one is taken on trust.

Design
- All members are checked when the archive is opened: names that lead out of it, links, duplicates, encryption,
  compression other than deflate, overlapping members and tables of contents too large to be honest are errors.
- What inflates is counted: all reads of one archive together give at most `inflation_limit` of its size, and a member that
  declares more than is left is refused before the first byte.
- Only errors of our own come out; each names the archive, the member and the remedy.
"""

import contextlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from splatsense.errors import FormatError, LimitError
from splatsense.files import open_to_read
from splatsense.io._decompression import inflation_limit

MOST_MEMBERS = 256
LONGEST_READ = 1 << 20
"""Bytes `zipfile` may ask for at once. It reads the table of contents in one piece, so this bounds that as well."""

DAMAGES = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)


class Archive:
    """The members of an open, checked zip archive."""

    def __init__(self, path: Path, file: zipfile.ZipFile, size: int, most_members: int) -> None:
        self.path = path
        self.size = size
        self._file = file
        self._budget = inflation_limit(size)
        self._members = _check_members(path, file.infolist(), size, most_members)

    @property
    def names(self) -> list[str]:
        """Members that are files, with forward slashes."""
        return list(self._members)

    def size_of(self, name: str) -> int:
        """Bytes the member declares to hold. Raises FormatError when there is none of that name."""
        return self._member(name).file_size

    def read(self, name: str, limit: int) -> bytearray:
        """The whole member, at most `limit` bytes.

        Raises:
            FormatError: there is no such member, or it is damaged.
            LimitError: it is longer than `limit`, or the archive has inflated to too much already.
        """
        member = self._member(name)
        if member.file_size > limit:
            raise LimitError(
                f"{self.path}: member {name!r} declares {member.file_size} bytes; {limit} is the most that makes sense here. "
                "It is damaged or hostile."
            )
        if member.file_size > self._budget:
            raise LimitError(
                f"{self.path}: with member {name!r}, the archive of {self.size} bytes would inflate to more than "
                f"{inflation_limit(self.size)}; it is damaged or hostile."
            )
        self._budget -= member.file_size
        data = bytearray(member.file_size)
        filled = 0
        try:
            with self._file.open(member) as handle:
                while filled < len(data) and (chunk := handle.read(min(LONGEST_READ, len(data) - filled))):
                    data[filled : filled + len(chunk)] = chunk
                    filled += len(chunk)
                handle.read(1)  # the checksum is compared at the end of the member
        except DAMAGES as error:
            raise FormatError(f"{self.path}: member {name!r} is damaged ({error}); copy or export the file again.") from error
        if filled < len(data):
            raise FormatError(
                f"{self.path}: member {name!r} is cut off: {filled} of {len(data)} bytes; copy or export the file again."
            )
        return data

    def _member(self, name: str) -> zipfile.ZipInfo:
        member = self._members.get(name)
        if member is None:
            raise FormatError(
                f"{self.path}: lacks the member {name!r}; it holds {', '.join(self.names[:12]) or 'nothing'}. Export it again."
            )
        return member


@contextlib.contextmanager
def open_archive(path: Path, most_members: int = MOST_MEMBERS) -> Iterator[Archive]:
    """Open a zip archive and check its table of contents.

    Args:
        path: the archive.
        most_members: that an honest archive of its kind has.

    Raises:
        FormatError: it cannot be read, is not a zip archive, or holds what no archive of ours should.
        LimitError: it has more members than that.
    """
    with open_to_read(path) as handle:
        size = path.stat().st_size
        try:
            file = zipfile.ZipFile(_ShortReads(handle, path))  # type: ignore[arg-type]  # has what zipfile needs of a file
        except DAMAGES as error:
            raise FormatError(f"{path}: cut off or not a zip archive ({error}); copy or export it again.") from error
        with file:
            yield Archive(path, file, size, most_members)


def _check_members(path: Path, infos: list[zipfile.ZipInfo], size: int, most: int) -> dict[str, zipfile.ZipInfo]:
    """The files among the members by name, after checking every one of them."""
    if len(infos) > most:
        raise LimitError(f"{path}: has {len(infos)} members; an archive of its kind has at most {most}.")
    if sum(info.compress_size for info in infos) > size:
        raise FormatError(f"{path}: its members overlap or reach past its {size} bytes; it is damaged or hostile.")
    members: dict[str, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    for info in infos:
        name = info.filename.replace("\\", "/")
        fault = _fault(name, info)
        if fault is None and name.casefold() in seen:
            fault = "occurs twice"
        if fault:
            raise FormatError(f"{path}: member {info.filename!r} {fault}; the archive is damaged or hostile.")
        seen.add(name.casefold())
        if not info.is_dir():
            members[name] = info
    return members


def _fault(name: str, info: zipfile.ZipInfo) -> str | None:
    """What is wrong with a member, or None."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if not name or name.startswith("/") or name[1:2] == ":":
        return "has an absolute path"
    if ".." in name.split("/"):
        return "leads out of the archive"
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is not a regular file"
    if info.flag_bits & 0x41:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed with method {info.compress_type}, not deflate"
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        return f"is stored, but its {info.compress_size} bytes are declared as {info.file_size}"
    return None


class _ShortReads:
    """A file that refuses to hand out more than `LONGEST_READ` bytes at once."""

    def __init__(self, handle: BinaryIO, path: Path) -> None:
        self._handle = handle
        self._path = path
        self.seek, self.tell, self.seekable = handle.seek, handle.tell, handle.seekable

    def read(self, count: int = -1) -> bytes:
        data = self._handle.read(min(count, LONGEST_READ + 1) if count >= 0 else LONGEST_READ + 1)
        if len(data) > LONGEST_READ:
            raise LimitError(f"{self._path}: its table of contents is larger than {LONGEST_READ} bytes; it is hostile.")
        return data

    def close(self) -> None:
        """Nothing: whoever opened the file closes it."""
