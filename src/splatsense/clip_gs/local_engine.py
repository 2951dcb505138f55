"""Workers as processes of this machine.

Design
- Each worker has a pipe of its own and one group at a time, so the driver knows exactly what a worker that died was at.
- Processes are spawned, not forked: OpenMP and CUDA do not survive a fork.
- A worker whose driver is gone finds its pipe closed and ends. Interrupts are the driver's to handle.
- The cores of the machine are divided among the workers; CUDA devices are dealt to them in turn.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from splatsense.clip_gs.engines import Crash, Group, Outcome, Work


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    ticket: int | None = None


class LocalEngine:
    """Processes of this machine.

    Args:
        work: what they do; sent to them once.
        workers: how many.
        devices: CUDA devices to deal out among them; 0 to leave them hidden or visible as they are.
    """

    def __init__(self, work: Work, workers: int, devices: int = 0) -> None:
        self._work, self._devices = work, devices
        self._threads = max(1, len(os.sched_getaffinity(0)) // workers)
        self._workers = [self._start(number) for number in range(workers)]

    @property
    def slots(self) -> int:
        """One group a worker."""
        return len(self._workers)

    def submit(self, ticket: int, group: Group) -> None:
        """Give a group to an idle worker; one that died idle is replaced."""
        number = next(i for i, worker in enumerate(self._workers) if worker.ticket is None)
        try:
            self._workers[number].pipe.send(group)
        except OSError:
            self._replace(number)
            self._workers[number].pipe.send(group)
        self._workers[number].ticket = ticket

    def wait(self) -> tuple[int, list[Outcome] | Crash]:
        """The outcomes of the next worker that is done, or the crash of one that died, which is replaced."""
        busy = {worker.pipe: number for number, worker in enumerate(self._workers) if worker.ticket is not None}
        number = busy[next(pipe for pipe in wait(list(busy)) if isinstance(pipe, Connection))]
        worker = self._workers[number]
        ticket, worker.ticket = worker.ticket, None
        if ticket is None:
            raise RuntimeError("a worker without a group answered")
        try:
            return ticket, worker.pipe.recv()
        except (EOFError, OSError):
            return ticket, Crash(self._replace(number))

    def close(self) -> None:
        """Kill the workers; they hold nothing that is not theirs alone."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()

    def _start(self, number: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        settings = {"OMP_NUM_THREADS": str(self._threads)}
        if self._devices:
            settings["CUDA_VISIBLE_DEVICES"] = _device(number % self._devices)
        with _environment(settings):
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _replace(self, number: int) -> str:
        """Start another worker in the place of one that died; returns how it died."""
        dead = self._workers[number]
        dead.process.join()
        dead.pipe.close()
        self._workers[number] = self._start(number)
        status = dead.process.exitcode or 0
        if status == -signal.SIGALRM:
            return "it took longer than --time-limit"
        return f"it was ended by {signal.Signals(-status).name}" if status < 0 else f"it ended with status {status}"


def _device(number: int) -> str:
    """The name of a CUDA device, numbered as this process sees them, for another process."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[number] if visible else str(number)


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Environment variables for processes started meanwhile: some libraries read them when they are loaded."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, work: Work) -> None:
    """A worker's life: groups in, outcomes out, until the driver closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send(work(pipe.recv()))
