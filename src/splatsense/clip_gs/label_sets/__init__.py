"""Label sets: the classes that objects are told apart by, and how an object's own label maps to one of them.

Design
- `modelnet40`, `scanobjectnn` and `furniture` are known by name; any other is a file: one class a line, a JSON list of classes,
  a JSON object of classes and the keys of their objects (Objaverse-LVIS's annotations), or one of keys and their classes.
- Labels match regardless of case, of `_`, `-` and spaces. One that matches none is an error that names the nearest classes,
  because leaving its objects out unasked would make the figures look better than they are.
"""

import difflib
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from splatsense.corpora.furniture import evaluation_labels
from splatsense.errors import DataError, FormatError

BUNDLED = ("modelnet40", "scanobjectnn")
KNOWN = ("furniture", *BUNDLED)
SHOWN = 8  # labels that do not match are listed up to this many


@dataclass(frozen=True)
class LabelSet:
    """Classes.

    Attributes:
        name: of the set, for tables.
        classes: distinct names in order.
        by_key: class of an object by its key, where the file says so; it goes before the object's own label.
    """

    name: str
    classes: tuple[str, ...]
    by_key: Mapping[str, str] = field(default_factory=dict, repr=False)

    def match(self, keys: Sequence[str], labels: Sequence[str], drop_unknown: bool = False) -> list[str]:
        """The class of each object, "" for those without a label.

        Args:
            keys: of the objects.
            labels: what the data call the objects.
            drop_unknown: give "" to objects whose label is not in the set, too.

        Raises:
            DataError: a label is none of the classes.
        """
        spelled = {_plain(name): name for name in self.classes}
        found, unknown = [], {}
        for key, label in zip(keys, labels, strict=True):
            label = self.by_key.get(key, label)
            found.append(spelled.get(_plain(label), ""))
            if label and not found[-1]:
                unknown[label] = unknown.get(label, 0) + 1
        if unknown and not drop_unknown:
            raise DataError(self._unknown(unknown))
        return found

    def _unknown(self, counts: Mapping[str, int]) -> str:
        lines = [f"{len(counts)} labels of {sum(counts.values())} objects are not in the label set {self.name!r}:"]
        spelled = {_plain(name): name for name in self.classes}
        for label in sorted(counts, key=lambda label: (-counts[label], label))[:SHOWN]:
            near = [spelled[close] for close in difflib.get_close_matches(_plain(label), spelled, n=3)]
            lines.append(f"  {label} ({counts[label]}): {'nearest ' + ', '.join(near) if near else 'nothing near'}")
        lines += [f"  and {len(counts) - SHOWN} more"] if len(counts) > SHOWN else []
        return "\n".join([*lines, "Rename them, take other --labels, or leave these objects out with --drop-unknown."])


def load_label_set(name_or_path: str | Path) -> LabelSet:
    """A label set by name, or from a file of the user.

    Raises:
        FormatError: there is no such set or file, or the file cannot be read as one.
        DataError: the file holds no class, or one twice.
    """
    name = str(name_or_path)
    if name == "furniture":
        return LabelSet(name, tuple(evaluation_labels()))
    if name in BUNDLED:
        text = resources.files(__name__).joinpath(f"{name}.txt").read_text("utf-8")
        return LabelSet(name, tuple(text.split("\n")[:-1]))
    path = Path(name)
    if not path.is_file():
        raise FormatError(f"--labels {name}: neither a file nor one of {', '.join(KNOWN)}.")
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as text ({error}).") from error
    if path.name.removesuffix(".gz").endswith(".json"):
        return _from_json(path, text)
    return LabelSet(path.stem, _checked(path, [line.strip() for line in text.splitlines() if line.strip()]))


def _from_json(path: Path, text: str) -> LabelSet:
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is not JSON ({error}).") from error
    by_key: dict[str, str] = {}
    if isinstance(content, list) and all(isinstance(value, str) for value in content):
        classes = content
    elif isinstance(content, dict) and all(_is_strings(value) for value in content.values()):
        classes = list(content)
        for name, keys in content.items():
            for key in keys:
                if by_key.setdefault(key, name) != name:
                    raise DataError(f"{path}: object {key} stands under {by_key[key]!r} and under {name!r}.")
    elif isinstance(content, dict) and all(isinstance(value, str) for value in content.values()):
        classes, by_key = list(dict.fromkeys(content.values())), content
    else:
        raise FormatError(
            f"{path}: expected a list of class names, an object of class names with lists of keys, "
            "or an object of keys with class names."
        )
    return LabelSet(path.name.removesuffix(".gz").removesuffix(".json"), _checked(path, classes), by_key)


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _checked(path: Path, classes: Iterable[str]) -> tuple[str, ...]:
    first: dict[str, str] = {}
    for name in classes:
        plain = _plain(name)
        if not plain:
            raise DataError(f"{path}: a class name is blank.")
        if plain in first:
            raise DataError(f"{path}: class {name!r} occurs twice (as {first[plain]!r}); classes must differ in their words.")
        first[plain] = name
    if not first:
        raise DataError(f"{path}: holds no class name.")
    return tuple(first.values())


def _plain(label: str) -> str:
    return " ".join(label.replace("_", " ").replace("-", " ").split()).casefold()
