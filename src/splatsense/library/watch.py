"""Watch mode: a library that follows folders while it runs (extra `watch`).

Design
- watchfiles tells which paths changed, after they have been quiet for a moment. New and changed files are indexed; a deleted
  file is forgotten unless its content turned up elsewhere, which is how renames and moves keep their asset.
- It begins with an ordinary `Library.add` and forgets files that went while nobody watched.
- A file that is still being written fails to read, and is read again when it changes.
"""

import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import TYPE_CHECKING

from splatsense.errors import DataError, FormatError, LibraryError
from splatsense.geometry.upright import Up
from splatsense.library.asset_files import find_files, is_gone, is_hidden, is_named_like_archive, is_named_like_asset
from splatsense.library.ingest import AddReport

if TYPE_CHECKING:
    from splatsense.library.library import Library

QUIET_MILLISECONDS = 400


@dataclass(frozen=True)
class Change:
    """What one round of changes did to a library.

    Attributes:
        added: report of indexing.
        forgotten: files that are gone.
    """

    added: AddReport
    forgotten: list[Path]


def watch(
    library: "Library",
    folders: Sequence[Path],
    tell: Callable[[Change], None],
    stop: Event | None = None,
    quiet_milliseconds: int = QUIET_MILLISECONDS,
    up: Up | None = None,
) -> None:
    """Keep a library in step with folders until `stop` is set or the process is interrupted.

    Args:
        library: to keep.
        folders: to watch, with all that is in them.
        tell: is called after the first indexing and after each round of changes.
        stop: ends the watch.
        quiet_milliseconds: that must pass without a change before changes are taken up.
        up: axis that points up in these files, as in `Library.add`.

    Raises:
        DataError: there are no folders.
        LibraryError: watchfiles is not installed.
        FormatError: one of `folders` is not a folder.
    """
    watchfiles = check_watch(folders)
    folders = [Path(os.path.abspath(folder)) for folder in folders]
    changes = watchfiles.watch(
        *folders, watch_filter=None, step=quiet_milliseconds, stop_event=stop, yield_on_timeout=True, rust_timeout=500
    )
    next(changes, None)  # from here on nothing is missed
    report = library.add(folders, progress=False, up=up)
    gone = [path for path in library.files() if is_gone(path) and _is_at_or_under(path, folders)]
    tell(Change(report, library.forget(gone)))
    for batch in changes:
        paths = [Path(path) for _, path in batch if not Path(path).is_relative_to(library.path)]
        if paths:
            tell(follow(library, paths, up, folders))


def check_watch(folders: Sequence[Path]) -> ModuleType:
    """The module watchfiles, when these folders can be watched; else what `watch` raises."""
    if not folders:
        raise DataError("watch: name at least one folder to watch.")
    for folder in folders:
        if not folder.is_dir():
            raise FormatError(f"{folder}: is not a folder that can be watched.")
    try:
        return importlib.import_module("watchfiles")
    except ImportError as error:
        raise LibraryError('watch: watchfiles is missing; pip install "splatsense[watch]".') from error


def follow(library: "Library", paths: Iterable[Path], up: Up | None = None, watched: Sequence[Path] = ()) -> Change:
    """Index the asset files among those of `paths` that exist; forget the library's files at or under those that are gone.

    What is hidden, or lies in a hidden folder of one of the `watched` ones, is not indexed, as `Library.add` passes it over.
    """
    paths = list(paths)
    seen = [path for path in paths if not _is_hidden(path, watched)]
    folders = [path for path in seen if path.is_dir()]
    named = [path for path in seen if path.is_file()]
    files, _, archives = find_files([*folders, *filter(is_named_like_asset, named)], library.path)
    report = library.add(files, progress=False, up=up) if files else AddReport()
    report.archives += dict.fromkeys([*archives, *filter(is_named_like_archive, named)])
    gone = [path for path in paths if is_gone(path)]
    return Change(report, library.forget([file for file in library.files() if _is_at_or_under(file, gone)] if gone else []))


def _is_hidden(path: Path, watched: Sequence[Path]) -> bool:
    around = [path.relative_to(folder).parts for folder in watched if path.is_relative_to(folder)]
    return all(any(map(is_hidden, parts)) for parts in around or [(path.name,)])


def _is_at_or_under(file: Path, paths: Sequence[Path]) -> bool:
    return any(file.is_relative_to(path) for path in paths)
