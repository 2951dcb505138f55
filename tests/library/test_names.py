import pytest

from splatsense.library.names import asset_name, words_of
from splatsense.library.tags import default_labels
from splatsense.tables import counted, printable, size_text, table


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("OakChair_02-final", "oak chair final"),
        ("wooden chair", "wooden chair"),
        ("bed1", "bed"),
        ("3DModel", "3d model"),
        ("42", "42"),
        ("стул_дубовый", "стул дубовый"),
        ("HTMLPage", "html page"),
    ],
)
def test_words_of_file_names(stem, words):
    assert words_of(stem) == words


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/x/chair.ply", "chair"),
        ("/x/OakChair.compressed.ply", "oak chair"),
        ("/x/old_tree/scene.gltf", "old tree"),
        ("/x/Garden Gnome/point_cloud/iteration_30000/point_cloud.ply", "garden gnome"),
        ("scene.gltf", "scene"),
        ("/x/---.ply", "x"),
    ],
)
def test_asset_names(path, name):
    assert asset_name(path) == name


def test_printable_keeps_text_and_escapes_the_rest():
    assert printable("椅子 chair") == "椅子 chair"
    assert printable("a\nb\x1b[31m\udce9") == "a\\nb\\x1b[31m\\udce9"


def test_tables_align():
    assert table([("#", "name"), (1, "椅子"), (10, "a\nb")], "><") == "   #  name\n   1  椅子\n  10  a\\nb"
    assert table([("椅子", 1), ("a", 22)], "<>") == "  椅子   1\n  a     22"
    assert (counted(1, "asset"), counted(1200, "asset")) == ("1 asset", "1,200 assets")
    assert [size_text(size) for size in (1, 999, 22_656, 2_500_000)] == ["1 byte", "999 bytes", "22.7 kB", "2.5 MB"]


def test_default_labels_are_distinct_names():
    labels = default_labels()
    assert len(labels) == len(set(labels)) > 200
    assert all(label == label.strip().lower() for label in labels)
