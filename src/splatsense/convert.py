"""`splatsense convert`: one file, or many into a folder.

What lies in that folder has the time of change of the file it was made from, by which a later run knows what is done.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from splatsense.batch import BatchReport, Input, run_batch
from splatsense.errors import FormatError
from splatsense.formats import WRITABLE
from splatsense.io import load, save
from splatsense.tables import size_text


def convert_file(source: Path, output: Path) -> str:
    """Read a splat, mesh or point cloud, write it as a splat, and return a sentence on the result.

    Raises:
        SplatSenseError: it cannot be read or written, or is to be written over itself.
    """
    _refuse_itself(source, output)
    gaussians = load(source)
    save(gaussians, output)
    size = size_text(output.stat().st_size)
    return f"{output}: {len(gaussians):,} Gaussians, SH degree {gaussians.sh_degree}, {size}."


def convert_files(paths: Sequence[Path], out: Path, to: str = ".ply", force: bool = False) -> BatchReport:
    """Write every asset among `paths` and in the folders among them as a splat into `out`, sub-folders kept.

    What is there already and was made from another file, or an earlier state of it, is an error of that input.

    Args:
        to: extension of a format that `save` writes, with or without the dot.
        force: also write what is there already.

    Raises:
        FormatError: `to` is not one of these.
    """
    from splatsense.library.reading import load_asset

    suffix = to.lower() if to.startswith(".") else f".{to.lower()}"
    if suffix not in WRITABLE:
        raise FormatError(f"--to {to}: cannot be written; use one of {', '.join(WRITABLE)}.")

    def work(item: Input) -> bool:
        output = out / item.name.with_name(item.name.name + suffix)
        changed = item.path.stat().st_mtime_ns
        if output.exists() and not force:
            if output.stat().st_mtime_ns == changed:
                return False
            raise FormatError(f"{output}: is there, but not made from this file as it is now; give --force, or another --out.")
        _refuse_itself(item.path, output)
        gaussians = load_asset(item.path)
        output.parent.mkdir(parents=True, exist_ok=True)
        save(gaussians, output)
        os.utime(output, ns=(changed, changed))
        return True

    return run_batch("converting", paths, out, work)


def _refuse_itself(source: Path, output: Path) -> None:
    """A mesh or a capture with more in it than Gaussians would be lost."""
    if source.exists() and output.exists() and source.samefile(output):
        raise FormatError(f"{output}: is the file that is read; write to another name.")
