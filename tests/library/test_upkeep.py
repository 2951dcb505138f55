"""Duplicates, verify, rebuild, export and import; on both stores."""

import json
import os
import shutil
import threading

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from library.color_model import ColorModel
from splatsense.cli import main
from splatsense.errors import DataError, FormatError, LibraryError
from splatsense.library import Library, duplicates, transfer
from splatsense.library.contact_sheet import SheetRow, write_contact_sheet
from splatsense.library.export_listing import read_listing
from splatsense.library.thumbnails import thumbnail_path

SECONDS = 20.0  # that a thread may take on a busy machine


@pytest.fixture
def filled(library, folder):
    (folder / "broken.splat").write_bytes(b"x" * 45)
    library.add(folder, progress=False)
    return library


@given(seed=st.integers(0, 2**31), rows=st.integers(0, 40), threshold=st.sampled_from([0.5, 0.9, 0.999, 1.0]))
def test_groups_are_the_connected_parts_of_the_graph_of_pairs(seed, rows, threshold):
    random = np.random.default_rng(seed)
    vectors = random.integers(-2, 3, (rows, 3)).astype(np.float32) + np.float32(0.1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = vectors @ vectors.T >= threshold
    groups, left = [], set(range(rows))
    while left:
        group, new = set(), {min(left)}
        while new:
            group |= new
            new = {int(b) for a in new for b in np.flatnonzero(near[a])} - group
        left -= group
        groups += [sorted(group)] if len(group) > 1 else []
    old, duplicates.BLOCK = duplicates.BLOCK, 7
    try:
        assert duplicates.near_groups(vectors, threshold) == groups
    finally:
        duplicates.BLOCK = old


def test_copies_and_other_formats_of_an_asset_are_duplicates(library, folder, tmp_path, write_blob):
    shutil.copy(folder / "red_0.splat", folder / "copy of red.splat")
    write_blob(folder / "same blob.ply", "red", 0)  # the blob of red_0.splat, in full precision
    library.add(folder, progress=False)
    found = library.duplicates(0.99999)
    assert [{path.name for path in files} for files in found.exact] == [{"red_0.splat", "copy of red.splat"}]
    assert [{asset.path.suffix for asset, _ in group} for group in found.near] == [{".splat", ".ply"}]
    assert all(score >= 0.99999 for _, score in found.near[0])
    assert len(library.duplicates(0.5).near) == 3  # of each colour one group
    with pytest.raises(DataError, match="above 0 and at most 1"):
        library.duplicates(1.5)


def test_a_whole_library_has_no_problems(filled):
    report = filled.verify(contents=True)
    assert (report.assets, report.embeddings) == (9, 9)
    assert report.problems == report.missing == report.changed == []


def test_verify_finds_what_was_damaged_and_rebuild_repairs_what_it_can(filled, folder, store):
    first, second, third = filled.assets()[:3]
    thumbnail = filled.thumbnail(first)
    thumbnail.write_bytes(thumbnail.read_bytes()[:100])
    unused = thumbnail.with_name(f"{'0' * 32}.webp")
    shutil.copy(thumbnail, unused)
    first.path.rename(folder / "elsewhere.txt")
    second.path.write_bytes(third.path.read_bytes())
    if store is None:
        vectors = next(filled.path.glob("vectors-*.f32"))
        content = bytearray(vectors.read_bytes())
        content[-1] ^= 1
        vectors.write_bytes(content)
    report = filled.verify()
    assert [asset.id for asset in report.missing] == [first.id]
    assert report.changed == [second.path]
    assert len(report.problems) == (2 if store is None else 1)
    assert all("splatsense library rebuild" in problem for problem in report.problems)
    assert filled.rebuild() == 2
    assert not unused.exists()
    assert filled.verify().problems == []


def test_assets_whose_files_are_gone_can_be_forgotten(filled, folder, store, capsys):
    first, *others = filled.assets()
    first.path.rename(folder / "elsewhere.txt")
    given = [str(filled.path), *(["--store", store] if store else [])]
    assert main(["library", "verify", *given]) == 1
    assert "`splatsense library forget`" in capsys.readouterr().out
    assert main(["library", "forget", *given]) == 0
    told = capsys.readouterr().out
    assert first.path.name in told
    assert "1 asset forgotten" in told
    assert filled.assets() == others
    assert filled.verify().missing == []


def test_verify_finds_damaged_embeddings(filled):
    database = filled._store.database
    ids = [asset.id for asset in filled.assets()]
    vector = database.to_value(np.full(3, 2.0, np.float32))
    with database.transaction():
        database.query(f"UPDATE embeddings SET vector = {database.vector_in} WHERE asset_id = ?", (vector, ids[2]))
        database.query("DELETE FROM embeddings WHERE asset_id = ?", (ids[4],))
    problems = " ".join(filled.verify().problems)
    assert f"1 embeddings by colors are damaged, first of asset {ids[2]}" in problems
    assert f"1 assets have no embedding, first asset {ids[4]}" in problems


def test_an_exported_library_can_be_imported_anywhere(filled, folder, tmp_path, model, store):
    with Library(filled.path, ColorModel("other"), store=store, isolated=False) as other:
        other.add(folder, progress=False)
    filled.thumbnail(filled.search("red", k=1)[0].asset)
    done = filled.export(tmp_path / "export")
    assert (done.assets, done.embeddings, done.files) == (10, 18, 10)
    expected = [(hit.asset.sha256, hit.score) for hit in filled.search("red", k=9)]
    shutil.rmtree(folder)
    model.encoded = 0
    with Library(tmp_path / "imported", model) as imported:
        done = imported.import_from(tmp_path / "export")
        assert (done.assets, done.embeddings, done.files) == (10, 18, 10)
        assert [(hit.asset.sha256, hit.score) for hit in imported.search("red", k=9)] == expected
        assert imported.verify(contents=True).problems == []
        assert {state.name: state.count for state in imported.models()} == {"colors": 9, "other": 9}
        assert all(asset.path.is_relative_to(imported.path) for asset in imported.assets())
        assert [asset.path.name for asset in imported.failures()] == ["broken.splat"]
        assert thumbnail_path(imported.path, expected[0][0]).is_file()
        again = imported.import_from(tmp_path / "export")
        assert (again.files, len(imported)) == (0, 9)
    assert model.encoded == 0


def test_files_that_changed_are_left_out_of_an_export_and_reported(filled, folder, tmp_path, model, store, capsys):
    first, second, third = filled.assets()[:3]
    first.path.with_suffix(".txt").write_text("a note of what was there")
    shutil.copy(second.path, folder / "zz copy.splat")  # an unchanged copy serves
    filled.add(folder, progress=False)
    for asset in (first, second):
        asset.path.write_bytes(third.path.read_bytes())
    done = filled.export(tmp_path / "export")
    assert (done.assets, done.embeddings, done.files, done.side_files) == (10, 9, 9, 0)
    assert done.left_out == ((first.path, "has changed since it was indexed"),)
    assert not (tmp_path / "export" / "assets" / first.sha256).exists()
    with Library(tmp_path / "imported", model) as imported:
        assert imported.import_from(tmp_path / "export").embeddings == 9
        assert [asset.sha256 for asset in imported.verify(contents=True).missing] == [first.sha256]
        assert first.path not in imported.files()
        assert imported.search("red", k=9)
        (found,) = (asset for asset in imported.assets() if asset.sha256 == second.sha256)
        assert imported.read(found).gaussians.means.shape[0] == second.gaussians
    given = [str(filled.path), *(["--store", store] if store else [])]
    assert main(["library", "export", *given, str(tmp_path / "again")]) == 1
    shown = capsys.readouterr().out
    assert first.path.name in shown
    assert "splatsense add" in shown
    assert main(["library", "export", *given, str(tmp_path / "listing"), "--no-files"]) == 0


def test_what_is_no_export_is_an_error_before_a_library_is_made(folder, tmp_path, capsys):
    assert main(["library", "import", str(tmp_path / "new"), str(folder)]) == 2
    assert "this is not an exported library" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_export_without_files_keeps_their_places(filled, tmp_path, model):
    filled.export(tmp_path / "export", files=False)
    assert not (tmp_path / "export" / "assets").exists()
    with Library(tmp_path / "imported", model) as imported:
        imported.import_from(tmp_path / "export")
        assert {asset.path for asset in imported.assets()} == {asset.path for asset in filled.assets()}


def test_a_stranger_s_export_does_not_make_assets_of_other_files(filled, tmp_path, model):
    filled.export(tmp_path / "export", files=False)
    secret = tmp_path / "secret.txt"
    secret.write_text("not yours")
    listing = json.loads((tmp_path / "export" / "assets.json").read_text())
    for entry in listing["assets"]:
        entry["path"] = os.fsencode(secret).hex()
    (tmp_path / "export" / "assets.json").write_text(json.dumps(listing))
    with Library(tmp_path / "imported", model) as imported:
        imported.import_from(tmp_path / "export")
        assert secret not in imported.files()


def test_damaged_exports_are_refused(filled, tmp_path, model):
    filled.export(tmp_path / "export")
    with pytest.raises(LibraryError, match="exists; name a new folder"):
        filled.export(tmp_path / "export")
    with Library(tmp_path / "imported", model) as imported:
        with pytest.raises(FormatError, match="is not an exported library"):
            imported.import_from(tmp_path / "nowhere")
        vectors = next((tmp_path / "export" / "embeddings").iterdir())
        content = vectors.read_bytes()
        vectors.write_bytes(content[:-4])
        with pytest.raises(FormatError, match="is damaged"):
            imported.import_from(tmp_path / "export")
        vectors.write_bytes(content)
        asset = next((tmp_path / "export" / "assets").glob("*/red_*.splat"))
        asset.write_bytes(asset.read_bytes()[::-1])
        with pytest.raises(FormatError, match="its content is not the one that was exported"):
            imported.import_from(tmp_path / "export")
        listing = (tmp_path / "export" / "assets.json").read_text()
        (tmp_path / "export" / "assets.json").write_text(listing.replace('"version": 1', '"version": 2'))
        with pytest.raises(FormatError, match="newer splatsense"):
            imported.import_from(tmp_path / "export")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda entry: entry.pop("error"), "'error' is missing"),
        (lambda entry: entry.pop("bounds"), "'bounds' are missing"),
        (lambda entry: entry.update(bounds=[[0, 0, 0], [1, float("nan"), 1]]), "'bounds' are missing or not"),
        (lambda entry: entry.update(gaussians="many"), "'gaussians' is missing or not of type int"),
        (lambda entry: entry.update(name=".."), "its name is not that of a file"),
        (lambda entry: entry.update(path="zz"), "its path is not hexadecimal"),
        (lambda entry: entry.update(path="2f00"), "its path is not hexadecimal, or none"),
        (lambda entry: entry.update(bounds=[[1e39] * 3] * 2), "'bounds' are missing or not"),
        (lambda entry: entry.update(gaussians=-1), "'gaussians' is -1, out of its range"),
        (lambda entry: entry.update(mtime_ns=10**30), "'mtime_ns' is 10+, out of its range"),
        (lambda entry: entry.update(error="\ud800"), "its name or error is no text"),
        (lambda entry: entry.update(side_files=["a.png"]), "side files without"),
        (lambda entry: entry.clear(), "it has no sha256"),
    ],
)
@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_listing_that_lacks_something_is_refused_by_row(filled, tmp_path, model, change, reason):
    filled.export(tmp_path / "export", files=False)
    path = tmp_path / "export" / "assets.json"
    listing = json.loads(path.read_text())
    change(listing["assets"][1])
    path.write_text(json.dumps(listing))
    with Library(tmp_path / "imported", model) as imported:
        with pytest.raises(FormatError, match=f"assets.json.*asset 2 of 10: {reason}"):
            imported.import_from(tmp_path / "export")
        assert len(imported) == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [('{"format": "another", "version": 1}', "is not the listing"), ("[" * 100_000, "damaged"), ("[]", "damaged")],
)
def test_other_json_is_no_listing(tmp_path, text, reason):
    (tmp_path / "assets.json").write_text(text)
    with pytest.raises(FormatError, match=reason):
        read_listing(tmp_path)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 2.0])
