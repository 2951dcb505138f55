import dataclasses

import pytest
import torch
from sklearn.metrics import accuracy_score, recall_score
from torch.nn.functional import normalize

from splatsense.clip_gs.prompts import ENSEMBLE, TEMPLATES, class_embeddings
from splatsense.clip_gs.zero_shot import chance, classification, majority, zero_shot
from splatsense.errors import DataError


def test_accuracies_worked_by_hand():
    classes = torch.eye(4)
    objects = normalize(
        torch.tensor([[1.0, 0.2, 0.1, 0], [0.5, 0.4, 0.3, 0], [0.1, 0.2, 0.9, 0.3], [0.9, 0.8, 0.7, 0.6]]), dim=-1
    )
    found = zero_shot(objects, classes, ["a", "b", "c", "d"], ["a", "b", "c", "d"])
    assert (found.top1, found.top3, found.top5) == (0.5, 0.75, 1.0)
    assert found.class_mean == 0.5
    assert found.by_class == {"a": (1, 1), "b": (0, 1), "c": (1, 1), "d": (0, 1)}


def test_accuracies_are_those_of_scikit_learn():
    torch.manual_seed(0)
    names = [f"class {i}" for i in range(9)]
    labels = [names[i] for i in torch.randint(0, 7, (400,))]  # two classes have no object but can be chosen
    scores = torch.randn(400, 9)
    found = classification(scores, labels, names)
    chosen = [names[i] for i in scores.argmax(1)]
    assert found.top1 == pytest.approx(accuracy_score(labels, chosen))
    recalls = recall_score(labels, chosen, labels=sorted(set(labels)), average="macro")
    assert found.class_mean == pytest.approx(recalls, abs=1e-12)
    assert set(found.by_class) == set(labels)
    assert found.top1_interval[0] < found.top1 < found.top1_interval[1]


def test_class_mean_weighs_classes_not_objects():
    objects = torch.eye(2)[[0, 0, 0, 0]]
    found = zero_shot(objects, torch.eye(2), ["a", "a", "a", "b"], ["a", "b"])
    assert found.top1 == 0.75
    assert found.class_mean == 0.5


def test_one_class_is_always_right_and_a_collapsed_model_is_at_chance():
    assert zero_shot(torch.eye(3), torch.eye(3)[:1], ["a"] * 3, ["a"]).top1 == 1
    collapsed = zero_shot(torch.ones(6, 3), torch.ones(4, 3), list("aaabbd"), list("abcd"))
    assert (collapsed.top1, collapsed.top3, collapsed.class_mean) == (0.25, 0.75, 0.25)
    assert dataclasses.asdict(collapsed) == dataclasses.asdict(chance(list("aaabbd"), list("abcd")))


def test_the_most_frequent_class_is_what_frequencies_give():
    found = majority(list("aabbbc"), list("abbc"))
    assert found.by_class == {"a": (0, 1), "b": (2, 2), "c": (0, 1)}
    assert majority(list("aabb"), list("abbb")).top1 == 0.5  # a draw between the two


def test_unknown_labels_are_named():
    with pytest.raises(DataError, match="zebra"):
        zero_shot(torch.eye(2), torch.eye(2), ["a", "zebra"], ["a", "b"])
    with pytest.raises(DataError, match="no objects"):
        zero_shot(torch.zeros(0, 2), torch.eye(2), [], ["a", "b"])


def test_there_are_64_different_templates_and_each_names_the_object():
    assert len(set(ENSEMBLE)) == 64
    assert all("{name}" in template for templates in TEMPLATES.values() for template in templates)


def test_synonyms_and_templates_are_averaged(teacher):
    seen = []

    def encode(texts):
        seen.extend(texts)
        return teacher.encode_text(texts)

    found = class_embeddings(encode, ["shelf / book_case", "armchair"])
    assert "a photo of a shelf" in seen
    assert "a photo of a book case" in seen
    assert "a photo of an armchair" in seen
    assert len(seen) == 3 * 64
    assert torch.allclose(found.norm(dim=-1), torch.ones(2))
    shelf = [text for text in seen if "shelf" in text or "book case" in text]
    assert torch.allclose(found[0], normalize(teacher.encode_text(shelf).mean(0), dim=-1), atol=1e-6)


def test_class_names_without_words_are_errors(teacher):
    with pytest.raises(DataError, match="' / _' holds no word"):
        class_embeddings(teacher.encode_text, ["chair", " / _"])
    with pytest.raises(DataError, match="at least one"):
        class_embeddings(teacher.encode_text, [])
