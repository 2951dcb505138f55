"""`splatsense corpora summary`: label histograms and what splits share, read from the rooms that are there now."""

import hashlib
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Annotated

import tyro

from splatsense.corpora.rooms.build import make_manifest, manifest_summary, read_json
from splatsense.corpora.rooms.record import ROOM_FILE, SPLITS, RoomSettings
from splatsense.errors import DataError
from splatsense.tables import table


def summary(rooms: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ROOMS")]) -> int:
    """Print the label histogram of each split of a corpus of rooms, and what its splits share.

    Args:
        rooms: Folder made by `splatsense corpora rooms`, complete or not.
    """
    print(summarise_rooms(rooms))
    return 0


def summarise_rooms(rooms: Path) -> str:
    """Rooms, points, pieces and share of each class of every split, then how much each pair of splits has in common.

    Raises:
        DataError: there are no rooms, or train and test rooms share a library piece.
        FormatError: a room is damaged.
    """
    folders = {split: sorted(path.parent for path in (rooms / split).glob(f"{split}_*/{ROOM_FILE}")) for split in SPLITS}
    if not any(folders.values()):
        raise DataError(f"{rooms}: holds no rooms; name the folder given to `splatsense corpora rooms`.")
    manifest = make_manifest(rooms, RoomSettings())  # the settings are not printed
    kinds: dict[str, Callable[[Path], set[str]]] = {
        "library pieces": lambda folder: {key for key in read_json(folder / ROOM_FILE)["pieces"] if not _is_made(key)},
        "clouds": lambda folder: {hashlib.sha256((folder / "coord.npy").read_bytes()).hexdigest()},
    }
    held = {kind: {split: set().union(*map(find, folders[split])) for split in SPLITS} for kind, find in kinds.items()}
    rows = [
        (f"{one} and {other}", *(f"{len(sets[one] & sets[other])} of {len(sets[other])}" for sets in held.values()))
        for one, other in combinations(SPLITS, 2)
    ]
    return manifest_summary(manifest) + "\n\n" + table([("shared by", *kinds), *rows], "<" + ">" * len(kinds))


def _is_made(key: str) -> bool:
    return key.startswith("procedural_")
