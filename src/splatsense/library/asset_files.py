"""Asset files on disk: which there are, what is in them, and whether they are gone."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from splatsense.errors import FormatError
from splatsense.files import sha256_of
from splatsense.formats import ARCHIVE_SUFFIXES, ASSET_SUFFIXES
from splatsense.library.records import SeenFile
from splatsense.tables import counted, printable, short_path


def find_files(paths: Iterable[Path], leave_out: Path) -> tuple[list[Path], list[tuple[Path, str]], list[Path]]:
    """All asset files among `paths` and in the folders among them, absolute, each once; the paths that give none, with the
    reasons; and the archives in those folders, which are passed over.

    Folders are searched to any depth and through symbolic links, each real folder once. Hidden files and folders are
    passed over; so is the folder `leave_out`. A file named outright is taken whatever its suffix.
    """
    files: dict[Path, None] = {}
    failed: list[tuple[Path, str]] = []
    archives: list[Path] = []
    seen = {_identity(leave_out)}
    for path in paths:
        path = Path(os.path.abspath(path))
        if not os.path.isdir(path):  # unlike the methods of Path, these have no errors
            if os.path.exists(path):
                files[path] = None
            else:
                failed.append((path, "no such file or folder"))
            continue
        is_new, failures = _identity(path) not in seen, len(failed)
        found = list(_walk(path, seen, failed, archives))
        if is_new and not found and len(failed) == failures:
            failed.append((path, f"no asset files in this folder ({' '.join(sorted(ASSET_SUFFIXES))})"))
        files |= dict.fromkeys(found)
    return list(files), failed, archives


def _walk(
    folder: Path, seen: set[tuple[int, int] | None], failed: list[tuple[Path, str]], archives: list[Path]
) -> Iterator[Path]:
    identity = _identity(folder)
    if identity in seen:
        return
    seen.add(identity)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        failed.append((folder, f"this folder cannot be searched ({error.strerror})"))
        return
    for entry in entries:
        if is_hidden(entry.name):
            continue
        if os.path.isdir(entry.path):
            yield from _walk(Path(entry.path), seen, failed, archives)
        elif is_named_like_asset(Path(entry.path)):
            if entry.is_symlink() and not os.path.exists(entry.path):
                failed.append((Path(entry.path), "is a link to a file that is gone"))
            else:
                yield Path(entry.path)
        elif is_named_like_archive(Path(entry.path)):
            archives.append(Path(entry.path))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over when the folder that it is in is searched."""
    return name.startswith(".") or name == "__MACOSX"


def is_named_like_asset(path: Path) -> bool:
    """Whether a file has the name of an asset. A SOG that is not bundled is a folder; its meta.json stands for it."""
    return path.suffix.lower() in ASSET_SUFFIXES or (path.name == "meta.json" and path.with_name("means_l.webp").is_file())


def is_named_like_archive(path: Path) -> bool:
    """Whether a file has the name of an archive that may hold assets."""
    return path.suffix.lower() in ARCHIVE_SUFFIXES


def passed_over(archives: Sequence[Path]) -> str:
    """What to tell of the archives that `find_files` passed over; "" where there are none."""
    if not archives:
        return ""
    first = printable(short_path(archives[0]))
    return f"Passed over {counted(len(archives), 'archive')}, such as {first}. Unpack what is wanted of them."


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def unread_file(path: Path) -> SeenFile:
    """A file without the hash of its content.

    Raises:
        FormatError: it is a folder, a device or a pipe, which might never end.
        OSError: it is gone or may not be looked at.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path}: is not a regular file.")
    return SeenFile(path, status.st_size, status.st_mtime_ns)


def seen_file(path: Path) -> SeenFile:
    """A file with the hash of its content. Raises FormatError when it cannot be read."""
    try:
        return replace(unread_file(path), sha256=sha256_of(path))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}).") from error


def is_gone(path: str | bytes | os.PathLike[str]) -> bool:
    """Whether there is surely no such file: one that may not be looked at is not gone."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
