"""Plain text for the terminal: safe to print on one line, counted, in aligned columns."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

GAP = "  "


def table(rows: Sequence[Sequence[object]], align: str, indent: int = 2) -> str:
    """Rows as lines of aligned columns.

    Args:
        rows: of equal length.
        align: for each column "<" or ">"; the last one is not padded when it is "<".
        indent: spaces before each line.
    """
    cells = [[printable(value) for value in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [
            " " * (width - _width(cell)) + cell if side == ">" else cell + " " * (width - _width(cell))
            for cell, width, side in zip(row, widths, align, strict=True)
        ]
        lines.append((" " * indent + GAP.join(padded)).rstrip())
    return "\n".join(lines)


def printable(text: object) -> str:
    """`text` on one line: control characters and bytes that are no text are written as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in str(text)
    )


def short_path(path: Path) -> str:
    """A path as seen from the current folder, where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def counted(count: int, noun: str) -> str:
    """"1 asset", "2 assets", "1,200 assets"."""  # fmt: skip
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size_text(count: int) -> str:
    """A number of bytes: "96 bytes", "22.7 kB", "1,204.0 MB"."""
    if count < 1000:
        return counted(count, "byte")
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def _width(text: str) -> int:
    """Columns a terminal gives to a text: East Asian wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
