import contextlib
import fcntl
import itertools
import json
import logging
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from splatsense.cli import main
from splatsense.clip_gs import build
from splatsense.clip_gs.build import RunConfig, build_triplets, triplets_build
from splatsense.clip_gs.manifest import check_same
from splatsense.clip_gs.shards import read_shard, shard_paths
from splatsense.clip_gs.triplets import TripletConfig
from splatsense.corpora import CorpusObject
from splatsense.corpora.folder import folder
from splatsense.errors import DataError, FormatError
from splatsense.io import load, save

SMALL = TripletConfig(method="surface", gaussians=64, views=3, size=32, shard_size=3)
HERE = RunConfig(workers=0)


def broken(key: str) -> CorpusObject:
    def fail():
        raise DataError(f"{key}: holds no faces.")

    return CorpusObject(key, key, fail)


def counting(boxes, calls):
    """The same objects, which note when they are read."""

    def read(item):
        calls.append(item.key)
        return item.load_mesh()

    return [replace(item, load_mesh=partial(read, item)) for item in boxes]


def contents(out):
    return {path.name: path.read_bytes() for path in shard_paths([out])}


def test_shards_hold_the_corpus_in_order_and_the_manifest_what_failed(boxes, tmp_path):
    report = build_triplets([*boxes[:2], broken("empty_model"), *boxes[2:5]], tmp_path, SMALL)
    assert report.failures == {"empty_model": "empty_model: holds no faces."}
    assert not report.over_budget
    assert list(contents(tmp_path)) == ["triplets-00000.tar", "triplets-00001.tar"]
    read = [triplet.key for path in shard_paths([tmp_path]) for triplet in read_shard(path)]
    assert read == [item.key for item in boxes[:5]]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest == report.manifest
    assert manifest["summary"]["samples"] == 5
    assert manifest["summary"]["failures"] == 1
    assert manifest["summary"]["complete"] is True
    assert manifest["settings"]["gaussians"] == 64
    first = manifest["shards"]["triplets-00000.tar"]
    assert first["failures"] == report.failures
    assert first["bytes"] == (tmp_path / "triplets-00000.tar").stat().st_size
    assert first["seconds"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "manifest.json", *contents(tmp_path)]


