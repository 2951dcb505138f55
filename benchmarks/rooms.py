"""Synthetic rooms: seconds a room by stage, with 60 frames of 320 x 240.

    OMP_NUM_THREADS=2 python benchmarks/rooms.py [--rooms 3] [--furniture FOLDER] [--threads 2]

Stages: furnishing with the light's shadow maps, filming (drawing, light, sensor), and fusing with writing and reading
the images.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from shared.furniture import furniture_libraries
from shared.targets import judged

from splatsense.corpora.furniture import furniture, furniture_archives
from splatsense.corpora.rooms import RoomSettings, make_room, record_room
from splatsense.corpora.rooms.pieces import Pieces
from splatsense.corpora.rooms.record import film
from splatsense.corpora.rooms.textures import read_textures
from splatsense.native import native_level
from splatsense.tables import table

WANTED = 20  # s a room of 60 frames of 320 x 240, on 2 cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--furniture", type=Path, help="folder of its libraries; by default what is at hand")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with furniture_libraries(options.furniture) as libraries:
        make_rooms(libraries, options.rooms)


def make_rooms(libraries: Path, count: int) -> None:
    settings = RoomSettings()
    pieces, textures = Pieces(furniture(libraries), "train"), read_textures(furniture_archives(libraries), "train")
    rows, total = [], 0.0
    for index in range(count):
        start = time.perf_counter()
        room = make_room("train", index, pieces, textures, settings)
        made = time.perf_counter()
        for _ in film(room, settings):
            pass
        filmed = time.perf_counter()
        room = make_room("train", index, pieces, textures, settings)  # a room can be filmed once: its random numbers go on
        again = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            record_room(room, settings, Path(folder) / room.name)
        whole = (made - start) + time.perf_counter() - again
        total += whole
        fused = whole - (filmed - start)
        rows.append((room.name, room.arrangement.layout.kind, f"{len(room.assembled.mesh.faces):,}", f"{made - start:.2f}",
                     f"{filmed - made:.2f}", f"{fused:.2f}", f"{whole:.2f}"))  # fmt: skip
    print(f"native: {native_level()}, {torch.get_num_threads()} threads, {settings.frames} frames of 320 x 240; seconds")
    print(table([("room", "kind", "faces", "furnish", "film", "fuse, files", "room"), *rows], "<<>>>>>"))
    print(judged("a room, mean, meshes read on first use included", total / count, "s", WANTED))


if __name__ == "__main__":
    main()
