"""Reading of files that strangers made: in processes of their own, with limits, so that no file harms the library.

Design
- `Readers` keeps a few processes (`_reader.py`) that read files, draw their thumbnails and send both back as safetensors and
  WebP. A crash, a hang or a thirst for memory ends that process; its file has failed with the reason, and the next file gets
  a new process. They end by themselves when ours does.
- `read_here` is the same in this process: the reference, and the choice for files one trusts.
- Files are read ahead of whoever takes the results, so the model embeds while the next files are read.
"""

import atexit
import functools
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load

from splatsense.errors import DataError, FormatError, LibraryError, LimitError, SplatSenseError
from splatsense.gaussians import Gaussians
from splatsense.geometry.upright import Axis
from splatsense.library import thumbnails
from splatsense.tables import printable

log = logging.getLogger("splatsense")

READ_SECONDS = 600.0
"""A file may take as long as this."""
MEMORY_BYTES = 8 << 30
"""Of address space that reading a file may take, where the machine has twice as much; else half of what it has."""
MOST_PROCESSES = 8
THREAD = "splatsense-reader"
JOIN_SECONDS = 5.0
ERRORS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (DataError, FormatError, LimitError)}
READER = Path(__file__).with_name("_reader.py")


@dataclass(frozen=True)
class Reading:
    """What is in a file.

    Attributes:
        gaussians: of the asset, in the axes of its file.
        thumbnail: WebP, or None when none was asked for or nothing can be seen.
        said: (level, message) of what the reader logged; empty where the file was read here, whose log has it.
    """

    gaussians: Gaussians
    thumbnail: bytes | None = None
    said: tuple[tuple[int, str], ...] = ()


Read = Callable[[Path, bool, Axis | None], "Future[Reading]"]
"""Begin to read a file, with a thumbnail or without, on which this axis points up if somebody said so."""
Work = tuple["Future[Reading]", Path, bool, Axis | None]


def load_asset(path: Path) -> Gaussians:
    """The Gaussians of an asset file. Raises SplatSenseError or OSError whatever goes wrong in reading it."""
    from splatsense.io import load

    try:
        return load(path)
    except (SplatSenseError, OSError):
        raise
    except MemoryError as error:
        raise LimitError(f"{path}: needs more memory than there is.") from error
    except Exception as error:  # a run over thousands of files must outlive a defect in one reader
        if "can't allocate memory" in str(error):  # as PyTorch says it
            raise LimitError(f"{path}: needs more memory than there is.") from error
        log.exception("%s: unexpected error", printable(path))
        raise FormatError(f"{path}: cannot be read; {type(error).__name__}: {error}. Please report this file.") from error


def read_asset(path: Path, thumbnail: bool, up: Axis | None = None) -> Reading:
    """Read a file and draw its thumbnail; one in which nothing can be seen has none."""
    gaussians = load_asset(path)
    if not thumbnail:
        return Reading(gaussians)
    try:
        return Reading(gaussians, thumbnails.encode(gaussians, up))
    except DataError:
        return Reading(gaussians)


def read_here(path: Path, thumbnail: bool, up: Axis | None = None) -> "Future[Reading]":
    """Read a file in this process, at once."""
    future: Future[Reading] = Future()
    try:
        future.set_result(read_asset(path, thumbnail, up))
    except (SplatSenseError, OSError) as error:
        future.set_exception(error)
    return future


