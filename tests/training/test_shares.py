import pytest
import torch
from torch import nn

from splatsense.errors import DataError
from splatsense.training.batch_norm import BatchNorm1d, without_tracking
from splatsense.training.collectives import gather_rows, process_count, sum_over_processes
from splatsense.training.shares import Share, rand_rows, working_on


def test_shares_draw_what_the_whole_batch_draws():
    torch.manual_seed(3)
    whole = rand_rows(6, 2, 3)
    torch.manual_seed(3)
    assert torch.equal(whole, torch.rand(6, 2, 3))
    parts = []
    for share in Share.whole(6).split(3, "parts"):
        torch.manual_seed(3)
        with working_on(share):
            parts.append(rand_rows(2, 2, 3))
            with pytest.raises(DataError, match="4 rows while working on 2"):
                rand_rows(4)
    assert torch.equal(torch.cat(parts), whole)
    assert len(rand_rows(5)) == 5  # none is being worked on any more


def test_alone_collectives_and_batch_norm_are_those_of_one_process():
    rows = torch.randn(4, 3, requires_grad=True)
    assert process_count() == 1
    assert gather_rows(rows) is rows
    assert sum_over_processes(rows) is rows
    ours, theirs = BatchNorm1d(3), nn.BatchNorm1d(3)
    assert torch.equal(ours(rows), theirs(rows))
    assert torch.equal(ours.running_var, theirs.running_var)


def test_statistics_are_left_alone_on_request():
    norm = nn.Sequential(BatchNorm1d(3))
    x = torch.randn(4, 3) + 5
    with without_tracking(norm):
        free = norm(x)
    assert torch.equal(norm[0].running_mean, torch.zeros(3))
    assert torch.equal(norm(x), free)
    assert norm[0].running_mean.min() > 0.1
