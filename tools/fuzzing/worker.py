"""A process that loads one case after the other under limits on its memory, and the parent's handle on it.

A worker is forked from the parent, which has loaded every seed and with it every module that readers import on first
use; so the memory measured is that of the case alone.
"""

import ctypes
import gc
import hashlib
import multiprocessing
import resource
import shutil
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

import torch

from fuzzing.case import Case
from splatsense.errors import SplatSenseError
from splatsense.gaussians import Gaussians

ADDRESS_SPACE = 2 << 30
"""Bytes a worker may map beyond what it has when it starts."""
MEMORY_BASE = 96 << 20
MEMORY_MULTIPLE = 32
"""A case may use MEMORY_BASE + MEMORY_MULTIPLE x the size of its files."""
CPU_SECONDS = 5.0
WALL_SECONDS = 40.0
"""Processor time after which a case is slow, and time after which it hangs; the second is long as processors are shared."""

Load = Callable[[Path], Gaussians]


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        status: "loaded" and "refused" are fine; "foreign", "memory", "slow", "hang", "crash" and "invalid" are findings.
        place: what tells one finding from another: the exception and the functions it came through.
        detail: for the report.
    """

    status: str
    place: str = ""
    detail: str = ""

    @property
    def is_finding(self) -> bool:
        """Whether a reader did what it must not."""
        return self.status not in ("loaded", "refused")

    @property
    def signature(self) -> str:
        """The same for the same fault."""
        return f"{self.status}-{hashlib.sha256(self.place.encode()).hexdigest()[:8]}"


class Worker:
    """A forked process that runs cases; it is replaced when it dies or hangs."""

    def __init__(self, folder: Path, load: Load, wall_seconds: float = WALL_SECONDS) -> None:
        self.folder, self.load, self.wall_seconds = folder, load, wall_seconds
        self.process, self.connection = self._start()

    def _start(self) -> tuple[ForkProcess, Connection]:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.load), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def run(self, case: Case) -> Outcome:
        """Load `case` and say what became of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            self.connection.send((case.write(self.folder), case.size))
            if self.connection.poll(self.wall_seconds):
                return self.connection.recv()
            outcome = Outcome("hang", case.kind, f"no answer within {self.wall_seconds} s")
        except (EOFError, ConnectionError):
            self.process.join(5)
            outcome = Outcome("crash", f"{case.kind} exit code {self.process.exitcode}", "the process died")
        self.close()
        self.process, self.connection = self._start()
        return outcome

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, load: Load) -> None:
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    gc.collect()
    gc.freeze()  # what the parent holds need not be looked through before every case
    limit = _status_kilobytes("VmSize") * 1024 + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A warning from our own code would reach the user; those from libraries below it are theirs.
    warnings.filterwarnings("error", module="splatsense")
    while True:
        path, size = connection.recv()
        connection.send(_judge(path, size, load))


def _judge(path: Path, size: int, load: Load) -> Outcome:
    _let_go()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the resident memory starts anew
    before, start = _status_kilobytes("VmRSS"), time.process_time()
    outcome = _attempt(path, load)
    seconds, peak = time.process_time() - start, (_status_kilobytes("VmHWM") - before) * 1024
    if outcome.is_finding:
        return outcome
    if peak > MEMORY_BASE + MEMORY_MULTIPLE * size:
        return Outcome("memory", path.suffix, f"{peak >> 20} MiB for {size} bytes; {outcome.detail}")
    if seconds > CPU_SECONDS:
        return Outcome("slow", path.suffix, f"{seconds:.1f} s for {size} bytes; {outcome.detail}")
    return outcome


def _let_go() -> None:
    """Give back what earlier cases, or the parent, left to be freed: freed while a case runs, it would hide what that takes."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)


def _attempt(path: Path, load: Load) -> Outcome:
    try:
        gaussians = load(path)
    except SplatSenseError as error:
        cause: BaseException | None = error
        while cause := cause.__cause__ or cause.__context__:
            if isinstance(cause, MemoryError):
                return Outcome("memory", _place(cause), traceback.format_exc())
        if str(path) not in str(error):
            return Outcome("foreign", "message without path " + _place(error), traceback.format_exc())
        return Outcome("refused", detail=str(error))
    except BaseException as error:
        return Outcome("foreign", _place(error), traceback.format_exc())
    fault = _fault(gaussians)
    return Outcome("invalid", fault, fault) if fault else Outcome("loaded")


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f"{Path(frame.filename).name}:{frame.name}" for frame in frames if "splatsense" in frame.filename]
    innermost = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
    return " ".join([type(error).__name__, *ours[-2:], innermost])


def _fault(gaussians: Gaussians) -> str:
    """What is wrong with what a reader returned, or an empty string."""
    if not len(gaussians):
        return "no Gaussians"
    for name in ("means", "quats", "scales", "opacities", "sh"):
        if not torch.isfinite(getattr(gaussians, name)).all():
            return f"{name} not finite"
    if (gaussians.quats.norm(dim=1) - 1).abs().max() > 1e-3:
        return "quaternions not unit"
    if gaussians.scales.min() < 0:
        return "negative scales"
    return "" if gaussians.opacities.min() >= 0 and gaussians.opacities.max() <= 1 else "opacities outside [0, 1]"


def _status_kilobytes(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1])
