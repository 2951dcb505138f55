"""The command `splatsense`. Thin: every command calls one function that Python users can call too.

Design
- `COMMANDS` names them all: words on the command line, where the function lives, and one line of help. Only the module
  of the command that was asked for is imported, and torch only where it is needed.
- tyro turns the function's signature and docstring into flags and help.
- Exit status: 0 done; 1 some inputs failed and are listed; 2 wrong usage or an error with a message; 130 interrupted.
"""

import difflib
import importlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from splatsense.errors import DataError, SplatSenseError
from splatsense.formats import READABLE, WRITABLE

COMMANDS: dict[str, tuple[str, str]] = {
    "add": ("splatsense.cli:add", "index files and folders into a library"),
    "search": ("splatsense.cli:search", "find assets by words, by a picture or by another asset"),
    "serve": ("splatsense.web.serve:serve", "show a library as a page in the browser: search, look at, add assets"),
    "tags": ("splatsense.cli:tags", "say what assets show"),
    "library verify": ("splatsense.library.commands:verify", "check that nothing in a library is lost or damaged"),
    "library rebuild": ("splatsense.library.commands:rebuild", "make vectors and search indexes anew"),
    "library duplicates": ("splatsense.library.commands:duplicates", "list files and assets that are the same"),
    "library export": ("splatsense.library.commands:export", "write a whole library into one folder"),
    "library import": ("splatsense.library.commands:import_", "add an exported library to a library"),
    "library watch": ("splatsense.library.commands:follow", "keep a library in step with folders"),
    "demo": ("splatsense.demo:demo", "build a library from the bundled splats, search it, draw the results"),
    "info": ("splatsense.cli:info", "say what asset files hold and what may be wrong with them"),
    "render": ("splatsense.turntable:render_command", "draw pictures, depth and turntables of assets, from any cameras"),
    "convert": ("splatsense.cli:convert", "turn splats, meshes and point clouds into splats of another format"),
    "triplets build": ("splatsense.clip_gs.build:triplets_build", "training data from meshes or splats"),
    "scenes scannet": ("splatsense.import_scenes:import_scannet", "import ScanNet scans as they are downloaded"),
    "scenes s3dis": ("splatsense.import_scenes:import_s3dis", "import S3DIS rooms as they are downloaded"),
    "scenes pointcept": ("splatsense.import_scenes:import_pointcept", "import scenes that Pointcept preprocessed"),
    "scenes recordings": (
        "splatsense.import_scenes:import_recordings",
        "import posed RGB-D recordings without labels",
    ),
    "scenes homes": ("splatsense.import_scenes:import_homes", "import Sweet Home 3D homes"),
    "corpora rooms": ("splatsense.corpora.rooms.build:rooms", "make synthetic furnished rooms, filmed, fused and labelled"),
    "corpora summary": ("splatsense.corpora.rooms.summary:summary", "label histograms of rooms, and what their splits share"),
    "corpora sheet": ("splatsense.corpora.rooms.sheet:sheets", "draw contact sheets of rooms"),
    "train clip-gs": ("splatsense.clip_gs.pretrain:pretrain", "train a model on triplets of splats, pictures and captions"),
    "train gaussian-cross": (
        "splatsense.gaussian_cross.pretrain:pretrain",
        "train a backbone of scenes on posed RGB-D frames, without labels",
    ),
    "train scene-contrast": (
        "splatsense.scene_contrast.pretrain:pretrain_contrast",
        "train a backbone of scenes by contrast, the baseline of GaussianCross",
    ),
    "study clip-gs": ("splatsense.clip_gs.study:study", "train and measure every row of the CLIP-GS ablation, and tabulate it"),
    "study gaussian-cross": (
        "splatsense.scene_study.study:study",
        "measure what pre-training of scenes is worth: probes, fine-tuning, few labels, instances, and tabulate it",
    ),
    "evaluate zero-shot": ("splatsense.clip_gs.evaluate:evaluate_zero_shot", "classify objects by the names of their classes"),
    "evaluate retrieval": (
        "splatsense.clip_gs.evaluate:evaluate_retrieval",
        "find objects by text and picture, and the reverse",
    ),
    "evaluate few-shot": ("splatsense.clip_gs.evaluate:evaluate_few_shot", "classify objects after a few labelled examples"),
    "evaluate linear-probe": (
        "splatsense.clip_gs.evaluate:evaluate_linear_probe",
        "classify objects by a linear classifier fitted to another split",
    ),
    "evaluate all": ("splatsense.clip_gs.evaluate:evaluate_all", "these four, embedding every object once"),
    "train segmentation": ("splatsense.segmentation.command:train_command", "train a model that segments scenes"),
    "train s3dis-folds": ("splatsense.segmentation.command:train_s3dis_folds", "the six models of S3DIS's 6-fold protocol"),
    "evaluate semantic": (
        "splatsense.segmentation.evaluate:evaluate_semantic",
        "score the classes of points of labelled scenes",
    ),
    "evaluate instance": (
        "splatsense.segmentation.evaluate:evaluate_instance",
        "score instances by ScanNet's AP, AP50 and AP25",
    ),
    "segment": ("splatsense.segmentation.segment:segment", "say what every point of a scan belongs to"),
    "similar": ("splatsense.segmentation.segment:similar", "show what in a scan is like a given point of it"),
}
"""Command -> ("module:function", help). A command of two words shares its first word with others."""


