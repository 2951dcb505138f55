"""The process that `reading.Readers` starts: reads one file after the other and sends what is in it.

Requests are lines of JSON on standard input. An answer is a line of JSON on standard output, followed by the Gaussians as
safetensors and the thumbnail as WebP, as many bytes as the line says. The end of the input ends the process.
"""

import contextlib
import json
import os
import signal
import sys
from dataclasses import fields
from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows; memory is not limited there
    resource = None


GRACE_SECONDS = 60


def main() -> None:
    """Serve requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for whoever started us
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    import torch
    from safetensors.torch import save

    from splatsense.errors import SplatSenseError
    from splatsense.library.reading import read_asset
    from splatsense.log_messages import logged

    torch.set_num_threads(1)
    _limit_memory(int(sys.argv[1]))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if hasattr(signal, "alarm"):  # the last resort: ends native code that hangs when whoever started us is gone
            signal.alarm(int(request["seconds"]) + GRACE_SECONDS)
        path = Path(os.fsdecode(bytes.fromhex(request["path"])))
        try:
            with logged() as said:
                reading = read_asset(path, request["thumbnail"], request["up"])
            gaussians = reading.gaussians
            tensors = {field.name: getattr(gaussians, field.name).contiguous() for field in fields(gaussians)}
            parts = [save(tensors), reading.thumbnail or b""]
        except OSError as error:
            _answer(answers, {"kind": "OSError", "errno": error.errno or 0, "error": error.strerror or str(error)})
        except SplatSenseError as error:
            _refuse(answers, type(error).__name__, str(error))
        except Exception as error:  # such as too little memory for the answer
            limit = isinstance(error, MemoryError) or "can't allocate memory" in str(error)  # as PyTorch says it
            reason = "needs more memory than there is" if limit else f"cannot be read; {type(error).__name__}: {error}"
            _refuse(answers, "LimitError" if limit else "FormatError", f"{path}: {reason}.")
        else:
            _answer(answers, {"gaussians": len(parts[0]), "thumbnail": len(parts[1]), "said": said}, *parts)
        if hasattr(signal, "alarm"):
            signal.alarm(0)


def _refuse(answers, kind: str, message: str) -> None:
    _answer(answers, {"kind": kind, "error": os.fsencode(message).decode("utf-8", "backslashreplace")})


def _answer(answers, head: dict, *parts: bytes) -> None:
    answers.write(json.dumps(head).encode() + b"\n")
    answers.writelines(parts)
    answers.flush()


def _limit_memory(extra: int) -> None:
    """Allow `extra` bytes of address space beyond what is in use; keep crash dumps off the disk."""
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + extra, used + extra))


if __name__ == "__main__":
    main()
