"""The order of a run, and the random numbers of its samples. Both are pinned: a run begun before a change goes on after it."""

import torch

from splatsense.training.order import generator_at, row_at


def test_every_row_comes_once_an_epoch_and_each_time_in_another_order():
    epochs = [[row_at(place, 7, seed=2) for place in range(7 * epoch, 7 * epoch + 7)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[1] == torch.randperm(7, generator=torch.Generator().manual_seed(2 * 7919 + 1)).tolist()
    assert epochs[0] != [row_at(place, 7, seed=3) for place in range(7)]


def test_samples_draw_numbers_of_their_own():
    drawn = {
        (seed, place): float(torch.rand((), generator=generator_at(place, seed))) for seed in range(3) for place in range(5)
    }
    assert len(set(drawn.values())) == 15
    assert drawn[2, 4] == float(torch.rand((), generator=torch.Generator().manual_seed(2_000_006 + 4)))
