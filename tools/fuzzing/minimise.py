"""A smaller case with the same fault: pieces of its files are cut out, large ones first, as long as the fault stays."""

import time
from collections.abc import Callable

from fuzzing.case import Case


def minimise(case: Case, still_fails: Callable[[Case], bool], seconds: float = 20.0) -> Case:
    """`case` without what the fault does not need, after at most about `seconds`."""
    deadline = time.monotonic() + seconds
    for name in [name for name in case.files if name != case.main]:
        smaller = Case(case.kind, case.main, {other: data for other, data in case.files.items() if other != name})
        if time.monotonic() < deadline and still_fails(smaller):
            case = smaller
    for name in sorted(case.files):
        step = max(1, len(case.files[name]) // 2)
        while time.monotonic() < deadline:
            case = _cut_pieces(case, name, step, still_fails, deadline)
            if step == 1:
                break
            step //= 2
    return case


def _cut_pieces(case: Case, name: str, step: int, still_fails: Callable[[Case], bool], deadline: float) -> Case:
    start = 0
    while start < len(case.files[name]) and time.monotonic() < deadline:
        data = case.files[name]
        smaller = case.with_file(name, data[:start] + data[start + step :])
        if still_fails(smaller):
            case = smaller
        else:
            start += step
    return case
