"""Reading in other processes against reading here, and what files can do to those processes. The kills and limits are real."""

import gc
import os
import signal
import threading
import time
import weakref

import psutil
import pytest
import torch

from library.color_model import COLORS, blob
from splatsense.errors import FormatError, LibraryError, LimitError
from splatsense.io import save
from splatsense.library import Library
from splatsense.library.reading import Readers, read_here
from splatsense.library.thumbnails import thumbnail_path


@pytest.fixture
def readers():
    readers = Readers(1)
    yield readers
    readers.close()


def reader_processes() -> set[psutil.Process]:
    return {child for child in psutil.Process().children() if "_reader.py" in " ".join(child.cmdline())}


def test_a_process_reads_what_is_read_here_and_says_the_same_about_errors(readers, tmp_path, write_blob):
    others = reader_processes()
    path = write_blob(tmp_path / "blob.ply")
    there, here = readers.read(path, True).result(), read_here(path, True).result()
    for field in ("means", "quats", "scales", "opacities", "sh"):
        assert torch.equal(getattr(there.gaussians, field), getattr(here.gaussians, field))
    assert there.thumbnail == here.thumbnail is not None
    raw = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.splat")
    os.rename(write_blob(tmp_path / "x.splat"), raw)
    assert len(readers.read(type(path)(raw), False).result().gaussians) == 24
    (tmp_path / "bad.ply").write_bytes(b"ply\nformat ascii 1.0\n")
    for broken in (tmp_path / "bad.ply", tmp_path / "none.ply"):
        with pytest.raises(FormatError) as here_error:
            read_here(broken, False).result()
        with pytest.raises(FormatError) as there_error:
            readers.read(broken, False).result()
        assert str(there_error.value) == str(here_error.value)
    assert len(reader_processes() - others) == 1  # the same one all along


def test_a_crash_is_the_error_of_one_file(readers, tmp_path, write_blob):
    others = reader_processes()
    path = write_blob(tmp_path / "fine.splat")
    readers.read(path, False).result()
    (victim,) = reader_processes() - others
    save(blob(COLORS["red"], 0, 400_000), tmp_path / "big.ply")

    def kill() -> None:
        before = victim.cpu_times().user
        while victim.cpu_times().user < before + 0.02:  # until it is at work
            time.sleep(0.002)
        victim.send_signal(signal.SIGSEGV)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(FormatError, match=r"big\.ply: reading it ended the reader \(status -11\)"):
        readers.read(tmp_path / "big.ply", True).result()
    killer.join()
    assert len(readers.read(path, False).result().gaussians) == 24


def test_time_and_memory_are_limited(tmp_path, write_blob):
    path = write_blob(tmp_path / "fine.splat")
    slow, small = Readers(1, seconds=0.05), Readers(1, memory=1 << 20)
    try:
        with pytest.raises(LimitError, match=r"fine\.splat: reading it took more than"):
            slow.read(path, False).result()
        save(blob(COLORS["red"], 0, 200_000), tmp_path / "big.ply")
        with pytest.raises(LimitError, match=r"big\.ply: needs more memory"):
            small.read(tmp_path / "big.ply", False).result()
    finally:
        slow.close()
        small.close()


def test_a_library_reads_in_processes_and_draws_there(tmp_path, folder, model):
    (folder / "bad.splat").write_bytes(b"x" * 45)
    with Library(tmp_path / "library", model) as library:
        report = library.add(folder, progress=False, draw=True)
        assert (report.indexed, [path.name for path, _ in report.failed]) == (9, ["bad.splat"])
        assert all(thumbnail_path(library.path, asset.sha256).is_file() for asset in library.assets())
        assert library.verify(contents=True).problems == []


def test_closing_is_not_the_fault_of_the_file_that_is_being_read(tmp_path):
    save(blob(COLORS["red"], 0, 400_000), tmp_path / "big.ply")
    readers, others = Readers(1), reader_processes()
    reading = readers.read(tmp_path / "big.ply", True)
    while not (ours := reader_processes() - others) or max(process.cpu_times().user for process in ours) < 0.1:
        time.sleep(0.005)
    readers.close()
    with pytest.raises(LibraryError, match="have ended"):
        reading.result()
    with pytest.raises(LibraryError, match="have ended"):
        readers.read(tmp_path / "big.ply", True)


def test_an_answer_that_was_not_taken_to_its_end_is_not_the_next_one(readers, tmp_path, write_blob, monkeypatch):
    path = write_blob(tmp_path / "blob.ply")

    def too_large(content):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("splatsense.library.reading.load", too_large)
        with pytest.raises(MemoryError):
            readers.read(path, True).result()
    assert len(readers.read(path, False).result().gaussians) == 24


def test_nothing_of_a_reading_is_held_and_closing_ends_the_threads(write_blob, tmp_path):
    readers = Readers(1)
    reading = weakref.ref(readers.read(write_blob(tmp_path / "blob.splat"), False).result())
    gc.collect()
    assert reading() is None
    threads = [thread for thread in threading.enumerate() if thread in readers._threads]
    assert len(threads) == 1
    readers.close()
    assert not threads[0].is_alive()
