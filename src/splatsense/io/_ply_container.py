"""The PLY container: a text header that declares tables ("elements"), then their rows. What the rows mean is not known here.

Design
- The header is parsed and checked against the size of the file before anything is allocated.
- Rows are handed out as NumPy structured arrays that fit the processor's cache (`read_rows`): binary of either byte
  order by reinterpreting bytes, ASCII by NumPy's text reader. Each row is touched once, and no loop runs over rows.
- `fill` spreads such blocks over destination arrays. Where all properties of a row have one type, as in every common
  splat file, a block is a matrix and each destination one gather from it; otherwise each column is copied by name.
"""

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from splatsense.errors import FormatError
from splatsense.files import open_to_read

MAX_HEADER_BYTES = 1 << 20
BLOCK_BYTES = 1 << 19  # half of a usual L2 cache
TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip
BYTE_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": None}


@dataclass(frozen=True)
class Element:
    """One table of a PLY file.

    Attributes:
        name: such as "vertex".
        count: number of rows.
        properties: NumPy type code of each column by name, without byte order; None for a list of varying length.
    """

    name: str
    count: int
    properties: dict[str, str | None]

    @property
    def has_lists(self) -> bool:
        """Whether some column holds lists, so that rows differ in length."""
        return None in self.properties.values()

    @property
    def smallest_row(self) -> int:
        """Bytes of a binary row whose lists are empty, at least."""
        return sum(1 if code is None else np.dtype(code).itemsize for code in self.properties.values())

    def dtype(self, byte_order: str) -> np.dtype:
        """Structured type of one binary row; only for an element without lists."""
        return np.dtype([(name, f"{byte_order}{code}") for name, code in self.properties.items()])


@dataclass(frozen=True)
class Header:
    """What the header of a PLY file declares.

    Attributes:
        path: the file.
        byte_order: "<", ">", or None for ASCII.
        elements: the tables in file order, by name.
        size: bytes of the header, including its last line end.
        file_size: bytes of the whole file.
    """

    path: Path
    byte_order: str | None
    elements: dict[str, Element]
    size: int
    file_size: int


def read_header(path: Path) -> Header:
    """Parse the header of `path`.

    Raises:
        FormatError: the file cannot be read, is no PLY file, or its header is damaged or cut off.
    """
    with open_to_read(path) as handle:
        start = handle.read(MAX_HEADER_BYTES)
        file_size = handle.seek(0, io.SEEK_END)
    first = re.match(rb"ply[ \t]*(\r\n|\n|\r)", start)
    if not first:
        raise FormatError(f'{path}: not a PLY file: it does not start with the line "ply".')
    # A lone \r as line end must not swallow a first data byte that happens to be \n, so the first line decides.
    line_end = rb"\r" if first[1] == b"\r" else rb"\r?\n"
    end = re.search(rb"[\r\n]end_header[ \t]*" + line_end, start)
    if not end:
        raise FormatError(
            f'{path}: the header has no "end_header" within its first {len(start)} bytes; the file is cut off or damaged.'
        )
    # Not str.splitlines: a comment may hold any of the characters that Unicode takes for a line end.
    lines = re.split(r"\r\n|\n|\r", start[first.end() : end.start()].decode("utf-8", errors="replace"))
    byte_order, elements = _parse_lines(path, lines)
    return Header(path, byte_order, elements, end.end(), file_size)


def _parse_lines(path: Path, lines: list[str]) -> tuple[str | None, dict[str, Element]]:
    byte_order: str | None = None
    format_seen = False
    elements: dict[str, Element] = {}
    for number, line in enumerate(lines, start=2):
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", name, "1.0"] if name in BYTE_ORDERS and not format_seen:
                byte_order, format_seen = BYTE_ORDERS[name], True
            case ["element", name, count] if re.fullmatch(r"[0-9]{1,18}", count) and name not in elements:
                elements[name] = Element(name, int(count), {})
            case ["property", "list", length, item, name] if elements and {length, item} <= TYPES.keys():
                _add_property(path, number, elements, name, None)
            case ["property", kind, name] if elements and kind in TYPES:
                _add_property(path, number, elements, name, TYPES[kind])
            case _:
                raise FormatError(f"{path}: header line {number} is not valid: {line[:100]!r}.")
    if not format_seen:
        raise FormatError(f'{path}: the header has no "format" line.')
    return byte_order, elements


def _add_property(path: Path, number: int, elements: dict[str, Element], name: str, code: str | None) -> None:
    element = elements[next(reversed(elements))]
    if name in element.properties:
        raise FormatError(f"{path}: header line {number} declares the property {name!r} of {element.name!r} a second time.")
    element.properties[name] = code


def check_size(header: Header, name: str) -> int:
    """Check that the rows of element `name` can be reached and lie within the file; nothing is read or allocated.

    Returns:
        The byte where its rows begin in a binary file.

    Raises:
        FormatError: the file is shorter than its header promises, or lists of varying length are in the way.
    """
    element, before = header.elements[name], _elements_before(header, name)
    if element.has_lists:
        lists = [column for column, code in element.properties.items() if code is None]
        raise FormatError(f"{header.path}: element {name!r} has list properties ({', '.join(lists)}); export it without them.")
    if header.byte_order is None:
        shortest = sum(other.count * max(1, 2 * len(other.properties)) for other in [*before, element])  # "0 " per value
        start, end, bound = header.size, header.size + max(0, shortest - 1), "at byte {} or later"
    else:
        for other in before:
            if other.has_lists and other.count:
                raise FormatError(
                    f"{header.path}: element {other.name!r}, whose rows differ in length, comes before {name!r}; "
                    f"export it with {name!r} first."
                )
        sizes = {
            other.name: other.count * other.dtype(header.byte_order).itemsize for other in [*before, element] if other.count
        }
        end, bound = header.size + sum(sizes.values()), "at byte {}"
        start = end - sizes.get(name, 0)
    if header.file_size < end:
        raise FormatError(
            f"{header.path}: cut off: the header promises {element.count} rows of {name!r}, which end {bound.format(end)}, "
            f"but the file has {header.file_size} bytes. Copy or export it again."
        )
    return start


