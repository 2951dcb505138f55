"""What people say about the objects of a folder: `captions.csv`, `captions.json`, or the metadata of an Objaverse download.

Design
- An entry names its object by the path relative to the folder, or by the name of the file without its suffix, such as an
  Objaverse uid, where only one file has it.
- `captions.csv` has a column `file` or `key` and any of `name,tags,captions,category,label,split,licence,creator`; several
  tags are separated by `;`, several captions by `|`.
- `captions.json` is `{id: entry}` or a list of entries with `file` or `key`. An entry has the fields above, tags and captions
  as lists. Objaverse's own entries are understood as well: tags and categories as objects with a name, `license`, `user`.
- An Objaverse download (`glbs/000-023/<uid>.glb`) brings `metadata/000-023.json.gz` and `lvis-annotations.json.gz`.
- Entries for objects that are not there are returned, for the caller to report. Two entries for one object are an error.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from splatsense.errors import FormatError

SPLITS = ("train", "test", "")
SKETCHFAB_LICENCES = {
    "by": "CC-BY-4.0", "by-sa": "CC-BY-SA-4.0", "by-nd": "CC-BY-ND-4.0", "by-nc": "CC-BY-NC-4.0",
    "by-nc-sa": "CC-BY-NC-SA-4.0", "by-nc-nd": "CC-BY-NC-ND-4.0", "cc0": "CC0-1.0",
}  # fmt: skip


@dataclass(frozen=True)
class Annotation:
    """What an entry says; "" or () where it says nothing. The fields are those of `CorpusObject`."""

    name: str = ""
    tags: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    category: str = ""
    label: str = ""
    split: str = "train"
    licence: str = ""
    creator: str = ""


def read_annotations(root: Path, files: Sequence[str]) -> tuple[dict[str, Annotation], tuple[str, ...]]:
    """Annotations by file, and the ids that a caption file names and that no file has.

    Args:
        root: the folder.
        files: relative paths of the objects in it, with forward slashes.

    Raises:
        FormatError: a caption file is damaged, lacks its columns, or names an object twice or ambiguously.
    """
    found: dict[str, Annotation] = _objaverse_metadata(root, files) if is_objaverse(root) else {}
    table, listing = root / "captions.csv", root / "captions.json"
    if table.exists() and listing.exists():
        raise FormatError(f"{root}: holds captions.csv and captions.json; keep one of them.")
    if not table.exists() and not listing.exists():
        return found, ()
    source = table if table.exists() else listing
    entries = _read_csv(table) if table.exists() else _read_json(listing)
    ids = _ids(files)
    seen: dict[str, str] = {}
    unknown = []
    for place, name, entry in entries:
        matches = ids.get(name, [])
        if len(matches) > 1:
            raise FormatError(f"{source}: {place}: {len(matches)} files are called {name!r}; give the path instead.")
        if not matches:
            unknown.append(name)
            continue
        file = matches[0]
        if file in seen:
            raise FormatError(f"{source}: {place}: {name!r} is named twice, before at {seen[file]}; remove one.")
        seen[file] = place
        found[file] = _annotation(entry, f"{source}: {place}")
    return found, tuple(unknown)


def is_objaverse(root: Path) -> bool:
    """Whether a folder is laid out as Objaverse's downloader leaves it."""
    return (root / "glbs").is_dir()


def _ids(files: Sequence[str]) -> dict[str, list[str]]:
    """The files that an id may mean: a path means itself, the name of a file without its suffix every file that has it."""
    ids: dict[str, list[str]] = {}
    for file in files:
        ids.setdefault(Path(file).stem, []).append(file)
    return ids | {file: [file] for file in files}


Entries = Iterable[tuple[str, str, dict[str, Any]]]
"""Place in the file for messages, id, and the entry."""


