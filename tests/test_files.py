import errno
import os

import pytest

from splatsense.errors import FormatError
from splatsense.files import atomic_write, check_writable, locked, open_to_read, walk


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

    def write_half_of_it():
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_half_of_it()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EROFS])
def test_a_disk_that_fails_is_our_own_error(tmp_path, number):
    with pytest.raises(FormatError, match=r"a: not written \(.*\); free some space"), atomic_write(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert not os.listdir(tmp_path)


def test_errors_about_other_files_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "absent").read_bytes()
    assert not os.listdir(tmp_path)


def test_two_writers_do_not_meet(tmp_path):
    target = tmp_path / "a"
    with atomic_write(target) as first, atomic_write(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # the outer block ends last
    assert os.listdir(tmp_path) == ["a"]


def test_whether_a_file_can_be_written_is_known_beforehand(tmp_path):
    (tmp_path / "a").write_text("old")
    check_writable(tmp_path / "a")
    check_writable(tmp_path / "b")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"
    with pytest.raises(FormatError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(FormatError, match="check that its folder exists"):
        check_writable(tmp_path / "none" / "a")


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


@pytest.mark.parametrize("name", ["absent.bin", ".", "pipe"])
def test_only_regular_files_are_opened(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        FormatError, match="does not exist" if name == "absent.bin" else "is a folder" if name == "." else "not a regular"
    ):
        open_to_read(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_an_error(tmp_path):
    (tmp_path / "a").touch(mode=0)
    with pytest.raises(FormatError, match="Permission denied"):
        open_to_read(tmp_path / "a")


def test_an_unreadable_path_is_an_error(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        open_to_read(tmp_path / ("n" * 300))


def test_a_writer_that_makes_its_file_private_does_not_make_the_result_private(tmp_path):
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    with atomic_write(tmp_path / "model") as temporary:
        temporary.write_bytes(b"weights")
        temporary.chmod(0o600)
    assert (tmp_path / "model").stat().st_mode == plain.stat().st_mode


def test_a_folder_is_locked_for_one_work_at_a_time(tmp_path):
    folder, message = tmp_path / "made", "made: another study is at work in this folder"
    with locked(folder, "study"), pytest.raises(FormatError, match=message), locked(folder, "study"):
        pass
    with locked(folder, "study"):
        pass


@pytest.mark.parametrize("name", ["x" * 255, "漢" * 85, "😀" * 60])
def test_a_name_may_be_as_long_as_the_disk_takes_it(tmp_path, name):
    with atomic_write(tmp_path / name) as temporary:
        temporary.write_text("new")
    assert os.listdir(tmp_path) == [name]


def test_a_null_byte_in_a_name_is_our_own_error(tmp_path):
    with pytest.raises(FormatError, match="is not a file name"), atomic_write(tmp_path / "a\0b"):
        pass


def test_folders_are_searched_through_links_each_once_and_real_ones_first(tmp_path):
    for folder in ("root/b/inner", "root/c", "elsewhere/deep"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").touch()
    root = tmp_path / "root"
    for link, target in (("a", "c"), ("z", "../elsewhere"), ("b/again", "../../elsewhere"), ("b/inner/up", "../..")):
        (root / link).symlink_to(target)
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (root / "gone").symlink_to("nowhere")
    found = list(walk(root))
    expected = ["", "b", "b/inner", "c", "z", "z/deep"]
    assert [folder for folder, _, _ in found] == [root / name for name in expected]
    assert found[0][1:] == (["a", "b", "c", "z"], ["gone"])
    assert list(walk(tmp_path / "nowhere")) == []
