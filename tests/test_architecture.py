"""The layout of docs/architecture.md against the source: it names every module, and modules import from above only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import splatsense

SOURCE = Path(splatsense.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"


def layout() -> dict[str, str]:
    """What is written beside each file and folder at the top of the package, in order."""
    block = PAGE.read_text("utf-8").split("## Layout")[1].split("```")[1]
    entries: dict[str, str] = {}
    for line in block.strip().splitlines():
        if line.startswith(" "):
            names, text = names, line  # goes on
        else:
            names, text = line.split("  ", 1)
        for name in names.split(", "):
            entries[name] = entries.get(name, "") + text
    return entries


def modules() -> Iterator[tuple[str, Path]]:
    """Every module by the entry of the layout that it belongs to."""
    for path in sorted(SOURCE.rglob("*.py")):
        inside = path.relative_to(SOURCE)
        if inside.as_posix() not in ("__init__.py", "__main__.py"):
            yield inside.name if len(inside.parts) == 1 else f"{inside.parts[0]}/", path


def imported(path: Path) -> Iterator[str]:
    """Entries of the layout that a module imports from when it is imported itself."""
    for statement in ast.parse(path.read_text("utf-8")).body:
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] == "splatsense":
            parts = f"{statement.module}.{statement.names[0].name}".split(".")
            for name in (f"{parts[1]}/", f"{parts[1]}.py"):
                if (SOURCE / name).exists():
                    yield name


def test_every_module_is_named():
    entries = layout()
    missing = [
        path.relative_to(SOURCE).as_posix()
        for entry, path in modules()
        if entry not in entries
        or not (path.stem.startswith("_") or path.name == entry or re.search(rf"\b{path.stem}\b", entries[entry]))
    ]
    assert missing == []


def test_every_name_at_the_margin_exists():
    assert [name for name in layout() if not (SOURCE / name).exists() and name != "native/"] == []


def test_modules_import_only_from_above():
    place = {name: index for index, name in enumerate(layout())}
    below = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for entry, path in modules()
        for name in imported(path)
        if place[name] > place[entry]
    ]
    assert below == []
    assert sum(1 for _, path in modules() for _ in imported(path)) > 500  # they were looked at