def test_embeddings_that_are_none_are_not_imported(filled, tmp_path, model, value):
    filled.export(tmp_path / "export", files=False)
    path = next((tmp_path / "export" / "embeddings").iterdir())
    tensors = load_file(path)
    tensors["vectors"][3] = value
    save_file(tensors, path)
    with Library(tmp_path / "imported", model) as imported:
        with pytest.raises(FormatError, match="row 3: the embedding is not finite and of unit length"):
            imported.import_from(tmp_path / "export")
        assert imported.models() == []


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("name", "dtype"), [("ids", torch.float32), ("ids", torch.bool), ("vectors", torch.bfloat16)])
def test_embeddings_of_other_numbers_are_not_imported(filled, tmp_path, model, name, dtype):
    filled.export(tmp_path / "export", files=False)
    path = next((tmp_path / "export" / "embeddings").iterdir())
    tensors = {key: torch.from_numpy(value) for key, value in load_file(path).items()}
    safetensors.torch.save_file(tensors | {name: tensors[name].to(dtype)}, path)
    with Library(tmp_path / "imported", model) as imported:
        with pytest.raises(FormatError, match="is damaged"):
            imported.import_from(tmp_path / "export")
        assert imported.models() == []


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_name_that_is_too_long_for_an_export_or_in_one(filled, tmp_path, model):
    with pytest.raises(LibraryError, match="not exported"):
        filled.export(tmp_path / ("x" * 300))
    filled.export(tmp_path / ("漢" * 80), files=False)
    listing = json.loads((tmp_path / ("漢" * 80) / "assets.json").read_text())
    listing["assets"][0]["name"] = "x" * 300
    (tmp_path / ("漢" * 80) / "assets.json").write_text(json.dumps(listing))
    with Library(tmp_path / "imported", model) as imported:
        assert imported.import_from(tmp_path / ("漢" * 80)).embeddings == 9


