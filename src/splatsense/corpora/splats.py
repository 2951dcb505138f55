"""A folder of splats as a corpus: named and captioned as a folder of meshes, read by `splatsense.io.load`."""

from functools import partial
from pathlib import Path

from splatsense.corpora import Corpus, CorpusObject, file_keys
from splatsense.corpora.annotations import Annotation, read_annotations
from splatsense.corpora.folder import find_objects, name_of_file, report_unknown
from splatsense.errors import DataError
from splatsense.files import open_to_read
from splatsense.formats import SPLATS
from splatsense.io import load
from splatsense.mesh import Mesh


def splats(path: str | Path, licence: str = "") -> Corpus:
    """All splats below a folder, sorted by path. They are taken as they lie: y is up, as in glTF.

    Args:
        path: the folder.
        licence: licence of everything in it that its caption file gives none for.

    Raises:
        FormatError: the folder is missing or holds no splat, or its caption file is damaged.
        DataError: two files have one id.
    """
    root = Path(path)
    files = find_objects(root, SPLATS, "splat")
    annotations, unknown = read_annotations(root, files)
    report_unknown(root, unknown)
    objects = []
    for file, key in zip(files, file_keys(files), strict=True):
        said = annotations.get(file, Annotation())
        objects.append(
            CorpusObject(
                key=key,
                name=said.name or name_of_file(file),
                load_mesh=partial(_no_mesh, root / file),
                tags=said.tags,
                category=said.category,
                label=said.label,
                split=said.split,
                licence=said.licence or licence,
                creator=said.creator,
                captions=said.captions,
                load_gaussians=partial(load, root / file),
                open_source=partial(open_to_read, root / file),
            )
        )
    return Corpus(f"splats:{root.name}", tuple(objects), unknown)


def _no_mesh(path: Path) -> Mesh:
    raise DataError(f"{path}: is a splat and has no mesh.")
