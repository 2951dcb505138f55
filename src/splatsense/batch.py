"""Work over many asset files: find them, name what is made of them, go on past the bad ones, say what failed."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from splatsense.errors import DataError, SplatSenseError
from splatsense.formats import without_suffix
from splatsense.library.asset_files import find_files, passed_over
from splatsense.tables import counted, printable, short_path, table
from splatsense.training.progress import Progress


@dataclass(frozen=True)
class Input:
    """One file to work on.

    Attributes:
        path: absolute.
        name: what its outputs are called, without a suffix; in folders as it lies under the folder that was given.
    """

    path: Path
    name: Path


@dataclass
class BatchReport:
    """What was done.

    Attributes:
        done: how many inputs.
        skipped: how many had their outputs already.
        failed: (path, reason) of every input that failed.
        archives: such as .zip, that were found in folders and passed over.
    """

    done: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)

    def tell(self, what: str = "", out: Path | None = None) -> int:
        """Print what was done, such as "drawn", and on stderr what failed and was passed over; return an exit status, 0 or 1.

        Args:
            what: the participle; without it only failures are told.
            out: folder of the results, which is named too.
        """
        if what:
            where = f" Results are in {short_path(out)}." if out and self.done + self.skipped else ""
            print(f"{self.done:,} {what}, {self.skipped:,} {what} already, {len(self.failed):,} failed.{where}")
        rows = [(short_path(path), reason.removeprefix(f"{path}: ")) for path, reason in self.failed]
        if rows:
            print(f"{counted(len(rows), 'input')} failed:\n{table(rows, '<<')}", file=sys.stderr)
        if self.archives:
            print(passed_over(self.archives), file=sys.stderr)
        return 1 if rows else 0


def find_inputs(paths: Sequence[Path], leave_out: Path | None) -> tuple[list[Input], list[tuple[Path, str]], list[Path]]:
    """The asset files among `paths` and in the folders among them, each once; the paths that give none; archives passed over.

    Names are unique: inputs that would share one keep their suffix in it, and after that get a number.

    Args:
        leave_out: a folder that is not searched, such as the one that receives the outputs; None for no such folder.
    """
    found: dict[Path, Path] = {}
    failed: list[tuple[Path, str]] = []
    archives: dict[Path, None] = {}
    for path in paths:
        root = path.absolute() if os.path.isdir(path) else None  # Path.is_dir raises where a name is too long
        if root is not None and leave_out is not None and leave_out.exists() and root.samefile(leave_out):
            failed.append((path, "is the folder for the results; name another one for them"))
            continue
        files, missing, passed = find_files([path], leave_out or Path(os.devnull))
        failed += missing
        archives |= dict.fromkeys(passed)
        for file in files:
            found.setdefault(file, file.relative_to(root) if root and file.is_relative_to(root) else Path(file.name))
    shared = Counter(map(without_suffix, found.values()))
    taken: Counter[Path] = Counter()
    inputs = []
    for file, name in found.items():
        name = name if shared[without_suffix(name)] > 1 else without_suffix(name)
        taken[name] += 1
        inputs.append(Input(file, name if taken[name] == 1 else name.with_name(f"{name.name}-{taken[name]}")))
    return inputs, failed, list(archives)


def run_batch(
    label: str, paths: Sequence[Path], leave_out: Path | None, work: Callable[[Input], bool], progress: bool = True
) -> BatchReport:
    """Call `work` on every input; one that raises an error of ours is reported and the others go on.

    Args:
        label: what is being done, for the progress.
        leave_out: a folder that is not searched, or None.
        work: returns False when there was nothing left to do.
        progress: show it on stderr where there is more than one input.

    Raises:
        DataError: there are no paths, or `leave_out` is a file.
    """
    if not paths:
        raise DataError("name at least one file or folder.")
    if leave_out is not None and leave_out.exists() and not leave_out.is_dir():
        raise DataError(f"--out {leave_out}: is a file; name a folder.")
    inputs, failed, archives = find_inputs(paths, leave_out)
    report = BatchReport(failed=failed, archives=archives)
    shown = Progress(label, len(inputs)) if progress and len(inputs) > 1 else None
    try:
        for item in inputs:
            try:
                if work(item):
                    report.done += 1
                else:
                    report.skipped += 1
            except (SplatSenseError, OSError) as error:
                report.failed.append((item.path, _reason(error, item.path)))
            if shown:
                shown.advance(1, printable(item.path.name))
    finally:
        if shown:
            shown.close()
    return report


def _reason(error: SplatSenseError | OSError, path: Path) -> str:
    """What went wrong with an input, which is named beside it."""
    if isinstance(error, OSError) and error.strerror and error.filename in (None, str(path)):
        return error.strerror
    return str(error)
