import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from library.color_model import COLORS, ColorModel, blob
from splatsense.cli import main
from splatsense.errors import CheckpointError, FormatError, SplatSenseError
from splatsense.io import save
from splatsense.library.store import Store

BROKEN = {
    "empty.ply": b"",
    "cut.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 100\nproperty float x\nend_header\n1234",
    "odd.splat": b"x" * 45,
    "picture.glb": b"\x89PNG\r\n\x1a\n" + b"\0" * 64,
    "words.obj": b"this is a letter, not a mesh\n",
    "cut.stl": b"\0" * 84,
    "cut.gltf": b'{"asset": {"version": "2.0"}, "scenes": [',
}


@pytest.fixture
def hundred(tmp_path, write_blob) -> Path:
    """100 asset files, 7 of them broken, and sidecars that are none."""
    root = tmp_path / "hundred"
    for seed in range(93):
        write_blob(root / f"{seed % 7}" / f"asset {seed}.splat", ("red", "green", "blue")[seed % 3], seed)
    for name, content in BROKEN.items():
        (root / "3" / name).write_bytes(content)
    (root / "3" / "chair.mtl").write_text("newmtl a\n")
    (root / "3" / "wood.png").write_bytes(b"\x89PNG\r\n")
    return root


def test_broken_files_are_reported_and_the_rest_indexed(hundred, library, model):
    report = library.add(hundred, progress=False)
    assert (report.indexed, report.skipped, len(library)) == (93, 0, 93)
    assert sorted(path.name for path, _ in report.failed) == sorted(BROKEN)
    assert all(reason and not reason.startswith("/") for _, reason in report.failed)
    assert {asset.path.name for asset in library.failures()} == set(BROKEN)
    assert model.largest_batch == 16


def test_a_second_run_reads_only_what_changed(hundred, library, model, write_blob):
    first = library.add(hundred, progress=False)
    model.encoded = 0
    again = library.add(hundred, progress=False)
    assert (again.indexed, again.skipped, model.encoded) == (0, 93, 0)
    assert again.failed == first.failed
    write_blob(hundred / "3" / "odd.splat", seed=200)  # repaired
    (hundred / "3" / "empty.ply").write_bytes(b"ply\nstill broken")
    third = library.add(hundred, progress=False)
    assert (third.indexed, third.skipped, model.encoded) == (1, 93, 1)
    assert len(third.failed) == 6
    assert dict(third.failed)[hundred / "3" / "empty.ply"] != dict(first.failed)[hundred / "3" / "empty.ply"]
    assert len(library) == 94
    assert len(library.failures()) == 6


def test_failed_files_are_not_read_again_unless_asked(tmp_path, library, monkeypatch):
    (tmp_path / "bad.splat").write_bytes(b"x" * 45)
    library.add(tmp_path / "bad.splat", progress=False)
    opened = []
    monkeypatch.setattr("splatsense.library.reading.load_asset", lambda path: opened.append(path) or pytest.fail("read again"))
    assert len(library.add(tmp_path / "bad.splat", progress=False).failed) == 1
    assert opened == []
    monkeypatch.undo()
    assert len(library.add(tmp_path / "bad.splat", progress=False, retry=True).failed) == 1


def test_a_file_that_failed_is_read_again_under_another_name(tmp_path, library, write_blob):
    write_blob(tmp_path / "blob.splat")
    (tmp_path / "blob.splat").rename(tmp_path / "blob.stl")
    assert len(library.add(tmp_path, progress=False).failed) == 1
    (tmp_path / "blob.stl").rename(tmp_path / "blob.splat")
    report = library.add(tmp_path, progress=False)
    assert (report.indexed, report.failed) == (1, [])
    assert library.failures() == []


