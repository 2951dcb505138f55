"""The commands `splatsense scenes ...` on small data sets: splits, resuming, going on past bad scenes, messages."""

from pathlib import Path

import numpy as np
import pytest

from scene_files import write_room, write_scan, write_seven_scenes
from splatsense.cli import main
from splatsense.corpora.pointcept import find_preprocessed
from splatsense.corpora.recordings import find_recordings
from splatsense.corpora.s3dis import find_rooms
from splatsense.corpora.scannet import find_scans
from splatsense.corpora.sweethome import find_homes
from splatsense.errors import DataError
from splatsense.import_scenes import SceneSource, import_scenes
from splatsense.scenes import Scene, list_scenes, load_scene, save_scene
from synthetic_room import room_frames

TABLE = "id\traw_category\tnyu40id\r\n3\tfloor\t2\r\n10\toffice chair\t5\r\n28\tlamp\t35\r\n"


def source(name, split="train", fails=False, calls=None):
    def read(scratch):
        if calls is not None:
            calls.append(name)
        (scratch / "frame").write_text("x")
        if fails:
            raise DataError(f"{name}: broken")
        return Scene("other", np.zeros((3, 3), np.float32))

    return SceneSource(Path(name), name, split, read)


def test_bad_scenes_are_reported_and_the_others_go_on(tmp_path):
    calls: list[str] = []
    sources = [source("a", calls=calls), source("b", fails=True, calls=calls), source("c", "val", calls=calls)]
    report = import_scenes("scenes", sources, tmp_path / "out", progress=False)
    assert (report.done, report.skipped, report.failed) == (2, 0, [(Path("b"), "b: broken")])
    assert load_scene(tmp_path / "out" / "val" / "c").name == "c"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train", "val"]  # nothing else is left
    calls.clear()
    report = import_scenes("scenes", sources, tmp_path / "out", progress=False)
    assert (report.done, report.skipped, len(report.failed)) == (0, 2, 1)
    assert calls == ["b"]


def test_scenes_that_would_overwrite_each_other_are_refused(tmp_path):
    with pytest.raises(DataError, match="several scenes would be called train/a"):
        import_scenes("scenes", [source("a"), source("a")], tmp_path, progress=False)


