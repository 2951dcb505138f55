"""Batches made ready in a background thread while the device computes.

A batch is a function of its step, so when and where it is made changes nothing in it.
"""

import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Prefetcher(Generic[Batch]):
    """Iterates over `(step, load(step))`.

    Args:
        load: makes the batch of a step; called from one thread, in order.
        steps: to load.
        ahead: batches made in advance; 0 loads each when it is asked for.

    Attributes:
        waited: seconds the caller has waited for batches.
    """

    def __init__(self, load: Callable[[int], Batch], steps: range, ahead: int = 1) -> None:
        self.waited = 0.0
        self._load, self._steps, self._ahead = load, steps, ahead

    def __iter__(self) -> Generator[tuple[int, Batch], None, None]:
        executor = ThreadPoolExecutor(1, "prefetch")
        pending: list[Future[Batch]] = []
        try:
            for index, step in enumerate(self._steps):
                start = time.perf_counter()
                if self._ahead == 0:
                    batch = self._load(step)
                else:
                    first = index + len(pending)
                    wanted = self._steps[first : index + self._ahead + 1]
                    pending += [executor.submit(self._load, later) for later in wanted]
                    batch = pending.pop(0).result()
                self.waited += time.perf_counter() - start
                yield step, batch
        finally:
            executor.shutdown(cancel_futures=True)
