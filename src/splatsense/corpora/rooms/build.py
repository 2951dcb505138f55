"""The corpus of rooms: all rooms of all splits in a folder, with a manifest.

Design
- `OUT/train/train_0000` and so on are scene folders (`splatsense.scenes`) with a `room.json` each. A room is there when it is
  complete; a rerun makes those that are missing. `OUT/settings.json` keeps a rerun from mixing settings.
- Training and validation rooms are made of train pieces of the furniture corpus (validation rooms are other rooms of the same
  pieces), test rooms of test pieces. `OUT/manifest.json` lists the pieces of each split; that train and test share none is
  checked before it is written.
- Workers are processes; what they make does not depend on how many they are.
"""

import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from splatsense.corpora.furniture import furniture, furniture_archives
from splatsense.corpora.rooms.camera_path import CameraSettings
from splatsense.corpora.rooms.pieces import Pieces
from splatsense.corpora.rooms.record import ROOM_FILE, SPLITS, SYNTHETIC, RoomSettings, make_room, piece_split, record_room
from splatsense.corpora.rooms.textures import LICENCE, Texture, read_textures
from splatsense.errors import DataError, FormatError
from splatsense.files import atomic_write
from splatsense.labels import SCANNET20, SCANNET200
from splatsense.tables import table

MANIFEST, SETTINGS = "manifest.json", "settings.json"
Job = tuple[str, int]


def rooms(
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")], train: int = 200, validation: int = 40,
    test: int = 60, furniture: Path | None = None, cache: Path = Path("cache"), seed: int = 0, frames: int = 60,
    width: int = 320, height: int = 240, voxel: float = 0.02, workers: int = 1,
) -> int:  # fmt: skip
    """Make furnished synthetic rooms: RGB-D recordings and the labelled point clouds fused from them.

    Args:
        out: Folder of the corpus; a rerun with the same settings goes on where the last one stopped.
        train: How many training rooms.
        validation: How many validation rooms, made of the same pieces as training rooms.
        test: How many test rooms, made of pieces that no training room has.
        furniture: Folder with the Sweet Home 3D libraries; by default an installed Sweet Home 3D, or fetched packages.
        cache: Where packages are fetched to.
        seed: Of everything drawn.
        frames: Images of each recording.
        width: Of the images in pixels.
        height: Of the images in pixels.
        voxel: Side in metres of the voxels of the point clouds.
        workers: Processes.
    """
    if not (8 <= width <= 4096 and 8 <= height <= 4096):
        raise DataError(f"rooms: images must be 8 to 4096 pixels wide and high, got {width} x {height}.")
    settings = RoomSettings(seed=seed, frames=frames, camera=CameraSettings(width, height), voxel=voxel)
    counts: dict[str, int] = dict(zip(SPLITS, (train, validation, test), strict=True))
    build_rooms(out, counts, settings, furniture, cache, workers)
    return 0


def build_rooms(
    out: str | Path, counts: dict[str, int], settings: RoomSettings, source: Path | None = None, cache: Path = Path("cache"),
    workers: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Makes the rooms that are missing and writes the manifest, which is returned.

    Args:
        counts: rooms of each split in `SPLITS`.
        source: folder with the furniture libraries; see `corpora.furniture`.
        workers: processes; 1 works in this one.

    Raises:
        DataError: a count or `workers` is out of range, or train and test rooms share pieces.
        FormatError: the folder holds rooms of other settings, or the furniture libraries are missing.
    """
    if set(counts) - set(SPLITS) or any(count < 0 for count in counts.values()) or not sum(counts.values()):
        raise DataError(f"rooms: give at least one room, and a number from 0 for {', '.join(SPLITS)}; got {counts}.")
    if not 1 <= workers <= 256:
        raise DataError(f"rooms: workers must be 1 to 256, got {workers}.")
    out = Path(out)
    furniture_archives(source, cache)  # fetched or missed here, not in every worker
    _claim(out, settings)
    jobs = [(split, i) for split in SPLITS for i in range(counts.get(split, 0)) if not _is_done(out, split, i)]
    start = time.monotonic()
    for done, (split, index) in enumerate(_make(out, jobs, settings, source, cache, workers), 1):
        seconds = (time.monotonic() - start) / done
        print(f"{split}_{index:04d}  {done:,} of {len(jobs):,}  {seconds:.1f} s a room", flush=True)
    manifest = make_manifest(out, settings)
    with atomic_write(out / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    print(manifest_summary(manifest))
    return manifest


def _claim(out: Path, settings: RoomSettings) -> None:
    """Writes the settings into a new folder, or checks that they are those of an old one."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FormatError(f"{out}: cannot be made ({error.strerror}); choose another folder.") from error
    path, wanted = out / SETTINGS, {"synthetic": True, "note": SYNTHETIC, "rooms": asdict(settings)}
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(wanted, indent=1) + "\n", "utf-8")
        return
    found = read_json(path)
    if found.get("rooms") != json.loads(json.dumps(wanted["rooms"])):
        raise FormatError(f"{out}: holds rooms of other settings ({path.name}); use those, or another folder.")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of this corpus. Raises FormatError when it is missing or damaged."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); delete the folder it is in and make it again.") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: holds no JSON object; delete the folder it is in and make it again.")
    return value


