"""The study: a real one of two rows and two seeds through the command line, killed and resumed; tables on known numbers."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splatsense.cli import main
from splatsense.clip_gs import pretrain as pretrain_module
from splatsense.clip_gs import study_runs
from splatsense.clip_gs.build import build_triplets
from splatsense.clip_gs.pretrain_config import PretrainConfig
from splatsense.clip_gs.study import StudyConfig, study
from splatsense.clip_gs.study_plot import plot_study
from splatsense.clip_gs.study_report import COLUMNS, comparison_table, results, setup
from splatsense.clip_gs.study_results import Measured, compare, compare_all
from splatsense.clip_gs.study_rows import COMPARISONS, ROWS, check_recipe, plan_runs
from splatsense.clip_gs.triplets import TripletConfig
from splatsense.errors import CheckpointError, DataError, FormatError
from splatsense.studies import records
from splatsense.studies.page import points, spread, write_into

PAGE = "".join(f"about {name}\n<!-- study:{name} -->\nSTALE\n<!-- /study:{name} -->\n" for name in
               ("setup", "results", "comparisons", "plot"))  # fmt: skip
STEPS = 3  # of each run: three passes over four objects in batches of four
NETWORK = ["--gaussians", "128", "--patches", "8", "--patch-size", "16"]
RECIPE = ["--epochs", str(STEPS), "--batch-size", "4", "--views", "2", "--checkpoint-every", "1", "--log-every", "1"]
CHOICE = ["--rows", "pretrained", "points", "gaussians-10000", "teacher", "--seeds", "0", "1", "--labels", ""]


@pytest.fixture(scope="module")
def triplets(tmp_path_factory):
    """Red boxes to train on, blue ones of the same four shapes to test on."""
    from clip_gs.conftest import make_boxes

    folder = tmp_path_factory.mktemp("study") / "triplets"
    items = [replace(box, split="train" if box.key.startswith("red") else "test") for box in make_boxes()]
    build_triplets(items, folder, TripletConfig(method="surface", gaussians=256, views=3, size=32))
    return folder


def arguments(triplets, out):
    return ["study", "clip-gs", "--triplets", str(triplets), "--out", str(out), *NETWORK, *RECIPE, *CHOICE]


@pytest.fixture(scope="module")
def finished(triplets):
    """The folder of a study that nothing interrupted, and the page it wrote into."""
    out, page = triplets.parent / "whole", triplets.parent / "page.md"
    page.write_text(PAGE)
    assert main([*arguments(triplets, out), "--write", str(page)]) == 0
    return out, page


def metrics(out):
    return {name: row["metrics"] for name, row in json.loads((out / "study.json").read_text())["rows"].items()}


def test_a_study_trains_measures_and_writes_its_page(finished):
    out, page = finished
    figures = json.loads((out / "study.json").read_text())
    for name in ("points", "pretrained"):
        row = figures["rows"][name]
        assert set(row["by_seed"]) == {"0", "1"}
        assert {"top1", "top5", "class_mean", "text -> 3D R@1", "3D -> text R@5", "image -> 3D R@1"} <= row["metrics"].keys()
        tops = [one["metrics"]["top1"] for one in row["by_seed"].values()]
        assert row["metrics"]["top1"]["mean"] == pytest.approx(sum(tops) / 2)
        for one in row["by_seed"].values():
            assert sum(one["correct"].values()) / 4 == pytest.approx(one["metrics"]["top1"])
            assert "few-shot: 10-way 5-shot needs 10 classes" in one["not_possible"]["few_shot"]
    assert figures["rows"]["gaussians-10000"]["missing"] == "half of the training objects hold 256 Gaussians or fewer"
    assert figures["runs"]["points 1"]["settings"]["seed"] == 1
    assert figures["runs"]["points 1"]["code"] == [records.code_version()]
    assert figures["rows"]["points"]["by_seed"]["1"]["code"] == records.code_version()
    card = json.loads((out / "runs/pretrained/seed-0/model/config.json").read_text())
    assert card["training"]["epochs"] + figures["runs"]["pretrained 0"]["stage"]["settings"]["epochs"] == STEPS
    assert card["training"]["init"] == str(out / "runs/pretrained/seed-0/point-cloud-stage/model")
    text = page.read_text()
    assert "STALE" not in text
    assert (out / "study.md").read_text().split("\n\n")[0] in text
    assert "| training objects | 4 (triplets) |" in text
    assert "- `gaussians-10000`: half of the training objects hold 256" in text
    assert page.with_name("page-study.png").read_bytes() == (out / "study.png").read_bytes()


def test_the_rows_are_those_of_the_paper(finished):
    out, _ = finished
    cards = {name: json.loads((out / f"runs/{name}/seed-0/model/config.json").read_text()) for name in ("points", "pretrained")}
    assert cards["points"]["encoder"]["attributes"] == "position_color"
    assert cards["pretrained"]["encoder"]["attributes"] == "all"
    assert cards["pretrained"]["encoder"]["refinement"]
    assert cards["pretrained"]["training"]["voting"] == "softmax"


def test_an_interrupted_study_goes_on_and_trains_nothing_twice(triplets, finished, tmp_path, monkeypatch):
    taken, original = [], pretrain_module._Run.step

    def interrupted(self, step, batch):
        if len(taken) == 5:  # inside the second run, behind its point-cloud stage and a checkpoint
            raise KeyboardInterrupt
        taken.append(step)
        return original(self, step, batch)

    out = tmp_path / "study"
    monkeypatch.setattr(pretrain_module._Run, "step", interrupted)
    assert main(arguments(triplets, out)) == 130
    assert "not run yet" in (out / "study.md").read_text()
    monkeypatch.setattr(
        pretrain_module._Run, "step", lambda self, step, batch: taken.append(step) or original(self, step, batch)
    )
    assert main(arguments(triplets, out)) == 0
    assert len(taken) == 4 * STEPS
    assert metrics(out) == metrics(finished[0])
    monkeypatch.setattr(pretrain_module._Run, "step", None)
    monkeypatch.setattr(study_runs, "Evaluation", None)
    before = (out / "study.json").read_bytes()
    assert main(arguments(triplets, out)) == 0
    assert (out / "study.json").read_bytes() == before


def test_a_study_with_other_settings_or_triplets_is_refused(triplets, finished, monkeypatch, capsys):
    out, _ = finished
    assert main([*arguments(triplets, out), "--learning-rate", "0.5"]) == 2
    assert "run.json: the run had other settings: learning_rate was 0.001 and is 0.5" in capsys.readouterr().err
    monkeypatch.setattr(study_runs, "fingerprint", lambda folders: "others")
    assert main(arguments(triplets, out)) == 2
    assert "data was" in capsys.readouterr().err


def test_rows_that_were_not_asked_for_ask_for_nothing(triplets, tmp_path):
    """One epoch is too few for the row with two stages, and these folders for the rows on surfaces."""
    given = ["--rows", "points", "--epochs", "1", "--seeds", "0", "--surface", str(tmp_path), str(tmp_path)]
    command = arguments(triplets, tmp_path / "study")
    command = [*command[: command.index("--epochs")], "--batch-size", "4", "--views", "2", "--labels", "", *given]
    assert main(command) == 0
    assert list(metrics(tmp_path / "study")) == ["points"]


@pytest.mark.slow
def test_a_killed_study_ends_as_one_that_was_not(triplets, tmp_path):
    """SIGKILL as soon as the first stage of the second run has a checkpoint."""
    source = Path(pretrain_module.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])}

    def start(out):
        command = [sys.executable, "-m", "splatsense", *arguments(triplets, out)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    killed = tmp_path / "killed"
    with start(killed) as study:
        while not list(killed.glob("runs/pretrained/seed-0/point-cloud-stage/checkpoint.safetensors")) and study.poll() is None:
            time.sleep(0.01)
        study.kill()
    assert study.returncode == -signal.SIGKILL
    for out, trained in ((killed, 1), (tmp_path / "whole", 0)):
        with start(out) as study:
            _, errors = study.communicate()
        assert study.returncode == 0, errors
        assert f"study: {trained} of 4 runs are trained" in errors.splitlines()[0]
    assert metrics(killed) == metrics(tmp_path / "whole")


def recipe(**changes):
    return replace(PretrainConfig(triplets=("cache/fitted",), out="out"), **changes)


def test_rows_change_what_they_say_and_have_one_budget():
    runs = plan_runs(recipe(epochs=9, learning_rate=0.5), ("cache/surface",), (0, 7))
    assert {name for name, _ in runs} == set(ROWS) - {"teacher"}
    for (name, seed), run in runs.items():
        assert run.config.seed == seed
        assert run.config.learning_rate == 0.5
        assert run.config.epochs + (run.stage.epochs if run.stage else 0) == 9, name
        assert all(getattr(run.config, key) == value for key, value in ROWS[name].changes.items())
    stage = runs["pretrained", 7].stage
    assert stage is not None
    assert (stage.tokenizer, stage.voting, stage.seed) == ("points", "none", 7)
    assert runs["surface", 0].config.triplets == ("cache/surface",)
    assert runs["surface", 0] is runs["surface-to-fitted", 0]
    assert runs["voting-softmax", 0] is runs["fitted-to-surface", 0]
    assert runs["voting-softmax", 0] is not runs["voting-softmax", 7]
    folders = [run.config.out for run in runs.values()]
    assert len(set(folders)) == len(folders) - 4


def test_a_row_with_the_recipe_s_own_number_of_gaussians_shares_its_run():
    runs = plan_runs(recipe(gaussians=4096), (), (0,))
    assert runs["gaussians-4096", 0] is runs["voting-softmax", 0]
    assert plan_runs(recipe(gaussians=2048), (), (0,)) == plan_runs(recipe(), (), (0,))
    assert not {"surface", "surface-to-fitted"} & {name for name, _ in runs}


def test_comparisons_are_of_rows_that_are_there():
    assert {name for one, other, _ in COMPARISONS for name in (one, other)} == set(ROWS)


def test_bad_settings_name_the_flag(triplets, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="--tokenizer, --seed: set by the rows"):
        check_recipe(recipe(tokenizer="points", seed=1), (), ())
    with pytest.raises(DataError, match="--surface: needs one folder"):
        check_recipe(recipe(), ("a", "b"), ())
    check_recipe(recipe(epochs=1), (), [ROWS["points"]])
    with pytest.raises(DataError, match="--epochs: must be at least 2, one for each stage of pretrained"):
        check_recipe(recipe(epochs=1), (), [ROWS["points"], ROWS["pretrained"]])
    with pytest.raises(DataError, match="--rows: there is no row point; choose from points attributes"):
        StudyConfig(rows=("point",))
    with pytest.raises(DataError, match="--seeds"):
        StudyConfig(seeds=(1, 1))
    with pytest.raises(FormatError, match="triplets build"):
        study(recipe(triplets=(str(tmp_path),), out=str(tmp_path / "out")))
    nowhere = StudyConfig(write=str(tmp_path / "page.md"))
    with pytest.raises(DataError, match="there is no such page"):
        study(recipe(triplets=(str(triplets),), out=str(tmp_path / "out")), nowhere)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DataError, match="without torchrun"):
        study(recipe(triplets=(str(triplets),), out=str(tmp_path / "out")))


def measured(name, by_seed, seconds=60.0, **others):
    """A row whose objects are right or wrong as given, by seed."""
    figures = {}
    for seed, correct in by_seed.items():
        top1 = sum(correct) / len(correct)
        keys = {f"object {number}": value for number, value in enumerate(correct)}
        figures[seed] = {"metrics": {"top1": top1, **others}, "correct": keys, "not_possible": {}}
    return Measured(ROWS[name], figures, dict.fromkeys(by_seed, seconds))


def test_a_row_is_ahead_with_every_seed_and_beyond_the_objects_alone():
    low, high = [1.0] * 20 + [0.0] * 80, [1.0] * 60 + [0.0] * 40
    ahead = compare(measured("tokenizer", {0: high, 1: high}), measured("attributes", {0: low, 1: low, 2: low}), 0.03)
    assert ahead.differences == pytest.approx({0: 0.4, 1: 0.4})
    assert 0.25 < ahead.interval[0] < 0.4 < ahead.interval[1] < 0.55
    assert (ahead.verdict, ahead.agrees, ahead.objects) == ("ahead", "yes", 100)
    behind = compare(measured("attributes", {0: low}), measured("tokenizer", {0: high}), 0.03)
    assert (behind.verdict, behind.agrees) == ("behind", "no")
    one_seed_behind = compare(measured("tokenizer", {0: high, 1: low}), measured("points", {0: low, 1: [1.0, *low[1:]]}))
    assert one_seed_behind.interval[0] > 0
    assert one_seed_behind.verdict == "not told apart"
    few_objects = compare(measured("tokenizer", {0: [*high[:20], 1.0]}), measured("points", {0: [*high[:20], 0.0]}), 0.03)
    assert few_objects.differences[0] > 0
    assert (few_objects.verdict, few_objects.agrees) == ("not told apart", "open")


def test_tables_of_known_numbers():
    rows = {
        "points": measured("points", {0: [1, 0, 0, 0], 1: [1, 1, 0, 0]}, few_shot=0.5),
        "attributes": measured("attributes", {0: [1, 1, 1, 1], 1: [1, 1, 1, 1]}, 90.0),
        "surface": Measured(ROWS["surface"], {}, {}, "no folders of --surface were given"),
        "teacher": Measured(ROWS["teacher"], dict.fromkeys((0, 1), measured("points", {0: [1, 1, 1, 0]}).figures[0]), {}),
    }
    lines = results(rows).splitlines()
    blank = " – |"
    assert lines[2] == "| `points` point cloud: position and colour | 37.5 ± 17.7 |" + 7 * blank + " 50.0 ± 0.0 | – | 2 | 1.0 |"
    assert lines[3] == "| `attributes` all attributes, no tokenizer | 100.0 ± 0.0 |" + 9 * blank + " 2 | 1.5 |"
    assert lines[4] == "| `surface` full, surface-converted |" + 10 * blank + " 0 | – |"
    assert lines[5] == "| `teacher` teacher on rendered views | 75.0 |" + 11 * blank
    assert lines[7] == "- `surface`: no folders of --surface were given."
    assert all(line.count("|") == len(COLUMNS) + 4 for line in lines[:6])
    compared = comparison_table(compare_all(rows)).splitlines()
    assert len(compared) == 3
    start = "| `attributes` | `points` | +62.5 ± 17.7 | +75.0, +50.0 | "
    assert compared[2].startswith(start)
    assert compared[2].endswith(" | ahead | −2.1 | no |")
    assert (spread({}), spread({0: 0.5}), points(-0.0001), points(0.0212)) == ("–", "50.0", "0.0", "+2.1")


def test_the_set_up_names_what_is_not_usual():
    usual = recipe()
    given = replace(usual, image_map=1.0, weights=(0.5,), epochs=9, augment=replace(usual.augment, turn=5.0))
    told = setup(given, (0,), {}, {})
    assert "| settings other than the defaults | `weights` 0.5, `image_map` 1.0, `turn` 5.0 |" in told
    assert "| network | tiny, 2,048 Gaussians" in told
    assert "| settings other than the defaults | none |" in setup(usual, (0,), {}, {})


def test_a_page_without_markers_is_named(tmp_path):
    page = tmp_path / "page.md"
    with pytest.raises(DataError, match="there is no such page"):
        write_into(page, {"results": "x"})
    page.write_text("<!-- study:results -->\nold")
    with pytest.raises(DataError, match="lacks <!-- study:results --> and <!-- /study:results -->"):
        write_into(page, {"results": "x"})
    page.write_text("a <!-- study:results -->old<!-- /study:results --> b")
    write_into(page, {"results": "new"})
    assert page.read_text() == "a <!-- study:results -->\nnew\n<!-- /study:results --> b"


def test_the_plot_puts_better_rows_further_right(tmp_path):
    with pytest.raises(DataError, match="no row was measured"):
        plot_study({}, tmp_path / "none.png")
    rows = {
        "points": measured("points", {0: [1, 0, 0, 0]}),
        "attributes": measured("attributes", {0: [1, 1, 1, 0]}),
    }
    plot_study(rows, tmp_path / "plot.png")
    image = Image.open(tmp_path / "plot.png")
    pixels = np.asarray(image).astype(int)
    y, x = np.nonzero((pixels[..., 0] > 180) & (pixels[..., 1] < 80))
    assert x[y < image.height / 2].max() < x[y > image.height / 2].min()


def test_the_page_of_this_project_has_the_markers(tmp_path):
    source = Path(__file__).parents[2] / "docs" / "clip-gs.md"
    copied = tmp_path / "clip-gs.md"
    copied.write_text(source.read_text("utf-8"), "utf-8")
    write_into(copied, dict.fromkeys(("setup", "results", "comparisons", "plot"), "x"))
    assert all(f"`{name}`" in source.read_text("utf-8") for name in ROWS)


def test_records_are_compared_and_damaged_ones_say_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(FormatError, match=r"run\.json: cannot be read .* remove it"):
        records.read_json(tmp_path / "run.json")
    config = recipe(triplets=(), out=str(tmp_path / "other"))
    records.keep_record(tmp_path / "a" / "run.json", config.settings())
    with pytest.raises(CheckpointError, match="epochs was 60 and is 5"):
        records.keep_record(tmp_path / "a" / "run.json", replace(config, epochs=5).settings())
    monkeypatch.setattr(records, "code_version", lambda: "newer")
    records.check_record(tmp_path / "a" / "run.json", config.settings())
    records.keep_record(tmp_path / "a" / "run.json", config.settings())
    assert len(records.check_record(tmp_path / "a" / "run.json", config.settings())) == 2
