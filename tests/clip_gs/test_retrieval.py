import numpy as np
import pytest
import torch

from splatsense.clip_gs.retrieval import chance_recall, recall
from splatsense.errors import DataError


def brute_force(scores, query_names, gallery_names, k):
    best = [np.argsort(-row, kind="stable")[:k] for row in scores]
    return np.mean([name in [gallery_names[i] for i in order] for name, order in zip(query_names, best, strict=True)])


def test_recall_counts_objects_of_the_same_name():
    scores = torch.eye(3)[[1, 0, 2]]
    assert recall(scores, ["x", "y", "z"], ks=(1, 2)).recall[1] == pytest.approx(1 / 3)
    assert recall(scores, ["x", "x", "z"], ks=(1,)).recall[1] == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_recall_is_what_sorting_gives(seed):
    random = np.random.default_rng(seed)
    gallery = [f"name {i}" for i in random.integers(0, 12, 40)]
    queries = list(random.choice(gallery, 90))  # several texts for one object
    scores = random.normal(size=(90, 40))
    found = recall(torch.from_numpy(scores), queries, gallery, ks=(1, 5, 10, 100))
    for k in (1, 5, 10, 100):
        assert found.recall[k] == pytest.approx(brute_force(scores, queries, gallery, k), abs=1e-12)
    assert found.recall[100] == 1


def test_several_pictures_in_the_gallery_each_lead_to_their_object():
    scores = torch.tensor([[0.1, 0.9, 0.3, 0.2], [0.8, 0.1, 0.2, 0.3]])
    found = recall(scores, ["a", "b"], ["a", "a", "b", "b"], ks=(1, 2))
    assert found.recall == {1: 0.5, 2: 1.0}


def test_the_interval_takes_the_views_of_an_object_together():
    """Twelve views that agree say no more than one."""
    torch.manual_seed(0)
    one = torch.randn(50, 50) + 2 * torch.eye(50)
    names = [str(i) for i in range(50)]
    twelve, each = one.repeat_interleave(12, 0), [name for name in names for _ in range(12)]
    owners = [i for i in range(50) for _ in range(12)]

    def width(result):
        return result.interval[1] - result.interval[0]

    alone, together, apart = recall(one, names), recall(twelve, each, names, owners=owners), recall(twelve, each, names)
    assert together.recall == pytest.approx(alone.recall)
    assert width(together) == pytest.approx(width(alone), abs=0.03)
    assert width(apart) < 0.5 * width(alone)


def test_chance_recall_is_what_random_rankings_give():
    names = ["a", "a", "b", "c", "c", "c", "d", "e", "f", "g"]
    expected = chance_recall(names, ks=(1, 3)).recall
    torch.manual_seed(0)
    scores = torch.randn(2000, 10, 10)
    hits = torch.tensor([[left == right for right in names] for left in names])
    order = scores.argsort(dim=2)
    for k in (1, 3):
        found = hits.expand(2000, 10, 10).gather(2, order[..., :k]).any(2).double().mean()
        assert float(found) == pytest.approx(expected[k], abs=0.01)


def test_a_correction_of_the_scores_fits_between():
    """A hub that answers every query is taken down by what all queries give it."""
    scores = torch.eye(4)
    scores[:, 0] = 1.5
    names = list("abcd")
    assert recall(scores, names, ks=(1,)).recall[1] == 0.25
    assert recall(scores - scores.mean(0), names, ks=(1,)).recall[1] == 1


def test_names_must_fit_the_scores():
    with pytest.raises(DataError, match=r"2 and 2 names for scores of shape \(2, 3\)"):
        recall(torch.zeros(2, 3), ["a", "b"])
    with pytest.raises(DataError, match="no candidate is named 'b'"):
        recall(torch.zeros(2, 1), ["a", "b"], ["a"])
    with pytest.raises(DataError, match="names for scores"):
        recall(torch.zeros(2, 2), ["a", "b"], owners=[0])
