"""The process that `_isolated` starts: decodes one file with another package and writes the result to standard output.

It is run as a script and imports neither splatsense nor torch, so that it starts in a tenth of a second. A failure is a
message on standard error and a status other than 0.
"""

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any

try:
    import resource
except ImportError:  # not on Windows; memory is not limited there
    resource = None


def main() -> None:
    """Serve the request on standard input."""
    request = json.load(sys.stdin)
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_AS, (request["memory"], request["memory"]))
    for block in {"laz": laz_records, "e57": e57_points}[request["decoder"]](request):
        sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()


def laz_records(request: dict[str, Any]) -> Iterator[bytes | bytearray]:
    """The records of a .laz file from byte `offset` on, decompressed as the record `laszip` (hex) says."""
    lazrs = importlib.import_module("lazrs")

    with open(request["path"], "rb") as handle:
        handle.seek(request["offset"])
        laszip = bytes.fromhex(request["laszip"])
        item_size = lazrs.LazVlr(laszip).item_size()
        if item_size != request["record_length"]:
            sys.exit(f"its compressed points have {item_size} bytes, but the header says {request['record_length']}")
        decompressor = lazrs.LasZipDecompressor(handle, laszip)
        left = request["count"]
        while left:
            block = bytearray(min(left, request["points_per_block"]) * item_size)
            decompressor.decompress_many(block)
            yield block
            left -= len(block) // item_size


def e57_points(request: dict[str, Any]) -> Iterator[bytes]:
    """The valid points of all scans of an .e57 file in its common frame: xyz as float64, rgb in [0, 1] or NaN as float64."""
    import numpy as np
    import pye57
    from pye57.e57 import SUPPORTED_POINT_FIELDS

    colors = ("colorRed", "colorGreen", "colorBlue")
    SUPPORTED_POINT_FIELDS.update(dict.fromkeys(colors, "H"))  # its own choice, a byte, refuses 16-bit colours
    with _readable_errors(), pye57.E57(request["path"]) as file:
        headers = [file.get_header(index) for index in range(file.scan_count)]
        if sum(header.point_count for header in headers) > request["most_points"]:
            sys.exit("it claims more points than it has bits")
        for index, header in enumerate(headers):
            if not header.point_count:
                continue
            colored = all(name in header.point_fields for name in colors)
            scan = file.read_scan(index, colors=colored, ignore_missing_fields=True)
            rows = np.full((len(scan["cartesianX"]), 6), np.nan)
            for column, axis in enumerate("XYZ"):
                rows[:, column] = scan[f"cartesian{axis}"]
            for column, name in enumerate(colors if colored else (), 3):
                rows[:, column] = scan[name] / _full_intensity(header, name, scan[name])
            yield rows.tobytes()


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    """libE57Format's errors by their names, such as "checksum mismatch", without the places in its source."""
    libe57 = importlib.import_module("pye57.libe57")

    try:
        yield
    except libe57.E57Exception as error:
        sys.exit(str(error).splitlines()[0])


def _full_intensity(header: Any, name: str, values: Any) -> float:
    """The largest value a colour may have: as the scan says, else by what it has."""
    if header.node.isDefined("colorLimits") and header.node["colorLimits"].isDefined(f"{name}Maximum"):
        limit = float(header.node["colorLimits"][f"{name}Maximum"].value())
        if limit > 0:
            return limit
    return 255.0 if not len(values) or values.max() <= 255 else 65535.0


if __name__ == "__main__":
    main()
