"""`Jobs`: long work in the background, with progress, errors and cancelling.

Design
- A kind of work has threads of its own: a scene does not wait for a folder. Indexing has a few, so that a file that takes
  minutes to read does not hold up what was dropped after it; scenes are computed one after the other, for their memory.
- Indexing is cut into portions of a few files; between two of them it looks whether it was cancelled. What is stored by then
  is kept, as with an interrupted `splatsense add`.
- Whoever watches asks for `Job.state()` when `Job.version` has changed; nothing is pushed from the working thread.
"""

import logging
import queue
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from splatsense.errors import SplatSenseError
from splatsense.geometry.upright import Up
from splatsense.library import Library
from splatsense.library.asset_files import find_files, passed_over
from splatsense.tables import printable

log = logging.getLogger("splatsense.web")

PORTION_FILES, PORTION_BYTES = 8, 64 << 20
LISTED_FAILURES = 500
INDEXING_THREADS = 3
KEPT_JOBS = 50


class Cancelled(Exception):
    """The job was cancelled; raised and caught in its thread."""


class Job(ABC):
    """One piece of work, done by `_work` of a subclass.

    Args:
        title: what people call it.
    """

    kind = ""
    threads = 1
    """How many jobs of this kind may run at once."""

    def __init__(self, title: str) -> None:
        self.id = secrets.token_urlsafe(12)
        self.title = title
        self.version = 0
        self._status, self._message, self._current = "waiting", "", ""
        self._total = self._done = 0
        self._started = self._ended = 0.0
        self._cancelled = threading.Event()

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self._status in ("done", "cancelled", "failed")

    def cancel(self) -> None:
        """Stop at the next moment at which nothing is lost by it."""
        self._cancelled.set()
        self.version += 1

    def state(self) -> dict[str, Any]:
        """What the page shows: status, counts, seconds and rate."""
        now = self._ended or time.monotonic()
        seconds = now - self._started if self._started else 0.0
        return {
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "status": "cancelling" if self._cancelled.is_set() and not self.is_over else self._status,
            "message": self._message,
            "total": self._total,
            "done": self._done,
            "current": self._current,
            "seconds": round(seconds, 1),
            "rate": round(self._done / seconds, 1) if seconds > 0 else 0.0,
        }

    def run(self) -> None:
        """Do the work. Raises nothing: what goes wrong is in the state."""
        self._started = time.monotonic()
        status, message = "done", ""
        try:
            self.check()
            self.change(status="running")
            self._work()
        except Cancelled:
            status = "cancelled"
        except (SplatSenseError, OSError) as error:
            status, message = "failed", printable(error)
        except Exception:  # a defect of ours must not end the thread that jobs share
            identity = secrets.token_hex(4)
            log.exception("%s: %s stopped", identity, self.kind)
            status, message = "failed", f"Something went wrong; the server's log has the details under {identity}."
        self._settle()
        self._ended = time.monotonic()
        self.change(message=message, current="", status=status)  # in this order: the status says that the rest is final

    def check(self) -> None:
        """Raise Cancelled if the job is to stop."""
        if self._cancelled.is_set():
            raise Cancelled

    def change(self, **values: Any) -> None:
        """Set parts of the state."""
        for name, value in values.items():
            setattr(self, f"_{name}", value)
        self.version += 1

    @abstractmethod
    def _work(self) -> None:
        """What is to be done. It calls `check` now and then."""

    def _settle(self) -> None:  # noqa: B027  # most have nothing to do
        """However it ended, this is called before the job says so."""


class Indexing(Job):
    """One indexing run.

    Args:
        library: that is added to.
        title: what people call it.
        paths: files and folders to index.
        after: called with the failed files when the run is over or was cancelled, before it says so.
        settled: called however the run ended, before it says so.
        up: axis that points up in these files, as in `Library.add`.
    """

    kind = "indexing"
    threads = INDEXING_THREADS

    def __init__(self, library: Library, title: str, paths: Sequence[Path], after: Callable[[list[Path]], None],
                 settled: Callable[[], None] = lambda: None, up: Up | None = None) -> None:  # fmt: skip
        super().__init__(title)
        self._library, self._paths, self._after, self._settled = library, list(paths), after, settled
        self._up: Up | None = up
        self._failed: list[tuple[Path, str]] = []
        self._archives: list[Path] = []
        self._indexed = self._skipped = 0

    def state(self) -> dict[str, Any]:
        """What the page shows: also how many files were indexed and skipped, those that failed, and archives passed over."""
        return super().state() | {
            "indexed": self._indexed,
            "skipped": self._skipped,
            "failed": len(self._failed),
            "failures": [
                {"file": printable(path.name), "reason": printable(why)} for path, why in self._failed[:LISTED_FAILURES]
            ],
            "passed_over": passed_over(self._archives),
        }

    def _work(self) -> None:
        try:
            self._index()
        except Cancelled:
            self._after([path for path, _ in self._failed])
            raise
        self._after([path for path, _ in self._failed])

    def _index(self) -> None:
        files, missing, self._archives = find_files(self._paths, self._library.path)
        self._failed += missing
        self.change(total=len(files) + len(missing), done=len(missing))
        for portion in _portions(files):
            self.check()
            self.change(current=printable(portion[0].name))
            report = self._library.add(portion, progress=False, draw=True, up=self._up)
            self._failed += report.failed
            self.change(indexed=self._indexed + report.indexed, skipped=self._skipped + report.skipped)
            self.change(done=self._indexed + self._skipped + len(self._failed))

    def _settle(self) -> None:
        self._settled()


class Jobs:
    """Runs jobs, those of a kind in the order in which they came."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._queues: dict[str, queue.Queue[Job | None]] = {}
        self._threads: dict[str, list[threading.Thread]] = {}
        self._lock = threading.Lock()

    def start(self, job: Job) -> Job:
        """Put a job in the queue of its kind."""
        with self._lock:
            for old in [job for job in self._jobs.values() if job.is_over][: max(0, len(self._jobs) - KEPT_JOBS + 1)]:
                del self._jobs[old.id]
            self._jobs[job.id] = job
            waiting = self._queues.setdefault(job.kind, queue.Queue())
            threads = self._threads.setdefault(job.kind, [])
            if len(threads) < job.threads:
                threads.append(threading.Thread(target=_work, args=(waiting,), name=job.kind, daemon=True))
                threads[-1].start()
            waiting.put(job)
        return job

    def find(self, identity: str) -> Job | None:
        """The job of this id, or None."""
        return self._jobs.get(identity)

    def all(self) -> list[Job]:
        """Every job that is remembered, newest first."""
        return list(self._jobs.values())[::-1]

    def waiting(self) -> int:
        """How many are not over."""
        return sum(not job.is_over for job in self.all())

    def close(self) -> None:
        """Cancel everything and wait for what cannot be left half done."""
        for job in self.all():
            job.cancel()
        for kind, threads in self._threads.items():
            for _ in threads:
                self._queues[kind].put(None)
        for thread in (thread for threads in self._threads.values() for thread in threads):
            thread.join()


def _work(waiting: "queue.Queue[Job | None]") -> None:
    while (job := waiting.get()) is not None:
        job.run()


def _portions(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Runs of a few files, of limited size together where there is more than one."""
    portion: list[Path] = []
    size = 0
    for path in files:
        try:
            length = path.stat().st_size
        except OSError:
            length = 0
        if portion and (len(portion) == PORTION_FILES or size + length > PORTION_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(path)
        size += length
    if portion:
        yield portion
