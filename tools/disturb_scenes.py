"""Copies of a split's scenes, each disturbed in one way, to see what a segmentation model makes of scans unlike those it knows.

python tools/disturb_scenes.py cache/rooms val OUT
splatsense evaluate instance --model RUN/model --scenes OUT/tilt --split val

Make choices on copies of a validation split. Every kind is a corpus of its own: asis, thin (a seventh of the points), nonormal
(none on disk, so they are estimated), color (brightness and white balance), noise (2 cm on each coordinate), tilt (4 degrees
about x, -3 about y). Every second scene is copied.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from splatsense.scenes import Scene, list_scenes, load_scene, save_scene
from splatsense.segmentation.augment import rotation

THIN, NOISE, TILTS = 7, 0.02, ((0, 4.0), (1, -3.0))


def thinned(scene: Scene, random: np.random.Generator) -> Scene:
    """A part of its points, in their order."""
    kept = np.sort(random.permutation(len(scene))[: len(scene) // THIN])
    arrays = {name: array[kept] for name, array in vars(scene).items() if isinstance(array, np.ndarray)}
    return replace(scene, **arrays)


def recolored(scene: Scene, random: np.random.Generator) -> Scene:
    """Another exposure and white balance."""
    gain, shift = random.uniform(0.65, 1.35, 3) * random.uniform(0.8, 1.2), random.uniform(-30, 30)
    return replace(scene, color=np.clip(scene.color * gain + shift, 0, 255).astype(np.uint8))


def noisy(scene: Scene, random: np.random.Generator) -> Scene:
    """Every point moved."""
    return replace(scene, coord=(scene.coord + random.normal(0, NOISE, scene.coord.shape)).astype(np.float32))


def tilted(scene: Scene) -> Scene:
    """The whole scene leaning."""
    turn = np.eye(3, dtype=np.float32)
    for axis, degrees in TILTS:
        turn = turn @ rotation(axis, degrees).numpy()
    return replace(scene, coord=scene.coord @ turn.T, normal=scene.normal @ turn.T)


def main() -> None:
    """Write the copies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes")
    parser.add_argument("split")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    for number, folder in enumerate(list_scenes(options.scenes, options.split)[::2]):
        scene, random = replace(load_scene(folder), frames=None), np.random.default_rng(number)
        copies = {
            "asis": scene,
            "thin": thinned(scene, random),
            "nonormal": replace(scene, normal=None),
            "color": recolored(scene, random),
            "noise": noisy(scene, random),
            "tilt": tilted(scene),
        }
        for kind, copy in copies.items():
            save_scene(copy, options.out / kind / options.split / scene.name)


if __name__ == "__main__":
    main()
