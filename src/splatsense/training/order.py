"""The order in which a run goes through its data: permutations of all rows, one after the other, drawn from the seed.

A place is counted over the whole run, from 0: of batches of n, step s has the places s * n to s * n + n - 1.
"""

import torch


def row_at(place: int, count: int, seed: int) -> int:
    """The row at a place of the endless sequence of permutations; a function of its arguments.

    Args:
        place: of the run.
        count: of rows.
        seed: of the run.
    """
    epoch, position = divmod(place, count)
    return int(torch.randperm(count, generator=torch.Generator().manual_seed(seed * 7919 + epoch))[position])


def generator_at(place: int, seed: int) -> torch.Generator:
    """Random numbers for the sample at a place; those of its neighbours in the batch do not matter.

    Args:
        place: of the run.
        seed: of the run.
    """
    return torch.Generator().manual_seed(seed * 1_000_003 + place)
