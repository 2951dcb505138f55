import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.model_selection import StratifiedKFold
from torch.nn.functional import normalize

from splatsense.clip_gs.linear_probe import LinearProbeConfig, linear_probe, stratified_folds
from splatsense.errors import DataError

CONFIG = LinearProbeConfig(strengths=(0.1, 1.0, 10.0), folds=3)


@pytest.fixture
def data():
    random = torch.Generator().manual_seed(1)
    centers = torch.randn(4, 12, generator=random)
    classes = torch.randint(0, 4, (160,), generator=random)
    features = normalize(centers[classes] + 1.2 * torch.randn(160, 12, generator=random), dim=-1)
    names = ["bed", "chair", "desk", "lamp"]
    labels = [names[i] for i in classes]
    return features[:100], labels[:100], features[100:], labels[100:]


def test_accuracy_is_that_of_scikit_learn_at_the_chosen_strength(data):
    train, train_labels, test, test_labels = data
    found = linear_probe(train, train_labels, test, test_labels, CONFIG)
    assert set(found.validation) == {0.1, 1.0, 10.0}
    assert max(found.validation, key=lambda C: (found.validation[C], -C)) == found.C
    reference = Reference(C=found.C, tol=1e-8, max_iter=2000).fit(train.double().numpy(), train_labels)
    assert found.test.top1 == pytest.approx(reference.score(test.double().numpy(), test_labels), abs=1e-9)


def test_the_choice_never_sees_the_test_split(data):
    train, train_labels, test, test_labels = data
    found = linear_probe(train, train_labels, test, test_labels, CONFIG)
    other = linear_probe(train, train_labels, test.flip(1), test_labels[::-1], CONFIG)
    assert (other.C, other.validation) == (found.C, found.validation)


def test_cross_validation_is_that_of_scikit_learn(data):
    train, train_labels, test, test_labels = data
    folds = stratified_folds(np.unique(train_labels, return_inverse=True)[1], 3, 0)
    x, y = train.double().numpy(), np.array(train_labels)
    for C, accuracy in linear_probe(train, train_labels, test, test_labels, CONFIG).validation.items():
        right = 0
        for fold in range(3):
            held = folds == fold
            right += (Reference(C=C, tol=1e-8, max_iter=2000).fit(x[~held], y[~held]).predict(x[held]) == y[held]).sum()
        assert accuracy == pytest.approx(right / len(y), abs=0.011)  # one object on a boundary may fall either way


@pytest.mark.parametrize("seed", range(3))
def test_folds_are_as_even_as_those_of_scikit_learn(seed):
    classes = np.random.default_rng(seed).choice(5, 150, p=[0.4, 0.2, 0.2, 0.1, 0.1])
    folds = stratified_folds(classes, 5, seed)
    sizes = np.bincount(folds, minlength=5)
    assert sizes.max() - sizes.min() <= 1
    theirs = [np.bincount(classes[test], minlength=5) for _, test in StratifiedKFold(5).split(classes, classes)]
    for number, counts in enumerate(np.transpose(theirs)):
        assert sorted(np.bincount(folds[classes == number], minlength=5)) == sorted(counts)
    assert not np.array_equal(folds, stratified_folds(classes, 5, seed + 1))


def test_classes_with_one_training_object_are_learned_from_all_the_same(data):
    train, train_labels, *_ = data
    far = torch.zeros(1, 12)
    far[0, 0] = -1
    found = linear_probe(torch.cat([train, far]), [*train_labels, "rug"], far, ["rug"], LinearProbeConfig(strengths=(100.0,)))
    assert found.test.by_class == {"rug": (1.0, 1)}


def test_classes_that_were_never_seen_are_named(data):
    train, train_labels, test, test_labels = data
    with pytest.raises(DataError, match="no training object of sofa"):
        linear_probe(train, train_labels, test, [*test_labels[:-1], "sofa"])
    with pytest.raises(DataError, match="two classes or more"):
        linear_probe(train, ["bed"] * len(train), test, ["bed"] * len(test))


def test_settings_are_checked():
    with pytest.raises(DataError, match="--folds"):
        LinearProbeConfig(folds=1)
    with pytest.raises(DataError, match="--strengths"):
        LinearProbeConfig(strengths=(1.0, 0.0))
