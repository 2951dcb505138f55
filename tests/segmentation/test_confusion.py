import json
import warnings

import numpy as np
import pytest
from sklearn import metrics

from splatsense.errors import DataError
from splatsense.labels import S3DIS, SCANNET20, SCANNET200
from splatsense.segmentation.confusion import SemanticReport, confusion_matrix


def report(truth, predicted, labels=S3DIS):
    return SemanticReport(labels, confusion_matrix(np.asarray(truth, int), np.asarray(predicted, int), len(labels)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("used", [2, 7, 13])
def test_agrees_with_scikit_learn(seed, used):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(used, size=300), rng.integers(used, size=300)
    truth[::7] = -1
    predicted[100:200] = truth[100:200].clip(0)
    found, kept = report(truth, predicted), truth >= 0
    classes = np.union1d(truth[kept], predicted[kept])
    iou = metrics.jaccard_score(truth[kept], predicted[kept], labels=classes, average=None, zero_division=0)
    assert found.iou[classes] == pytest.approx(iou)
    assert found.mean_iou == pytest.approx(iou.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted and do not occur
        assert found.mean_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth[kept], predicted[kept]))
    assert found.overall_accuracy == pytest.approx(metrics.accuracy_score(truth[kept], predicted[kept]))


def test_a_case_worked_by_hand():
    found = report([0, 0, 0, 1, 1, -1], [0, 0, 1, 1, 2, 5])
    # class 0: 2 of 3; class 1: 1 of 2 true, 3 in the union; class 2: predicted, does not occur
    assert found.iou[:3].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert np.isnan(found.iou[3:]).all()
    assert found.mean_iou == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert found.mean_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found.overall_accuracy == pytest.approx(3 / 5)


def test_matrices_of_scenes_add_up():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(-1, 20, 500), rng.integers(20, size=500)
    parts = sum(confusion_matrix(t, p, 20) for t, p in zip(np.split(truth, 5), np.split(predicted, 5), strict=True))
    assert (parts == confusion_matrix(truth, predicted, 20)).all()


def test_groups_of_scannet200():
    frequencies = np.array([label.frequency for label in SCANNET200.labels])
    truth = np.concatenate([np.flatnonzero(frequencies == group)[:2] for group in ("head", "common", "tail")])
    predicted = truth.copy()
    predicted[1] = truth[0]
    found = report(truth, predicted, SCANNET200).group_iou()
    assert found == pytest.approx({"head": (0.5 + 0) / 2, "common": 1.0, "tail": 1.0})
    assert report([0], [0], SCANNET20).group_iou() == {}


def test_figures_are_json_and_the_table_names_what_occurs():
    found = report([0, 1], [0, 1])
    figures = json.loads(json.dumps(found.figures()))
    assert figures["mean_iou"] == 1
    assert figures["iou"]["sofa"] is None
    assert "ceiling" in str(found)
    assert "sofa" not in str(found)
    assert np.isnan(report([], []).mean_iou)


@pytest.mark.parametrize(("truth", "predicted"), [([13], [0]), ([0], [13]), ([0], [-1])])
def test_labels_of_another_set(truth, predicted):
    with pytest.raises(DataError, match="another label set"):
        report(truth, predicted)


def test_other_lengths():
    with pytest.raises(DataError, match="2 labels but 1 predictions"):
        report([0, 1], [0])
