"""`splatsense demo`: index the bundled splats, search them by words and by a picture, draw the results.

The bundled objects lie in the package's `assets/objects/`; `assets/objects.json` lists them as
`[{"file", "name", "licence", "creator"}, ...]`. `assets/query.png` is a catalogue picture of an object that is not
among them, drawn by another renderer.
"""

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from splatsense.errors import DataError
from splatsense.library import Hit, Library
from splatsense.library.contact_sheet import SheetRow, write_contact_sheet
from splatsense.tables import counted, short_path, table

QUERIES = ("a wooden chair", "a lamp", "a potted plant", "a toilet", "a radiator")
SHOWN = 5


@dataclass(frozen=True)
class BundledObject:
    """One line of objects.json.

    Attributes:
        file: in `objects/`.
        name: that its creator gave it.
        licence: SPDX identifier.
        creator: who made it.
    """

    file: str
    name: str
    licence: str
    creator: str


def demo(output: Path = Path("demo"), page: Literal["auto", "yes", "no"] = "auto") -> int:
    """Build a library from the bundled splats, search it by words and by a picture, and draw the results.

    A second run finds everything indexed already. In a terminal, the page of the library opens in the browser afterwards.

    Args:
        output: Folder for the library and results.png.
        page: Open the page of the library in the browser at the end; auto does so where somebody sits at a terminal.
    """
    start = time.monotonic()
    with ExitStack() as stack:
        assets = stack.enter_context(resources.as_file(resources.files("splatsense").joinpath("assets")))
        run_demo(output, assets)
    print(f"Done in {time.monotonic() - start:.1f} s. Now your own: splatsense add my_assets FOLDER")
    if page == "yes" or (page == "auto" and sys.stdin.isatty() and sys.stdout.isatty()):
        from splatsense.web.serve import serve

        return serve(output / "library", open=True)
    print(f"Look at it in the browser: splatsense serve {short_path((output / 'library').absolute())}")
    return 0


def run_demo(output: Path, assets: Path, model: str = "clip-gs-tiny") -> Path:
    """The demo on any folder of assets laid out as the bundled one; returns the picture of the results.

    Raises:
        DataError: objects.json is missing or damaged, an object could not be indexed, or the output is a file.
    """
    if output.is_file():
        raise DataError(f"--output {output}: is a file; name a folder.")
    bundled = bundled_objects(assets)
    licences = " and ".join(sorted({item.licence for item in bundled}))
    print(f"{counted(len(bundled), 'bundled splat')}, {licences}; {assets / 'objects.json'} names who made them\n")
    names = {item.file: item.name for item in bundled}
    output.mkdir(parents=True, exist_ok=True)
    with Library(output / "library", model, isolated=False) as library:  # our own files
        report = library.add([assets / "objects" / item.file for item in bundled])
        if report.failed:
            raise DataError(f"{report.failed[0][0]}: {report.failed[0][1]} Install splatsense again.")
        print(f"{short_path(library.path)}: {report.indexed:,} indexed, {report.skipped:,} already indexed\n")
        rows = []
        for text in QUERIES:
            hits = library.search_text(text, SHOWN)
            _print_hits(f'"{text}"', hits, names)
            rows.append(SheetRow.of(text, hits, library, names))
        picture = assets / "query.png"
        hits = library.search_image(picture, SHOWN)
        _print_hits(f"the picture {picture.name}", hits, names)
        rows.append(SheetRow.of("this picture", hits, library, names, picture))
        results = output / "results.png"
        write_contact_sheet(results, rows, f"Best {SHOWN} of {counted(len(library), 'splat')} for each query")
    print(f"Pictures of all results: {short_path(results.absolute())}")
    return results


def bundled_objects(assets: Path | Traversable) -> list[BundledObject]:
    """What `objects.json` lists. Raises DataError when it is missing or damaged."""
    listing = assets.joinpath("objects.json")
    try:
        return [BundledObject(**entry) for entry in json.loads(listing.read_text("utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{listing}: missing or damaged ({error}); install splatsense again.") from error


def _print_hits(query: str, hits: list[Hit], names: dict[str, str]) -> None:
    rows = [(rank, f"{hit.score:.3f}", names.get(hit.path.name, hit.name)) for rank, hit in enumerate(hits, 1)]
    print(query)
    print(table(rows, ">><") + "\n")