def check_counts(header: Header) -> None:
    """Check that the file is long enough for the rows of all its elements, lists counted as empty; nothing is allocated.

    Raises:
        FormatError: it is not.
    """
    elements = header.elements.values()
    if header.byte_order is None:
        with open_to_read(header.path) as handle:
            handle.seek(header.size)
            with io.TextIOWrapper(handle, encoding="latin-1") as text:
                found = sum(not line.isspace() for line in text)
        promised, unit = sum(element.count for element in elements), "lines"
    else:
        found, unit = header.file_size - header.size, "bytes"
        promised = sum(element.count * element.smallest_row for element in elements)
    if found < promised:
        raise FormatError(
            f"{header.path}: cut off: the header promises at least {promised} {unit} of "
            f"{', '.join(f'{element.count} x {element.name}' for element in elements)}, but {found} follow it. "
            "Copy or export it again."
        )


def _elements_before(header: Header, name: str) -> list[Element]:
    return list(header.elements.values())[: list(header.elements).index(name)]


def read_rows(header: Header, name: str) -> Iterator[np.ndarray]:
    """Yield the rows of element `name` as structured arrays of a few megabytes each, in order.

    Raises:
        FormatError: as `check_size`, or a row is malformed.
    """
    start = check_size(header, name)
    element = header.elements[name]
    with open_to_read(header.path) as handle:
        handle.seek(start)
        if header.byte_order is not None:
            yield from _read_binary(header, element, element.dtype(header.byte_order), handle)
        elif element.properties:
            skip = sum(other.count for other in _elements_before(header, name))
            yield from _read_ascii(header, element, skip, handle)


def _read_binary(header: Header, element: Element, dtype: np.dtype, handle: io.BufferedReader) -> Iterator[np.ndarray]:
    rows_per_block = max(1, BLOCK_BYTES // max(1, dtype.itemsize))
    for start in range(0, element.count if dtype.itemsize else 0, rows_per_block):
        block = np.empty(min(rows_per_block, element.count - start), dtype)
        if handle.readinto(block.view(np.uint8).data) < block.nbytes:
            raise FormatError(f"{header.path}: became shorter while it was read; read it again when it is complete.")
        yield block


def _read_ascii(header: Header, element: Element, skip: int, handle: io.BufferedReader) -> Iterator[np.ndarray]:
    dtype = np.dtype([(name, "f8") for name in element.properties])
    rows_per_block = max(1, BLOCK_BYTES // dtype.itemsize)
    with io.TextIOWrapper(handle, encoding="latin-1") as text:
        lines = (line for line in text if not line.isspace())
        for _ in islice(lines, skip):
            pass
        for start in range(0, element.count, rows_per_block):
            rows = min(rows_per_block, element.count - start)
            block = list(islice(lines, rows))
            if len(block) < rows:
                raise FormatError(
                    f"{header.path}: cut off: the header promises {element.count} rows of {element.name!r}, "
                    f"but the file ends after {start + len(block)}. Copy or export it again."
                )
            try:
                yield np.loadtxt(block, dtype=dtype, comments=None, ndmin=1)
            except ValueError as error:
                raise FormatError(
                    f"{header.path}: row {start} of {element.name!r} or a later one is damaged: {error}"
                ) from error


def fill(header: Header, name: str, targets: Mapping[str | tuple[str, ...], np.ndarray]) -> None:
    """Copy properties of element `name` into `targets` in one pass over the file.

    Args:
        header: of the file.
        name: of the element.
        targets: by property name an array (count,), by several names one (count, len(names)). Values are cast to the
            type of the array; doubles beyond the range of float32 become infinite.

    Raises:
        FormatError: as `read_rows`.
    """
    names = list(header.elements[name].properties)
    positions = {key: [names.index(each) for each in ([key] if isinstance(key, str) else key)] for key in targets}
    start = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for block in read_rows(header, name):
            matrix = _as_matrix(block)
            for key, target in targets.items():
                rows = target[start : start + len(block)]
                if matrix is None:
                    _copy_columns(block, [names[position] for position in positions[key]], rows)
                elif matrix.dtype == rows.dtype and rows.flags.c_contiguous:
                    matrix.take(positions[key], axis=1, out=rows.reshape(len(rows), -1), mode="clip")  # names are all there
                else:
                    rows[...] = matrix.take(positions[key], axis=1).reshape(rows.shape)
            start += len(block)


def _as_matrix(block: np.ndarray) -> np.ndarray | None:
    """A structured array as (rows, columns) without a copy if all its columns have one type, otherwise None."""
    kinds = {block.dtype[name] for name in block.dtype.names or ()}
    return block.view(kinds.pop()).reshape(len(block), -1) if len(kinds) == 1 else None


def _copy_columns(block: np.ndarray, names: list[str], rows: np.ndarray) -> None:
    for column, each in zip(rows.reshape(len(rows), -1).T, names, strict=True):
        column[...] = block[each]
