"""ModelNet40 and ModelNet10 (Wu et al. 2015, arXiv 1406.5670) as a corpus: `<class>/train|test/<class>_0001.off`.

Their objects have z up and are turned to y up on reading. Hundreds of the files have their counts right behind the magic
word ("OFF490 518 0"), which trimesh reads like any other; a file with fewer faces than it counts was cut short.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from splatsense.corpora import Corpus, CorpusObject, safe_key
from splatsense.errors import FormatError
from splatsense.files import open_to_read
from splatsense.io.mesh import parse_mesh
from splatsense.mesh import Mesh


def modelnet40(path: str | Path, licence: str = "") -> Corpus:
    """All objects of a ModelNet folder, class by class, in the order of their names; the class is label and name.

    Raises:
        FormatError: the folder holds no `<class>/train/*.off` or `<class>/test/*.off`.
        DataError: two files have one name.
    """
    root = Path(path).absolute()  # workers on a cluster have another working directory
    files = sorted(file for split in ("train", "test") for file in root.glob(f"*/{split}/*.off"))
    if not files:
        raise FormatError(f"{root}: holds no <class>/train/*.off and no <class>/test/*.off; give the folder of the classes.")
    return Corpus(f"modelnet40:{root.name}", tuple(_object(file, licence) for file in files))


def _object(file: Path, licence: str) -> CorpusObject:
    label = file.parent.parent.name.replace("_", " ")
    return CorpusObject(
        key=safe_key(file.stem),
        name=label,
        load_mesh=partial(load_off, file),
        label=label,
        split=file.parent.name,
        licence=licence,
        open_source=partial(open_to_read, file),
    )


def load_off(path: Path) -> Mesh:
    """Read an `.off` mesh with z up as one with y up.

    Raises:
        FormatError: the file is missing or damaged.
        DataError: it holds no faces, or vertices that are not finite.
    """
    with open_to_read(path) as opened:
        data = opened.read()
    if not data.lstrip().startswith(b"OFF"):
        raise FormatError(f"{path}: does not begin with OFF; copy or export it again.")
    mesh = parse_mesh(data, "off", _nothing_beside, str(path))
    counts = re.match(rb"\s*OFF\s*\d+\s+(\d+)", data)
    if counts and len(mesh.faces) < int(counts[1]):
        raise FormatError(f"{path}: cut short: has {len(mesh.faces)} of {int(counts[1])} faces; copy or download it again.")
    x, y, z = mesh.vertices.T
    return replace(mesh, vertices=np.stack([x, z, -y], axis=1))


def _nothing_beside(name: str) -> bytes:
    raise FileNotFoundError(f"{name}: an OFF mesh refers to no other file")
