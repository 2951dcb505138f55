import gzip
import json

import pytest

from splatsense.clip_gs.label_sets import KNOWN, load_label_set
from splatsense.errors import DataError, FormatError


@pytest.mark.parametrize(("name", "count"), [("modelnet40", 40), ("scanobjectnn", 15), ("furniture", 44)])
def test_the_known_sets_are_complete(name, count):
    classes = load_label_set(name).classes
    assert len(set(classes)) == count
    assert all(label.strip() == label and label for label in classes)


def test_labels_match_in_any_spelling():
    found = load_label_set("modelnet40").match("abcd", ["Night Stand", "night-stand", "tv_stand", ""])
    assert found == ["night_stand", "night_stand", "tv_stand", ""]


def test_labels_that_match_nothing_are_listed_with_what_is_near():
    labels = ["armchair"] * 3 + ["bathtubs", "zeppelin"] + [f"thing {i}" for i in range(9)]
    with pytest.raises(DataError) as caught:
        load_label_set("modelnet40").match([str(i) for i in range(len(labels))], labels)
    message = str(caught.value)
    assert "12 labels of 14 objects" in message
    assert "armchair (3): nearest chair" in message
    assert "and 4 more" in message
    assert "--drop-unknown" in message
    assert message.index("armchair") < message.index("bathtubs (1): nearest bathtub")
    dropped = load_label_set("modelnet40").match("abc", ["armchair", "chair", "zeppelin"], drop_unknown=True)
    assert dropped == ["", "chair", ""]


@pytest.fixture
def write(tmp_path):
    def written(name, content):
        path = tmp_path / name
        data = (
            content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
        )
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return written


@pytest.mark.parametrize("name", ["classes.txt", "classes.list"])
def test_a_text_file_holds_a_class_a_line(write, name):
    found = load_label_set(write(name, "\ufeffchair\n\n  night stand \r\ntable"))
    assert found.classes == ("chair", "night stand", "table")
    assert found.name == "classes"


def test_json_lists_and_both_kinds_of_objects(write):
    """The second is the form of Objaverse-LVIS's annotations."""
    assert load_label_set(write("a.json", ["chair", "table"])).classes == ("chair", "table")
    lvis = load_label_set(write("lvis-annotations.json.gz", {"armchair": ["u1", "u2"], "aerosol_can": ["u3"]}))
    assert lvis.name == "lvis-annotations"
    assert lvis.classes == ("armchair", "aerosol_can")
    assert lvis.match(["u3", "u1", "u9"], ["", "said otherwise", "Armchair"]) == ["aerosol_can", "armchair", "armchair"]
    by_key = load_label_set(write("b.json", {"u1": "table", "u2": "chair", "u3": "table"}))
    assert by_key.classes == ("table", "chair")
    assert by_key.match(["u3"], [""]) == ["table"]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("empty.txt", "\n \n", DataError, "holds no class name"),
        ("empty.json", {}, DataError, "holds no class name"),
        ("twice.txt", "night stand\nchair\nNight_Stand\n", DataError, r"class 'Night_Stand' occurs twice \(as 'night stand'\)"),
        ("blank.json", ["chair", " "], DataError, "a class name is blank"),
        ("both.json", {"chair": ["u1"], "table": ["u1"]}, DataError, "object u1 stands under 'chair' and under 'table'"),
        ("numbers.json", [1, 2], FormatError, "expected a list of class names"),
        ("mixed.json", {"chair": ["u1"], "table": "u2"}, FormatError, "expected a list of class names"),
        ("broken.json", "[", FormatError, "is not JSON"),
        ("deep.json", "[" * 100_000, FormatError, "is not JSON"),
        ("binary.txt", b"\xff\xfe\x00", FormatError, "cannot be read as text"),
    ],
)
def test_files_that_are_no_label_set_are_errors(write, name, content, error, message):
    path = write(name, content)
    with pytest.raises(error, match=message) as caught:
        load_label_set(path)
    assert str(path) in str(caught.value)


def test_a_cut_gzip_and_a_missing_file_are_errors(write, tmp_path):
    path = write("a.json.gz", ["chair"])
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(FormatError, match="cannot be read"):
        load_label_set(path)
    with pytest.raises(FormatError, match=f"neither a file nor one of {', '.join(KNOWN)}"):
        load_label_set(tmp_path / "missing.txt")
