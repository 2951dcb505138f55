"""`Jobs`: indexing in the background, one job after the other, with progress, per-file errors and cancelling.

Design
- One thread works. A job is cut into portions of a few files; between two of them it looks whether it was cancelled. What is
  stored by then is kept, as with an interrupted `splatsense add`.
- Whoever watches asks for `Job.state()` when `Job.version` has changed; nothing is pushed from the working thread.
"""

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from splatsense.errors import SplatSenseError
from splatsense.library import Library
from splatsense.library.asset_files import find_files
from splatsense.library.names import printable

log = logging.getLogger("splatsense.web")

PORTION_FILES, PORTION_BYTES = 8, 64 << 20
LISTED_FAILURES = 500
KEPT_JOBS = 50


class Job:
    """One indexing run.

    Args:
        title: what people call it.
        paths: files and folders to index.
        after: called with the failed files before the run says that it is over.
    """

    def __init__(self, title: str, paths: Sequence[Path], after: Callable[[list[Path]], None] | None = None) -> None:
        self.id = secrets.token_urlsafe(12)
        self.title, self.paths, self.after = title, list(paths), after
        self.version = 0
        self.failed: list[tuple[Path, str]] = []
        self._status, self._message, self._current = "waiting", "", ""
        self._total = self._indexed = self._skipped = 0
        self._started = self._ended = 0.0
        self._cancelled = threading.Event()

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self._status in ("done", "cancelled", "failed")

    def cancel(self) -> None:
        """Stop after the files that are being worked on."""
        self._cancelled.set()
        self.version += 1

    def state(self) -> dict[str, Any]:
        """What the page shows: status, counts, seconds, rate and the files that failed."""
        now = self._ended or time.monotonic()
        seconds = now - self._started if self._started else 0.0
        done = self._indexed + self._skipped + len(self.failed)
        return {
            "id": self.id,
            "title": self.title,
            "status": "cancelling" if self._cancelled.is_set() and not self.is_over else self._status,
            "message": self._message,
            "total": self._total,
            "done": done,
            "indexed": self._indexed,
            "skipped": self._skipped,
            "failed": len(self.failed),
            "failures": [
                {"file": printable(path.name), "reason": printable(why)} for path, why in self.failed[:LISTED_FAILURES]
            ],
            "current": self._current,
            "seconds": round(seconds, 1),
            "rate": round(done / seconds, 1) if seconds > 0 else 0.0,
        }

    def run(self, library: Library) -> None:
        """Index the files into the library. Raises nothing: what goes wrong is in the state."""
        self._started = time.monotonic()
        try:
            status, message = self._index(library), ""
            if self.after is not None:
                self.after([path for path, _ in self.failed])
        except (SplatSenseError, OSError) as error:
            status, message = "failed", printable(error)
        except Exception:  # a defect of ours must not end the thread that all jobs share
            identity = secrets.token_hex(4)
            log.exception("%s: indexing stopped", identity)
            status, message = "failed", f"Something went wrong; the server's log has the details under {identity}."
        self._ended = time.monotonic()
        self._change(message=message, current="", status=status)  # in this order: the status says that the rest is final

    def _index(self, library: Library) -> str:
        """The status at the end."""
        if self._cancelled.is_set():
            return "cancelled"
        self._change(status="running")
        files, missing = find_files(self.paths, library.path)
        self.failed += missing
        self._change(total=len(files) + len(missing))
        for portion in _portions(files):
            if self._cancelled.is_set():
                return "cancelled"
            self._change(current=printable(portion[0].name))
            report = library.add(portion, progress=False, draw=True)
            self.failed += report.failed
            self._change(indexed=self._indexed + report.indexed, skipped=self._skipped + report.skipped)
        return "done"

    def _change(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, f"_{name}", value)
        self.version += 1


class Jobs:
    """Runs jobs one after the other in a thread of its own."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._jobs: dict[str, Job] = {}
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="indexing", daemon=True)
        self._thread.start()

    def start(self, job: Job) -> Job:
        """Put a job in the queue."""
        for old in [job for job in self._jobs.values() if job.is_over][: max(0, len(self._jobs) - KEPT_JOBS + 1)]:
            del self._jobs[old.id]
        self._jobs[job.id] = job
        self._queue.put(job)
        return job

    def find(self, identity: str) -> Job | None:
        """The job of this id, or None."""
        return self._jobs.get(identity)

    def all(self) -> list[Job]:
        """Every job that is remembered, newest first."""
        return list(self._jobs.values())[::-1]

    def close(self) -> None:
        """Cancel everything and wait for the files that are being worked on."""
        for job in self._jobs.values():
            job.cancel()
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            job.run(self._library)


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