def test_a_file_that_failed_is_read_again_when_its_other_files_may_have_come(tmp_path, library):
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
    accessor = {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 0]}
    (tmp_path / "a.gltf").write_text(json.dumps({
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}], "accessors": [accessor],
        "bufferViews": [{"buffer": 0, "byteLength": 36}], "buffers": [{"uri": "a.bin", "byteLength": 36}],
    }))  # fmt: skip
    assert len(library.add(tmp_path, progress=False).failed) == 1
    (tmp_path / "a.bin").write_bytes(corners.tobytes())
    assert library.add(tmp_path, progress=False).indexed == 1


def test_the_command_lists_failures_and_exits_with_1(hundred, tmp_path, model, monkeypatch, capsys):
    monkeypatch.setattr("splatsense.library.search.resolve_model", lambda name: model)
    assert main(["add", str(tmp_path / "lib"), str(hundred)]) == 1
    told = capsys.readouterr()
    assert "93 indexed, 0 already indexed, 7 failed" in told.out
    assert "7 inputs could not be indexed:" in told.err
    for name in BROKEN:
        assert name in told.err
    for name in BROKEN:
        (hundred / "3" / name).unlink()
    assert main(["add", str(tmp_path / "lib"), str(hundred)]) == 0
    assert "0 indexed, 93 already indexed, 0 failed" in capsys.readouterr().out


def test_the_command_says_which_archives_it_passed_over(folder, tmp_path, model, monkeypatch, capsys):
    monkeypatch.setattr("splatsense.library.search.resolve_model", lambda name: model)
    archives = [folder / name for name in ("chairs.ZIP", "more/lamps.tar.gz", "more/deep/sofa.7z")]
    for path in (*archives, folder / ".hidden.zip", folder / "more" / "notes.pdf"):
        path.write_bytes(b"anything")
    save(blob(COLORS["grey"]), folder / "bundled.sog")  # a zip archive too, but an asset
    assert main(["add", str(tmp_path / "lib"), str(folder)]) == 0
    told = capsys.readouterr()
    assert "10 indexed, 0 already indexed, 0 failed" in told.out
    assert told.err.count("Passed over 3 archives, such as ") == told.err.count("Unpack") == 1
    assert "chairs.ZIP" in told.err
    for path in archives:
        path.unlink()
    assert main(["add", str(tmp_path / "lib"), str(folder)]) == 0
    assert "Passed over" not in capsys.readouterr().err


def test_moved_and_copied_files_keep_their_asset(folder, library, model):
    library.add(folder, progress=False)
    before = {asset.sha256: asset.id for asset in library.assets()}
    shutil.move(folder / "red_0.splat", folder / "more" / "renamed scarlet.splat")
    shutil.copy(folder / "red_1.splat", folder / "copy.splat")
    model.encoded = 0
    report = library.add(folder, progress=False)
    assert (report.indexed, report.skipped, model.encoded) == (0, 10, 0)
    assert {asset.sha256: asset.id for asset in library.assets()} == before
    assert {asset.name for asset in library.assets()} >= {"renamed scarlet", "red"}


def test_names_that_change_places_keep_their_assets(folder, library):
    library.add(folder, progress=False)
    before = {asset.sha256: asset.id for asset in library.assets()}
    for old, new in (("red_0", "tmp"), ("red_1", "red_0"), ("tmp", "red_1")):
        shutil.move(folder / f"{old}.splat", folder / f"{new}.splat")
    assert library.add(folder, progress=False).indexed == 0
    assert {asset.sha256: asset.id for asset in library.assets()} == before


def test_an_overwritten_file_replaces_its_asset(folder, library, write_blob):
    library.add(folder, progress=False)
    write_blob(folder / "red_0.splat", "blue", seed=99, count=31)
    report = library.add(folder, progress=False)
    assert (report.indexed, report.skipped, len(library)) == (1, 8, 9)
    changed = next(asset for asset in library.assets() if asset.path.name == "red_0.splat")
    assert changed.gaussians == 31


def test_another_model_indexes_the_same_assets_again(folder, open_library, library):
    library.add(folder, progress=False)
    with open_library(ColorModel("other")) as other:
        with pytest.raises(SplatSenseError, match="no assets indexed with other"):
            other.search_text("red")
        assert other.add(folder, progress=False).indexed == 9
        assert len(other) == len(other.search_text("red", k=99)) == 9
    assert len(library.search_text("red", k=99)) == 9
    assert [(model.name, model.dim, model.count) for model in library.models()] == [("colors", 3, 9), ("other", 3, 9)]


