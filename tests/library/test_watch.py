"""Watch mode, with a real watcher on real folders; on both stores for what it does, on one for the watching."""

import shutil
import threading
import time
import zipfile

import pytest

from splatsense.cli import main
from splatsense.errors import DataError, FormatError
from splatsense.library.watch import follow, watch

pytest.importorskip("watchfiles", reason="watchfiles is not installed (extra `watch`)")


def test_following_changes_keeps_the_library_in_step(folder, library, write_blob, model):
    library.add(folder, progress=False)
    ids = {asset.path.name: asset.id for asset in library.assets()}
    renamed = folder / "scarlet.splat"
    shutil.move(folder / "red_0.splat", renamed)
    (folder / "red_1.splat").unlink()
    write_blob(folder / "red_2.splat", "green", seed=70)
    new = write_blob(folder / "new.splat", "blue", seed=71)
    (folder / "notes.txt").write_text("not an asset")
    write_blob(folder / ".hidden.splat", seed=72)
    model.encoded = 0
    changed = [folder / name for name in ("red_0.splat", "red_1.splat", "red_2.splat", "notes.txt", ".hidden.splat")]
    change = follow(library, [*changed, renamed, new])
    assert (change.added.indexed, change.added.skipped, change.added.failed) == (2, 1, [])
    assert change.forgotten == [folder / "red_1.splat"]
    assert model.encoded == 2
    after = {asset.path.name: asset.id for asset in library.assets()}
    assert after["scarlet.splat"] == ids["red_0.splat"]
    assert set(after) == {name for name in ids if name not in ("red_0.splat", "red_1.splat")} | {"scarlet.splat", "new.splat"}
    shutil.move(folder / "more", folder / "elsewhere")  # one event for all that is in it
    follow(library, [folder / "more", folder / "elsewhere"])
    assert len(library) == 9
    assert library.verify().missing == []
    shutil.rmtree(folder / "elsewhere")
    assert len(follow(library, [folder / "elsewhere"]).forgotten) == 6
    assert len(library) == 3


def test_archives_that_appear_are_passed_over_and_told(folder, library, write_blob):
    new = folder / "new"
    write_blob(new / "green.splat", "green", seed=73)
    for path in (new / "lamps.7z", folder / "chairs.zip", folder / ".hidden.zip"):
        path.write_bytes(b"anything")
    change = follow(library, [new, new / "lamps.7z", folder / "chairs.zip", folder / ".hidden.zip"])
    assert (change.added.indexed, change.added.failed) == (1, [])
    assert change.added.archives == [new / "lamps.7z", folder / "chairs.zip"]


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_what_lies_in_hidden_folders_is_not_followed(folder, library, write_blob):
    """As `add` passes it over: a trash, a cache, what an archive of a Mac carries."""
    hidden = [write_blob(folder / name / "a.splat", seed=70 + i) for i, name in enumerate((".trash/files", "more/__MACOSX"))]
    seen = write_blob(folder / "more" / "a.splat", seed=80)
    changed = [*hidden, folder / ".trash", folder / ".trash" / "files", seen]
    assert follow(library, changed, watched=[folder]).added.indexed == 1
    assert [asset.path for asset in library.assets()] == [seen]
    assert follow(library, [hidden[0]], watched=[folder / ".trash"]).added.indexed == 1  # the folder was named outright


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_watching_a_folder(folder, library, write_blob):
    library.add(folder, progress=False)
    (folder / "red_1.splat").unlink()  # while nobody watched
    stop, told, something = threading.Event(), [], threading.Event()

    def tell(change):
        told.append(change)
        something.set()

    thread = threading.Thread(target=watch, args=(library, [folder], tell, stop, 100))
    thread.start()
    try:
        assert something.wait(60)
        assert told[0].forgotten == [folder / "red_1.splat"]
        write_blob(folder / "new.splat", "red", seed=90)
        (folder / "red_0.splat").unlink()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and {"new.splat"} != {
            asset.path.name for asset in library.assets() if asset.path.name in ("new.splat", "red_0.splat")
        }:
            time.sleep(0.05)
        assert len(library) == 8
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def test_only_folders_can_be_watched(folder, library):
    with pytest.raises(FormatError, match="is not a folder that can be watched"):
        watch(library, [folder / "red_0.splat"], print)
    with pytest.raises(DataError, match="at least one folder"):
        watch(library, [], print)


def test_bad_input_is_an_error_before_a_library_is_made(folder, tmp_path, capsys):
    for given, message in (
        ([str(folder / "red_0.splat")], "is not a folder that can be watched"),
        ([str(folder), "--model", "nonsense"], "neither a bundled model"),
    ):
        assert main(["library", "watch", str(tmp_path / "new"), *given]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "new").exists()


def test_a_scene_of_pictures_that_is_not_bundled_is_followed(library, tmp_path, write_blob):
    with zipfile.ZipFile(write_blob(tmp_path / "red.sog")) as archive:
        archive.extractall(tmp_path / "red")
    change = follow(library, sorted((tmp_path / "red").iterdir()))
    assert (change.added.indexed, change.added.failed) == (1, [])
    assert [asset.path.name for asset in library.assets()] == ["meta.json"]
