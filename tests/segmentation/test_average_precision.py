import json

import numpy as np
import pytest

from splatsense.errors import DataError
from splatsense.labels import S3DIS, SCANNET20
from splatsense.segmentation.average_precision import THRESHOLDS, InstanceEvaluation, Proposals, area_under_curve

CABINET, CHAIR = SCANNET20.index("cabinet"), SCANNET20.index("chair")
LEAVE_OUT = ("wall", "floor")
SIZE = 1000  # points of a scene made of runs


def scene(*runs):
    """Truth of consecutive runs (points, class, instance); the rest has neither."""
    semantic, instance = np.full(SIZE, -1, np.int16), np.full(SIZE, -1, np.int32)
    at = 0
    for points, label, number in runs:
        semantic[at : at + points], instance[at : at + points] = label, number
        at += points
    return semantic, instance


def proposals(*found):
    """Of (first point, last point, class, score)."""
    masks = np.zeros((len(found), SIZE), bool)
    for row, (start, stop, _, _) in enumerate(found):
        masks[row, start:stop] = True
    return Proposals(masks, np.array([f[2] for f in found], np.int64), np.array([f[3] for f in found], float))


def scores(*scenes):
    evaluation = InstanceEvaluation(SCANNET20, LEAVE_OUT)
    for found, truth in scenes:
        evaluation.add(found, *truth)
    return evaluation.report()


def chair_ap(*scenes):
    return scores(*scenes).by_class[CHAIR].tolist()


def test_thresholds_are_those_of_the_benchmark():
    assert pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.25]) == list(THRESHOLDS)


def test_a_perfect_prediction():
    truth = scene((200, CHAIR, 1), (300, CHAIR, 2))
    assert chair_ap((proposals((0, 200, CHAIR, 0.9), (200, 500, CHAIR, 0.8)), truth)) == [1, 1, 1]


def test_an_iou_counts_at_the_thresholds_below_it_only():
    # 150 of 200 points: IoU 0.75, which must be exceeded: 0.5 to 0.7 are five of nine thresholds
    found = chair_ap((proposals((0, 150, CHAIR, 0.9)), scene((200, CHAIR, 1))))
    assert found == pytest.approx([5 / 9, 1, 1])


def test_a_false_positive_with_a_higher_score():
    # curve: (recall 1, precision 1/2), (0, 0), then the artificial end (0, 1): steps of recall 1/2 and 1/2
    truth = scene((200, CHAIR, 1), (300, CABINET, 2))
    found = chair_ap((proposals((0, 200, CHAIR, 0.5), (200, 500, CHAIR, 0.9)), truth))
    assert found == pytest.approx([0.25, 0.25, 0.25])


def test_a_false_positive_with_a_lower_score_costs_less():
    # (1, 1/2), (1, 1), (0, 1): steps 0, 1/2, 1/2
    truth = scene((200, CHAIR, 1), (300, CABINET, 2))
    found = chair_ap((proposals((0, 200, CHAIR, 0.9), (200, 500, CHAIR, 0.5)), truth))
    assert found == pytest.approx([1, 1, 1])


def test_a_missed_instance():
    # (1/2, 1), (0, 1): steps 1/4 and 1/4 of the convolution
    truth = scene((200, CHAIR, 1), (300, CHAIR, 2))
    assert chair_ap((proposals((0, 200, CHAIR, 0.9)), truth)) == pytest.approx([0.5, 0.5, 0.5])


def test_a_second_prediction_of_an_instance_is_a_false_positive_with_the_lower_score():
    truth = scene((200, CHAIR, 1))
    twice = proposals((0, 200, CHAIR, 0.3), (0, 190, CHAIR, 0.9))
    assert chair_ap((twice, truth)) == pytest.approx([1, 1, 1])  # the higher of both scores is the hit's
    # a chair elsewhere that is sure and wrong stands above both now
    truth = scene((200, CHAIR, 1), (200, CABINET, 1))
    thrice = proposals((0, 200, CHAIR, 0.3), (0, 190, CHAIR, 0.8), (200, 400, CHAIR, 0.9))
    # hit 0.8; false 0.3 and 0.9: (1, 1/3), (1, 1/2), (0, 0), (0, 1): steps 0, 1/2, 1/2, 0
    assert chair_ap((thrice, truth)) == pytest.approx([0.25, 0.25, 0.25])


