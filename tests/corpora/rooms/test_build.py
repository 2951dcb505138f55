import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corpora.rooms.tiny_rooms import TINY
from splatsense.corpora.rooms.build import build_rooms, make_manifest
from splatsense.corpora.rooms.pieces import Pieces
from splatsense.corpora.rooms.priors import KINDS
from splatsense.corpora.rooms.record import kind_of, make_room, record_room
from splatsense.corpora.rooms.sheet import draw_sheet, sheets
from splatsense.corpora.rooms.summary import summarise_rooms, summary
from splatsense.corpora.rooms.textures import Texture
from splatsense.errors import DataError, FormatError
from splatsense.labels import SCANNET20, SCANNET200
from splatsense.scenes import load_scene

COUNTS = {"train": 2, "val": 1, "test": 1}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, libraries: Path) -> Path:
    out = tmp_path_factory.mktemp("rooms")
    build_rooms(out, COUNTS, TINY, libraries)
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_room_made_again_alone_is_the_same_to_the_last_bit(
    corpus: Path, tmp_path: Path, train_pieces: Pieces, textures: list[Texture]
) -> None:
    record_room(make_room("train", 1, train_pieces, textures, TINY), TINY, tmp_path / "train_0001")
    assert content(tmp_path / "train_0001") == content(corpus / "train" / "train_0001")
    assert content(corpus / "train" / "train_0000") != content(corpus / "train" / "train_0001")


def test_a_rerun_makes_what_is_missing_and_nothing_else(corpus: Path, libraries: Path, capsys: pytest.CaptureFixture) -> None:
    before = content(corpus)
    shutil.rmtree(corpus / "val" / "val_0000")
    capsys.readouterr()
    build_rooms(corpus, COUNTS, TINY, libraries)
    printed = capsys.readouterr().out
    assert "val_0000  1 of 1" in printed
    assert "Synthetic" in printed
    assert "share with test rooms: 0" in printed
    assert content(corpus) == before
    assert not list(corpus.rglob("*.tmp"))


def test_labels_and_instances_are_valid_and_belong_together(corpus: Path) -> None:
    seen: set[int] = set()
    for folder in sorted(corpus.glob("*/*_000?")):
        scene, room = load_scene(folder), json.loads((folder / "room.json").read_text())
        assert scene.semantic20 is not None
        assert scene.semantic200 is not None
        assert scene.instance is not None
        assert scene.frames is not None
        assert len(scene.frames) == TINY.frames
        names = {x["id"]: x["scannet200"] for x in room["instances"]}
        for instance in np.unique(scene.instance):
            of_it = scene.instance == instance
            assert len(np.unique(scene.semantic200[of_it])) == 1
            index = int(scene.semantic200[of_it][0])
            assert (SCANNET200.names[index] if index >= 0 else "") == names[int(instance)]
        seen |= set(scene.semantic20.tolist())
        assert room["synthetic"] is True
        assert "ynthetic" in room["note"]
        assert all(piece["licence"] for piece in room["pieces"].values())
    assert {SCANNET20.index("floor"), SCANNET20.index("wall"), -1} < seen


@pytest.mark.parametrize("perfect", [True, False])
def test_the_fused_cloud_lies_on_the_surfaces(
    perfect: bool, tmp_path: Path, train_pieces: Pieces, textures: list[Texture]
) -> None:
    settings = replace(TINY, frames=24, camera=replace(TINY.camera, width=160, height=120))
    if perfect:
        settings = replace(settings, sensor=replace(settings.sensor, depth_noise=0.0, holes=0.0))
    record_room(make_room("train", 3, train_pieces, textures, settings), settings, tmp_path / "room")
    scene = load_scene(tmp_path / "room")
    assert scene.semantic20 is not None
    assert scene.normal is not None
    floor = scene.coord[scene.semantic20 == SCANNET20.index("floor")]
    assert len(floor) > 200
    assert np.median(abs(floor[:, 2])) < (0.002 if perfect else 0.015)
    assert np.quantile(abs(floor[:, 2]), 0.95) < (0.01 if perfect else 0.08)
    up = scene.normal[scene.semantic20 == SCANNET20.index("floor"), 2]
    assert np.median(up) > (0.99 if perfect else 0.8)