def _folder(out: Path, split: str, index: int) -> Path:
    return out / split / f"{split}_{index:04d}"


def _is_done(out: Path, split: str, index: int) -> bool:
    return (_folder(out, split, index) / ROOM_FILE).is_file()


def _make(out: Path, jobs: list[Job], settings: RoomSettings, source: Path | None, cache: Path, workers: int) -> Iterator[Job]:
    """Makes rooms, and yields each when it is there."""
    tasks = [(out, job, settings, source, cache) for job in jobs]
    if workers == 1:
        for task in tasks:
            yield _make_one(task)
        return
    context = multiprocessing.get_context("spawn")
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # one thread in each worker; children inherit it when they start
    try:
        with ProcessPoolExecutor(min(workers, max(1, len(tasks))), mp_context=context) as pool:
            yield from pool.map(_make_one, tasks)
    finally:
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)


def _make_one(task: tuple[Path, Job, RoomSettings, Path | None, Path]) -> Job:
    out, (split, index), settings, source, fetched = task
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pieces, textures = _materials(source, fetched, piece_split(split))
        record_room(make_room(split, index, pieces, textures, settings), settings, _folder(out, split, index))
    finally:
        torch.set_num_threads(threads)
    return split, index


@cache
def _materials(source: Path | None, fetched: Path, split: str) -> tuple[Pieces, list[Texture]]:
    """Pieces and textures of a split, read once in each process."""
    return Pieces(furniture(source, fetched), split), read_textures(furniture_archives(source, fetched), split)


def make_manifest(out: Path, settings: RoomSettings) -> dict[str, Any]:
    """What the rooms in a folder are: counts, kinds, pieces, licences and label histograms of each split.

    Raises:
        DataError: train and test rooms share a library piece.
    """
    splits: dict[str, Any] = {}
    for split in SPLITS:
        folders = sorted(path.parent for path in (out / split).glob(f"*/{ROOM_FILE}") if not path.parent.name.startswith("."))
        described = [read_json(folder / ROOM_FILE) for folder in folders]
        used = {key: piece for room in described for key, piece in room["pieces"].items()}
        library = sorted(key for key in used if not key.startswith("procedural_"))
        splits[split] = {
            "rooms": len(folders),
            "kinds": dict(sorted(Counter(room["kind"] for room in described).items())),
            "points": int(sum(len(np.load(folder / "coord.npy", mmap_mode="r")) for folder in folders)),
            "scannet20": _histogram(folders, "segment20", SCANNET20.names),
            "scannet200": _histogram(folders, "segment200", SCANNET200.names),
            "pieces": {key: used[key] for key in library},
            "licences": dict(sorted(Counter(used[key]["licence"] for key in library).items())),
        }
    shared = sorted((set(splits["train"]["pieces"]) | set(splits["val"]["pieces"])) & set(splits["test"]["pieces"]))
    if shared:
        raise DataError(f"{out}: train and test rooms share {len(shared)} pieces, such as {shared[0]}; make the rooms again.")
    return {
        "synthetic": True, "note": SYNTHETIC, "settings": asdict(settings), "texture_licence": LICENCE,
        "pieces_shared_by_train_and_test": shared, "splits": splits,
    }  # fmt: skip


def _histogram(folders: list[Path], array: str, names: tuple[str, ...]) -> dict[str, int]:
    """Points of each class that occurs, most first; "unlabelled" too."""
    total = np.zeros(len(names) + 1, np.int64)
    for folder in folders:
        total += np.bincount(np.load(folder / f"{array}.npy").astype(np.int64) + 1, minlength=len(total))
    counts = {name: int(count) for name, count in zip(("unlabelled", *names), total, strict=True) if count}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def manifest_summary(manifest: dict[str, Any]) -> str:
    """The manifest as text: rooms, points and pieces of each split, and the share of each class of ScanNet20 in per cent."""
    splits = manifest["splits"]
    made = [split for split in SPLITS if splits[split]["rooms"]]
    head = [(split, f"{splits[split]['rooms']:,}", f"{splits[split]['points']:,}", f"{len(splits[split]['pieces']):,}")
            for split in made]  # fmt: skip
    rows = []
    for name in ("unlabelled", *SCANNET20.names):
        shares = [100 * splits[split]["scannet20"].get(name, 0) / max(1, splits[split]["points"]) for split in made]
        rows.append((name, *(f"{share:.2f}" for share in shares)))
    return "\n\n".join([
        SYNTHETIC,
        table([("split", "rooms", "points", "library pieces"), *head], "<>>>"),
        table([("% of points", *made), *rows], "<" + ">" * len(made)),
        f"Library pieces that train or validation rooms share with test rooms: "
        f"{len(manifest['pieces_shared_by_train_and_test'])}.",
    ])  # fmt: skip
