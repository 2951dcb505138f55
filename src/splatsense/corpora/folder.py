"""A folder of meshes as a corpus: every file is an object named after its file name or what a caption file says.

`captions.csv`, `captions.json` and the metadata of an Objaverse download (`annotations.py`) override what the file names say;
files they do not list keep their own names. Folders of splats are read the same way (`splats.py`).
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from splatsense.corpora import Corpus, CorpusObject, file_keys, words_from_identifier
from splatsense.corpora.annotations import Annotation, is_objaverse, read_annotations
from splatsense.errors import FormatError
from splatsense.files import open_to_read
from splatsense.gaussians import Gaussians
from splatsense.io.mesh import MESH_SUFFIXES, load_mesh
from splatsense.mesh import Mesh

log = logging.getLogger("splatsense")
NOISE_WORDS = frozenset({"mat", "transformed", "sm", "mesh", "model", "final", "lod", "low", "poly", "lowpoly", "copy"})


def folder(path: str | Path, licence: str = "") -> Corpus:
    """All meshes below a folder, sorted by path.

    Args:
        path: the folder.
        licence: licence of everything in it that its caption file gives none for.

    Raises:
        FormatError: the folder is missing or holds no mesh, or its caption file is damaged.
        DataError: two files have one id.
    """
    return annotated_corpus("folder", Path(path), MESH_SUFFIXES, "mesh", licence, load_mesh)


def annotated_corpus(
    name: str,
    root: Path,
    suffixes: Sequence[str],
    kind: str,
    licence: str,
    load_mesh: Callable[[Path], Mesh],
    load_gaussians: Callable[[Path], Gaussians] | None = None,
) -> Corpus:
    """All files below a folder that end in one of `suffixes`, sorted by path, with what caption files say about them.

    Args:
        name: of the corpus, before that of the folder.
        root: the folder.
        suffixes: of its files.
        kind: what they are, for messages.
        licence: of everything in it that its caption file gives none for.
        load_mesh: reads a file as a mesh, or says why there is none.
        load_gaussians: reads a file as a splat, where it is one.

    Raises:
        FormatError: the folder is missing or holds no such file, or its caption file is damaged.
        DataError: two files have one id.
    """
    root = root.absolute()  # workers on a cluster have another working directory
    files = _find_objects(root, suffixes, kind)
    annotations, unknown = read_annotations(root, files)
    _report_unknown(root, unknown)
    keys = [Path(file).stem for file in files] if is_objaverse(root) else file_keys(files)
    objects = []
    for file, key in zip(files, keys, strict=True):
        said = annotations.get(file, Annotation())
        objects.append(
            CorpusObject(
                key=key,
                name=said.name or (said.label if is_objaverse(root) else "") or _name_of_file(file),
                load_mesh=partial(load_mesh, root / file),
                tags=said.tags,
                category=said.category,
                label=said.label,
                split=said.split,
                licence=said.licence or licence,
                creator=said.creator,
                captions=said.captions,
                load_gaussians=partial(load_gaussians, root / file) if load_gaussians else None,
                open_source=partial(open_to_read, root / file),
            )
        )
    return Corpus(f"{name}:{root.name}", tuple(objects), unknown)


def _find_objects(root: Path, suffixes: Sequence[str], kind: str) -> list[str]:
    """Relative paths of the files below a folder that end in one of `suffixes`, sorted. Raises FormatError for none."""
    found = sorted(
        file.relative_to(root).as_posix() for file in root.rglob("*") if file.suffix.lower() in suffixes and file.is_file()
    )
    if not found:
        raise FormatError(f"{root}: no {kind} below it; expected files ending in {' '.join(suffixes)}.")
    return found


def _report_unknown(root: Path, unknown: Sequence[str]) -> None:
    """Say in the log which objects a caption file names in vain."""
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        log.warning("%s: its caption file names %d objects that are not in the folder: %s", root, len(unknown), shown)


def _name_of_file(file: str) -> str:
    """What the name of a file says the object is."""
    words = [word for word in words_from_identifier(Path(file).stem).split() if word not in NOISE_WORDS]
    return " ".join(words) or "object"