def test_an_asset_that_the_model_refuses_does_not_take_its_batch_along(tmp_path, library, write_blob):
    for seed in range(6):
        write_blob(tmp_path / "in" / f"{seed}.splat", seed=seed, count=13 if seed == 3 else 24)
    report = library.add(tmp_path / "in", progress=False)
    assert report.indexed == 5
    assert report.failed == [(tmp_path / "in" / "3.splat", "this model does not like 13 Gaussians.")]


def test_a_damaged_model_is_not_blamed_on_the_assets(folder, open_library):
    class Damaged(ColorModel):
        def encode_gaussians(self, objects, batch_size=16):
            raise CheckpointError("model.safetensors: cannot be read.")

    with open_library(Damaged()) as library:
        with pytest.raises(CheckpointError):
            library.add(folder, progress=False)
        assert library.failures() == []


def test_a_folder_that_cannot_be_searched_is_a_failure(folder, library, monkeypatch):
    def refuse(path):
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", refuse)
    report = library.add(folder, progress=False)
    assert report.indexed == 6
    assert report.failed == [(folder / "more" / "deep", "this folder cannot be searched (Permission denied)")]


def test_on_error_raise_stops_at_the_first_broken_file(hundred, library):
    with pytest.raises(FormatError, match=r"cut\.gltf"):
        library.add(hundred / "3", progress=False, on_error="raise")
    with pytest.raises(FormatError, match="no such file"):
        library.add(hundred / "nowhere", progress=False, on_error="raise")


def test_a_defect_in_a_reader_is_one_failed_file(folder, library, monkeypatch, caplog):
    import splatsense.io

    real = splatsense.io.load
    monkeypatch.setattr(splatsense.io, "load", lambda path: 1 // 0 if path.name == "red_1.splat" else real(path))
    with caplog.at_level(logging.CRITICAL):
        report = library.add(folder, progress=False)
    assert report.indexed == 8
    assert "ZeroDivisionError" in report.failed[0][1]


def test_strange_names(tmp_path, library, write_blob):
    root = tmp_path / "in"
    names = [
        "with space.splat",
        "line\nbreak.splat",
        "стул 椅子.splat",
        "-k.splat",
        "a'b\"c.splat",
        "UPPER.SPLAT",
        "100%.splat",
    ]
    paths = [write_blob(root / name, seed=seed) for seed, name in enumerate(names)]
    raw = os.fsdecode(bytes(root) + b"/caf\xe9.splat")
    shutil.copy(write_blob(tmp_path / "other.splat", seed=50), raw)
    report = library.add(root, progress=False)
    assert (report.indexed, report.failed) == (8, [])
    assert {asset.path for asset in library.assets()} == {*paths, Path(raw)}
    assert library.add(root, progress=False).skipped == 8
    assert library.thumbnail(library.search_asset(raw, k=1)[0].asset).is_file()


def test_links_hidden_files_and_sidecars(tmp_path, library, write_blob):
    root = tmp_path / "in"
    write_blob(root / "a" / "one.splat", seed=1)
    write_blob(root / ".hidden" / "two.splat", seed=2)
    write_blob(root / "__MACOSX" / "three.splat", seed=3)
    write_blob(tmp_path / "elsewhere" / "four.splat", seed=4)
    (root / "._one.splat").write_bytes(b"resource fork")
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "self.splat").symlink_to("self.splat")
    (root / "dead.ply").symlink_to("nowhere")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "folder.ply").mkdir()
    os.mkfifo(root / "pipe.ply")
    report = library.add([root, root / "a"], progress=False)
    assert {asset.path.name for asset in library.assets()} == {"one.splat", "four.splat"}
    assert sorted(path.name for path, _ in report.failed) == ["dead.ply", "pipe.ply", "self.splat"]
    assert dict(report.failed)[root / "dead.ply"] == "is a link to a file that is gone"


