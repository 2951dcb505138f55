"""Which rows of a batch a process works on, and random numbers that do not depend on how a batch is shared out.

Every process draws the numbers of the whole batch and keeps its rows. So n processes see the augmentation, the dropout and
the stochastic depth that one process would see; the numbers drawn in vain are few beside those a network computes.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from splatsense.errors import DataError


@dataclass(frozen=True)
class Share:
    """Rows `start` to `stop` of a batch of `total`."""

    start: int
    stop: int
    total: int

    @staticmethod
    def whole(total: int) -> "Share":
        """All rows."""
        return Share(0, total, total)

    def __len__(self) -> int:
        return self.stop - self.start

    def of(self, rows: Tensor) -> Tensor:
        """This share of a tensor (total, ...)."""
        return rows[self.start : self.stop]

    def split(self, parts: int, what: str) -> "list[Share]":
        """Equal parts in order. Raises DataError, naming `what` they are, when the rows do not divide."""
        size, rest = divmod(len(self), parts)
        if rest or not size:
            raise DataError(f"{len(self)} objects cannot be shared equally among {parts} {what}; change --batch-size.")
        return [Share(start, start + size, self.total) for start in range(self.start, self.stop, size)]


_active: Share | None = None  # not a context variable: autograd recomputes checkpointed layers in threads of its own


@contextlib.contextmanager
def working_on(share: Share) -> Iterator[None]:
    """While it lasts, `rand_rows` in this process draws for this share of a batch. Include the backward pass."""
    global _active
    before, _active = _active, share
    try:
        yield
    finally:
        _active = before


def rand_rows(count: int, *shape: int, device: torch.device | str | None = None) -> Tensor:
    """`torch.rand(count, *shape)` for the `count` rows of the share that is being worked on."""
    if _active is None:
        return torch.rand(count, *shape, device=device)
    if count != len(_active):
        raise DataError(f"rand_rows: asked for {count} rows while working on {len(_active)}.")
    return _active.of(torch.rand(_active.total, *shape, device=device))
