"""The order in which a run goes through its data: permutations of all rows, one after the other, drawn from the seed."""

import torch


def row_at(place: int, count: int, seed: int) -> int:
    """The row at a place of the endless sequence of permutations; a function of its arguments.

    Args:
        place: counted over the whole run, from 0.
        count: of rows.
        seed: of the run.
    """
    epoch, position = divmod(place, count)
    return int(torch.randperm(count, generator=torch.Generator().manual_seed(seed * 7919 + epoch))[position])