def test_inputs_that_hold_nothing_are_failures(tmp_path, library):
    (tmp_path / "void").mkdir()
    (tmp_path / "notes.md").write_text("hello")
    too_long = tmp_path / ("x" * 300)
    report = library.add([tmp_path / "void", tmp_path / "nowhere", tmp_path / "notes.md", too_long], progress=False)
    reasons = {path.name: reason for path, reason in report.failed}
    assert "no asset files" in reasons["void"]
    assert "no such file" in reasons["nowhere"]
    assert "no such file" in reasons[too_long.name]
    assert ".md" in reasons["notes.md"]


def test_a_removed_asset_comes_back_only_when_added_again(folder, library):
    library.add(folder, progress=False)
    gone = library.search_text("red", k=1)[0].asset
    library.thumbnail(gone)
    library.remove(gone)
    assert len(library) == 8
    assert gone.id not in {hit.id for hit in library.search_text("red", k=99)}
    with pytest.raises(SplatSenseError, match="no asset has the id"):
        library.remove(gone)
    assert library.add(folder, progress=False).indexed == 1


def test_progress_shows_rate_and_time_left(folder, library, capsys):
    library.add(folder)
    shown = capsys.readouterr().err
    assert "indexing: 9/9" in shown
    assert "/s" in shown


ADDER = """
import sys
from library.color_model import ColorModel
from splatsense.library import Library
store = sys.argv[4] or None
with Library(sys.argv[1], ColorModel(delay=float(sys.argv[3])), store=store, isolated=False) as library:
    report = library.add(sys.argv[2], progress=False)
    print(report.indexed, report.skipped, len(report.failed))
"""


def start_adder(library: Path, folder: Path, delay: float, store: str | None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", ADDER, str(library), str(folder), str(delay), store or ""],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[1])]), "OMP_NUM_THREADS": "1"},
    )


def stored(open_library) -> int:
    with open_library() as library:
        return len(library)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_loses_nothing_that_was_stored(hundred, tmp_path, how, model, store, open_library):
    process = start_adder(tmp_path / "library", hundred, 0.2, store)
    deadline = time.monotonic() + 60
    while stored(open_library) < 16 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    process.communicate()
    kept = stored(open_library)
    assert 16 <= kept < 93
    with open_library() as library:
        assert library.verify().problems == []
        report = library.add(hundred, progress=False)
        assert report.indexed == model.encoded == 93 - kept
        assert report.skipped == kept
        assert len(library) == len({asset.sha256 for asset in library.assets()}) == 93
        assert len(library.search_text("red", k=500)) == 93


def test_two_processes_may_add_at_once(hundred, tmp_path, store, open_library):
    adders = [start_adder(tmp_path / "library", hundred, 0.02, store) for _ in range(2)]
    results = [adder.communicate()[0].split() for adder in adders]
    assert all(adder.returncode == 0 for adder in adders)
    assert all(int(indexed) + int(skipped) == 93 and failed == "7" for indexed, skipped, failed in results)
    with open_library() as library:
        assert len(library) == len({asset.sha256 for asset in library.assets()}) == 93
        assert library.add(hundred, progress=False).skipped == 93
        assert len({hit.id for hit in library.search_text("red", k=500)}) == 93


def test_a_content_that_is_forgotten_at_this_moment_is_indexed_again(library, folder, tmp_path, monkeypatch):
    library.add(folder, progress=False)
    copy = tmp_path / "copy.splat"
    shutil.copy(folder / "red_0.splat", copy)
    original = Store.known_content

    def then_forgotten(self, sha256, model):
        known = original(self, sha256, model)
        if known is not None:
            self.remove(known.asset_id)  # as another process may
        return known

    monkeypatch.setattr(Store, "known_content", then_forgotten)
    report = library.add(copy, progress=False)
    assert (report.indexed, report.skipped, report.failed) == (1, 0, [])
    assert copy in [asset.path for asset in library.assets()]
