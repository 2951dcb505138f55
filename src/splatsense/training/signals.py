"""Stopping a run from outside: SIGTERM and SIGINT are noted, and the loop ends at the next step with a checkpoint."""

import signal
import threading
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Notes SIGTERM and SIGINT while it is entered; a second SIGINT interrupts at once.

    In another thread than the main one nothing is caught, since Python hands signals to the main thread alone.

    Attributes:
        received: the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in HANDLED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)

    def raise_again(self) -> None:
        """End as a process that got the signal would: KeyboardInterrupt for SIGINT, else exit status 128 + its number."""
        if self.received is signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.received or signal.SIGTERM))