def _read_csv(path: Path) -> Entries:
    try:
        with path.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened, strict=True)
            rows = [(f"line {reader.line_num}", row) for row in reader]
            columns = reader.fieldnames or []
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: is no CSV table in UTF-8 ({error}).") from error
    column = next((name for name in ("file", "key") if name in columns), None)
    if column is None:
        raise FormatError(f"{path}: line 1 lacks the column `file` (paths relative to the folder) or `key`.")
    for place, row in rows:
        entry: dict[str, Any] = {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
        for field, separator in (("tags", ";"), ("captions", "|")):
            entry[field] = [part.strip() for part in entry.get(field, "").split(separator)]
        yield place, entry[column], entry


def _read_json(path: Path) -> Entries:
    content = _parse_json(path)
    if isinstance(content, dict):
        entries = [(f"entry {name!r}", name, entry) for name, entry in content.items()]
    elif isinstance(content, list):
        entries = [(f"entry {i}", None, entry) for i, entry in enumerate(content)]
    else:
        raise FormatError(f"{path}: must hold an object of entries by id, or a list of entries.")
    for place, name, entry in entries:
        if isinstance(entry, str):
            entry = {"captions": [entry]}
        if not isinstance(entry, dict):
            raise FormatError(f"{path}: {place}: must be an object or a caption, not {type(entry).__name__}.")
        name = name if name is not None else entry.get("file", entry.get("key"))
        if not isinstance(name, str):
            raise FormatError(f"{path}: {place}: lacks `file` (a path relative to the folder) or `key`.")
        yield place, name, entry


def _parse_json(path: Path) -> Any:
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:  # no gzip; no UTF-8; no JSON
        raise FormatError(f"{path}: cannot be read as JSON ({error}); copy or export it again.") from error


def _annotation(entry: dict[str, Any], place: str) -> Annotation:
    licence = _text(entry.get("licence") or entry.get("license"), place, "licence")
    split = _text(entry.get("split", "train"), place, "split") if entry.get("split") is not None else "train"
    if split not in SPLITS:
        raise FormatError(f'{place}: split is {split!r}; use "train", "test", or nothing for neither.')
    categories = _texts(entry.get("categories") or entry.get("category"), place, "category")
    creator = entry.get("creator") or entry.get("user")
    if isinstance(creator, dict):
        creator = creator.get("displayName") or creator.get("username")
    return Annotation(
        name=_text(entry.get("name"), place, "name"),
        tags=_texts(entry.get("tags"), place, "tags"),
        captions=_texts(entry.get("captions") or entry.get("caption"), place, "captions"),
        category=categories[0] if categories else "",
        label=_text(entry.get("label"), place, "label"),
        split=split,
        licence=SKETCHFAB_LICENCES.get(licence, licence),
        creator=_text(creator, place, "creator"),
    )


def _text(value: Any, place: str, field: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FormatError(f"{place}: {field} must be text, not {type(value).__name__}.")
    return " ".join(value.split())


def _texts(value: Any, place: str, field: str) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    named = [item.get("name") if isinstance(item, dict) else item for item in values]
    return tuple(dict.fromkeys(text for item in named if (text := _text(item, place, field))))


def _objaverse_metadata(root: Path, files: Sequence[str]) -> dict[str, Annotation]:
    """What the metadata files of the downloaded parts say, and the LVIS category as label."""
    by_uid = {Path(file).stem: file for file in files}
    found: dict[str, Annotation] = {}
    for part in sorted({Path(file).parent.name for file in files}):
        path = root / "metadata" / f"{part}.json.gz"
        if path.exists():
            content = _parse_json(path)
            if not isinstance(content, dict):
                raise FormatError(f"{path}: must hold an object of entries by uid.")
            found |= {by_uid[uid]: _annotation(entry, f"{path}: {uid}") for uid, entry in content.items() if uid in by_uid}
    lvis = root / "lvis-annotations.json.gz"
    categories = _parse_json(lvis) if lvis.exists() else {}
    for label, uids in categories.items():
        for file in (by_uid[uid] for uid in uids if uid in by_uid):
            found[file] = replace(found.get(file, Annotation()), label=label.replace("_", " "))
    return found
