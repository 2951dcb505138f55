"""The furniture corpus: 920 models of the Sweet Home 3D libraries, with names, tags, sizes and icons.

Design
- The models come from the Debian packages `sweethome3d` (default catalogue, inside a jar) and
  `sweethome3d-furniture` (five `.sh3f` libraries): from an installed system, from a folder, or fetched with
  `apt-get download` and unpacked, without root, into a cache folder. Archives are read in place, never unpacked.
- `furniture_classes.csv` is ours: class, split and licence of every model, checked by eye on contact sheets.
  The split is by library, so no creator is on both sides: train on Scopia, BlendSwap-CC-BY, Reallusion and the
  default catalogue, test on BlendSwap-CC-0 and KatorLegaz.
- Models of the default catalogue name materials of Sweet Home 3D without an `mtllib`; their colours are facts of
  that program (https://www.sweethome3d.com), listed in `sweethome3d_colors.json`.
- 8 models have no faces and 19 ask for textures that are not in the archive. The first raise `DataError` on
  loading, the second keep their material colours and say so in the log.
"""

import csv
import io
import json
import re
import subprocess
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path, PurePosixPath

from splatsense.corpora import Corpus, CorpusObject, safe_key
from splatsense.errors import DataError, FormatError
from splatsense.io.mesh import match_name, parse_mesh
from splatsense.mesh import Mesh

INSTALLED = Path("/usr/share/sweethome3d")
PACKAGES = ("sweethome3d", "sweethome3d-furniture")
DEFAULT_CATALOGUE = "SH3D-default"
MIN_TRAIN, MIN_TEST = 3, 2  # objects a class needs on each side to be evaluated


def furniture(path: str | Path | None = None, cache: str | Path = "cache") -> Corpus:
    """All models of the libraries found, in catalogue order.

    Args:
        path: folder holding `*.sh3f` and `sweethome3d.jar` (searched below it), or one such file. By default an
            installed Sweet Home 3D, else the Debian packages fetched into `cache`.
        cache: where packages are fetched to.

    Raises:
        FormatError: nothing found, or an archive is damaged.
    """
    table = _class_table()
    archives = furniture_archives(path, cache)
    return Corpus("furniture", tuple(item for archive in archives for item in _read_library(archive, table)))


def furniture_archives(path: str | Path | None = None, cache: str | Path = "cache") -> list[Path]:
    """The libraries that `furniture` reads, sorted. Raises FormatError when there are none."""
    root = Path(path) if path is not None else _find_or_fetch(Path(cache))
    root = root.absolute()  # workers on a cluster have another working directory
    archives = [root] if root.is_file() else sorted([*root.rglob("*.sh3f"), *root.rglob("sweethome3d.jar")])
    if not archives:
        raise FormatError(f"{root}: no .sh3f library and no sweethome3d.jar below it; install sweethome3d-furniture.")
    return archives


def evaluation_labels() -> list[str]:
    """The classes with at least 3 train and 2 test objects, sorted: the ones zero-shot evaluation is about."""
    counts = Counter((row["class"], row["split"]) for row in _class_table().values() if row["class"])
    labels = {label for label, _ in counts}
    return sorted(x for x in labels if counts[x, "train"] >= MIN_TRAIN and counts[x, "test"] >= MIN_TEST)


def _class_table() -> dict[str, dict[str, str]]:
    text = resources.files("splatsense.corpora").joinpath("furniture_classes.csv").read_text("utf-8")
    return {row["id"]: row for row in csv.DictReader(text.splitlines())}