class Readers:
    """Processes that read files, each served by a thread of ours.

    Args:
        count: of processes; they start when there is work.
        seconds: that a file may take.
        memory: bytes of address space that reading a file may take.
    """

    def __init__(self, count: int, seconds: float = READ_SECONDS, memory: int | None = None) -> None:
        self.count, self._seconds = count, seconds
        self._memory = memory or min(MEMORY_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._processes: list[_Process | None] = []
        self._threads: list[threading.Thread] = []
        self._closed = False

    def read(self, path: Path, thumbnail: bool, up: Axis | None = None) -> "Future[Reading]":
        """Begin to read a file; the result raises what `load_asset` raises."""
        future: Future[Reading] = Future()
        with self._lock:
            if self._closed:
                raise _ended()
            if not self._processes:
                self._processes = [None] * self.count
                for number in range(self.count):  # daemons: a file that is being read does not hold up the end of a program
                    self._threads.append(threading.Thread(target=self._serve, args=(number,), name=THREAD, daemon=True))
                    self._threads[-1].start()
            self._work.put((future, path, thumbnail, up))
        return future

    def close(self) -> None:
        """End the processes and the threads; what is being read is given up.

        A thread that still ran while Python is taken down, and let go of a tensor then, would abort the program.
        """
        with self._lock:
            self._closed = True
            for process in self._processes:
                self._work.put(None)
                if process is not None:
                    process.kill()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def _serve(self, number: int) -> None:
        while self._serve_one(number, self._work.get()):
            pass  # and hold nothing of what was read while waiting for more
        process = self._processes[number]
        if process is not None:
            process.end()

    def _serve_one(self, number: int, work: Work | None) -> bool:
        """Read a file; false when there are none any more."""
        if work is None:
            return False
        future, path, thumbnail, up = work
        if self._closed or not future.set_running_or_notify_cancel():
            future.cancel()
            return True
        try:
            future.set_result(self._process(number).read(path, thumbnail, up, self._seconds))
        except BaseException as error:
            future.set_exception(_ended() if self._closed else error)  # `close` is at fault, not the file
        return True

    def _process(self, number: int) -> "_Process":
        """The process of a thread, a new one if there is none or it has ended."""
        process = self._processes[number]
        if process is None or not process.is_alive():
            process = _Process(self._memory)
            with self._lock:
                self._processes[number] = process
        return process


class _Process:
    """One process and the talk with it."""

    def __init__(self, memory: int) -> None:
        source = str(Path(__file__).parents[2])
        paths = [source, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        limits = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": os.pathsep.join(paths)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(READER), str(memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | limits,
            )
        except OSError as error:
            raise LibraryError(f"no process to read files can be started ({error.strerror}).") from error

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def read(self, path: Path, thumbnail: bool, up: Axis | None, seconds: float) -> Reading:
        """The answer to one request. A process whose answer is not taken to its end is ended."""
        expired = threading.Event()

        def stop() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            return self._ask(path, thumbnail, up, seconds)
        except _Refused as refused:
            raise refused.error from None
        except (OSError, EOFError, ValueError, SafetensorError) as error:
            self.end()
            if expired.is_set():
                raise LimitError(f"{path}: reading it took more than {seconds:.0f} s.") from error
            status = self._process.returncode
            raise FormatError(f"{path}: reading it ended the reader (status {status}); please report this file.") from error
        except BaseException:
            self.end()
            raise
        finally:
            timer.cancel()

    def _ask(self, path: Path, thumbnail: bool, up: Axis | None, seconds: float) -> Reading:
        if self._process.stdin is None or self._process.stdout is None:
            raise EOFError
        request = {"path": os.fsencode(path).hex(), "thumbnail": thumbnail, "up": up, "seconds": seconds}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            if answer["kind"] == "OSError":
                failed = OSError(answer["errno"], answer["error"])
            else:
                failed = ERRORS.get(answer["kind"], FormatError)(answer["error"])
            raise _Refused(failed)
        tensors = load(self._receive(answer["gaussians"]))
        picture = self._receive(answer["thumbnail"]) if answer["thumbnail"] else None
        return Reading(Gaussians(**tensors), picture, tuple((level, message) for level, message in answer["said"]))

    def _receive(self, size: int) -> bytes:
        content = self._process.stdout.read(size) if self._process.stdout else b""
        if len(content) < size:
            raise EOFError
        return content


def _ended() -> LibraryError:
    return LibraryError("the processes that read files have ended.")


class _Refused(Exception):
    """The reader's error about a file, carried past the errors of talking with it."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@functools.cache
def shared_readers() -> Readers:
    """The processes that all libraries of this process read with; as many as there are cores, up to eight."""
    readers = Readers(min(MOST_PROCESSES, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1))
    atexit.register(readers.close)
    return readers