def test_scannet_goes_into_the_splits_of_its_lists(tmp_path, capsys):
    for name in ("scene0000_00", "scene0000_01", "scene0011_00"):
        write_scan(tmp_path / "raw", name)
    (tmp_path / "raw" / "scans" / "scene0011_00" / "scene0011_00_vh_clean_2.ply").write_bytes(b"ply\nnothing")
    command = ["scenes", "scannet", "--source", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--frames", "2"]
    assert main(command) == 2
    assert "--labels" in capsys.readouterr().err
    (tmp_path / "raw" / "scannetv2-labels.combined.tsv").write_bytes(TABLE.encode())
    (tmp_path / "train.txt").write_text("scene0000_00\nscene0011_00\n")
    command += ["--train-list", str(tmp_path / "train.txt")]
    assert main(command) == 1
    told = capsys.readouterr()
    assert "2 imported, 0 imported already, 1 failed." in told.out
    assert "scene0011_00_vh_clean_2.ply" in told.err
    assert [path.name for path in list_scenes(tmp_path / "out", "train")] == ["scene0000_00"]
    assert [path.name for path in list_scenes(tmp_path / "out", "unlisted")] == ["scene0000_01"]
    scene = load_scene(tmp_path / "out" / "train" / "scene0000_00")
    assert scene.frames is not None
    assert len(scene.frames) == 2
    assert scene.frames.frame(1)[0].shape == (72, 96, 3)
    assert main(command) == 1
    assert "0 imported, 2 imported already, 1 failed." in capsys.readouterr().out
    (tmp_path / "val.txt").write_text("scene0000_00\n")
    assert main([*command, "--val-list", str(tmp_path / "val.txt")]) == 2
    assert "scene0000_00 is in the list of train too" in capsys.readouterr().err


def test_rooms_of_s3dis_and_their_preprocessed_form(tmp_path, capsys):
    write_room(tmp_path / "raw", "Area_1", "office_1")
    write_room(tmp_path / "raw", "Area_5", "office_1")
    assert main(["scenes", "s3dis", "--source", str(tmp_path / "raw"), "--out", str(tmp_path / "s3dis")]) == 0
    assert [path.name for path in list_scenes(tmp_path / "s3dis", "Area_5")] == ["office_1"]
    assert main(["scenes", "pointcept", "--source", str(tmp_path / "s3dis"), "--out", str(tmp_path / "again")]) == 0
    one, other = (load_scene(tmp_path / name / "Area_1" / "office_1") for name in ("s3dis", "again"))
    assert one.semantic is not None
    assert other.semantic is not None
    assert one.semantic.tobytes() == other.semantic.tobytes()
    assert "2 imported" in capsys.readouterr().out


def test_one_preprocessed_scene_may_be_the_source(tmp_path, capsys, monkeypatch):
    """Also by a relative path, and called with a dot."""
    write_room(tmp_path / "raw", "Area_1", "office_1")
    assert main(["scenes", "s3dis", "--source", str(tmp_path / "raw"), "--out", str(tmp_path / "s3dis")]) == 0
    room = (tmp_path / "s3dis" / "Area_1" / "office_1").rename(tmp_path / "office.1")
    monkeypatch.chdir(room)
    assert main(["scenes", "pointcept", "--source", ".", "--out", str(tmp_path / "out")]) == 0
    assert [folder.name for folder in list_scenes(tmp_path / "out")] == ["office.1"]


def test_a_recording_becomes_a_scene_with_one_command(tmp_path, capsys):
    write_seven_scenes(tmp_path / "chess" / "seq-01")
    K = room_frames()[0].cameras.K[0]
    numbers = [str(float(K[row, column])) for row, column in ((0, 0), (1, 1), (0, 2), (1, 2))]
    command = ["scenes", "recordings", "--source", str(tmp_path / "chess"), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "--intrinsics" in capsys.readouterr().err
    assert main([*command, "--intrinsics", *numbers]) == 0
    scene = load_scene(list_scenes(tmp_path / "out", "train")[0])
    assert scene.name == "seq-01"
    assert scene.semantic20 is None
    assert scene.frames is not None
    assert len(scene.frames) == 8


@pytest.mark.parametrize("kind", ["scannet", "s3dis", "pointcept", "recordings"])
def test_folders_that_hold_nothing_of_the_kind_say_so(tmp_path, kind, capsys):
    assert main(["scenes", kind, "--source", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path}: holds no " in capsys.readouterr().err
    assert main(["scenes", kind, "--source", str(tmp_path / "x"), "--out", str(tmp_path / "out")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_recording_imported_with_other_settings_is_not_passed_over(tmp_path, capsys):
    """Settings are those of the command and the intrinsics beside the images; a scene that says none is taken as it is."""
    source, out = tmp_path / "chess", tmp_path / "out"
    write_seven_scenes(source / "seq-01")
    command = ["scenes", "recordings", "--source", str(source), "--out", str(out)]
    numbers = ["100", "100", "48", "36"]
    assert main([*command, "--intrinsics", *numbers]) == 0
    capsys.readouterr()
    assert main([*command, "--intrinsics", "90", *numbers[1:]]) == 1
    assert "imported with intrinsics [100.0, 100.0, 48.0, 36.0], not [90.0, 100.0, 48.0, 36.0]" in capsys.readouterr().err
    assert main([*command, "--intrinsics", *numbers, "--voxel", "0.03"]) == 1
    assert "imported with voxel 0.02, not 0.03. Choose another --out, or delete this" in capsys.readouterr().err
    (source / "camera-intrinsics.txt").write_text("100 0 48\n0 100 36\n0 0 1\n")
    assert main(command) == 0
    assert "0 imported, 1 imported already" in capsys.readouterr().out
    (source / "camera-intrinsics.txt").write_text("90 0 48\n0 90 36\n0 0 1\n")
    assert main(command) == 1
    (out / "train" / "seq-01" / "import.json").unlink()
    assert main(command) == 0


@pytest.mark.parametrize(
    ("find", "below"),
    [
        (find_scans, "scans/scene0000_00"),
        (lambda root: [path for _, path in find_preprocessed(root)], "train/room"),
        (find_rooms, "Area_1/office_1"),
        (find_recordings, "chess/seq-01"),
        (find_homes, "home.sh3d"),
    ],
)
def test_data_behind_symbolic_links_is_found_once(tmp_path, find, below):
    data = tmp_path / "data"
    write_scan(data, "scene0000_00")
    save_scene(Scene("room", np.zeros((3, 3), np.float32)), data / "train" / "room")
    write_room(data, "Area_1", "office_1")
    write_seven_scenes(data / "chess" / "seq-01")
    (data / "home.sh3d").touch()
    assert find(data) == [data / below]
    (tmp_path / "root").mkdir()
    for link in ("first", "second"):
        (tmp_path / "root" / link).symlink_to(data)
    (data / "back").symlink_to(tmp_path / "root")
    assert find(tmp_path / "root") == [tmp_path / "root" / "first" / below]
    assert find(data) == [data / below]