def test_a_build_that_was_stopped_goes_on_with_the_next_object(boxes, tmp_path):
    calls: list[str] = []
    corpus = counting(boxes, calls)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_triplets([*corpus[:4], replace(corpus[4], load_mesh=interrupt), *corpus[5:]], tmp_path / "a", SMALL)
    assert calls == [item.key for item in boxes[:4]]
    assert sorted(path.name for path in (tmp_path / "a/unfinished").iterdir()) == [
        f"{boxes[3].key}.json",
        f"{boxes[3].key}.tar",
    ]
    calls.clear()
    report = build_triplets(corpus, tmp_path / "a", SMALL)
    assert calls == [item.key for item in boxes[4:]]
    assert report.made == 4
    build_triplets(boxes, tmp_path / "b", SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert build_triplets(corpus, tmp_path / "a", SMALL).made == 0


@pytest.mark.parametrize("damage", ["removed", "cut short"])
def test_a_shard_that_is_gone_or_cut_short_is_built_again_with_its_embeddings(boxes, tmp_path, damage):
    calls: list[str] = []
    corpus = counting(boxes, calls)
    build_triplets(corpus, tmp_path, SMALL)
    before = contents(tmp_path)
    victim = tmp_path / "triplets-00001.tar"
    embeddings = tmp_path / "triplets-00001.0123456789ab.safetensors"
    embeddings.write_bytes(b"of the old shard")
    victim.unlink() if damage == "removed" else os.truncate(victim, 5000)
    calls.clear()
    build_triplets(corpus, tmp_path, SMALL)
    assert calls == [item.key for item in boxes[3:6]]
    assert contents(tmp_path) == before
    assert not embeddings.exists()


def test_what_a_kill_leaves_between_any_two_steps_is_taken_up(boxes, tmp_path, monkeypatch):
    """Stop before every write, renaming and removal of a build in turn; each time a new build completes it without loss."""
    tiny = replace(SMALL, views=1, held_out=0, shard_size=2, size=8)
    build_triplets(boxes[:3], tmp_path / "whole", tiny)
    monkeypatch.setattr("splatsense.files._flush_to_disk", lambda path: None)  # slow, and no matter of order
    steps_left = 0

    def stopping(real):
        def step(*args, **kwargs):
            nonlocal steps_left
            steps_left -= 1
            if steps_left == -1:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return step

    for stop in itertools.count():
        out, steps_left = tmp_path / f"out{stop}", stop
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            for name in ("unlink", "replace", "write_bytes"):
                patch.setattr(Path, name, stopping(getattr(Path, name)))
            build_triplets(boxes[:3], out, tiny)
        if steps_left >= 0:
            break
        assert build_triplets(boxes[:3], out, tiny).manifest["summary"]["complete"] is True
        assert contents(out) == contents(tmp_path / "whole")
        assert not (out / "unfinished").exists()
    assert stop > 20


def test_failures_are_kept_until_they_are_asked_to_be_tried_again(boxes, tmp_path):
    corpus = [*boxes[:2], broken("late"), boxes[2], broken("later")]
    assert set(build_triplets(corpus, tmp_path, SMALL).failures) == {"late", "later"}
    late, later = (replace(item, load_mesh=box.load_mesh) for item, box in zip(corpus[2::2], boxes[5:7], strict=True))
    mended = [*boxes[:2], late, boxes[2], later]
    assert set(build_triplets(mended, tmp_path, SMALL).failures) == {"late", "later"}
    report = build_triplets(mended, tmp_path, SMALL, replace(HERE, retry_failures=True))
    assert report.failures == {}
    assert report.made == 2
    build_triplets(mended, tmp_path / "fresh", SMALL)
    assert contents(tmp_path) == contents(tmp_path / "fresh")


def test_a_build_over_its_budget_of_failures_stops(boxes, tmp_path):
    calls: list[str] = []
    corpus = [boxes[0], broken("a"), broken("b"), broken("c"), *counting(boxes[1:], calls)]
    report = build_triplets(corpus, tmp_path, SMALL, replace(HERE, max_failures=2))
    assert report.over_budget
    assert list(report.failures) == ["a", "b", "c"]
    assert calls == []
    assert not build_triplets(corpus, tmp_path, SMALL, replace(HERE, max_failures=3)).over_budget
    assert build_triplets(corpus, tmp_path, SMALL, replace(HERE, max_failures=2)).over_budget


def test_an_error_that_is_not_ours_is_a_failure_with_its_place(boxes, tmp_path):
    def bug():
        return 1 // 0

    report = build_triplets([boxes[0], CorpusObject("bug", "bug", bug)], tmp_path, SMALL)
    assert list(report.failures) == ["bug"]
    assert "unexpected ZeroDivisionError at test_build.py:" in report.failures["bug"]


def test_other_settings_and_other_objects_do_not_mix(boxes, tmp_path):
    build_triplets(boxes[:2], tmp_path, SMALL)
    with pytest.raises(FormatError, match=r"other settings \(gaussians 64 there, 32 now; views 3 there, 4 now\)"):
        build_triplets(boxes[:2], tmp_path, replace(SMALL, gaussians=32, views=4))
    with pytest.raises(FormatError, match="number of objects 2 there, 3 now"):
        build_triplets(boxes[:3], tmp_path, SMALL)
    with pytest.raises(FormatError, match="set of objects"):
        build_triplets(boxes[1:3], tmp_path, SMALL)
    told = replace(boxes[0], captions=("A box, as its owner says.",))
    with pytest.raises(FormatError, match="words about the objects"):
        build_triplets([told, boxes[1]], tmp_path, SMALL)
    build_triplets(boxes[:2], tmp_path, SMALL)


def test_of_other_settings_of_a_fit_those_are_named_that_differ(tmp_path):
    def manifest(**changes):
        fit = {"gaussians": 512, "steps": [150, 150]} | changes
        return {"corpus": "a", "objects": 1, "keys_sha256": "0", "settings": {"method": "fitted", "gaussians": 512, "fit": fit}}

    check_same(tmp_path, manifest(), manifest())
    with pytest.raises(FormatError, match=r"other settings \(fit\.steps \[150, 150\] there, \[5, 5\] now\)"):
        check_same(tmp_path, manifest(), manifest(steps=[5, 5]))
    surface = manifest() | {"settings": {"method": "surface", "gaussians": 512}}
    with pytest.raises(FormatError, match=r"other settings \(method surface there, fitted now\)"):
        check_same(tmp_path, surface, manifest())


def test_folders_of_earlier_versions_and_damaged_manifests_are_refused(boxes, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FormatError, match="earlier version"):
        build_triplets(boxes[:2], tmp_path, SMALL)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(FormatError, match=r"manifest\.json: damaged"):
        build_triplets(boxes[:2], tmp_path, SMALL)


def test_two_builds_do_not_share_a_folder(boxes, tmp_path):
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FormatError, match="another build is at work"):
            build_triplets(boxes[:2], tmp_path, SMALL)
    build_triplets(boxes[:2], tmp_path, SMALL)