def test_predictions_on_void_are_ignored():
    # 300 points without a class, and a wall, which is no instance class
    truth = scene((200, CHAIR, 1), (300, -1, -1), (300, SCANNET20.index("wall"), 4))
    found = proposals((0, 200, CHAIR, 0.5), (200, 500, CHAIR, 0.9), (500, 800, CHAIR, 0.8))
    assert chair_ap((found, truth)) == [1, 1, 1]


def test_the_share_that_is_void_must_exceed_the_threshold():
    # 60 % void: ignored at 0.5 and 0.55 and 0.25, a false positive from 0.6 on, where it halves what is 1 to 1/4
    truth = scene((200, CHAIR, 1), (200, CABINET, 2), (300, -1, -1))
    found = proposals((0, 200, CHAIR, 0.5), (200, 700, CHAIR, 0.9))
    assert chair_ap((found, truth)) == pytest.approx([(2 * 1 + 7 * 0.25) / 9, 1, 1])


def test_tiny_instances_neither_count_nor_are_missed():
    truth = scene((200, CHAIR, 1), (99, CHAIR, 2))
    assert chair_ap((proposals((0, 200, CHAIR, 0.9)), truth)) == [1, 1, 1]
    assert scores((proposals((0, 200, CHAIR, 0.9)), truth)).counts[CHAIR] == 1


def test_a_prediction_of_a_tiny_instance_is_ignored_and_a_tiny_prediction_does_not_exist():
    # 100 points, 70 of them on a tiny chair: matched up to 0.65; above, the 70 % that are ignored do not exceed the threshold
    truth = scene((200, CHAIR, 1), (70, CHAIR, 2), (200, CABINET, 3))
    found = proposals((0, 200, CHAIR, 0.5), (200, 300, CHAIR, 0.9))
    assert chair_ap((found, truth)) == pytest.approx([(4 * 1 + 5 * 0.25) / 9, 1, 1])
    found = proposals((0, 200, CHAIR, 0.5), (270, 369, CHAIR, 0.9))
    assert chair_ap((found, truth)) == [1, 1, 1]


def test_classes_without_truth_do_not_count_and_those_without_predictions_are_zero():
    truth = scene((200, CHAIR, 1), (200, CABINET, 2))
    found = scores((proposals((0, 200, CHAIR, 0.9), (0, 200, SCANNET20.index("sofa"), 0.9)), truth))
    assert found.by_class[CABINET].tolist() == [0, 0, 0]
    assert np.isnan(found.by_class[SCANNET20.index("sofa")]).all()
    assert (found.ap, found.ap50, found.ap25) == (0.5, 0.5, 0.5)


def test_all_predictions_ignored_is_zero():
    truth = scene((200, CHAIR, 1), (300, -1, -1))
    assert chair_ap((proposals((200, 500, CHAIR, 0.9)), truth)) == [0, 0, 0]


def test_equal_scores_enter_together():
    assert area_under_curve(np.array([0.5]), np.array([0.5]), 0) == pytest.approx(0.5 * 0.5 + 1 * 0.5)


def test_scenes_are_scored_together():
    good = (proposals((0, 200, CHAIR, 0.9)), scene((200, CHAIR, 1)))
    wrong = (proposals((0, 200, CHAIR, 0.95)), scene((200, CABINET, 1)))
    assert chair_ap(good, wrong) == pytest.approx([0.25, 0.25, 0.25])


