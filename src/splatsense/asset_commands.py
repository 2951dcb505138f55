"""The commands `splatsense add`, `search`, `tags`, `info` and `convert`: asset files, and libraries of them.

Each calls functions that Python users can call too, and prints what they return. Those are imported when a command runs, so
that its help needs no torch.
"""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from splatsense.errors import DataError
from splatsense.formats import WRITABLE

LibraryFolder = Annotated[Path, tyro.conf.arg(metavar="LIBRARY")]
Paths = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...", help_behavior_hint="(required)")]
QueryWords = Annotated[tuple[str, ...], tyro.conf.arg(metavar="QUERY...", help_behavior_hint="(required)")]
Count = Annotated[int, tyro.conf.arg(aliases=("-k",), metavar="K")]
FileOrLibrary = Annotated[Path, tyro.conf.arg(metavar="FILE|LIBRARY")]
OutputFolder = Annotated[Path | None, tyro.conf.arg(metavar="DIR")]
Suffix = Annotated[str, tyro.conf.arg(metavar="SUFFIX", help=f"Format of the files in that folder: {' '.join(WRITABLE)}.")]
Labels = Annotated[tuple[str, ...], tyro.conf.arg(metavar="LABEL...", help_behavior_hint="")]
StoreUrl = Annotated[str | None, tyro.conf.arg(metavar="URL")]
RayAddress = Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")]
Assets = Annotated[int | None, tyro.conf.arg(metavar="N")]
Sheet = Annotated[Path | None, tyro.conf.arg(metavar="IMAGE")]
Up = Literal["auto", "x", "y", "z", "-x", "-y", "-z"]  # as in geometry/upright.py


def add(
    library: LibraryFolder,
    paths: Paths,
    retry: bool = False,
    model: str = "clip-gs-tiny",
    thumbnails: bool = True,
    up: Up | None = None,
    store: StoreUrl = None,
    ray: RayAddress = None,
) -> int:
    """Index files and folders into a library, to any depth: splats, meshes and point clouds.

    What is in the library already is passed over. It may be interrupted at any moment; the same command goes on.

    Args:
        library: Folder of the library; made when it does not exist. The assets stay where they are.
        paths: Files and folders to index.
        retry: Try files again that failed before and have not changed since.
        model: A bundled model's name, or the folder of one.
        thumbnails: Draw thumbnails now; with --no-thumbnails each is drawn when it is first asked for.
        up: Which axis of these files points up; remembered. What was indexed with another is indexed again. auto forgets it.
        store: postgresql://USER@HOST/DATABASE of a library that machines share; the folder then holds caches only.
        ray: Embed on a Ray cluster: "auto", "ray://host:10001", or "local" for one on this machine.
    """
    from splatsense.library import Library
    from splatsense.library.asset_files import passed_over
    from splatsense.tables import counted, short_path, table

    if not paths:
        raise DataError("add: name at least one file or folder to index.")
    if not any(map(os.path.exists, paths)):  # before a library is made
        raise DataError(f"{paths[0]}: no such file or folder.")
    start = time.monotonic()
    with Library(library, model, store=store) as opened:
        report = opened.add(paths, retry=retry, draw=thumbnails, ray=ray, up=up)
        print(f"{report.indexed:,} indexed, {report.skipped:,} already indexed, {len(report.failed):,} failed.")
        print(f"{short_path(opened.path)} holds {counted(len(opened), 'asset')}; took {time.monotonic() - start:,.1f} s.")
    if report.failed:
        rows = [(short_path(path), reason) for path, reason in report.failed]
        print(f"{counted(len(rows), 'input')} could not be indexed:\n{table(rows, '<<')}", file=sys.stderr)
    if report.archives:
        print(passed_over(report.archives), file=sys.stderr)
    return 1 if report.failed else 0


