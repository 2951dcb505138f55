"""Scenes as a command line names them."""

import shutil

import pytest

from splatsense.errors import DataError, FormatError
from splatsense.gaussian_cross.find_scenes import find_scenes


def test_a_scene_a_folder_of_scenes_and_a_corpus(scene_folder, tmp_path):
    for given in (scene_folder, scene_folder.parent, scene_folder.parent.parent):
        assert find_scenes([str(given)], "train", tmp_path) == [scene_folder]
    with pytest.raises(FormatError, match="holds neither scenes"):
        find_scenes([str(tmp_path)], "train", tmp_path / "imported")


def test_recordings_of_one_name_are_not_taken_for_one_another(recording, tmp_path):
    for place in ("kitchen", "office"):
        shutil.copytree(recording, tmp_path / "seven" / place)
    kitchen, office = str(tmp_path / "seven" / "kitchen"), str(tmp_path / "seven" / "office")
    with pytest.raises(DataError, match=r"office: has a recording called seq-01 as .*kitchen has; give the folder above both"):
        find_scenes([kitchen, office], "train", tmp_path / "imported")
    assert find_scenes([kitchen, kitchen], "train", tmp_path / "imported") == 2 * [tmp_path / "imported" / "train" / "seq-01"]
    found = find_scenes([str(tmp_path / "seven")], "train", tmp_path / "imported")
    assert [folder.name for folder in found] == ["kitchen-seq-01", "office-seq-01"]


def test_recordings_imported_with_other_intrinsics_are_not_trained_on(recording, tmp_path):
    imported = tmp_path / "scenes"
    (scene,) = find_scenes([str(recording)], "train", imported, (90.0, 90.0, 48.0, 36.0))
    assert find_scenes([str(recording)], "train", imported, (90.0, 90.0, 48.0, 36.0)) == [scene]
    with pytest.raises(FormatError, match=r"seq-01: was imported with intrinsics \[90\.0, .* delete this folder"):
        find_scenes([str(recording)], "train", imported, (95.0, 95.0, 48.0, 36.0))
    shutil.rmtree(scene)
    assert find_scenes([str(recording)], "train", imported, (95.0, 95.0, 48.0, 36.0)) == [scene]
