"""Opening files with errors that say what to do, writing them so that no reader sees half of one; hashes, locks, folders."""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from splatsense.errors import FormatError

DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
NAME_CHARACTERS = 50  # of a file's name in that of its temporary file; at four bytes each they stay within the 255 of a name


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], fsync: bool = False) -> Iterator[Path]:
    """Yield an empty temporary file in the folder of `path`; rename it to `path` when the block ends well.

    If the block raises, the temporary file is removed and whatever was at `path` stays as it was. The temporary
    name starts with a dot and ends in ".tmp", so a writer that looks at the suffix must be told its format.

    Args:
        path: the final name. Its folder must exist.
        fsync: also wait until the bytes are on disk, so that they survive a power cut.

    Raises:
        FormatError: the folder is missing or not writable, the disk is full or fails, or `path` is a folder.

    Example:
        >>> with atomic_write("table.json") as temporary:
        ...     temporary.write_text("{}")
    """
    path = Path(path)
    temporary = _new_beside(path)
    try:
        mode = temporary.stat().st_mode  # as the user's umask has it; some writers replace the file with a private one
        yield temporary
        if fsync:
            _flush_to_disk(temporary)
        temporary.chmod(mode)
        temporary.replace(path)
        if fsync:
            _flush_to_disk(path.parent)
    except OSError as error:  # of the block, which may be about another file: only a disk that fails is surely this one's
        if error.errno not in DISK_FAULTS:
            raise
        raise FormatError(f"{path}: not written ({error.strerror}); free some space or choose another place.") from error
    finally:
        temporary.unlink(missing_ok=True)  # it is gone when all went well


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the FormatError that `atomic_write` would, before the work whose result is to stand at `path`."""
    _new_beside(Path(path)).unlink()


def _new_beside(path: Path) -> Path:
    """A new empty temporary file in the folder of `path`."""
    if path.is_dir():
        raise FormatError(f"{path}: is a folder; give the name of a file to write.")
    temporary = path.with_name(f".{path.name[:NAME_CHARACTERS]}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.open("xb").close()
    except ValueError as error:  # a null byte in the name
        raise FormatError(f"{str(path)!r}: is not a file name ({error}).") from error
    except OSError as error:
        raise FormatError(
            f"{path}: cannot be written ({error.strerror}); check that its folder exists and is writable."
        ) from error
    return temporary


def open_to_read(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file for reading bytes.

    Raises:
        FormatError: it is missing, a folder, a device or pipe, or may not be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise FormatError(f"{path}: is a folder; give the name of a file in it.")
        if path.exists() and not path.is_file():
            raise FormatError(f"{path}: is not a regular file.")
        return path.open("rb")
    except FileNotFoundError as error:
        raise FormatError(f"{path}: does not exist; check the name.") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error
    except ValueError as error:  # a null byte in the name
        raise FormatError(f"{str(path)!r}: is not a file name ({error}).") from error


def open_referred(path: str | os.PathLike[str], where: str) -> BufferedReader:
    """`open_to_read` for a file that another one refers to: the errors name the latter, `where`, too."""
    try:
        return open_to_read(path)
    except FormatError as error:
        raise FormatError(f"{where}: refers to {error}") from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hex digest of a file's content. Raises OSError when it cannot be read."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def walk(root: str | os.PathLike[str]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder at or below `root`, with the names of the folders and of the files in it, sorted.

    Symbolic links are followed after all that lies below `root` itself, and each real folder is visited once.
    """
    seen: set[str] = set()
    waiting = [Path(root)]
    for start in waiting:  # links are added on the way
        for name, folders, files in os.walk(start):
            folder, real = Path(name), os.path.realpath(name)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            waiting += [folder / inner for inner in folders if (folder / inner).is_symlink()]
            yield folder, folders, sorted(files)


@contextlib.contextmanager
def locked(folder: Path, work: str) -> Iterator[None]:
    """Keep other processes that do the same `work` out of a folder, which is made; the lock goes when its holder dies.

    Raises:
        FormatError: one is at work in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FormatError(f"{folder}: another {work} is at work in this folder; wait for it, or use another.") from error
        yield


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
