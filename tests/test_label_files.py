"""Label sets of a user's own: what a file may say, what a card keeps of it, and what is refused."""

import json

import numpy as np
import pytest

from splatsense.color_distance import srgb_to_lab
from splatsense.errors import DataError, FormatError
from splatsense.label_files import as_json, label_set, label_set_of
from splatsense.labels import S3DIS

WAREHOUSE = {
    "name": "warehouse", "classes": ["floor", "rack", "pallet"], "colors": {"rack": "#C08040"}, "leave_out": ["floor"],
}  # fmt: skip


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_file_gives_names_colours_and_what_is_no_instance(tmp_path):
    labels = label_set(write(tmp_path / "classes.json", WAREHOUSE))
    assert (labels.name, labels.names, labels.array) == ("warehouse", ("floor", "rack", "pallet"), "segment")
    assert labels.leave_out == ("floor",)
    assert labels.colors[1].tolist() == [192, 128, 64]
    shown = srgb_to_lab(np.array([[255, 255, 255], [60, 60, 60], *labels.colors]) / 255)
    apart = np.linalg.norm(shown[:, None] - shown, axis=2)
    assert apart[~np.eye(5, dtype=bool)].min() > 40
    assert label_set_of(as_json(labels), "card") == labels


def test_a_class_at_the_end_changes_no_colour():
    short, long = (label_set_of({"name": "x", "classes": list(names)}, "x") for names in ("abc", "abcd"))
    assert short.colors.tolist() == long.colors[:3].tolist()
    assert short.leave_out == ()


def test_benchmarks_are_known_by_name():
    assert label_set("s3dis") is S3DIS
    assert S3DIS.leave_out == ("wall", "floor")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": []}, "list of 1 to 1000 names"),
        ({"classes": "pallet"}, "list of 1 to 1000 names"),
        ({"classes": ["a", " "]}, "list of 1 to 1000 names"),
        ({"classes": ["pallet", "pallet"], "colors": {}, "leave_out": []}, "'pallet' occurs twice"),
        ({"leave_out": ["wall"]}, "'wall', which is none of its classes"),
        ({"leave_out": "floor"}, '"leave_out" must be a list'),
        ({"colors": {"wall": "#000000"}}, "'wall', which is none of the classes"),
        ({"colors": {"rack": "red"}}, "the colour of 'rack' is 'red'"),
        ({"colors": ["#000000"]}, '"colors" must be an object'),
        ({"name": "ScanNet20"}, '"name" must be a text other than scannet20'),
        ({"name": None}, '"name" must be'),
        ({"colours": {}}, "unknown entry 'colours'"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path, changes, message):
    path = write(tmp_path / "classes.json", WAREHOUSE | changes)
    with pytest.raises(DataError, match=message) as caught:
        label_set(path)
    assert path in str(caught.value)


def test_files_that_are_missing_or_no_json(tmp_path):
    with pytest.raises(FormatError, match="--labels scannet2: neither one of scannet20, scannet200, s3dis nor"):
        label_set("scannet2")
    with pytest.raises(FormatError, match=r"classes\.json: is not JSON"):
        label_set(write(tmp_path / "classes.json", "floor\npallet\n"))
