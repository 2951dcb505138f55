"""Tables of numbers in text, a block of lines at a time, with errors that name the line."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from splatsense.errors import FormatError

LINES_PER_BLOCK = 1 << 16


def read_table(
    path: Path, lines: Iterator[str], first_line: int, delimiter: str | None = None, most: int | None = None
) -> np.ndarray:
    """(N, C) float64 from lines of C numbers each; blank lines are passed over.

    Args:
        path: what errors call the file.
        lines: read to the end, or a block past `most`.
        first_line: number of the first of `lines` in the file, from 1.
        delimiter: between numbers; None for any white space.
        most: rows wanted; more are not read.

    Raises:
        FormatError: a line is not C numbers; says which.
    """
    blocks: list[np.ndarray] = []
    rows = 0
    while most is None or rows < most:
        raw = list(islice(lines, LINES_PER_BLOCK))
        if not raw:
            break
        block = [line for line in raw if not line.isspace()]
        if block:
            if most is not None:
                block = block[: most - rows]
            blocks.append(_parse(path, block, raw, first_line, delimiter, blocks[0].shape[1] if blocks else None))
            rows += len(block)
        first_line += len(raw)
    return np.concatenate(blocks) if blocks else np.empty((0, 0))


def _parse(
    path: Path, block: list[str], raw: list[str], first_line: int, delimiter: str | None, width: int | None
) -> np.ndarray:
    try:
        table = np.loadtxt(block, np.float64, comments=None, delimiter=delimiter, ndmin=2)
    except ValueError:
        table = None
    if table is not None and width in (None, table.shape[1]):
        return table
    width = width or len(block[0].split(delimiter))
    for number, line in enumerate(raw, first_line):
        words = line.split(delimiter)
        if not line.isspace() and (len(words) != width or not all(map(is_number, words))):
            shown = line.strip()[:80]
            raise FormatError(f"{path}: line {number} is not {width} numbers: {shown!r}. Correct or delete it.")
    raise FormatError(f"{path}: lines {first_line} to {first_line + len(raw) - 1} are not {width} numbers each.")


def is_number(word: str) -> bool:
    """Whether NumPy's text reader takes `word` for a number."""
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word
