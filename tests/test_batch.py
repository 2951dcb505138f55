import gzip
import importlib.util
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import trimesh

from splatsense.batch import find_inputs, run_batch
from splatsense.cli import main
from splatsense.errors import DataError, FormatError
from splatsense.formats import ASSET_SUFFIXES, WRITABLE
from splatsense.gaussians import Gaussians
from splatsense.io import load, save


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 20
    means = torch.rand(count, 3, generator=torch.Generator().manual_seed(len(path.name)))
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
    save(Gaussians.from_rgb(means, quats, torch.full((count, 3), 0.1), torch.ones(count), means), path)
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("chair.ply", "chair.splat", "more/lamp.ply"):
        write(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.splat").write_bytes(b"123")
    (tmp_path / "in" / "notes.txt").write_text("not an asset")
    return tmp_path / "in"


def test_names_keep_folders_and_are_unique(folder, tmp_path):
    other = write(tmp_path / "elsewhere" / "more" / "lamp.ply")
    inputs, failed, _ = find_inputs([folder, other, tmp_path / "absent.ply", folder / "more" / "lamp.ply"], None)
    names = [item.name.as_posix() for item in inputs]
    assert names == ["broken", "chair.ply", "chair.splat", "more/lamp", "lamp"]
    assert [path.name for path, _ in failed] == ["absent.ply"]
    inputs, _, _ = find_inputs([folder / "more" / "lamp.ply", other], None)
    assert [item.name.as_posix() for item in inputs] == ["lamp.ply", "lamp.ply-2"]


def test_a_batch_goes_on_past_errors(folder, capsys):
    def work(item):
        if item.path.suffix == ".ply":
            raise FormatError(f"{item.path}: is bad.")
        return item.path.name == "chair.splat"

    report = run_batch("testing", [folder], None, work)
    assert (report.done, report.skipped, len(report.failed)) == (1, 1, 2)
    assert report.tell("tested") == 1
    captured = capsys.readouterr()
    assert "1 tested, 1 tested already, 2 failed." in captured.out
    assert any(line.split()[-3:] == [str(folder / "chair.ply"), "is", "bad."] for line in captured.err.splitlines())
    assert "testing: 4/4" in captured.err
    with pytest.raises(DataError, match="at least one"):
        run_batch("testing", [], None, work)
    with pytest.raises(DataError, match=r"--out .*chair\.ply: is a file; name a folder"):
        run_batch("testing", [folder], folder / "chair.ply", work)


@pytest.mark.parametrize("command", [["info"], ["render", "--size", "16", "--views", "1"], ["convert"]])
def test_archives_in_folders_are_told(tmp_path, capsys, command):
    write(tmp_path / "in" / "chair.ply")
    for name in ("chairs.ZIP", "more/lamps.tar.gz"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"anything")
    out = [] if command == ["info"] else ["--out", str(tmp_path / "out")]
    assert main([*command, str(tmp_path / "in"), str(tmp_path / "in" / "more" / ".."), *out]) == 0
    told = capsys.readouterr()
    assert told.err.count("Passed over 2 archives, such as ") == 1
    assert "chairs.ZIP. Unpack" in told.err
    assert "Passed over" not in told.out


def test_errors_of_the_system_name_a_file_that_is_not_the_input(folder):
    def work(item):
        raise PermissionError(13, "Permission denied", str(item.path if item.path.suffix == ".ply" else "/other"))

    reasons = {path.name: reason for path, reason in run_batch("testing", [folder], None, work).failed}
    assert reasons["chair.ply"] == "Permission denied"
    assert reasons["chair.splat"] == "[Errno 13] Permission denied: '/other'"


def test_convert_a_folder(folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["convert", str(folder), "--out", str(out), "--to", "splat"]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert f"3 converted, 0 converted already, 1 failed. Results are in {out}." in captured.out
    assert "broken.splat" in captured.err
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert made == ["chair.ply.splat", "chair.splat.splat", "more/lamp.splat"]
    torch.testing.assert_close(load(out / "more" / "lamp.splat").means, load(folder / "more" / "lamp.ply").means)
    before = os.stat(out / "more" / "lamp.splat")
    main(command)
    assert "0 converted, 3 converted already, 1 failed." in capsys.readouterr().out
    assert os.stat(out / "more" / "lamp.splat").st_ino == before.st_ino
    main([*command, "--force"])
    assert os.stat(out / "more" / "lamp.splat").st_ino != before.st_ino


def test_what_was_made_from_another_file_is_neither_taken_for_done_nor_lost(folder, tmp_path, capsys):
    out = tmp_path / "out"
    source, other = tmp_path / "one" / "a.ply", tmp_path / "other" / "a.ply"
    for path, count in ((source, 5), (other, 7)):
        path.parent.mkdir()
        save(load(next(folder.rglob("*.splat")))[:count], path)
    assert main(["convert", str(source.parent), "--out", str(out), "--to", "splat"]) == 0
    os.utime(other, ns=(10**18, 10**18))
    capsys.readouterr()
    assert main(["convert", str(other.parent), "--out", str(out), "--to", "splat"]) == 1
    assert "a.splat: is there, but not made from this file as it is now; give --force" in capsys.readouterr().err
    assert len(load(out / "a.splat")) == 5
    assert main(["convert", str(other.parent), "--out", str(out), "--to", "splat", "--force"]) == 0
    assert len(load(out / "a.splat")) == 7


def test_outputs_in_the_folder_that_is_searched_are_not_converted_again(folder, capsys):
    (folder / "broken.splat").unlink()
    command = ["convert", str(folder), "--out", str(folder / "out")]
    assert main(command) == 0
    assert main(command) == 0
    assert "0 converted, 3 converted already" in capsys.readouterr().out


def test_compressed_files_and_unpacked_sog_folders(tmp_path, capsys):
    source = write(tmp_path / "in" / "chair.compressed.ply")
    with zipfile.ZipFile(write(tmp_path / "lamp.sog")) as archive:
        archive.extractall(tmp_path / "in" / "lamp")
    assert main(["convert", str(source.parent), "--out", str(tmp_path / "out")]) == 0
    made = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.ply"))
    assert made == ["chair.ply", "lamp/meta.ply"]
    assert b"packed_position" not in (tmp_path / "out" / "chair.ply").read_bytes()


def test_a_gzipped_file_says_what_to_do(tmp_path, capsys):
    packed = tmp_path / "chair.ply.gz"
    packed.write_bytes(gzip.compress(write(tmp_path / "chair.ply").read_bytes()))
    assert main(["convert", str(packed), str(tmp_path / "out.splat")]) == 2
    assert f"{packed}: is not a 3D file: its first bytes are those of a gzip archive; unpack it" in capsys.readouterr().err
    assert main(["convert", str(packed), "--out", str(tmp_path / "out")]) == 1
    assert "a gzip archive; unpack it" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*"))


def every_format(folder: Path) -> set[str]:
    """Write an asset of every suffix that a folder is searched for, and return those whose writer is not installed."""
    absent = set()
    for suffix in WRITABLE:
        write(folder / f"written{suffix}")
    for name in ("viewer_level1.ksplat", "splat_transform_degree_2.sog"):
        shutil.copy(Path(__file__).parent / "io" / "data" / name, folder / name)
    with zipfile.ZipFile(folder / "splat_transform_degree_2.sog") as archive:
        archive.extractall(folder / "unpacked")
    box = trimesh.creation.box()
    for suffix in (".obj", ".stl"):
        box.export(folder / f"box{suffix}")
    rows = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)).tolist()
    text = "".join(f"{x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in rows)
    for suffix in (".xyz", ".xyzrgb", ".xyzn", ".pts"):
        (folder / f"points{suffix}").write_text(text)
    kinds = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 20\nHEIGHT 1\nPOINTS 20\nDATA ascii\n"
    (folder / "points.pcd").write_text(f"VERSION .7\n{kinds}{text}")
    if importlib.util.find_spec("laspy"):
        import laspy

        scan = laspy.LasData(laspy.LasHeader(version="1.2", point_format=0))
        scan.x, scan.y, scan.z = torch.tensor(rows).T.numpy()
        for suffix in (".las", ".laz"):
            scan.write(folder / f"scan{suffix}")
    else:
        absent |= {".las", ".laz"}
    if importlib.util.find_spec("pye57"):
        import pye57

        with pye57.E57(str(folder / "scan.e57"), mode="w") as file:
            columns = torch.tensor(rows).double().T.numpy()
            file.write_scan_raw({f"cartesian{axis}": column for axis, column in zip("XYZ", columns, strict=True)})
    else:
        absent.add(".e57")
    return absent


def test_a_folder_with_every_format(tmp_path, capsys):
    """`info` and `convert` read every suffix that a folder is searched for, and a SOG folder among them."""
    folder = tmp_path / "in"
    absent = every_format(folder)
    assert {path.suffix for path in folder.iterdir() if path.is_file()} == ASSET_SUFFIXES - absent
    assert main(["info", "--json", str(folder)]) == 0
    found = {Path(each["path"]).relative_to(folder).as_posix(): each for each in json.loads(capsys.readouterr().out)}
    assert found.keys() == {path.name for path in folder.iterdir() if path.is_file()} | {"unpacked/meta.json"}
    assert all(each["gaussians"] > 0 for each in found.values())
    assert found["unpacked/meta.json"]["gaussians"] == found["splat_transform_degree_2.sog"]["gaussians"]
    assert main(["convert", str(folder), "--out", str(tmp_path / "out"), "--to", "npz"]) == 0
    assert len(list((tmp_path / "out").rglob("*.npz"))) == len(found)


def test_a_file_is_not_converted_over_itself(tmp_path, capsys):
    source = write(tmp_path / "chair.ply")
    (tmp_path / "link.ply").symlink_to(source)
    before = source.stat().st_mtime_ns
    for output in (source, tmp_path / "link.ply"):
        assert main(["convert", str(source), str(output)]) == 2
        assert f"{output}: is the file that is read" in capsys.readouterr().err
    assert main(["convert", str(source), "--out", str(tmp_path), "--force"]) == 1
    assert "is the file that is read" in capsys.readouterr().err
    assert source.stat().st_mtime_ns == before


def test_a_name_that_is_too_long_is_that_of_no_file():
    found, failed, _ = find_inputs([Path("x" * 300)], None)
    assert (found, [reason for _, reason in failed]) == ([], ["no such file or folder"])


def test_a_folder_for_inputs_and_results_is_told(folder, capsys):
    assert main(["convert", str(folder), "--out", str(folder)]) == 1
    assert "is the folder for the results; name another one for them" in capsys.readouterr().err


def test_convert_usage(folder, tmp_path, capsys):
    assert main(["convert", str(folder), str(tmp_path / "a.ply")]) == 2
    assert "--out DIR" in capsys.readouterr().err
    assert main(["convert", str(folder), "--out", str(tmp_path / "out"), "--to", ".obj"]) == 2
    assert "use one of .compressed.ply, .ply, .splat" in capsys.readouterr().err
