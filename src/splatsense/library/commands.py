"""The commands `splatsense library ...`: keep a library in order. Each calls one method of `Library` and prints what it did."""

from pathlib import Path
from typing import Annotated

import tyro

from splatsense.geometry.upright import Up
from splatsense.library.asset_files import passed_over
from splatsense.library.duplicates import THRESHOLD
from splatsense.library.export_listing import read_listing
from splatsense.library.library import Library
from splatsense.library.transfer import Transfer
from splatsense.library.watch import Change, check_watch, watch
from splatsense.tables import counted, short_path, table

LibraryFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LIBRARY")]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
Folders = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER...", help_behavior_hint="(required)")]
Store = Annotated[str | None, tyro.conf.arg(metavar="URL")]
Assets = Annotated[int | None, tyro.conf.arg(metavar="N")]
OutputFolder = Annotated[Path | None, tyro.conf.arg(metavar="DIR")]
MODEL = "clip-gs-tiny"


def verify(library: LibraryFolder, contents: bool = False, store: Store = None) -> int:
    """Check a library without changing it: the database, embeddings, vectors, thumbnails, and whether the files are there.

    Args:
        library: Folder of the library.
        contents: Also read every asset file and compare its hash.
        store: postgresql://... of a shared library.
    """
    with Library(library, create=False, store=store) as opened:
        report = opened.verify(contents)
    print(f"{counted(report.assets, 'asset')}, {counted(report.embeddings, 'embedding')}.")
    for title, lines in (
        ("Problems", report.problems),
        ("Changed since they were indexed; `splatsense add` indexes them again", [short_path(path) for path in report.changed]),
        ("Gone; add where they are now, or run `splatsense library forget`", [short_path(a.path) for a in report.missing]),
    ):
        if lines:
            print(f"\n{title}:\n" + "\n".join(f"  {line}" for line in lines))
    if report.problems or report.changed or report.missing:
        return 1
    print("Nothing is lost or damaged.")
    return 0


def forget(library: LibraryFolder, store: Store = None) -> int:
    """Forget assets whose files are gone. They are found until then, as a disk may be away: look at `library verify` first.

    Args:
        library: Folder of the library.
        store: postgresql://... of a shared library.
    """
    with Library(library, create=False, store=store) as opened:
        gone = opened.forget_missing()
    for asset in gone:
        print(f"  {short_path(asset.path)}")
    print(f"{counted(len(gone), 'asset')} forgotten.")
    return 0


def rebuild(library: LibraryFolder, approximate_above: Assets = None, store: Store = None) -> int:
    """Make anew what is made from the database: vectors, FAISS indexes; and delete damaged and unused thumbnails.

    Args:
        library: Folder of the library.
        approximate_above: Also build the FAISS index of every model with more embeddings than this.
        store: postgresql://... of a shared library.
    """
    with Library(library, create=False, store=store, approximate_above=approximate_above) as opened:
        gone = opened.rebuild()
        models = opened.models()
    print(table([("model", "embeddings"), *((model.name or model.hash[:12], f"{model.count:,}") for model in models)], "<>"))
    print(f"Rebuilt. {counted(gone, 'thumbnail')} deleted; each is drawn again when it is asked for.")
    return 0


def duplicates(library: LibraryFolder, threshold: float = THRESHOLD, model: str = MODEL, store: Store = None) -> int:
    """List files of the same content, and assets that look the same to the model.

    Args:
        library: Folder of the library.
        threshold: Smallest cosine between the embeddings of assets that count as the same.
        model: A bundled model's name, or the folder of one.
        store: postgresql://... of a shared library.
    """
    with Library(library, model, create=False, store=store) as opened:
        found = opened.duplicates(threshold)
    print(f"{counted(len(found.exact), 'content')} in several files, {counted(len(found.near), 'group')} of near duplicates.")
    for files in found.exact:
        print("\nthe same content\n" + "\n".join(f"  {short_path(path)}" for path in files))
    for group in found.near:
        rows = [(f"  {score:.3f}", asset.name, short_path(asset.path)) for asset, score in group]
        print("\nnear duplicates\n" + table(rows, "><<"))
    return 0


def export(library: LibraryFolder, folder: Folder, files: bool = True, store: Store = None) -> int:
    """Write a whole library into one new folder: asset files, thumbnails, embeddings of all models, and a listing in JSON.

    Args:
        library: Folder of the library.
        folder: New folder to write.
        files: Copy the asset files too; --no-files leaves them out, for a library on the same machine.
        store: postgresql://... of a shared library.
    """
    with Library(library, create=False, store=store) as opened:
        done = opened.export(folder, files)
    print(f"{_contents(done)} exported; {counted(done.files, 'file')} copied.")
    if done.left_out:
        print(f"\n{counted(len(done.left_out), 'file')} left out; `splatsense add` indexes what has changed, then export anew:")
        print(table([(short_path(path), reason) for path, reason in done.left_out], "<<"))
    return 1 if done.left_out else 0


def import_(library: LibraryFolder, folder: Folder, to: OutputFolder = None, store: Store = None) -> int:
    """Add an exported library to a library, which is made when it does not exist.

    Args:
        library: Folder of the library.
        folder: Folder that `splatsense library export` wrote.
        to: Folder that the asset files are copied to; by default `assets` in the library's folder.
        store: postgresql://... of a shared library.
    """
    read_listing(folder)  # before a library is made
    with Library(library, store=store) as opened:
        done = opened.import_from(folder, to)
        print(f"{_contents(done)} imported; {counted(done.files, 'file')} copied.")
        print(f"{short_path(opened.path)} holds {counted(len(opened), 'asset')}.")
    return 0


def _contents(done: Transfer) -> str:
    unread = f", {counted(done.unread, 'file')} that could not be read" if done.unread else ""
    return f"{counted(done.assets - done.unread, 'asset')}{unread}, {counted(done.embeddings, 'embedding')}"


def follow(library: LibraryFolder, folders: Folders, model: str = MODEL, up: Up | None = None, store: Store = None) -> int:
    """Index folders and keep the library in step with them until interrupted: new, changed, renamed and deleted files.

    Args:
        library: Folder of the library; made when it does not exist.
        folders: Folders to watch, with all that is in them.
        model: A bundled model's name, or the folder of one.
        up: Which axis of these files points up, as in `splatsense add`.
        store: postgresql://... of a shared library.
    """

    def tell(change: Change) -> None:
        added = change.added
        print(f"{added.indexed:,} indexed, {added.skipped:,} already indexed or moved, {len(change.forgotten):,} gone, "
              f"{len(added.failed):,} failed.", flush=True)  # fmt: skip
        for path, reason in added.failed:
            print(f"  {short_path(path)}: {reason}", flush=True)
        if added.archives:
            print(f"  {passed_over(added.archives)}", flush=True)

    check_watch(folders)  # before a library is made
    with Library(library, model, store=store) as opened:
        watch(opened, folders, tell, up=up)
    return 0
