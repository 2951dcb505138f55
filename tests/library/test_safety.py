"""Nothing that was stored is ever lost: kills at random moments, a full disk, folders that cannot be written, old libraries."""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from library.color_model import ColorModel
from splatsense.errors import LibraryError
from splatsense.library import Library
from splatsense.library.store import Store

ADDER = """
import os, resource, sys
from library.color_model import ColorModel
from splatsense.errors import SplatSenseError
from splatsense.library import Library
from splatsense.library.store import Store

put = Store.put_indexed
def told(self, item, *rest):
    asset_id = put(self, item, *rest)
    os.write(1, item.file.sha256.encode() + b"\\n")  # after this line the asset may not be lost
    return asset_id
Store.put_indexed = told

def add(folder, library, limit=0):
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with Library(library, ColorModel(delay=0.002), isolated=False) as opened:
        opened.add(folder, progress=False)

"""
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parents[1])]),
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture
def many(tmp_path, write_blob) -> Path:
    for seed in range(200):
        write_blob(tmp_path / "many" / f"{seed}.splat", seed=seed, count=8)
    return tmp_path / "many"


def known_hashes(path: Path) -> set[str]:
    with Library(path, ColorModel()) as library:
        report = library.verify(contents=True)
        assert report.problems == report.changed == report.missing == []
        assert report.embeddings == report.assets == len(library)
        return {asset.sha256 for asset in library.assets()}


