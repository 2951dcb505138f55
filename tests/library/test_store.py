import os
import shutil
import sqlite3

import pytest

from splatsense.errors import LibraryError, SplatSenseError
from splatsense.library import Library
from splatsense.library import sqlite_database as database
from splatsense.library.thumbnails import thumbnail_path


@pytest.fixture
def path(tmp_path, folder, model):
    with Library(tmp_path / "library", model, isolated=False) as library:
        library.add(folder, progress=False)
    return tmp_path / "library"


def test_a_folder_with_other_files_is_not_taken_over(folder, model):
    with pytest.raises(LibraryError, match="holds other files and no library"):
        Library(folder, model)
    assert not (folder / "library.sqlite").exists()


def test_a_folder_with_hidden_files_alone_is_empty(tmp_path, model):
    (tmp_path / ".DS_Store").write_text("")
    assert len(Library(tmp_path, model)) == 0


def test_a_missing_library_is_not_made_by_searching(tmp_path, model):
    with pytest.raises(LibraryError, match="there is no library here; make one"):
        Library(tmp_path / "none", model, create=False)
    with pytest.raises(LibraryError, match="is not a library"):
        Library(tmp_path, model, create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_a_library(tmp_path, model):
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryError, match="is a file"):
        Library(tmp_path / "file", model)


@pytest.mark.parametrize("create", [True, False])
def test_an_emptied_database_is_not_taken_for_a_new_one(path, model, create):
    (path / "library.sqlite").write_bytes(b"")
    with pytest.raises(LibraryError, match="is empty, so its contents are lost"):
        Library(path, model, create)


@pytest.mark.parametrize("content", [b"hello" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_database(path, model, content):
    (path / "library.sqlite").write_bytes(content)
    with pytest.raises(LibraryError, match="damaged or not an SQLite file"):
        Library(path, model)


def test_a_truncated_database(path, model):
    database_file = path / "library.sqlite"
    os.truncate(database_file, database_file.stat().st_size // 2)
    with pytest.raises(LibraryError, match="damaged"), Library(path, model) as library:
        library.search(1)


def test_another_program_s_database(tmp_path, model):
    with sqlite3.connect(tmp_path / "library.sqlite") as other:
        other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    with pytest.raises(LibraryError, match="not one of a library"):
        Library(tmp_path, model)


def test_a_newer_library(path, model):
    with sqlite3.connect(path / "library.sqlite") as db:
        db.execute(f"PRAGMA user_version = {database.SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(LibraryError, match=r"newer splatsense .* upgrade"):
        Library(path, model)


def test_a_locked_library(path, model, folder, write_blob, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    write_blob(folder / "new.splat", seed=300)
    other = sqlite3.connect(path / "library.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Library(path, model, isolated=False) as library:
        assert len(library.search("red", k=99)) == 9  # readers are not held up
        with pytest.raises(LibraryError, match="another process is writing"):
            library.add(folder, progress=False)
        other.execute("ROLLBACK")
        assert library.add(folder, progress=False).indexed == 1
    other.close()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path, path, model):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(LibraryError, match="choose a folder you can write to"):
        Library(tmp_path / "locked" / "library", model)
    path.chmod(0o500)
    try:
        with pytest.raises(LibraryError, match="check that you may write"), Library(path, model) as library:
            library.remove(1)
    finally:
        path.chmod(0o700)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder in which nobody can make files")
def test_a_place_where_no_library_can_be_made(model):
    with pytest.raises(LibraryError, match="no library can be opened or made here"):
        Library("/proc/self/library", model)


def test_a_closed_library_says_so(path, model):
    library = Library(path, model)
    library.close()
    with pytest.raises(SplatSenseError, match="closed"):
        len(library)


def test_nothing_is_left_beside_a_library(path):
    assert {entry.name.split("-")[0] for entry in path.iterdir()} == {"library.sqlite", "vectors"}


def test_thumbnails_are_drawn_once_and_again_when_deleted(path, model):
    from PIL import Image

    with Library(path, model) as library:
        asset = library.search("red", k=1)[0].asset
        drawn = library.thumbnail(asset)
        assert drawn == thumbnail_path(path, asset.sha256)
        with Image.open(drawn) as image:
            assert (image.size, image.format) == ((256, 256), "WEBP")
            red, green, blue = image.convert("RGB").resize((1, 1)).getpixel((0, 0))
            assert red > green + 5
            assert red > blue + 5
            assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
        written = drawn.stat().st_mtime_ns
        assert library.thumbnail(asset.id) == drawn
        assert drawn.stat().st_mtime_ns == written
        drawn.unlink()
        assert library.thumbnail(asset).is_file()


def test_a_library_moved_with_its_assets_still_finds_them(tmp_path, path, model):
    (tmp_path / "new").mkdir()
    shutil.move(path, tmp_path / "new" / "library")
    shutil.move(tmp_path / "assets", tmp_path / "new" / "assets")
    with Library(tmp_path / "new" / "library", model) as library:
        assert library.thumbnail(1).is_file()
        assert library.add(tmp_path / "new" / "assets", progress=False).indexed == 0
        assert all(asset.path.is_file() for asset in library.assets())
        shutil.rmtree(tmp_path / "new" / "assets")
        with pytest.raises(LibraryError, match="the file is gone"):
            library.thumbnail(2)
