"""Progress of long work on stderr: count, rate and time left; one line on a terminal, a line now and then in a log.

Of the processes that `torchrun` starts, only the first tells.
"""

import os
import sys
import time

LOG_INTERVAL = 30.0  # seconds between lines when stderr is not a terminal
TERMINAL_INTERVAL = 0.2


class Progress:
    """Counts work done and says so.

    Args:
        label: what is being done.
        total: units of work.
        done: units already done before (a resumed run); not counted in the rate.
    """

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self.label, self.total, self.done = label, total, done
        self._stream = sys.stderr
        self._first, self._start, self._shown = done, time.monotonic(), float("-inf")
        self._told = -1  # units done at the last line
        self._live, self._closed = self._stream.isatty(), False

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add `count` units, with an optional note such as the loss."""
        self.done += count
        interval = TERMINAL_INTERVAL if self._live else LOG_INTERVAL
        if time.monotonic() - self._shown >= interval:
            self._show(note)

    def close(self, note: str = "") -> None:
        """Show the last state and end the line; once."""
        if self._closed:
            return
        self._closed = True
        if self._live or note or self._told != self.done:
            self._show(note)
        if self._live and os.environ.get("RANK", "0") == "0":
            print(file=self._stream)

    def _show(self, note: str) -> None:
        self._shown, self._told = time.monotonic(), self.done
        if os.environ.get("RANK", "0") != "0":
            return
        elapsed = self._shown - self._start
        rate = (self.done - self._first) / elapsed if elapsed > 0 else 0.0
        left = f"{(self.total - self.done) / rate:,.0f} s left" if rate > 0 and self.done < self.total else f"{elapsed:,.0f} s"
        pace = f"{rate:,.1f}" if rate >= 0.1 or rate == 0 else f"{rate:.1g}"
        text = f"{self.label}: {self.done:,}/{self.total:,}, {pace}/s, {left}{'; ' + note if note else ''}"
        print(f"\r{text:<100}" if self._live else text, end="" if self._live else "\n", file=self._stream, flush=True)