def test_twenty_kills_lose_nothing_that_was_stored(many, tmp_path):
    """One process forks a child for each round, which adds until it is killed, wherever it then is."""
    rounds = ADDER + (
        "for line in sys.stdin:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        add(sys.argv[1], sys.argv[2])\n"
        "        os._exit(0)\n"
        "    os.write(1, b'pid %d\\n' % child)\n"
        "    os.write(1, b'end %d\\n' % os.waitpid(child, 0)[1])\n"
    )
    library = tmp_path / "library"
    process = subprocess.Popen(
        [sys.executable, "-c", rounds, str(many), str(library)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    chance = random.Random(0)
    told: set[str] = set()
    killed = 0
    for _ in range(20):
        process.stdin.write(b"go\n")
        process.stdin.flush()
        child = int(process.stdout.readline().split()[1])
        left = chance.randint(1, 8)  # assets that it may store before it is killed
        while not (line := process.stdout.readline().strip()).startswith(b"end"):
            told.add(line.decode())
            left -= 1
            if left == 0:
                time.sleep(chance.uniform(0.0, 0.002))
                os.kill(child, signal.SIGKILL)
        killed += line == b"end 9"
        if told:
            with contextlib.closing(sqlite3.connect(library / "library.sqlite")) as db:
                stored = db.execute(
                    "SELECT sha256 FROM assets a, embeddings e, files f WHERE a.id = e.asset_id AND a.id = f.asset_id"
                )
                assert told <= {row[0] for row in stored}
    assert told <= known_hashes(library)
    process.stdin.close()
    process.stdout.close()
    assert process.wait() == 0
    assert killed >= 10
    with Library(library, ColorModel(), isolated=False) as opened:
        opened.add(many, progress=False)
    assert len(known_hashes(library)) == 200


def test_a_full_disk_is_an_error_and_loses_nothing(many, tmp_path):
    """The limit on file size stops SQLite's log from growing, as a full disk does."""
    library = tmp_path / "library"
    limited = ADDER + (
        "try:\n    add(sys.argv[1], sys.argv[2], limit=120_000)\n"
        "except SplatSenseError as error:\n    print('error', type(error).__name__, error, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", limited, str(many), str(library)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert "error LibraryError" in done.stderr
    assert "the disk is full or fails; nothing stored is lost. Free some space" in done.stderr
    told = set(done.stdout.split())
    assert 0 < len(told) < 200
    assert told <= known_hashes(library)
    with Library(library, ColorModel(), isolated=False) as opened:
        assert opened.add(many, progress=False).skipped >= len(told)
        assert len(opened) == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes and users")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the child only reads and ends
def test_a_library_in_a_folder_that_cannot_be_written_is_searched_and_not_changed(folder, model):
    with tempfile.TemporaryDirectory(prefix="splatsense-") as name:
        path = Path(name) / "library"
        with Library(path, model, isolated=False) as library:
            library.add(folder, progress=False)
        Path(name).chmod(0o755)
        path.chmod(0o555)
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:  # in a process of a user who may not write there
            try:
                if os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                with Library(path, model) as library:
                    os.write(send, f"{len(library.search('red', k=99))} {library.verify().problems}\n".encode())
                    library.remove(1)
            except Exception as error:
                os.write(send, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(0)
        os.close(send)
        os.waitpid(child, 0)
        with os.fdopen(receive) as told:
            lines = told.read().splitlines()
        path.chmod(0o755)
        assert lines[0] == "9 []"
        assert lines[1].startswith("LibraryError: ")
        assert "cannot be opened for writing; check that you may write to this folder" in lines[1]


FIRST_SCHEMA = """
CREATE TABLE assets (id INTEGER PRIMARY KEY AUTOINCREMENT, sha256 TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL CHECK (status IN ('ok', 'failed')), error TEXT CHECK ((error IS NULL) = (status = 'ok')),
    gaussians INTEGER NOT NULL DEFAULT 0, bounds BLOB, added REAL NOT NULL);
CREATE TABLE files (id INTEGER PRIMARY KEY, asset_id INTEGER NOT NULL REFERENCES assets (id) ON DELETE CASCADE,
    path TEXT NOT NULL UNIQUE, relative_path TEXT NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL);
CREATE INDEX files_of_asset ON files (asset_id);
CREATE TABLE embeddings (model TEXT NOT NULL, asset_id INTEGER NOT NULL REFERENCES assets (id) ON DELETE CASCADE,
    vector BLOB NOT NULL, PRIMARY KEY (model, asset_id));
CREATE INDEX embeddings_of_asset ON embeddings (asset_id);
CREATE TABLE revisions (model TEXT PRIMARY KEY, revision BLOB NOT NULL);
CREATE TRIGGER embedding_inserted AFTER INSERT ON embeddings BEGIN
    INSERT OR REPLACE INTO revisions VALUES (new.model, randomblob(16)); END;
CREATE TRIGGER embedding_updated AFTER UPDATE ON embeddings BEGIN
    INSERT OR REPLACE INTO revisions VALUES (new.model, randomblob(16)); END;
CREATE TRIGGER embedding_deleted AFTER DELETE ON embeddings BEGIN
    INSERT OR REPLACE INTO revisions VALUES (old.model, randomblob(16)); END;
PRAGMA user_version = 1;
"""


@pytest.fixture
def first(tmp_path, folder, model) -> Path:
    """A library as the first version wrote it: the contents of a new one in the first tables."""
    with Library(tmp_path / "new", model, isolated=False) as library:
        library.add(folder, progress=False)
    path = tmp_path / "first"
    path.mkdir()
    db = sqlite3.connect(path / "library.sqlite", isolation_level=None)
    db.executescript(FIRST_SCHEMA)
    db.execute("ATTACH ? AS new", (str(tmp_path / "new" / "library.sqlite"),))
    db.execute("INSERT INTO assets SELECT id, sha256, status, error, gaussians, bounds, added FROM new.assets")
    db.execute("INSERT INTO files SELECT id, asset_id, CAST(path AS TEXT), CAST(relative_path AS TEXT), name, size, mtime_ns "
               "FROM new.files")  # fmt: skip
    db.execute("INSERT INTO embeddings SELECT model, asset_id, vector FROM new.embeddings")
    db.close()
    return path


def test_an_old_library_is_backed_up_and_migrated(first, tmp_path, folder, model):
    before = (first / "library.sqlite").read_bytes()
    with Library(first, model, isolated=False) as library, Library(tmp_path / "new", model) as new:
        assert library.assets() == new.assets()
        assert library.search("red", k=9) == new.search("red", k=9)
        assert library.verify(contents=True).problems == []
        model.encoded = 0
        assert library.add(folder, progress=False).skipped == 9
        assert model.encoded == 0
        assert [(state.name, state.dim, state.count) for state in library.models()] == [("", 3, 9)]
    backup = sqlite3.connect(first / "library.sqlite.v1.bak")
    assert backup.execute("PRAGMA user_version").fetchone() == (1,)
    assert backup.execute("SELECT count(*) FROM embeddings").fetchone() == (9,)
    backup.close()
    (first / "library.sqlite").write_bytes(before)  # going back to the old file, the backup is kept as it is
    with Library(first, model) as library:
        assert len(library) == 9


def test_a_library_of_the_second_version_is_migrated(tmp_path, folder, model):
    """Its tables are those of now without what is said to be up."""
    with Library(tmp_path / "library", model, isolated=False) as library:
        library.add(folder, progress=False)
        assets, found = library.assets(), library.search("red", k=9)
    database = sqlite3.connect(tmp_path / "library" / "library.sqlite", isolation_level=None)
    database.executescript("ALTER TABLE assets DROP COLUMN up; PRAGMA user_version = 2;")
    database.close()
    with Library(tmp_path / "library", model, isolated=False) as library:
        assert library.assets() == assets
        assert library.search("red", k=9) == found
        assert library.verify(contents=True).problems == []
        assert library.add(folder, progress=False, up="z").indexed == 9
        assert {asset.up for asset in library.assets()} == {"z"}
    backup = sqlite3.connect(tmp_path / "library" / "library.sqlite.v2.bak")
    assert backup.execute("SELECT count(*) FROM embeddings").fetchone() == (9,)
    backup.close()


def test_a_migration_that_fails_changes_nothing(first, model, monkeypatch):
    from splatsense.library import sqlite_database

    monkeypatch.setitem(sqlite_database.MIGRATIONS, 1, sqlite_database.MIGRATIONS[1] + "; CREATE TABLE assets (id);")
    with pytest.raises(LibraryError, match="already exists"):
        Library(first, model)
    monkeypatch.undo()
    with Library(first, model) as library:
        assert len(library.search("red", k=99)) == 9


def test_a_transaction_is_all_or_nothing(tmp_path):
    store = Store(tmp_path / "library")

    def fail_half_way() -> None:
        with store.database.transaction():
            store.database.query("INSERT INTO models VALUES ('m', 'm', 3, ?, 1)", (bytes(16),))
            assert store.models()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert store.models() == []
    store.close()


def test_a_copied_library_is_whole(tmp_path, folder, model):
    """Copying the folder after closing is a backup: nothing is left in the log."""
    with Library(tmp_path / "library", model, isolated=False) as library:
        library.add(folder, progress=False)
    shutil.copy(tmp_path / "library" / "library.sqlite", tmp_path / "copy.sqlite")
    db = sqlite3.connect(tmp_path / "copy.sqlite")
    assert db.execute("SELECT count(*) FROM embeddings").fetchone() == (9,)
    db.close()
