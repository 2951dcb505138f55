"""Scenes that a command line names: a corpus, a folder of scenes, a scene, or recordings that are imported on the way."""

from collections.abc import Sequence
from pathlib import Path

from splatsense.corpora.recordings import RecordingSettings
from splatsense.errors import DataError, FormatError
from splatsense.import_scenes import import_scenes, recording_sources
from splatsense.scenes import list_scenes


def find_scenes(given: Sequence[str], split: str, imported: Path, intrinsics: tuple[float, ...] = ()) -> list[Path]:
    """Scene folders, in order.

    Args:
        given: each a scene, a folder of scenes, a corpus with a folder `split`, or a folder with recordings to any depth.
        split: of a corpus.
        imported: folder for what is imported.
        intrinsics: fx, fy, cx, cy of recordings that do not say it.

    Raises:
        FormatError: a folder holds nothing of the kind, or a recording cannot be read or was imported with other intrinsics.
        DataError: recordings of two folders have the same name.
    """
    found: list[Path] = []
    came_from: dict[Path, Path] = {}
    for name in given:
        folder = Path(name)
        if (folder / "coord.npy").is_file():
            found.append(folder)
        elif any(folder.glob("*/coord.npy")):
            found += list_scenes(folder)
        elif any((folder / split).glob("*/coord.npy")):
            found += list_scenes(folder, split)
        else:
            scenes = _import(folder, split, imported, intrinsics)
            for scene in scenes:  # of two recordings called the same, only the first is imported
                other = came_from.setdefault(scene, folder)
                if other != folder:
                    raise DataError(
                        f"{folder}: has a recording called {scene.name} as {other} has; give the folder above both, or import "
                        "them with `splatsense scenes recordings`."
                    )
            found += scenes
    return found


def _import(folder: Path, split: str, imported: Path, intrinsics: tuple[float, ...]) -> list[Path]:
    if not folder.is_dir():
        raise FormatError(f"{folder}: is no folder; check the name.")
    settings = RecordingSettings(intrinsics=intrinsics or None)  # pyright: ignore[reportArgumentType]
    sources = recording_sources(folder, settings, split)
    if not sources:
        raise FormatError(
            f"{folder}: holds neither scenes (folders with coord.npy, or a folder {split} of them) nor recordings (7-Scenes, "
            "TUM, transforms.json with depth)."
        )
    report = import_scenes("recordings", sources, imported)
    if report.failed:
        raise FormatError("; ".join(f"{path}: {reason}" for path, reason in report.failed))
    return [imported / split / source.name for source in sources]