def test_train_and_test_rooms_share_no_piece(corpus: Path) -> None:
    manifest = json.loads((corpus / "manifest.json").read_text())
    pieces = {split: set(manifest["splits"][split]["pieces"]) for split in COUNTS}
    assert pieces["train"]
    assert pieces["test"]
    assert not (pieces["train"] | pieces["val"]) & pieces["test"]
    assert all(key.startswith(("BlendSwap-CC-0_", "KatorLegaz_")) for key in pieces["test"])
    assert manifest["synthetic"] is True
    for split, count in COUNTS.items():
        found = manifest["splits"][split]
        assert found["rooms"] == count
        assert sum(found["scannet20"].values()) == sum(found["scannet200"].values()) == found["points"]


def test_shared_pieces_are_found(corpus: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    shutil.rmtree(copy / "test" / "test_0000")
    shutil.copytree(copy / "train" / "train_0000", copy / "test" / "test_0000")
    with pytest.raises(DataError, match="train and test rooms share"):
        make_manifest(copy, TINY)


def test_kinds_come_as_often_as_their_share() -> None:
    for start in (0, 17):
        kinds = [kind_of(start + i) for i in range(60)]
        for kind, prior in KINDS.items():
            assert kinds.count(kind) / 60 == pytest.approx(prior.share, abs=0.04)


@pytest.mark.slow
def test_workers_make_the_same(corpus: Path, tmp_path: Path, libraries: Path) -> None:
    build_rooms(tmp_path, COUNTS, TINY, libraries, workers=2)
    assert content(tmp_path) == content(corpus)


def test_a_sheet_is_drawn_from_a_rooms_files(corpus: Path, tmp_path: Path) -> None:
    folder = corpus / "test" / "test_0000"
    sheet = draw_sheet(folder)
    assert sheet.size == (1280, 736)
    assert len(sheet.getcolors(1 << 20) or []) > 500
    assert sheets((folder, folder), tmp_path / "sheet.png") == 0
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_bad_input(corpus: Path, tmp_path: Path, libraries: Path, train_pieces: Pieces, textures: list[Texture]) -> None:
    with pytest.raises(FormatError, match="holds rooms of other settings"):
        build_rooms(corpus, COUNTS, replace(TINY, seed=1), libraries)
    with pytest.raises(DataError, match="at least one room"):
        build_rooms(tmp_path, {"train": 0}, TINY, libraries)
    with pytest.raises(DataError, match="workers must be 1 to 256"):
        build_rooms(tmp_path, COUNTS, TINY, libraries, workers=0)
    with pytest.raises(FormatError, match=r"no \.sh3f library"):
        build_rooms(tmp_path / "a", COUNTS, TINY, tmp_path)
    with pytest.raises(DataError, match="test rooms are made of test pieces"):
        make_room("test", 0, train_pieces, textures, TINY)
    with pytest.raises(DataError, match="split must be one of"):
        make_room("validation", 0, train_pieces, textures, TINY)
    with pytest.raises(FormatError, match=r"room\.json"):
        draw_sheet(tmp_path)
    for wrong in ({"frames": 0}, {"voxel": 0.0}, {"jpeg_quality": 100}, {"seed": -1}):
        with pytest.raises(DataError, match=next(iter(wrong))):
            replace(TINY, **wrong)


def test_a_summary_says_what_is_there_and_what_splits_share(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert summary(corpus) == 0
    printed = capsys.readouterr().out
    manifest = json.loads((corpus / "manifest.json").read_text())
    assert f"{manifest['splits']['train']['points']:,}" in printed
    (line,) = (line for line in printed.splitlines() if "train and test" in line)
    assert line.split()[3:] == ["0", "of", str(len(manifest["splits"]["test"]["pieces"])), "0", "of", "1"]
    copy = tmp_path / "rooms"
    shutil.copytree(corpus, copy)
    shutil.copy(copy / "train" / "train_0001" / "coord.npy", copy / "val" / "val_0000" / "coord.npy")
    (line,) = (line for line in summarise_rooms(copy).splitlines() if "train and val" in line)
    assert line.endswith("1 of 1")
    with pytest.raises(DataError, match="holds no rooms"):
        summarise_rooms(tmp_path)
