"""Decoders of other packages, each in a process of its own: what a damaged file does to them stays there.

`_worker.py` takes a request as JSON on standard input and writes decoded bytes to standard output. Its memory is limited from
the start and its time by us; a panic, an abort or a hang of the decoder becomes an `IsolatedError` with its last words.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("_worker.py")
BLOCK_BYTES = 1 << 22
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each thread reserves address space


class IsolatedError(Exception):
    """The worker failed, or ran out of memory or time; says why."""


def stream(decoder: str, request: dict[str, Any], memory: int, seconds: float) -> Iterator[bytes]:
    """Yield what a worker decodes, a few megabytes at a time.

    Args:
        decoder: "laz" or "e57".
        request: what the decoder's function in `_worker.py` takes.
        memory: bytes of address space it may use.
        seconds: it may take in all.

    Raises:
        IsolatedError: it failed, or ran out of memory or time.
    """
    expired = threading.Event()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | ONE_THREAD,
        )

        def stop() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            with process:
                try:
                    yield from _talk(process, json.dumps(request | {"decoder": decoder, "memory": memory}))
                except BaseException:
                    process.kill()
                    raise
        finally:
            timer.cancel()
        if expired.is_set():
            raise IsolatedError(f"it took more than {seconds:.0f} s")
        if process.returncode:
            errors.seek(0)
            raise IsolatedError(_last_words(errors.read().decode("utf-8", "replace"), process.returncode))


def _talk(process: subprocess.Popen[bytes], request: str) -> Iterator[bytes]:
    if process.stdin is None or process.stdout is None:
        raise IsolatedError("its pipes could not be opened")
    with process.stdin:
        process.stdin.write(request.encode())
    while block := process.stdout.read(BLOCK_BYTES):
        yield block


def _last_words(errors: str, status: int) -> str:
    if "MemoryError" in errors or "memory allocation" in errors or "bad_alloc" in errors:
        return "it needs more memory than such a file should"
    lines = errors.strip().splitlines()
    return lines[-1][:300] if lines else f"the decoder ended with status {status}"
