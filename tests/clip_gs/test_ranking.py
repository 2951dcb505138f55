import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from splatsense.clip_gs.ranking import hits_at
from splatsense.errors import DataError


def by_all_orders(scores, hits, k):
    """Fraction of all orders that break ties in which one of the first k is a hit."""
    orders = [order for order in itertools.permutations(range(len(scores))) if all(np.diff(scores[list(order)]) <= 0)]
    return np.mean([hits[list(order[:k])].any() for order in orders])


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6),
    st.integers(1, 7),
)
def test_ties_count_as_if_broken_at_random(entries, k):
    scores, hits = (np.array(column) for column in zip(*entries, strict=True))
    found = hits_at(torch.tensor(scores)[None].float(), torch.tensor(hits)[None], (k,))
    assert float(found) == pytest.approx(by_all_orders(scores, hits, k), abs=1e-9)


def test_without_ties_it_is_top_k_accuracy():
    torch.manual_seed(0)
    scores, truth = torch.randn(3000, 12), torch.randint(0, 12, (3000,))
    found = hits_at(scores, truth[:, None] == torch.arange(12), (1, 3, 5))
    assert set(found.unique().tolist()) == {0.0, 1.0}
    for column, k in zip(found.mean(0).tolist(), (1, 3, 5), strict=True):
        expected = top_k_accuracy_score(truth.numpy(), scores.double().numpy(), k=k, labels=range(12))
        assert column == pytest.approx(expected, abs=1e-12)


def test_a_collapsed_model_gets_chance_wherever_its_classes_stand():
    hits = torch.zeros(3, 10, dtype=torch.bool)
    hits[0, 0] = hits[1, 9] = True
    hits[2, 2:6] = True
    found = hits_at(torch.full((3, 10), 0.7), hits, (1, 5))
    torch.testing.assert_close(found[:, 0], torch.tensor([0.1, 0.1, 0.4]).double())
    torch.testing.assert_close(found[:, 1], torch.tensor([0.5, 0.5, 1 - 6 / 252]).double())


def test_infinities_rank_and_a_query_without_a_hit_is_not_found():
    scores = torch.tensor([[-torch.inf, 0.0, torch.inf], [-torch.inf, 0.0, 1.0]])
    hits = torch.tensor([[True, False, False], [False, False, False]])
    assert hits_at(scores, hits, (1, 2, 3)).tolist() == [[0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("scores", "ks", "message"),
    [
        (torch.tensor([[torch.nan, 1.0]]), (1,), "NaN"),
        (torch.zeros(0, 2), (1,), "nothing to rank: 0 queries"),
        (torch.zeros(1, 2), (0, 1), "at least 1"),
    ],
)
def test_what_cannot_be_ranked_is_an_error(scores, ks, message):
    with pytest.raises(DataError, match=message):
        hits_at(scores, torch.ones_like(scores, dtype=torch.bool), ks)
