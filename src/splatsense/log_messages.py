"""What our log says while something runs, for those who show it elsewhere."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("splatsense")


@contextmanager
def logged() -> Iterator[list[tuple[int, str]]]:
    """(level, message) of what our log gets while the block runs, which is then not printed."""
    messages: list[tuple[int, str]] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: messages.append((record.levelno, record.getMessage()))
    before = log.propagate, log.level
    log.propagate = False
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield messages
    finally:
        log.removeHandler(handler)
        log.propagate = before[0]
        log.setLevel(before[1])
