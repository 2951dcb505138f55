import os

import pytest

from splatsense.errors import FormatError
from splatsense.files import atomic_write


@pytest.mark.parametrize("fsync", [False, True])
def test_the_file_appears_only_when_complete(tmp_path, fsync):
    target = tmp_path / "a.json"
    with atomic_write(target, fsync=fsync) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")

    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk full")

    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_two_writers_do_not_meet(tmp_path):
    target = tmp_path / "a"
    with atomic_write(target) as first, atomic_write(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # the outer block ends last
    assert os.listdir(tmp_path) == ["a"]


def test_long_names_fit(tmp_path):
    target = tmp_path / ("n" * 250)
    with atomic_write(target) as temporary:
        temporary.write_text("x")
    assert target.read_text() == "x"


def test_new_files_get_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "ours"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_as_target_is_an_error(tmp_path):
    with pytest.raises(FormatError, match="is a folder"), atomic_write(tmp_path):
        pass


def test_a_missing_folder_is_an_error(tmp_path):
    with (
        pytest.raises(FormatError, match=r"absent/a: cannot be written \(No such file or directory\)"),
        atomic_write(tmp_path / "absent" / "a"),
    ):
        pass