def test_two_objects_of_one_key_are_refused(boxes, tmp_path):
    with pytest.raises(DataError, match="1 ids occur more than once, such as 'red_cube'"):
        build_triplets([*boxes[:2], boxes[0]], tmp_path, SMALL)


def test_the_command_builds_and_lists_what_failed(mesh_folder, tmp_path, capsys):
    settings = ["--method", "surface", "--gaussians", "64", "--views", "3", "--size", "32", "--workers", "0"]
    command = ["triplets", "build", f"folder:{mesh_folder}", str(tmp_path / "out"), "--licence", "CC0-1.0", *settings]
    assert main(command) == 0
    told = capsys.readouterr()
    assert "9 samples, 1 failed; 10 objects in" in told.out
    assert "boxg.obj: holds no faces" in told.err
    assert main([*command, "--max-failures", "0"]) == 1
    assert "more than --max-failures 0" in capsys.readouterr().err
    assert next(read_shard(tmp_path / "out/triplets-00000.tar")).info["licence"] == "CC0-1.0"
    splats = tmp_path / "splats"
    splats.mkdir()
    for name in ("chair.ply", "chair.compressed.ply"):
        save(load(mesh_folder / "boxa.obj"), splats / name)
    assert main(["triplets", "build", f"folder:{splats}", str(tmp_path / "none"), *settings]) == 1
    told = capsys.readouterr()
    assert "0 samples, 2 failed; 2 objects in" in told.out
    assert told.err.count("is a splat, without faces: read it with splatsense.load, or take the corpus splats:PATH.") == 2
    assert main(["triplets", "build", "nonsense", str(tmp_path)]) == 2
    assert "furniture, furniture:PATH, folder:PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "flag"),
    [({"workers": -1}, "--workers"), ({"fit_batch": 0}, "--fit-batch"), ({"address": "auto"}, "--address"),
     ({"max_failures": -1}, "--max-failures"), ({"time_limit": -1}, "--time-limit")],
)  # fmt: skip
def test_run_settings_out_of_range_name_the_flag(change, flag):
    with pytest.raises(DataError, match=flag):
        RunConfig(**change)


def test_python_and_command_agree(mesh_folder, tmp_path):
    triplets_build(f"folder:{mesh_folder}", tmp_path / "a", config=SMALL, run=HERE)
    build_triplets(folder(mesh_folder), tmp_path / "b", SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_corrupt_and_empty_meshes_fail_alone_and_a_missing_texture_is_noted(mesh_folder, tmp_path):
    (mesh_folder / "corrupt.glb").write_bytes(b"glTF" + bytes(40))
    (mesh_folder / "nothing.stl").write_bytes(b"")
    textured = (mesh_folder / "boxa.obj").read_text()
    (mesh_folder / "textured.obj").write_text("mtllib t.mtl\nvt 0 0\n" + textured.replace("f ", "usemtl t\nf ", 1))
    (mesh_folder / "t.mtl").write_text("newmtl t\nKd 0.2 0.6 0.2\nmap_Kd gone.png\n")
    report = build_triplets(folder(mesh_folder), tmp_path / "out", SMALL)
    assert sorted(report.failures) == ["boxg", "corrupt", "nothing"]
    assert "corrupt.glb" in report.failures["corrupt"]
    assert "nothing.stl: the file is empty" in report.failures["nothing"]
    infos = {triplet.key: triplet.info for path in shard_paths([tmp_path / "out"]) for triplet in read_shard(path)}
    assert infos["textured"]["missing_textures"] == ["gone.png"]
    assert infos["boxa"]["missing_textures"] == []


@pytest.mark.parametrize(("problem", "device"), [(None, "cuda"), ("gsplat is out of order.", "cpu")])
def test_a_gpu_is_taken_where_gsplat_works(monkeypatch, caplog, problem, device):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(build.cuda, "problem", lambda: problem)
    with caplog.at_level(logging.WARNING, logger="splatsense"):
        assert build._device(RunConfig()) == device
    assert (problem is None) == ("fits run on the CPU" not in caplog.text)
