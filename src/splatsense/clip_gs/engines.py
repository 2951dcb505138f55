"""Who does the work of a build: this process, processes of this machine, or a Ray cluster. All give the same outcomes.

Design
- An engine takes groups of objects and gives back the outcomes of one group at a time, in whatever order they are done. It
  never writes: outcomes travel to the driver, the one process that owns the output folder. So nothing a worker leaves behind
  when it is killed can be half written, and a cluster needs no common disk for the output.
- `run_groups` is all that the engines have in common: it keeps their slots filled, and handles crashes. A group whose worker
  died is split, and each of its objects gets one more try on its own; the one that dies again has failed, with the reason.
"""

import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from splatsense.clip_gs.shards import encode_sample
from splatsense.clip_gs.triplets import TripletConfig, make_triplets
from splatsense.corpora import CorpusObject
from splatsense.errors import SplatSenseError

Group = tuple[CorpusObject, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one object.

    Attributes:
        key: of the object.
        sample: as `encode_sample` writes it, or None when the object cannot be used.
        reason: why it cannot be used, or "".
        seconds: spent on it by its worker.
        psnr: of the fit on views it did not see, in dB, or None where nothing was fitted.
        ssim: likewise, in [-1, 1].
    """

    key: str
    sample: bytes | None
    reason: str = ""
    seconds: float = 0.0
    psnr: float | None = None
    ssim: float | None = None


@dataclass(frozen=True)
class Crash:
    """A worker died over a group, and why as far as is known."""

    reason: str


Work = Callable[[Group], list[Outcome]]


@runtime_checkable
class Engine(Protocol):
    """Runs `Work` on groups. Tickets are the caller's names for them."""

    @property
    def slots(self) -> int:
        """How many groups may be under way at a time."""
        ...

    def submit(self, ticket: int, group: Group) -> None:
        """Start on a group; the caller sees to it that a slot is free."""
        ...

    def wait(self) -> tuple[int, list[Outcome] | Crash]:
        """The next group that is done."""
        ...

    def close(self) -> None:
        """Stop all work."""
        ...


def make_outcomes(group: Group, config: TripletConfig, device: str, time_limit: int) -> list[Outcome]:
    """Make the samples of a group: the work that all engines do.

    Args:
        group: objects that are fitted together.
        config: how to make them.
        device: where fits run.
        time_limit: seconds per object after which the process is ended by SIGALRM; 0 for none. It is the only way out of
            native code that hangs, and the engine takes it for a crash.
    """
    signal.alarm(time_limit * len(group))
    try:
        start = time.monotonic()
        made = make_triplets(group, config, device)
        outcomes = []
        for item, triplet in zip(group, made, strict=True):
            if isinstance(triplet, Exception):
                outcomes.append(Outcome(item.key, None, _reason(triplet)))
                continue
            outcomes.append(Outcome(item.key, encode_sample(triplet), psnr=triplet.info["psnr"], ssim=triplet.info["ssim"]))
        share = (time.monotonic() - start) / len(group)
        return [replace(outcome, seconds=share) for outcome in outcomes]
    finally:
        signal.alarm(0)


def _reason(error: Exception) -> str:
    """The message of an error of ours; of any other also its kind and place, since it may be a bug."""
    if isinstance(error, SplatSenseError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {Path(frame[0].filename).name}:{frame[0].lineno}" if frame else ""
    return f"unexpected {type(error).__name__}{place}: {error}"


class InProcess:
    """One group after the other in this process: the plain reference of the engines. A crash ends the build."""

    slots = 1

    def __init__(self, work: Work) -> None:
        self._work = work
        self._submitted: tuple[int, Group] | None = None

    def submit(self, ticket: int, group: Group) -> None:
        """Keep the group until `wait`."""
        self._submitted = ticket, group

    def wait(self) -> tuple[int, list[Outcome] | Crash]:
        """Do the work."""
        if self._submitted is None:
            raise SplatSenseError("InProcess.wait: nothing was submitted.")
        (ticket, group), self._submitted = self._submitted, None
        return ticket, self._work(group)

    def close(self) -> None:
        """Nothing to stop."""


def run_groups(engine: Engine, groups: Sequence[Group]) -> Iterator[Outcome]:
    """Every object's outcome, once each, in the order in which they are done.

    Args:
        engine: that does the work.
        groups: in the order in which they should be begun.
    """
    waiting: deque[tuple[Group, bool]] = deque((group, False) for group in groups)
    running: dict[int, tuple[Group, bool]] = {}
    ticket = 0
    while waiting or running:
        while waiting and len(running) < engine.slots:
            ticket += 1
            running[ticket] = waiting.popleft()
            engine.submit(ticket, running[ticket][0])
        done, result = engine.wait()
        group, is_second_try = running.pop(done)
        if not isinstance(result, Crash):
            yield from result
        elif is_second_try:
            yield Outcome(group[0].key, None, f"its worker died twice: {result.reason}")
        else:
            waiting.extendleft(((item,), True) for item in reversed(group))
