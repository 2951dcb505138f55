"""What is particular to libraries in PostgreSQL; the other test files run on it too."""

import sys
import threading

import pytest

from library.color_model import ColorModel
from splatsense.errors import LibraryError
from splatsense.library import Library
from splatsense.library.store import Store


def sql(url, statement):
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def test_machines_share_a_library(postgres, folder, tmp_path, write_blob):
    """Two libraries on one store, each with a folder of its own."""
    with (
        Library(tmp_path / "here", ColorModel(), store=postgres, isolated=False) as here,
        Library(tmp_path / "there", ColorModel(), store=postgres, isolated=False) as there,
    ):
        here.add(folder, progress=False)
        assert there.search("red", k=3) == here.search("red", k=3)
        there.add(write_blob(tmp_path / "new.splat", "red", seed=300), progress=False)
        assert len(here.search("red", k=99)) == 10
        assert there.thumbnail(here.assets()[0]).is_file()


def test_many_threads_write_and_search_at_once(postgres, tmp_path, write_blob):
    folders = [tmp_path / "in" / str(number) for number in range(4)]
    for number, folder in enumerate(folders):
        for seed in range(6):
            write_blob(folder / f"{seed}.splat", seed=seed if number < 2 else 10 * number + seed)  # two are the same
    failures = []

    def work(folder):
        try:
            with Library(tmp_path / folder.name, ColorModel(), store=postgres, isolated=False) as library:
                library.add(folder, progress=False)
                assert library.search("red", k=3)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Library(tmp_path / "library", ColorModel(), store=postgres) as library:
        assert len(library) == 18
        assert library.verify(contents=True).problems == []
        assert len(library.embeddings()) == 18


def test_a_lost_connection_is_opened_again(postgres, folder, tmp_path, model):
    with Library(tmp_path / "library", model, store=postgres, isolated=False) as library:
        library.add(folder, progress=False)
        ours = library._store.database.query("SELECT pg_backend_pid()")[0][0]
        sql(postgres, f"SELECT pg_terminate_backend({ours})")
        with pytest.raises(LibraryError, match=r"closed the connection .* try again"):
            library.search("red")
        assert len(library.search("red", k=99)) == 9


def test_errors_say_what_to_do(postgres, postgres_server, tmp_path, model, monkeypatch):
    with pytest.raises(LibraryError, match="there is no library here"):
        Library(tmp_path / "a", model, create=False, store=postgres)
    with pytest.raises(LibraryError, match="schema that search_path names does not exist"):
        Library(tmp_path / "a", model, store=f"{postgres_server}&options=-csearch_path%3Dnowhere")
    Store(tmp_path / "a", url=postgres).close()
    sql(postgres, "UPDATE library SET version = 99")
    with pytest.raises(LibraryError, match=r"newer splatsense \(schema 99"):
        Library(tmp_path / "a", model, store=postgres)
    with pytest.raises(LibraryError, match="cannot be reached") as caught:
        Library(tmp_path / "a", model, store="postgresql://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)
    with pytest.raises(LibraryError, match="give postgresql://"):
        Library(tmp_path / "a", model, store="mysql://host/db")
    with Library(tmp_path / "b", model) as library:
        library.close()
        with pytest.raises(LibraryError, match="closed"):
            len(library)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LibraryError, match=r'pip install "splatsense\[postgres\]"'):
        Library(tmp_path / "a", model, store=postgres)


def test_a_library_of_the_second_version_is_migrated(postgres, folder, tmp_path, model):
    with Library(tmp_path / "library", model, store=postgres, isolated=False) as library:
        library.add(folder, progress=False)
        assets = library.assets()
    sql(postgres, "ALTER TABLE assets DROP COLUMN up; UPDATE library SET version = 2")
    for _ in range(2):
        with Library(tmp_path / "library", model, store=postgres, isolated=False) as library:
            assert library.assets() == assets
            assert library.verify(contents=True).problems == []
    with Library(tmp_path / "library", model, store=postgres, isolated=False) as library:
        assert library.add(folder, progress=False, up="z").indexed == 9
        assert {asset.up for asset in library.assets()} == {"z"}


def test_a_closed_library_stays_closed(postgres, tmp_path, model):
    library = Library(tmp_path / "library", model, store=postgres)
    library.close()
    with pytest.raises(LibraryError, match="closed"):
        len(library)
