"""The study: a real one of three rows and two seeds through the command line, resumed; tables on known numbers."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from home_files import CHAIR as CHAIR_XML
from home_files import home_xml, write_home
from segmentation_scenes import CHAIR, FLOOR, SMALL, WALL, room
from splatsense.cli import main
from splatsense.errors import CheckpointError, DataError, FormatError
from splatsense.gaussian_cross.model import save_backbone
from splatsense.gaussian_cross.unet import UNET_SIZES, SpUNet, UNetConfig
from splatsense.scene_study.report import blocks, plot
from splatsense.scene_study.rows import ABLATIONS, COUNTS, SHARES, Row, downstream, plan_rows, pretraining, size_of
from splatsense.scene_study.study import SceneStudyConfig, _measured, _Study, study
from splatsense.scenes import save_scene
from splatsense.segmentation.dataset import TrainingScenes
from splatsense.segmentation.evaluate import score_scenes
from splatsense.segmentation.model import load_segmentation_model

TABLES = ("probe", "finetune", "scenes", "points", "instances", "ablations")
STARTS = {
    "name",
    "backbone",
    "protocol",
    "learning_rate",
    "backbone_rate",
}  # what training from scratch and fine-tuning differ in
PAGE = "".join(
    f"about {name}\n<!-- study:{name} -->\nSTALE\n<!-- /study:{name} -->\n" for name in ("setup", *TABLES, "transfer", "plot")
)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    folders = {}
    for seed, name in enumerate(("gaussian-cross", "other")):
        torch.manual_seed(seed)
        folders[name] = str(tmp_path_factory.mktemp(name))
        save_backbone(folders[name], SpUNet(SMALL), name, 0.1, {"training": {"steps": 7}})
    return folders


@pytest.fixture(scope="module")
def finished(rooms, backbones, tmp_path_factory):
    """The folder of a study that nothing interrupted, the page it wrote into, and its command."""
    out = tmp_path_factory.mktemp("study")
    page = out / "page.md"
    page.write_text(PAGE)
    command = ["study", "gaussian-cross", "--scenes", str(rooms), "--out", str(out), "--split", "val", "--steps", "2",
               "--seeds", "0", "1", "--tables", "probe", "--write", str(page),
               "--pretrained", *(f"{name}={folder}" for name, folder in reversed(backbones.items()))]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(UNET_SIZES, "tiny", SMALL)
        assert main(command) == 0
        yield out, page, command


def figures_of(out, row, seed=0):
    return json.loads((out / "runs" / row / f"seed-{seed}" / "figures.json").read_text())


def test_a_study_trains_measures_and_writes_its_page(finished, rooms):
    out, page, _ = finished
    rows = json.loads((out / "study.json").read_text())["rows"]
    assert list(rows) == ["probe-random", "probe-gaussian-cross", "probe-other"]
    for name, row in rows.items():
        model = load_segmentation_model(out / "runs" / name / "seed-1" / "model")
        expected = score_scenes(model, rooms, "val").headline()
        by_seed = [row["by_seed"][seed]["metrics"]["mean_iou"] for seed in ("0", "1")]
        assert by_seed[1] == pytest.approx(expected["mean_iou"])
        assert row["metrics"]["mean_iou"]["mean"] == pytest.approx(sum(by_seed) / 2)
        assert figures_of(out, name)["scenes"] == 2
    text = page.read_text()
    assert text.count("STALE") == 6  # tables that were not asked for
    assert "| random weights |" in text
    assert "| other |" in text
    assert "gaussian-cross 7; other 7" in text
    with Image.open(page.with_name("page-study.png")) as picture:
        assert picture.width > 500


def test_it_goes_on_where_it_stopped_and_does_nothing_twice(finished):
    out, page, command = finished
    before = page.read_text()
    written = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/model/model.safetensors")}
    lost = out / "runs" / "probe-other" / "seed-1" / "figures.json"
    lost.unlink()
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert lost.is_file()
    assert page.read_text() == before


def test_figures_of_another_split_are_not_shown(finished, rooms, backbones, tmp_path):
    shutil.copytree(finished[0], tmp_path / "study")
    path = tmp_path / "study" / "runs" / "probe-random" / "seed-0" / "figures.json"
    figures = json.loads(path.read_text())
    figures["measured_on"]["split"] = "test"
    path.write_text(json.dumps(figures))
    given = tuple(f"{name}={folder}" for name, folder in backbones.items())
    config = SceneStudyConfig(str(rooms), str(tmp_path / "study"), given, tables=("probe",), seeds=(0, 1), split="val", steps=2)
    measured = _measured(config)
    _Study(config, backbones, {}, measured)._write()
    rows = json.loads((tmp_path / "study" / "study.json").read_text())["rows"]
    assert {name: list(row["by_seed"]) for name, row in rows.items()} == {
        "probe-random": ["1"], "probe-gaussian-cross": ["0", "1"], "probe-other": ["0", "1"],
    }  # fmt: skip
    path.write_text("{}")
    with pytest.raises(FormatError, match=r"figures\.json: cannot be read \(lacks measured_on"):
        _Study(config, backbones, {}, measured)._write()


@pytest.fixture
def homes(tmp_path):
    """A home with a chair as an imported scene; of the classes there are wall, floor and chair."""
    write_home(tmp_path / "source" / "flat.sh3d", home_xml(CHAIR_XML))
    command = ["scenes", "homes", "--source", str(tmp_path / "source"), "--out", str(tmp_path / "homes"), "--split", "val"]
    assert main([*command, "--frames", "0", "--voxel", "0.1"]) == 0
    return tmp_path / "homes"


def test_transfer_to_homes_is_measured_without_training(finished, homes, tmp_path, monkeypatch):
    before, _, command = finished
    out = tmp_path / "study"
    shutil.copytree(before, out)
    command = [part.replace(str(before), str(out)) for part in command]
    monkeypatch.setattr("splatsense.scene_study.runs.train_segmentation", None)
    assert main([*command, "--transfer", str(homes)]) == 0
    table = json.loads((out / "study.json").read_text())
    for name, row in table["transfer"].items():
        model = load_segmentation_model(out / "runs" / name / "seed-1" / "model")
        expected = score_scenes(model, homes, "val").semantic
        metrics = row["by_seed"]["1"]["metrics"]
        assert metrics["present_iou"] == pytest.approx(float(expected.iou[[WALL, FLOOR, CHAIR]].mean()))
        assert metrics["mean_iou"] == pytest.approx(expected.mean_iou)
        assert metrics["mean_iou"] < metrics["present_iou"]  # it also counts what is predicted and does not occur
        assert figures_of(out, name) == figures_of(before, name)
    text = (out / "page.md").read_text()
    assert "| transfer | 1 scene, with 3 of 20 classes |" in text
    assert "| linear probe | random weights |" in text
    assert list(table["transfer"]) == list(table["rows"])

    written = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/transfer.json")}
    assert len(written) == 6
    assert main([*command, "--transfer", str(homes / "val")]) == 0  # the scenes themselves: measured again, under another split
    assert "| transfer | 1 scene, with 3 of 20 classes |" in (out / "study.md").read_text()
    again = {path: path.stat().st_mtime_ns for path in written}
    assert all(again[path] > written[path] for path in written)
    assert main([*command, "--transfer", str(homes / "val")]) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == again


def test_transfer_needs_labels(finished, rooms, backbones, tmp_path):
    given = tuple(f"{name}={folder}" for name, folder in backbones.items())
    save_scene(replace(room("bare"), semantic20=None, instance=None), tmp_path / "scenes" / "bare")
    config = SceneStudyConfig(str(rooms), str(tmp_path / "out"), given, split="val", transfer=str(tmp_path / "scenes"))
    with pytest.raises(DataError, match=r"bare/segment20\.npy: does not exist"):
        study(config)
    with pytest.raises(FormatError, match=r"val: holds no scene .*holds scenes"):
        study(replace(config, transfer=str(tmp_path)))


def test_other_settings_and_other_backbones_are_refused(finished, rooms, backbones):
    out, *_ = finished
    given = [f"{name}={folder}" for name, folder in backbones.items()]
    with pytest.raises(CheckpointError, match="steps was 2 and is 3"):
        study(SceneStudyConfig(str(rooms), str(out), tuple(given), tables=("probe",), split="val", steps=3))
    swapped = (f"gaussian-cross={backbones['other']}", f"other={backbones['gaussian-cross']}")
    with pytest.raises(CheckpointError, match="backbone_sha256"):
        study(SceneStudyConfig(str(rooms), str(out), swapped, tables=("probe",), split="val", steps=2))


def test_rows_see_the_same_data_and_voxels(rooms, backbones, monkeypatch, tmp_path):
    monkeypatch.setitem(UNET_SIZES, "tiny", SMALL)
    rows, first = plan_rows(list(backbones), tuple(ABLATIONS), TABLES), backbones["gaussian-cross"]
    assert len({row.name for row in rows}) == len(rows) == 3 + 2 + 3 * len(SHARES) + 3 * len(COUNTS) + 2 + 1 + len(ABLATIONS)
    configs = {row.name: downstream(row, 3, str(rooms), tmp_path, first, first, 5) for row in rows}
    assert {(config.voxel, config.size, config.steps, config.seed) for config in configs.values()} == {(0.1, "tiny", 5, 3)}
    for table in ("scenes-0.05", "points-20", "instances", "finetune"):
        ours, theirs = configs[f"{table}-scratch"].settings(), configs[f"{table}-gaussian-cross"].settings()
        assert {name for name in ours if ours[name] != theirs[name]} == STARTS
    scratch, tuned = (TrainingScenes(configs[f"points-20-{model}"]).points(1) for model in ("scratch", "gaussian-cross"))
    assert torch.equal(scratch.semantic, tuned.semantic)
    assert int((scratch.semantic >= 0).sum()) == 20
    assert configs["instances-scratch"].task == "instance"
    assert configs["probe-random"].backbone == "random:tiny"
    assert len(TrainingScenes(configs["scenes-0.01-scratch"]).folders) == 1


def test_fine_tuning_starts_from_the_probe_of_the_same_data(rooms, backbones, tmp_path, monkeypatch):
    monkeypatch.setitem(UNET_SIZES, "tiny", SMALL)
    given = (f"gaussian-cross={backbones['gaussian-cross']}",)
    study(SceneStudyConfig(str(rooms), str(tmp_path), given, tables=("finetune",), seeds=(1,), split="val", steps=1))
    probe = tmp_path / "runs" / "probe-gaussian-cross" / "seed-1"
    tuned = load_segmentation_model(tmp_path / "runs" / "finetune-gaussian-cross" / "seed-1" / "model")
    assert tuned.card["training"]["backbone"] == str(probe / "model")
    assert not (probe / "figures.json").exists()  # its table was not asked for
    assert list(json.loads((tmp_path / "study.json").read_text())["rows"]) == ["finetune-scratch", "finetune-gaussian-cross"]
    rows = plan_rows(list(backbones), (), TABLES)
    for row in rows:
        if row.start and row.limits:
            assert rows.index(row.start) < rows.index(row)
            assert (row.start.table, row.start.limits, row.start.protocol) == (row.table, row.limits, "probe")


def test_ablations_are_probed_beside_a_backbone_that_was_trained_as_long(rooms, backbones, tmp_path, monkeypatch):
    """Pre-training itself is replaced by backbones at hand."""
    monkeypatch.setitem(UNET_SIZES, "tiny", SMALL)
    asked, other = [], backbones["other"]
    monkeypatch.setattr("splatsense.scene_study.study.pretrain_once", lambda config: asked.append(config) or other)
    config = SceneStudyConfig(
        str(rooms), str(tmp_path), (f"gaussian-cross={backbones['gaussian-cross']}",), ablations=("no-depth",),
        tables=("ablations",), seeds=(0,), split="val", steps=1, ablation_steps=5,
    )  # fmt: skip
    text = study(config)
    assert [(one.name, one.steps, one.depth_weight > 0) for one in asked] == [
        ("gaussian-cross", 5, True),
        ("no-depth", 5, False),
    ]
    assert [one.out for one in asked] == [str(tmp_path / "ablations" / one.name) for one in asked]
    assert "| ablations | 5 steps of pre-training each |" in text
    assert "| GaussianCross without the depth term |" in text
    for name in ("gaussian-cross", "no-depth"):
        model = load_segmentation_model(tmp_path / "runs" / f"ablations-{name}" / "seed-0" / "model")
        assert (model.card["training"]["backbone"], model.card["training"]["protocol"]) == (other, "probe")


def test_an_ablation_changes_one_setting(tmp_path):
    full = pretraining("gaussian-cross", "rooms", tmp_path, "tiny", 9, tmp_path / "cache")
    for name in ABLATIONS:
        config = pretraining(name, "rooms", tmp_path, "tiny", 9, tmp_path / "cache")
        ours, theirs = config.settings(), full.settings()
        assert len([key for key in ours if ours[key] != theirs[key] and key != "name"]) == 1
        assert config.recipe() != full.recipe() or config.weights() != full.weights()
    assert pretraining("no-cuboid", "rooms", tmp_path, "tiny", 9, tmp_path).recipe().sample.cuboid_side == 10
    contrast = pretraining("scene-contrast", "rooms", tmp_path, "tiny", 9, tmp_path / "cache")
    assert contrast.views().voxel == full.recipe().sample.voxel
    assert contrast.backbone() == full.recipe().backbone
    shared = ("learning_rate", "weight_decay", "warmup", "clip_gradient", "steps", "batch_size", "seed")
    assert [getattr(contrast, name) for name in shared] == [getattr(full, name) for name in shared]


def one(value, **more):
    return {"metrics": {"mean_iou": value, **more}, "seconds": 90.0, "scenes": 5}


def test_tables_on_known_numbers(tmp_path):
    share = {"scene_share": 0.05}
    rows = [Row("probe", "random"), Row("probe", "gaussian-cross"), Row("scenes", "scratch", share),
            Row("scenes", "gaussian-cross", share), Row("instances", "scratch"),
            Row("instances", "gaussian-cross")]  # fmt: skip
    known = {
        "probe-random": {0: one(0.1), 1: one(0.2)},
        "probe-gaussian-cross": {0: one(0.3), 1: one(0.44)},
        "scenes-0.05-scratch": {0: one(0.25)},
        "scenes-0.05-gaussian-cross": {0: one(0.2), 1: one(0.4)},
        "instances-scratch": {0: one(0.3, ap=0.1, ap50=0.2, ap25=0.3)},
        "instances-gaussian-cross": {},
    }
    made = blocks(rows, known, "set-up")
    assert made["setup"] == "set-up"
    assert "| random weights | 15.0 ± 7.1 | – | – | – | 2 | 1.5 |" in made["probe"]
    assert "| GaussianCross | 37.0 ± 9.9 | – | – | +22.0 ± 2.8 | 2 | 1.5 |" in made["probe"]
    assert "| 5 % of the scenes | 5 | 25.0 | 30.0 ± 14.1 | −5.0 | 1 |" in made["scenes"]
    assert "| from scratch | 10.0 | 20.0 | 30.0 | 30.0 | – | 1 | 1.5 |" in made["instances"]
    assert "| GaussianCross | – | – | – | – | – | 0 | – |" in made["instances"]
    assert "transfer" not in made
    known |= {"probe-random": {0: one(0.1, present_iou=0.2)}, "probe-gaussian-cross": {0: one(0.1, present_iou=0.5)}}
    made = blocks(rows, known, "set-up", known)
    assert "| linear probe | GaussianCross | 50.0 | – | – | – | +30.0 | 1 |" in made["transfer"]
    assert "| 5 % of the scenes | from scratch | – | – | – | – | – | 1 |" in made["transfer"]
    assert "| instances | from scratch | – | – | – | 20.0 | – | 1 |" in made["transfer"]
    assert "| instances | GaussianCross |" not in made["transfer"]  # nothing was measured
    assert len(made["transfer"].splitlines()) == 2 + 5
    plot(rows, known, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.height > 150


def test_what_cannot_be_studied(rooms, tmp_path):
    for changes, message in (
        ({"pretrained": ("x",)}, "NAME=FOLDER"), ({"pretrained": ()}, "one or more"),
        ({"pretrained": ("random=a",)}, "scratch, random and what has"), ({"pretrained": ("a/b=c",)}, "no names of backbones"),
        ({"pretrain": ("gaussian-cross",)}, "different"), ({"pretrain": ("no-depth",)}, "scene-contrast"),
        ({"ablations": ("bigger",)}, "no-pruning"), ({"ablation_steps": 0}, "--ablation-steps"),
        ({"seeds": ()}, "--seeds"), ({"steps": 0}, "--steps"), ({"tables": ()}, "--tables"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            SceneStudyConfig(str(rooms), str(tmp_path), **({"pretrained": ("gaussian-cross=a",)} | changes))
    with pytest.raises(DataError, match="no such page"):
        study(SceneStudyConfig(str(rooms), str(tmp_path), ("a=b",), split="val", write=str(tmp_path / "page.md")))
    save_backbone(tmp_path / "odd", SpUNet(UNetConfig(channels=(8, 8), layers=(1, 1))), "odd", 0.1, {})
    with pytest.raises(DataError, match="none of the sizes tiny, small, base"):
        size_of(str(tmp_path / "odd"))
    with pytest.raises(DataError, match="none of the sizes"):  # before anything is trained
        study(SceneStudyConfig(str(rooms), str(tmp_path / "out"), (f"a={tmp_path / 'odd'}",), ("scene-contrast",), split="val"))
    assert not (tmp_path / "out").exists()