def reference_ap(scenes, label, threshold):
    """The benchmark's rules on sets of points, scene by scene and pair by pair."""
    events, missed, any_truth, any_found = [], 0, False, False
    for found, (semantic, instance) in scenes:
        points_of = {}
        for point, (c, i) in enumerate(zip(semantic.tolist(), instance.tolist(), strict=True)):
            if i >= 0 and c >= 0 and SCANNET20.names[c] not in LEAVE_OUT:
                points_of.setdefault((c, i), set()).add(point)
        void = set(range(SIZE)).difference(*points_of.values())
        truths = [points for (c, _), points in sorted(points_of.items()) if c == label]
        guesses = [(set(np.flatnonzero(m).tolist()), float(s))
                   for m, c, s in zip(found.masks, found.labels, found.scores, strict=True) if c == label]  # fmt: skip
        guesses = [guess for guess in guesses if len(guess[0]) >= 100]
        any_truth |= any(len(points) >= 100 for points in truths)
        any_found |= bool(guesses)
        taken = set()
        for points in truths:
            if len(points) < 100:
                continue
            hit = None
            for number, (guess, score) in enumerate(guesses):
                if number in taken or not len(guess & points) / len(guess | points) > threshold:
                    continue
                if hit is None:
                    hit = score
                    taken.add(number)
                else:
                    events.append((min(hit, score), False))
                    hit = max(hit, score)
            if hit is None:
                missed += 1
            else:
                events.append((hit, True))
        for guess, score in guesses:
            if any(len(guess & points) / len(guess | points) > threshold for points in truths):
                continue
            ignored = len(guess & void) + sum(len(guess & points) for points in truths if len(points) < 100)
            if ignored / len(guess) <= threshold:
                events.append((score, False))
    if not any_truth:
        return float("nan")
    if not any_found:
        return 0.0
    hits = sum(is_hit for _, is_hit in events)
    curve = []  # recall and precision from the lowest score on
    for score in sorted({score for score, _ in events}):
        above = [is_hit for other, is_hit in events if other >= score]
        curve.append((sum(above) / (hits + missed), sum(above) / len(above)))
    curve.append((0.0, 1.0))
    recall = [curve[0][0], *(r for r, _ in curve), 0.0]
    return sum(p * (recall[k] - recall[k + 2]) / 2 for k, (_, p) in enumerate(curve))


def random_scene(rng):
    runs, at = [], 0
    while at < 900:
        points = int(rng.choice([60, 99, 100, 120, 180, 250]))
        runs.append((points, int(rng.choice([-1, 0, CABINET, CHAIR, CHAIR])), int(rng.integers(6))))
        at += points
    semantic, instance = scene(*runs)
    semantic, instance = semantic[:SIZE], instance[:SIZE]
    found = []
    for _ in range(int(rng.integers(9))):
        start = int(rng.integers(850))
        found.append((start, start + int(rng.choice([50, 100, 130, 200, 400])), int(rng.choice([0, CABINET, CHAIR, CHAIR])),
                      float(rng.choice([0.1, 0.3, 0.5, 0.5, 0.9]))))  # fmt: skip
    return proposals(*found), (semantic, instance)


@pytest.mark.parametrize("seed", range(30))
def test_agrees_with_sets_on_random_scenes(seed):
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(3)]
    table = scores(*scenes).table
    for label in (CABINET, CHAIR):
        expected = [reference_ap(scenes, label, threshold) for threshold in THRESHOLDS]
        assert table[label].tolist() == pytest.approx(expected, nan_ok=True, abs=1e-12)


def test_report():
    found = scores((proposals((0, 200, CHAIR, 0.9)), scene((200, CHAIR, 1))))
    figures = json.loads(json.dumps(found.figures()))
    assert figures["ap"] == figures["classes"]["chair"]["ap50"] == 1
    assert figures["classes"]["sofa"]["ap"] is None
    assert "chair" in str(found)
    assert "sofa" not in str(found)


def test_bad_input():
    with pytest.raises(DataError, match="no class of s3dis"):
        InstanceEvaluation(S3DIS, ("bed",))
    evaluation, truth = InstanceEvaluation(SCANNET20, LEAVE_OUT), scene((200, CHAIR, 1))
    with pytest.raises(DataError, match="same points"):
        evaluation.add(proposals((0, 200, CHAIR, 0.9)), truth[0][:10], truth[1][:10])
    with pytest.raises(DataError, match="outside -1 to 19"):
        evaluation.add(proposals((0, 200, 20, 0.9)), *truth)
    with pytest.raises(DataError, match="finite"):
        proposals((0, 200, CHAIR, float("nan")))
    with pytest.raises(DataError, match="1 masks, 1 labels, 2 scores"):
        Proposals(np.zeros((1, 5), bool), np.zeros(1, np.int64), np.zeros(2))