def before_each_copy(monkeypatch, action) -> None:
    """Do something when an export has listed an asset's files and is about to copy one."""
    copy = transfer._copy

    def copy_after(source, target):
        action(source)
        return copy(source, target)

    monkeypatch.setattr(transfer, "_copy", copy_after)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_others_write_while_an_export_copies_files(filled, tmp_path, monkeypatch):
    def write_meanwhile(source):
        thread = threading.Thread(target=filled.forget, args=([tmp_path / "nowhere"],), daemon=True)
        thread.start()
        thread.join(SECONDS)
        assert not thread.is_alive(), "the database is locked"

    before_each_copy(monkeypatch, write_meanwhile)
    assert filled.export(tmp_path / "export").files == 10


def test_an_export_goes_on_past_files_that_vanish_meanwhile(filled, folder, tmp_path, model, monkeypatch, store, capsys):
    first, second, third = filled.assets()[:3]
    note, picture = second.path.with_suffix(".txt"), filled.thumbnail(third)
    note.write_text("a note")
    shutil.copy(third.path, folder / "zz copy.splat")  # a copy that is still there serves
    filled.add(folder, progress=False)
    going = {first.path, note, picture, third.path}

    before_each_copy(monkeypatch, lambda source: source.unlink() if source in going else None)
    done = filled.export(tmp_path / "export")
    assert (done.assets, done.embeddings, done.files, done.side_files) == (10, 9, 9, 0)
    assert set(done.left_out) == {(first.path, "is gone"), (note, "is gone")}
    assert not any(path.exists() for path in going)
    with Library(tmp_path / "imported", model) as imported:
        assert imported.import_from(tmp_path / "export").files == 9
        report = imported.verify(contents=True)
        assert (report.problems, report.changed) == ([], [])
        assert [asset.sha256 for asset in report.missing] == [first.sha256]
    capsys.readouterr()
    given = [str(filled.path), *(["--store", store] if store else [])]
    assert main(["library", "export", *given, str(tmp_path / "again")]) == 1  # one that was gone from the start is reported too
    shown = capsys.readouterr().out
    assert "9 assets, 1 file that could not be read, 9 embeddings exported; 9 files copied." in shown
    assert "1 file left out" in shown
    assert f"{first.path.name}  is gone" in shown


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_an_export_goes_on_past_files_that_cannot_be_read(filled, tmp_path, monkeypatch):
    """A folder in the place of a file is one that root cannot read either."""
    first = filled.assets()[0]

    def replace(source):
        if source == first.path:
            source.unlink()
            source.mkdir()

    before_each_copy(monkeypatch, replace)
    done = filled.export(tmp_path / "export")
    assert (done.files, done.left_out) == (9, ((first.path, "cannot be read (Is a directory)"),))


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_an_export_ends_where_it_cannot_be_written(filled, tmp_path, monkeypatch):
    before_each_copy(monkeypatch, lambda source: shutil.rmtree(next(tmp_path.glob(".export.*.tmp"))))
    with pytest.raises(LibraryError, match="not exported"):
        filled.export(tmp_path / "export")
    assert not list(tmp_path.glob("*export*"))


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_no_thumbnail_is_drawn_of_a_file_that_has_changed(filled):
    first, second = filled.assets()[:2]
    shutil.copy(second.path, first.path)
    with pytest.raises(LibraryError, match=f"{first.path.name}: has changed since it was indexed"):
        filled.thumbnail(first)
    assert not thumbnail_path(filled.path, first.sha256).exists()


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_one_string_is_no_list_of_labels(filled):
    asset = filled.assets()[0]
    with pytest.raises(DataError, match="'chair' is one string"):
        filled.tags(asset, labels="chair")
    assert filled.tags(asset, labels=["red"])[0][0] == "red"


