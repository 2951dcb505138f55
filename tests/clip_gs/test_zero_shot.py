import pytest
import torch
from torch.nn.functional import normalize

from splatsense.clip_gs.retrieval import chance_recall, recall
from splatsense.clip_gs.zero_shot import class_embeddings, zero_shot
from splatsense.errors import DataError


def test_accuracies_worked_by_hand():
    classes = torch.eye(4)
    objects = normalize(
        torch.tensor([[1.0, 0.2, 0.1, 0], [0.5, 0.4, 0.3, 0], [0.1, 0.2, 0.9, 0.3], [0.9, 0.8, 0.7, 0.6]]), dim=-1
    )
    found = zero_shot(objects, classes, ["a", "b", "c", "d"], ["a", "b", "c", "d"])
    assert (found.top1, found.top3, found.top5) == (0.5, 0.75, 1.0)
    assert found.class_mean == 0.5
    assert found.chance == 0.25
    assert found.by_class == {"a": (1, 1), "b": (0, 1), "c": (1, 1), "d": (0, 1)}


def test_class_mean_weighs_classes_not_objects():
    objects = torch.eye(2)[[0, 0, 0, 0]]
    found = zero_shot(objects, torch.eye(2), ["a", "a", "a", "b"], ["a", "b"])
    assert found.top1 == 0.75
    assert found.class_mean == 0.5


def test_unknown_labels_are_named():
    with pytest.raises(DataError, match="zebra"):
        zero_shot(torch.eye(2), torch.eye(2), ["a", "zebra"], ["a", "b"])


def test_synonyms_and_templates_are_averaged(teacher):
    seen = []

    def encode(texts):
        seen.extend(texts)
        return teacher.encode_text(texts)

    found = class_embeddings(encode, ["shelf / bookcase", "armchair"])
    assert "a photo of a shelf" in seen
    assert "a photo of a bookcase" in seen
    assert "a photo of an armchair" in seen
    assert torch.allclose(found.norm(dim=-1), torch.ones(2))
    shelf = [text for text in seen if "shelf" in text or "bookcase" in text]
    assert torch.allclose(found[0], normalize(teacher.encode_text(shelf).mean(0), dim=-1), atol=1e-6)


def test_recall_counts_objects_of_the_same_name():
    gallery = torch.eye(3)
    queries = torch.eye(3)[[1, 0, 2]]
    assert recall(queries, gallery, ["x", "y", "z"], ks=(1, 2))[1] == pytest.approx(1 / 3)
    assert recall(queries, gallery, ["x", "x", "z"], ks=(1,))[1] == 1.0


def test_chance_recall_is_what_random_rankings_give():
    names = ["a", "a", "b", "c", "c", "c", "d", "e", "f", "g"]
    expected = chance_recall(names, ks=(1, 3))
    torch.manual_seed(0)
    trials = [recall(torch.randn(10, 32), torch.randn(10, 32), names, ks=(1, 3)) for _ in range(3000)]
    for k in (1, 3):
        assert sum(t[k] for t in trials) / len(trials) == pytest.approx(expected[k], abs=0.01)