FLAGS = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
LibraryFolder = Annotated[Path, tyro.conf.arg(metavar="LIBRARY")]
Paths = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...")]
QueryWords = Annotated[tuple[str, ...], tyro.conf.arg(metavar="QUERY...")]
Count = Annotated[int, tyro.conf.arg(aliases=("-k",), metavar="K")]
FileOrLibrary = Annotated[Path, tyro.conf.arg(metavar="FILE|LIBRARY")]
OutputFolder = Annotated[Path | None, tyro.conf.arg(metavar="DIR")]
Suffix = Annotated[str, tyro.conf.arg(metavar="SUFFIX", help=f"Format of the files in that folder: {' '.join(WRITABLE)}.")]
Labels = Annotated[tuple[str, ...], tyro.conf.arg(metavar="LABEL...")]
StoreUrl = Annotated[str | None, tyro.conf.arg(metavar="URL")]
Sheet = Annotated[Path | None, tyro.conf.arg(metavar="IMAGE")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default this process's, and return its exit status."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait ruin a shared machine
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(given)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("\nsplatsense: stopped. What is stored is kept; the same command goes on from there.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (SplatSenseError, OSError) as error:
        from splatsense.library.names import printable

        print(f"splatsense: {printable(error)}", file=sys.stderr)
        return 2
    finally:
        if arguments is None:  # all is done: an interrupt while Python shuts down must not turn that into a failure
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(_usage(""))
        return 0 if given else 2
    if given[0] == "--version":
        import splatsense

        print(f"splatsense {splatsense.__version__}")
        return 0
    words = 2 if any(name.startswith(given[0] + " ") for name in COMMANDS) else 1
    command = " ".join(given[:words])
    if command not in COMMANDS:
        asks_help = words == 2 and (len(given) < 2 or given[1] in ("-h", "--help"))
        print(_usage(given[0] + " ") if asks_help else _unknown(command), file=sys.stdout if asks_help else sys.stderr)
        return 0 if asks_help and len(given) == 2 else 2
    module, function = COMMANDS[command][0].split(":")
    result = tyro.cli(
        getattr(importlib.import_module(module), function),
        prog=f"splatsense {command}",
        args=given[words:],
        config=(*FLAGS, tyro.conf.PositionalRequiredArgs) if words == 1 else FLAGS,
    )
    if isinstance(result, int):
        return result
    if result is not None and os.environ.get("RANK", "0") == "0":  # one of the processes that torchrun starts tells it
        print(result)
    return 0


def _usage(prefix: str) -> str:
    """The list of commands whose names start with `prefix`."""
    shown = {name: help for name, (_, help) in COMMANDS.items() if name.startswith(prefix)}
    width = max(map(len, shown))
    lines = [f"  {name:<{width}}  {help}" for name, help in shown.items()]
    lines += [] if prefix else ["", f"Reads {' '.join(READABLE)}", f"Writes {' '.join(WRITABLE)}"]
    return "\n".join([
        "Search, tag and classify 3D Gaussian splats by what they show.", "",
        f"usage: splatsense {prefix}COMMAND [-h] ...", "", *lines, "",
        "`splatsense COMMAND -h` explains a command, `splatsense --version` says which version this is.",
    ])  # fmt: skip


def _unknown(command: str) -> str:
    near = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"Did you mean `splatsense {near[0]}`?" if near else "`splatsense --help` lists them all."
    return f"splatsense: there is no command {command!r}. {hint}"


def add(
    library: LibraryFolder,
    paths: Paths,
    retry: bool = False,
    model: str = "clip-gs-tiny",
    thumbnails: bool = True,
    store: StoreUrl = None,
    ray: str | None = None,
) -> int:
    """Index files and folders into a library, to any depth: splats, meshes and point clouds.

    What is in the library already is passed over. It may be interrupted at any moment; the same command goes on.

    Args:
        library: Folder of the library; made when it does not exist. The assets stay where they are.
        paths: Files and folders to index.
        retry: Try files again that failed before and have not changed since.
        model: A bundled model's name, or the folder of one.
        thumbnails: Draw thumbnails now; otherwise each is drawn when it is first asked for.
        store: postgresql://USER@HOST/DATABASE of a library that machines share; the folder then holds caches only.
        ray: Embed on a Ray cluster: "auto", "ray://host:10001", or "local" for one on this machine.
    """
    from splatsense.library import Library
    from splatsense.tables import counted, short_path, table

    if not paths:
        raise DataError("add: name at least one file or folder to index.")
    start = time.monotonic()
    with Library(library, model, store=store) as opened:
        report = opened.add(paths, retry=retry, draw=thumbnails, ray=ray)
        print(f"{report.indexed:,} indexed, {report.skipped:,} already indexed, {len(report.failed):,} failed.")
        print(f"{short_path(opened.path)} holds {counted(len(opened), 'asset')}; took {time.monotonic() - start:,.1f} s.")
    if report.failed:
        print(f"\n{counted(len(report.failed), 'input')} could not be indexed:")
        print(table([(short_path(path), reason) for path, reason in report.failed], "<<"))
    return 1 if report.failed else 0


def search(
    library: LibraryFolder,
    query: QueryWords,
    k: Count = 10,
    model: str = "clip-gs-tiny",
    sheet: Sheet = None,
    store: StoreUrl = None,
    approximate_above: int | None = None,
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
        labels: To choose from; by default the names of about 200 everyday objects.
        k: How many labels to show.
        model: A bundled model's name, or the folder of one.
    """
    from splatsense.library import Library
    from splatsense.library.tags import tag
    from splatsense.tables import table

    if not source.is_dir():
        found = tag(source, labels or None, k, model)
        print(table([(f"{probability:.1%}", label) for label, probability in found], "><"))
        return 0
    with Library(source, model, create=False, isolated=False) as library:
        rows = [(asset.name, ", ".join(f"{label} {p:.0%}" for label, p in library.tags(asset, labels or None, k)))
                for asset in library.assets()]  # fmt: skip
    print(table(rows, "<<") if rows else "This library is empty.")
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
    return convert_files(paths, out, to, force).tell("converted")
