"""The label tables against figures that the benchmarks state about themselves."""

from collections import Counter

import numpy as np

from splatsense.corpora.furniture import _class_table
from splatsense.labels import FURNITURE_TO_SCANNET200, S3DIS, SCANNET20, SCANNET200, scannet_labels


def test_scannet20_has_the_benchmarks_ids_and_order():
    assert [label.id for label in SCANNET20.labels] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39]
    assert (SCANNET20.names[0], SCANNET20.names[1], SCANNET20.names[-1]) == ("wall", "floor", "otherfurniture")
    assert SCANNET20.colors[0].tolist() == [174, 199, 232]


def test_scannet200_is_split_into_66_head_68_common_and_66_tail_classes():
    assert len(SCANNET200) == len(set(SCANNET200.names)) == 200
    assert Counter(label.frequency for label in SCANNET200.labels) == {"head": 66, "common": 68, "tail": 66}
    assert [label.id for label in SCANNET200.labels][-3:] == [1189, 1190, 1191]
    assert SCANNET200.labels[SCANNET200.index("guitar")].frequency == "tail"
    assert {label.scannet20 for label in SCANNET200.labels} - {""} == set(SCANNET20.names)


def test_s3dis_has_13_classes():
    assert S3DIS.names[:3] == ("ceiling", "floor", "wall")
    assert S3DIS.index("clutter") == 12


def test_ids_become_indices_and_unknown_ones_none():
    assert SCANNET20.index_of_ids(np.array([[1, 39], [13, 0], [40, 9999], [-5, 24]])).tolist() == [
        [0, 19], [-1, -1], [-1, -1], [-1, 14],
    ]  # fmt: skip
    assert SCANNET200.index_of_ids(np.array([1191, 1, 12])).tolist() == [199, 0, -1]


def test_every_furniture_class_that_has_a_name_maps_to_a_class_that_exists():
    classes = {row["class"] for row in _class_table().values()}
    assert set(FURNITURE_TO_SCANNET200) <= classes
    assert all(SCANNET200.index(name) >= 0 for name in FURNITURE_TO_SCANNET200.values())
    assert scannet_labels(FURNITURE_TO_SCANNET200["sofa"]) == (SCANNET20.index("sofa"), SCANNET200.index("couch"))
    assert scannet_labels(FURNITURE_TO_SCANNET200["lamp"]) == (-1, SCANNET200.index("lamp"))
    assert scannet_labels("rock") == (-1, -1)
    assert scannet_labels("ceiling") == (-1, SCANNET200.index("ceiling"))
