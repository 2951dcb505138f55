import gzip
import json

import pytest

from splatsense.corpora.annotations import Annotation, read_annotations
from splatsense.corpora.folder import folder
from splatsense.errors import DataError, FormatError

TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
FILES = ["chairs/one.obj", "two.glb", "lamps/one.obj"]


def write_json(root, content, name="captions.json"):
    (root / name).write_text(json.dumps(content))


def test_csv_entries_name_files_by_path_or_by_a_name_of_their_own(tmp_path):
    (tmp_path / "captions.csv").write_text(
        "\ufefffile,name,tags,captions,split,licence\n"
        'chairs/one.obj,desk chair,"seat; office",a chair | one red chair,test,CC0-1.0\n'
        "two,Table,,,,\n",
        encoding="utf-8",
    )
    found, unknown = read_annotations(tmp_path, FILES)
    assert unknown == ()
    assert found == {
        "chairs/one.obj": Annotation(
            "desk chair", ("seat", "office"), ("a chair", "one red chair"), split="test", licence="CC0-1.0"
        ),
        "two.glb": Annotation("Table", split=""),
    }


def test_json_holds_entries_by_id_or_in_a_list(tmp_path):
    write_json(tmp_path, {"two": {"name": "table", "tags": ["wood"], "caption": "a  table"}, "chairs/one.obj": "just a chair"})
    found, _ = read_annotations(tmp_path, FILES)
    assert found["two.glb"] == Annotation("table", ("wood",), ("a table",))
    assert found["chairs/one.obj"].captions == ("just a chair",)
    write_json(tmp_path, [{"key": "two", "label": "table"}, {"file": "lamps/one.obj", "category": "light"}])
    found, _ = read_annotations(tmp_path, FILES)
    assert (found["two.glb"].label, found["lamps/one.obj"].category) == ("table", "light")


def test_unknown_objects_are_reported_and_do_no_harm(tmp_path, caplog):
    (tmp_path / "chair.obj").write_text(TRIANGLE)
    write_json(tmp_path, {"gone": "a ghost", "chair": "a chair", "lost": "nothing"})
    corpus = folder(tmp_path)
    assert corpus.unknown == ("gone", "lost")
    assert corpus[0].captions == ("a chair",)
    assert "names 2 objects that are not in the folder: gone, lost" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"two": {}, "two.glb": {}}', r"entry 'two.glb': 'two.glb' is named twice, before at entry 'two'"),
     ('{"one": {}}', r"2 files are called 'one'; give the path"),
     ('{"two": {"name": 3}}', r"entry 'two': name must be text, not int"),
     ('{"two": 3}', r"entry 'two': must be an object or a caption"),
     ('[{"name": "x"}]', r"entry 0: lacks `file`"),
     ('{"two": {"split": "val"}}', r'split is \'val\'; use "train", "test"'),
     ("3", "must hold an object of entries"),
     ('{"two"', r"captions\.json: cannot be read as JSON"),
     ("[" * 100_000, r"captions\.json: cannot be read as JSON")],
)  # fmt: skip
def test_what_is_wrong_with_a_json_file_is_said(tmp_path, content, message):
    (tmp_path / "captions.json").write_text(content)
    with pytest.raises(FormatError, match=message):
        read_annotations(tmp_path, FILES)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"name\nx\n", "line 1 lacks the column `file`"), (b"", "lacks the column `file`"),
     (b"file,name\ntwo,x\ntwo.glb,y\n", r"line 3: 'two.glb' is named twice, before at line 2"),
     (b"file,name\ntwo,\xff\xfe\n", "no CSV table in UTF-8"), (b'file,name\ntwo,"x\n', "no CSV table")],
)  # fmt: skip
def test_what_is_wrong_with_a_csv_file_is_said(tmp_path, content, message):
    (tmp_path / "captions.csv").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_annotations(tmp_path, FILES)


def test_two_caption_files_are_one_too_many(tmp_path):
    write_json(tmp_path, {})
    (tmp_path / "captions.csv").write_text("file\n")
    with pytest.raises(FormatError, match="keep one of them"):
        read_annotations(tmp_path, FILES)


def test_an_objaverse_download_brings_its_metadata(tmp_path):
    uids = ["a" * 32, "b" * 32]
    for part, uid in zip(("000-023", "000-101"), uids, strict=True):
        (tmp_path / "glbs" / part).mkdir(parents=True)
        (tmp_path / "glbs" / part / f"{uid}.obj").write_text(TRIANGLE)
    (tmp_path / "metadata").mkdir()
    entry = {
        "uid": uids[0], "name": "Oak  Chair", "tags": [{"name": "wood", "slug": "wood"}, {"name": "seat"}],
        "categories": [{"name": "furniture-home"}], "license": "by-nc", "user": {"displayName": "Ann", "username": "ann1"},
    }  # fmt: skip
    other = {"c" * 32: {"name": "never downloaded"}}
    (tmp_path / "metadata/000-023.json.gz").write_bytes(gzip.compress(json.dumps({uids[0]: entry} | other).encode()))
    lvis = {"folding_chair": uids, "cat": ["c" * 32]}
    (tmp_path / "lvis-annotations.json.gz").write_bytes(gzip.compress(json.dumps(lvis).encode()))
    write_json(tmp_path, {uids[1]: "a chair that folds"})
    first, second = folder(tmp_path)
    assert [first.key, second.key] == uids
    assert (first.name, first.tags, first.category) == ("Oak Chair", ("wood", "seat"), "furniture-home")
    assert (first.licence, first.creator, first.label) == ("CC-BY-NC-4.0", "Ann", "folding chair")
    assert second.captions == ("a chair that folds",)
    (tmp_path / "metadata/000-023.json.gz").write_bytes(b"no gzip")
    with pytest.raises(FormatError, match=r"000-023\.json\.gz: cannot be read"):
        folder(tmp_path)


def test_two_files_of_one_uid_are_an_error(tmp_path):
    for part in ("000-000", "000-001"):
        (tmp_path / "glbs" / part).mkdir(parents=True)
        (tmp_path / "glbs" / part / "uid.obj").write_text(TRIANGLE)
    with pytest.raises(DataError, match="'uid'"):
        folder(tmp_path)