def _find_or_fetch(cache: Path) -> Path:
    if any(INSTALLED.rglob("*.sh3f")):
        return INSTALLED
    folder = cache / "sweethome3d"
    if not any(folder.rglob("*.sh3f")):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True, capture_output=True, text=True)
            for package in sorted(folder.glob("*.deb")):
                subprocess.run(["dpkg", "-x", package.name, "."], cwd=folder, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            raise FormatError(
                f"the furniture libraries are not installed and could not be fetched ({str(reason).strip()}). Install "
                "the Debian packages sweethome3d and sweethome3d-furniture, or pass the folder that holds the .sh3f files."
            ) from error
    return folder


def _read_library(path: Path, table: dict[str, dict[str, str]]) -> list[CorpusObject]:
    is_default = path.suffix == ".jar"
    folder = "com/eteks/sweethome3d/io/" if is_default else ""
    catalogue = folder + ("DefaultFurnitureCatalog" if is_default else "PluginFurnitureCatalog") + ".properties"
    library = DEFAULT_CATALOGUE if is_default else path.stem
    try:
        with zipfile.ZipFile(path) as archive:
            entries = parse_catalogue(archive.read(catalogue).decode("latin-1"))
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise FormatError(f"{path}: not a Sweet Home 3D library ({error}).") from error
    return [_object(path, library, entry, table.get(entry.get("id", ""), {})) for entry in entries]


def parse_catalogue(text: str) -> list[dict[str, str]]:
    """Entries of a Java `.properties` furniture catalogue: one dict per `#number`, in order."""
    text = re.sub(r"\\\r?\n[ \t]*", "", text)
    entries: dict[int, dict[str, str]] = {}
    for line in text.splitlines():
        match = re.match(r"\s*(\w+)#(\d+)\s*[=:]\s*(.*?)\s*$", line)
        if match:
            value = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), match[3]).replace("\\", "")
            entries.setdefault(int(match[2]), {})[match[1]] = value
    return [entries[number] for number in sorted(entries)]


def _object(archive: Path, library: str, entry: dict[str, str], row: dict[str, str]) -> CorpusObject:
    size = tuple(float(entry[axis]) if entry.get(axis) else 0.0 for axis in ("width", "depth", "height"))
    tags = [tag.strip() for tag in entry.get("tags", "").split(",")]
    model = entry["model"].lstrip("/")
    return CorpusObject(
        key=safe_key(f"{library}_{entry['id'].split('#')[-1]}"),
        name=row.get("corrected_name") or entry["name"],
        load_mesh=partial(_load_mesh, archive, model),
        tags=tuple(tag for tag in tags if tag and tag not in ("Blend Swap", "Default")),
        category=entry.get("category", ""),
        label=row.get("class", ""),
        split=row.get("split", ""),
        licence=row.get("licence", ""),
        creator=entry.get("creator", ""),
        size_cm=(size[0], size[1], size[2]),
        load_icon=partial(_read_member, archive, entry["icon"].lstrip("/")),
        open_source=partial(_open_member, archive, model),
        properties=entry,
    )


def _read_member(archive: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.read(name)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FormatError(f"{archive}: cannot read {name} ({error}).") from error


def _open_member(archive: Path, name: str) -> io.BytesIO:
    return io.BytesIO(_read_member(archive, name))


def _load_mesh(archive: Path, model: str) -> Mesh:
    folder = PurePosixPath(model).parent
    with zipfile.ZipFile(archive) as opened:
        siblings = [PurePosixPath(n).relative_to(folder).as_posix() for n in opened.namelist() if n.startswith(f"{folder}/")]

        def read_file(name: str) -> bytes:
            found = match_name(name, siblings)
            if found is None:
                raise FileNotFoundError(name)
            return opened.read(str(folder / found))

        return parse_furniture_model(opened.read(model), read_file, f"{archive}!/{model}")


def parse_furniture_model(data: bytes, read_file: Callable[[str], bytes], name: str) -> Mesh:
    """Parse an OBJ model of Sweet Home 3D; one that names no material library takes the program's own colours.

    Args:
        data: the bytes of the OBJ file.
        read_file: returns the bytes of a file the model refers to, or raises OSError.
        name: what errors call the model.
    """
    if re.search(rb"^mtllib", data, re.MULTILINE) is None:
        data = f"mtllib {COLORS_MTL}\n".encode() + data
    return parse_mesh(data, "obj", lambda file: _colors_as_mtl() if file == COLORS_MTL else read_file(file), name)


COLORS_MTL = "sweethome3d-colors.mtl"


def _colors_as_mtl() -> bytes:
    colors = json.loads(resources.files("splatsense.corpora").joinpath("sweethome3d_colors.json").read_text("utf-8"))
    lines = [f"newmtl {name}\nKd {r} {g} {b}\nd {opacity}\n" for name, (r, g, b, opacity) in colors.items()]
    return "".join(lines).encode()


def catalogue_icon(item: CorpusObject) -> bytes:
    """Bytes of the PNG icon of an object. Raises DataError when its corpus has none."""
    if item.load_icon is None:
        raise DataError(f"{item.key}: has no icon.")
    return item.load_icon()
