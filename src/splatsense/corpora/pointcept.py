"""Scenes that Pointcept preprocessed: `train/scene0000_00/coord.npy` and so on (ScanNet, ScanNet200, S3DIS and others).

They can be used where they are (`scenes.load_scene`). Importing checks them, brings their arrays to our number types, and
estimates the normals that Pointcept's S3DIS lacks. Older releases wrote `.pth` files, which are pickles and are refused.
"""

import logging
from dataclasses import replace
from pathlib import Path

from splatsense.errors import FormatError
from splatsense.files import walk
from splatsense.geometry.normals import normals_towards_middle
from splatsense.scenes import Scene, load_scene

log = logging.getLogger("splatsense")


def find_preprocessed(root: Path) -> list[tuple[str, Path]]:
    """(split, path) of all scenes: `root/<split>/<scene>/coord.npy`; with "" as the split `root/<scene>/coord.npy`, or `root`.

    Pickles of an older Pointcept are listed too, so that reading them says what to do.
    """
    found: list[Path] = []
    for folder, _, files in walk(root):
        if "coord.npy" in files:
            found.append(folder)
        found += [folder / file for file in files if file.endswith(".pth")]
    splits = [path.parent if path != root else root for path in found]
    return sorted(
        (split.relative_to(root).as_posix().removeprefix("."), path) for split, path in zip(splits, found, strict=True)
    )


def read_preprocessed(path: Path) -> Scene:
    """Read one scene and complete it with normals.

    Raises:
        FormatError: it is a pickle of an older Pointcept, or an array is damaged or does not fit the others.
        DataError: labels are out of range, or values not finite.
    """
    if path.suffix == ".pth":
        raise FormatError(
            f"{path}: is a pickle of an older Pointcept, which could run any code when read; preprocess the data again with a "
            "current Pointcept, which writes .npy files."
        )
    scene = load_scene(path)
    if scene.normal is not None:
        return scene
    log.info("%s: has no normals; they are estimated from neighbouring points and turned to the middle of the scene.", path)
    return replace(scene, normal=normals_towards_middle(scene.coord))
