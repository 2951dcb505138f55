"""Writing files so that a reader never sees half of one, and a crash never leaves one under its final name."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from splatsense.errors import FormatError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], fsync: bool = False) -> Iterator[Path]:
    """Yield an empty temporary file in the folder of `path`; rename it to `path` when the block ends well.

    If the block raises, the temporary file is removed and whatever was at `path` stays as it was. The temporary
    name starts with a dot and ends in ".tmp", so a writer that looks at the suffix must be told its format.

    Args:
        path: the final name. Its folder must exist.
        fsync: also wait until the bytes are on disk, so that they survive a power cut.

    Raises:
        FormatError: the folder is missing or not writable, or `path` is a folder.

    Example:
        >>> with atomic_write("table.json") as temporary:
        ...     temporary.write_text("{}")
    """
    path = Path(path)
    if path.is_dir():
        raise FormatError(f"{path}: is a folder; give the name of a file to write.")
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.open("xb").close()
    except OSError as error:
        raise FormatError(
            f"{path}: cannot be written ({error.strerror}); check that its folder exists and is writable."
        ) from error
    try:
        yield temporary
        if fsync:
            _flush_to_disk(temporary)
        temporary.replace(path)
        if fsync:
            _flush_to_disk(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