def test_the_commands(filled, folder, tmp_path, store, capsys):
    given = [str(filled.path), *(["--store", store] if store else [])]
    assert main(["library", "verify", *given, "--contents"]) == 0
    assert "Nothing is lost or damaged" in capsys.readouterr().out
    assert main(["library", "rebuild", *given]) == 0
    assert "colors" in capsys.readouterr().out
    assert main(["library", "export", *given, str(tmp_path / "out")]) == 0
    assert "9 assets, 1 file that could not be read, 9 embeddings exported; 10 files copied." in capsys.readouterr().out
    (folder / "red_0.splat").unlink()
    assert main(["library", "verify", *given]) == 1
    assert "red_0.splat" in capsys.readouterr().out
    assert main(["library", "verify", str(tmp_path / "nowhere")]) == 2


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_file_that_is_a_pipe_by_now_has_changed(filled):
    path = filled.assets()[0].path
    path.unlink()
    os.mkfifo(path)
    assert filled.verify().changed == [path]


def test_rebuild_repairs_every_vectors_file_that_verify_complains_of(filled):
    """A library in PostgreSQL searches there and has such a file when all embeddings were asked for."""
    filled.embeddings()
    path = next(filled.path.glob("vectors-*.f32"))
    ids = np.memmap(path, "<i8", "r+", 64, (9,))
    ids[-1] += 1
    ids.flush()
    assert [problem.split(": ")[0] for problem in filled.verify().problems] == [str(path)]
    filled.rebuild()
    assert filled.verify().problems == []


def test_verify_reports_embeddings_of_another_length(filled):
    database, asset = filled._store.database, filled.assets()[4]
    values = database.to_value(np.ones(1, np.float32)), asset.id
    database.query(f"UPDATE embeddings SET vector = {database.vector_in} WHERE asset_id = ?", values)
    assert "differ in length" in " ".join(filled.verify().problems)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_rebuild_leaves_pictures_alone_that_are_being_written(filled):
    picture = filled.thumbnail(filled.assets()[0])
    written, left = picture.with_name(".a.webp.tmp"), picture.with_name(".b.webp.tmp")
    for path in (written, left):
        path.write_bytes(b"")
    os.utime(left, (0, 0))  # by a process that was killed
    assert filled.rebuild() == 1
    assert picture.exists()
    assert written.exists()
    assert not left.exists()


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_contact_sheet_of_a_kind_that_cannot_be_written(filled, tmp_path):
    rows = [SheetRow.of("red", filled.search("red", k=2), filled)]
    write_contact_sheet(tmp_path / "sheet.png", rows)
    for name in ("sheet.psd", "sheet.txt", "sheet"):
        with pytest.raises(FormatError, match=r"use \.png"):
            write_contact_sheet(tmp_path / name, rows)
