"""`splatsense scenes ...`: bring data sets, recordings and homes into the form of `splatsense.scenes`.

Design
- Each scene becomes a folder `OUT/<split>/<name>` that appears when it is complete. One that is there is passed over, so the
  same command goes on after an interruption; that of a recording only if it was imported with the same settings.
- A scene that cannot be read is reported with its reason at the end, and the others go on.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from splatsense.batch import BatchReport
from splatsense.corpora.pointcept import find_preprocessed, read_preprocessed
from splatsense.corpora.recordings import RecordingSettings, find_recordings, read_recording, settings_of
from splatsense.corpora.s3dis import find_rooms, read_s3dis
from splatsense.corpora.scannet import find_scans, read_label_table, read_scannet
from splatsense.corpora.sweethome import HomeSettings, find_homes, read_home
from splatsense.errors import DataError, FormatError, SplatSenseError
from splatsense.files import open_to_read, walk
from splatsense.labels import S3DIS, LabelSet
from splatsense.scenes import MADE_WITH, Scene, check_made_with, save_scene
from splatsense.tables import printable
from splatsense.training.progress import Progress

Axes = Literal["aligned", "scanned"]
LABELS = "scannetv2-labels.combined.tsv"


@dataclass(frozen=True)
class SceneSource:
    """A scene to import.

    Attributes:
        path: what reports call it.
        name: of its folder.
        split: of its folder's parent, or "".
        read: gives the scene; frames that have to be written go into the empty folder it is given.
        labels: label set of its `semantic`, where that is known.
        settings: gives what it is made with, where a scene that is there already must have been made with the same.
    """

    path: Path
    name: str
    split: str
    read: Callable[[Path], Scene]
    labels: LabelSet | None = None
    settings: Callable[[], dict[str, Any]] | None = None


def import_scenes(label: str, sources: Sequence[SceneSource], out: Path, progress: bool = True) -> BatchReport:
    """Read scenes and save them below `out`; those that are there already are passed over.

    Args:
        label: what is being imported, for the progress.
        sources: of which no two may have the same split and name.
        progress: show it on stderr.

    Raises:
        DataError: two sources would share a folder.
        FormatError: `out` cannot be written.
    """
    shared = [folder for folder, count in Counter((s.split, s.name) for s in sources).items() if count > 1]
    if shared:
        raise DataError(f"{out}: several scenes would be called {'/'.join(shared[0])}; import their folders one by one.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FormatError(f"{out}: cannot be made ({error.strerror}); choose another folder.") from error
    report = BatchReport()
    shown = Progress(label, len(sources)) if progress else None
    try:
        for source in sources:
            try:
                if _import_one(source, out):
                    report.done += 1
                else:
                    report.skipped += 1
            except (SplatSenseError, OSError) as error:
                report.failed.append((source.path, str(error)))
            if shown:
                shown.advance(1, printable(source.name))
    finally:
        if shown:
            shown.close()
    return report


def _import_one(source: SceneSource, out: Path) -> bool:
    folder = out / source.split / source.name
    if folder.exists():
        if source.settings and (folder / MADE_WITH).is_file():
            check_made_with(folder, source.settings())
        return False
    with tempfile.TemporaryDirectory(prefix=".import-", dir=out) as scratch:
        scene = source.read(Path(scratch))
        save_scene(replace(scene, name=source.name), folder, source.labels, source.settings and source.settings())
    return True


def _sources_or_error(sources: list[SceneSource], source: Path, expected: str) -> list[SceneSource]:
    if not sources:
        what = "does not exist" if not source.exists() else f"holds no {expected}"
        raise FormatError(f"{source}: {what}. docs/scenes.md shows the folders that are expected.")
    return sources


def import_scannet(
    source: Path,
    out: Path,
    labels: Path | None = None,
    train_list: Path | None = None,
    val_list: Path | None = None,
    test_list: Path | None = None,
    frames: int = 300,
    axes: Axes = "aligned",
) -> int:
    """Import ScanNet scans as they are downloaded, with labels of ScanNet20 and ScanNet200 and frames of the recording.

    Args:
        source: Folder that holds scans/scene0000_00 and so on, to any depth.
        out: Folder for the scenes, OUT/train/scene0000_00 and so on.
        labels: scannetv2-labels.combined.tsv; by default looked for in the source. Scans with annotations need it.
        train_list: File that names the scans of the train split, such as scannetv2_train.txt.
        val_list: The same for the validation split.
        test_list: The same for the test split.
        frames: The most frames to take of a recording, evenly; 0 for none.
        axes: Turn scans so that walls follow the axes ("aligned"), or leave them ("scanned"), as Pointcept does.
    """
    if frames < 0:
        raise DataError(f"--frames must be at least 0, got {frames}.")
    table_file = labels or min((folder / LABELS for folder, _, files in walk(source) if LABELS in files), default=None)
    folders = find_scans(source)
    if table_file is None and any(any(folder.glob("*.aggregation.json")) for folder in folders):
        raise FormatError(f"{source}: its scans have annotations; give the table of labels with --labels (see docs/scenes.md).")
    table = read_label_table(table_file) if table_file is not None else None
    split_of = _splits({"train": train_list, "val": val_list, "test": test_list})
    unlisted = "unlisted" if split_of else "all"
    sources = [
        SceneSource(
            folder,
            folder.name,
            split_of.get(folder.name, unlisted),
            lambda scratch, folder=folder: read_scannet(folder, table, scratch, frames, axes),
        )
        for folder in folders
    ]
    return import_scenes("scans", _sources_or_error(sources, source, "*_vh_clean_2.ply"), out).tell("imported")


def _splits(lists: dict[str, Path | None]) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for split, path in lists.items():
        if path is None:
            continue
        with open_to_read(path) as handle:
            names = handle.read().decode("utf-8", "replace").split()
        twice = [name for name in names if split_of.get(name, split) != split]
        if twice:
            raise DataError(f"{path}: {twice[0]} is in the list of {split_of[twice[0]]} too; a scan has one split.")
        split_of |= dict.fromkeys(names, split)
    return split_of


def import_pointcept(source: Path, out: Path) -> int:
    """Import scenes that Pointcept preprocessed (ScanNet, ScanNet200, S3DIS): check them and complete them with normals.

    Args:
        source: Folder of splits of scenes with coord.npy.
        out: Folder for the scenes.
    """
    found = find_preprocessed(source)
    sources = [
        SceneSource(path, path.absolute().name.removesuffix(".pth"), split, lambda _, path=path: read_preprocessed(path))
        for split, path in found
    ]
    return import_scenes("scenes", _sources_or_error(sources, source, "coord.npy"), out).tell("imported")


def import_s3dis(source: Path, out: Path, axes: Axes = "aligned") -> int:
    """Import S3DIS rooms as they are downloaded (Stanford3dDataset_v1.2), with its 13 classes.

    Args:
        source: Folder that holds Area_1/office_1/Annotations and so on.
        out: Folder for the scenes, OUT/Area_1/office_1 and so on.
        axes: Turn rooms by the angle that their area's file gives ("aligned"), or leave them ("scanned").
    """
    rooms = find_rooms(source)
    sources = [
        SceneSource(room, room.name, room.parent.name, lambda _, room=room: read_s3dis(room, axes), S3DIS) for room in rooms
    ]
    return import_scenes("rooms", _sources_or_error(sources, source, "Annotations/*.txt"), out).tell("imported")


def import_recordings(source: Path, out: Path, settings: RecordingSettings, split: str = "train") -> int:
    """Import posed RGB-D recordings in the form of 7-Scenes, TUM or transforms.json with depth; no labels are needed.

    Args:
        source: Folder of a recording, or of several to any depth.
        out: Folder for the scenes.
        settings: How recordings become scenes.
        split: Folder below OUT that they go into.
    """
    expected = "*.pose.txt, groundtruth.txt or transforms.json"
    sources = _sources_or_error(recording_sources(source, settings, split), source, expected)
    return import_scenes("recordings", sources, out).tell("imported")


def recording_sources(root: Path, settings: RecordingSettings, split: str) -> list[SceneSource]:
    """All recordings at or below a folder, each called by the folders that it is in."""
    return [
        SceneSource(
            folder,
            "-".join(folder.relative_to(root).parts) or folder.absolute().name,
            split,
            lambda scratch, folder=folder: read_recording(folder, scratch, settings),
            settings=lambda folder=folder: settings_of(folder, settings),
        )
        for folder in find_recordings(root)
    ]


def import_homes(source: Path, out: Path, settings: HomeSettings, split: str = "train") -> int:
    """Import Sweet Home 3D homes (.sh3d) as labelled scenes with instances and frames drawn in their rooms.

    Args:
        source: A home, or a folder of homes to any depth.
        out: Folder for the scenes.
        settings: How homes become scenes.
        split: Folder below OUT that they go into.
    """
    sources = [
        SceneSource(path, path.stem, split, lambda scratch, path=path: read_home(path, scratch, settings))
        for path in (find_homes(source) if source.exists() else [])
    ]
    return import_scenes("homes", _sources_or_error(sources, source, ".sh3d file"), out).tell("imported")
