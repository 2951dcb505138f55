import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.neighbors import NearestCentroid
from torch.nn.functional import normalize

from splatsense.clip_gs.few_shot import FewShotConfig, draw_episodes, few_shot
from splatsense.errors import DataError

SIZES = {"bed": 12, "chair": 9, "desk": 8, "lamp": 7, "rug": 6, "sofa": 3, "": 20}
LABELS = [label for label, size in SIZES.items() for _ in range(size)]
SPLITS = ["train" if i % 3 else "test" for i in range(len(LABELS))]


@pytest.fixture
def embeddings():
    """Classes that overlap: neither always right nor at chance."""
    random = torch.Generator().manual_seed(0)
    centers = {label: torch.randn(16, generator=random) for label in SIZES}
    return normalize(torch.stack([centers[x] + 1.3 * torch.randn(16, generator=random) for x in LABELS]), dim=-1)


@pytest.mark.parametrize("support", ["", "train"])
@pytest.mark.parametrize(("way", "shot"), [(5, 1), (3, 5), (2, 4)])
def test_an_episode_holds_what_was_asked_for(way, shot, support):
    config = FewShotConfig(episodes=6, queries=4, support=support)
    for episode in draw_episodes(LABELS, SPLITS, way, shot, config):
        assert len(episode.support) == way * shot
        assert not set(episode.support) & set(episode.queries)
        assert len(set(episode.queries)) == len(episode.queries)
        assert np.bincount(episode.query_classes, minlength=way).min() >= 1
        assert np.bincount(episode.query_classes).max() <= 4
        named = {}
        for row, number in zip(
            [*episode.support, *episode.queries], [*episode.support_classes, *episode.query_classes], strict=True
        ):
            assert LABELS[row]
            assert named.setdefault(number, LABELS[row]) == LABELS[row]
        assert len(set(named.values())) == way
        if support:
            assert {SPLITS[row] for row in episode.support} == {"train"}
            assert {SPLITS[row] for row in episode.queries} == {"test"}


def test_episodes_depend_on_the_seed_alone():
    def draw(seed, order):
        return draw_episodes(LABELS, SPLITS, 4, 2, FewShotConfig(), seed)[order].queries.tolist()

    assert draw(0, 3) == draw(0, 3)
    assert len({tuple(draw(seed, order)) for seed in (0, 1) for order in range(10)}) == 20


def test_accuracies_are_those_of_scikit_learn(embeddings):
    config = FewShotConfig(queries=5, C=1.0)
    episodes = draw_episodes(LABELS, SPLITS, 5, 3, config)
    found = few_shot(embeddings, episodes, config.C)
    x = embeddings.double().numpy()
    logistic, prototype = [], []
    for e in episodes:
        classifier = Reference(C=1.0, tol=1e-8, max_iter=2000).fit(x[e.support], e.support_classes)
        logistic.append(classifier.score(x[e.queries], e.query_classes))
        centroids = NearestCentroid().fit(x[e.support], e.support_classes).centroids_
        nearest = (x[e.queries] @ (centroids / np.linalg.norm(centroids, axis=1, keepdims=True)).T).argmax(1)
        prototype.append(np.mean(nearest == e.query_classes))
    assert found.logistic == pytest.approx((np.mean(logistic), np.std(logistic, ddof=1)), abs=1e-9)
    assert found.prototype == pytest.approx((np.mean(prototype), np.std(prototype, ddof=1)), abs=1e-9)
    assert 0.3 < found.logistic[0] < 0.95


def test_a_collapsed_model_is_at_chance():
    episodes = draw_episodes(LABELS, SPLITS, 4, 2, FewShotConfig(queries=3))
    found = few_shot(normalize(torch.ones(len(LABELS), 8), dim=-1), episodes, 10.0)
    assert found.prototype == pytest.approx((0.25, 0.0), abs=1e-6)
    assert found.logistic[0] == pytest.approx(0.25, abs=1e-6)


def test_too_few_objects_say_what_there_is():
    with pytest.raises(DataError, match=r"3-way 10-shot needs 3 classes of 11 objects or more; there are 1, .* class has 12"):
        draw_episodes(LABELS, SPLITS, 3, 10, FewShotConfig())
    with pytest.raises(DataError, match="10-way 1-shot needs 10 classes"):
        draw_episodes(LABELS, SPLITS, 10, 1, FewShotConfig())
    with pytest.raises(DataError, match=r"needs 2 classes of 1 objects in split 'validation'.*there are 0"):
        draw_episodes(LABELS, SPLITS, 2, 1, FewShotConfig(support="validation"))


@pytest.mark.parametrize(
    ("settings", "flag"),
    [({"ways": (1,)}, "ways"), ({"shots": (0, 5)}, "shots"), ({"shots": ()}, "shots"), ({"episodes": 1}, "episodes"),
     ({"queries": 0}, "queries"), ({"C": 0.0}, "C")],
)  # fmt: skip
def test_settings_are_checked(settings, flag):
    with pytest.raises(DataError, match=f"--{flag}"):
        FewShotConfig(**settings)