def search(
    library: LibraryFolder,
    query: QueryWords,
    k: Count = 10,
    model: str = "clip-gs-tiny",
    sheet: Sheet = None,
    store: StoreUrl = None,
    approximate_above: Assets = None,
) -> int:
    """Find the assets closest to words, to a picture, or to another asset.

    Args:
        library: Folder of the library.
        query: Words; or one file: an image, or an asset.
        k: How many to show.
        model: A bundled model's name, or the folder of one.
        sheet: Also draw the results into this image file.
        store: postgresql://USER@HOST/DATABASE of a library that machines share.
        approximate_above: Search through FAISS when the library has more assets than this.
    """
    from splatsense.library import Library
    from splatsense.tables import short_path, table

    if sheet is not None:
        from splatsense.library.contact_sheet import check_sheet

        check_sheet(sheet)
    text = " ".join(query)
    with Library(library, model, create=False, store=store, approximate_above=approximate_above, isolated=False) as opened:
        hits = opened.search(text, k)
        rows = [(rank, f"{hit.score:.3f}", hit.name, short_path(hit.path)) for rank, hit in enumerate(hits, 1)]
        print(table([("#", "score", "name", "file"), *rows], ">><<"))
        if sheet is not None:
            from splatsense.library.contact_sheet import SheetRow, write_contact_sheet

            write_contact_sheet(sheet, [SheetRow.of(text, hits[:5], opened)])
    return 0


def tags(source: FileOrLibrary, labels: Labels = (), k: Count = 5, model: str = "clip-gs-tiny") -> int:
    """Say what an asset shows, or every asset of a library: the likeliest labels and their probabilities.

    Args:
        source: An asset file, or the folder of a library.
        labels: Labels to choose from; by default the names of about 200 everyday objects.
        k: How many labels to show.
        model: A bundled model's name, or the folder of one.
    """
    from splatsense.library import Library
    from splatsense.library.embedding_model import resolve_model
    from splatsense.library.index import check_k
    from splatsense.library.reading import load_asset
    from splatsense.library.tags import tag
    from splatsense.tables import table
    from splatsense.upright import SCENE_GAUSSIANS

    check_k(k)
    if source.is_dir():
        with Library(source, model, create=False, isolated=False) as library:
            found = [(asset.name, asset.gaussians, library.tags(asset, labels or None, k)) for asset in library.assets()]
    else:
        loaded, gaussians = resolve_model(model), load_asset(source)
        found = [(source.name, len(gaussians), tag(gaussians, labels or None, k, loaded))]
    marks = ["?" if count >= SCENE_GAUSSIANS and not labels else "" for _, count, _ in found]  # ours are names of objects
    if source.is_dir():
        rows = [(name, ", ".join(f"{label}{mark} {p:.0%}" for label, p in likely))
                for (name, _, likely), mark in zip(found, marks, strict=True)]  # fmt: skip
        print(table(rows, "<<") if rows else "This library is empty.")
    else:
        print(table([(f"{p:.1%}", label + marks[0]) for label, p in found[0][2]], "><"))
    if any(marks):
        print(f"? An asset of {SCENE_GAUSSIANS:,} Gaussians or more may be a scene, and these labels are of single objects; "
              "`splatsense segment FILE` says what is in a scene.", file=sys.stderr)  # fmt: skip
    return 0


def info(paths: Paths, json: bool = False) -> int:
    """Say what asset files hold: counts, bounds, opacities, scales, and what may be wrong with them.

    Args:
        paths: Files, or folders of them.
        json: Print a list of objects for other programs.
    """
    from splatsense.info import info_of_files

    return info_of_files(paths, as_json=json).tell()


def convert(
    paths: Paths,
    out: OutputFolder = None,
    to: Suffix = ".ply",
    force: bool = False,
) -> int:
    """Turn splats, meshes and point clouds into splats: `convert IN OUT`, or `convert IN... --out DIR --to .ply`.

    Args:
        paths: A file to read and a file to write; with --out, files and folders to read.
        out: Folder for the converted files, which keep the names and sub-folders of what they are made from.
        force: Convert again what is in that folder already.
    """
    from splatsense.convert import convert_file, convert_files

    if out is None:
        if len(paths) != 2 or paths[0].is_dir():
            raise DataError("convert: give a file to read and a file to write; or files and folders to read and --out DIR.")
        print(convert_file(*paths))
        return 0
    return convert_files(paths, out, to, force).tell("converted", out)
