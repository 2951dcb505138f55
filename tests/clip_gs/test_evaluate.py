import functools
import json
import zipfile

import numpy as np
import pytest
import torch

from splatsense.cli import main
from splatsense.clip_gs import evaluation_set
from splatsense.clip_gs.evaluate import evaluate_all, evaluate_few_shot, evaluate_retrieval, evaluate_zero_shot
from splatsense.clip_gs.evaluation import EvaluateConfig, Evaluation
from splatsense.clip_gs.evaluation_set import RememberedTexts, load_models, untrained_encoder
from splatsense.clip_gs.few_shot import FewShotConfig
from splatsense.clip_gs.linear_probe import LinearProbeConfig
from splatsense.clip_gs.model import ClipGS
from splatsense.clip_gs.shards import encode_sample, write_shard
from splatsense.clip_gs.triplets import TripletConfig, make_triplets
from splatsense.corpora.sources import open_corpus
from splatsense.errors import CheckpointError, DataError, FormatError
from splatsense.teachers import load_teacher

ENTRY = "id#{n}=Blend Swap CC-0#{id}\nname#{n}={name}\nicon#{n}=/i.png\nmodel#{n}=/m{n}.obj\n"
CUBE = "".join(f"v {x} {y} {z}\n" for x in (0, 1) for y in (0, 1) for z in (0, 1))
FACES = "f 1 2 4 3\nf 5 6 8 7\nf 1 2 6 5\nf 3 4 8 7\nf 1 3 7 5\nf 2 4 8 6\n"
SHAPES = {"box": (1, 1, 1), "plank": (4, 0.2, 1), "pole": (0.2, 4, 0.2)}
SMALL = {"gaussians": 256, "views": 2, "untrained": False}


@pytest.fixture(scope="module", autouse=True)
def one_teacher():
    """The teacher's weights are read once for all of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_set, "load_teacher", functools.cache(load_teacher))
        yield


@pytest.fixture
def library(tmp_path):
    """Three test models of two classes, one of them without faces."""
    path = tmp_path / "BlendSwap-CC-0.sh3f"
    pieces = {1: ("armchair", "Armchair", CUBE + FACES), 2: ("bed1", "Bed", CUBE + FACES), 3: ("bed2", "Bed", CUBE)}
    with zipfile.ZipFile(path, "w") as archive:
        entries = [ENTRY.format(n=n, id=id, name=name) for n, (id, name, _) in pieces.items()]
        archive.writestr("PluginFurnitureCatalog.properties", "".join(entries))
        for n, (_, _, obj) in pieces.items():
            archive.writestr(f"m{n}.obj", obj)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three shapes, three training and two test meshes of each, and one without a label."""
    root = tmp_path_factory.mktemp("meshes")
    rows = ["file,name,label,split"]
    random = np.random.default_rng(0)
    for shape, extents in SHAPES.items():
        for number in range(5):
            x, y, z = np.array(extents) * random.uniform(0.8, 1.2, 3)
            lines = [line.split() for line in CUBE.splitlines()]
            scaled = [f"v {float(a) * x} {float(b) * y} {float(c) * z}" for _, a, b, c in lines]
            (root / f"{shape}{number}.obj").write_text("\n".join(scaled) + "\n" + FACES)
            rows.append(f"{shape}{number}.obj,{shape} {'ab'[number % 2]},{shape},{'test' if number < 2 else 'train'}")
    (root / "unlabelled.obj").write_text(CUBE + FACES)
    (root / "captions.csv").write_text("\n".join([*rows, "unlabelled.obj,thing,,test"]) + "\n")
    return root


@pytest.fixture(scope="module")
def evaluation(folder):
    return Evaluation(EvaluateConfig(data=f"folder:{folder}", gaussians=256, views=2), "train")


def test_zero_shot_counts_objects_and_lists_what_failed(library, tmp_path):
    out = tmp_path / "figures.json"
    table = evaluate_zero_shot(EvaluateConfig(data=f"furniture:{library}", json=str(out), **SMALL))
    assert "2 objects, 2 classes" in table
    assert "left out: BlendSwap-CC-0_bed2: " in table
    figures = json.loads(out.read_text())["zero_shot"]
    # Two equal cubes of two classes: exactly one of them is right, whatever the model says.
    assert {name: result["top1"] for name, result in figures["results"].items()} == {
        "clip-gs-tiny": 0.5, "render + teacher": 0.5,
    }  # fmt: skip
    assert figures["chance"]["top1"] == 0.5


def test_all_four_tables_embed_every_object_once(folder, tmp_path, monkeypatch):
    seen = []
    encode = ClipGS.encode_gaussians
    monkeypatch.setattr(ClipGS, "encode_gaussians", lambda self, objects: seen.append(len(objects)) or encode(self, objects))
    out = tmp_path / "all.json"
    text = evaluate_all(EvaluateConfig(data=f"folder:{folder}", json=str(out), **SMALL))
    assert sum(seen) == 16
    figures = json.loads(out.read_text())
    for title in (
        "zero-shot, ",
        "retrieval, ",
        "few shot: not possible: few-shot: 5-way 1-shot needs 5 classes",
        "linear probe, ",
        "chance",
    ):
        assert title in text
    assert {"zero_shot", "retrieval", "few_shot", "linear_probe", "models", "version"} <= figures.keys()
    assert figures["models"]["clip-gs-tiny"]["kind"] == "model"


def test_zero_shot_figures_are_those_of_the_embeddings(evaluation):
    _, figures = evaluation.zero_shot("name")
    test = [row for row, sample in enumerate(evaluation.data.samples) if sample.split == "test"]
    assert [evaluation.labels[row] for row in test] == [shape for shape in SHAPES for _ in range(2)]
    for contender in evaluation.data.contenders:
        classes = contender.encode_text(["box", "plank", "pole"])
        chosen = (contender.objects[test] @ classes.T).argmax(1)
        expected = (chosen == torch.arange(3).repeat_interleave(2)).float().mean()
        assert figures["results"][contender.name]["top1"] == pytest.approx(float(expected))


def test_retrieval_figures_are_those_of_the_embeddings(evaluation):
    """Text against objects, pictures one by one and together, worked out with loops."""
    _, figures = evaluation.retrieval("name")
    test = [row for row, sample in enumerate(evaluation.data.samples) if sample.split == "test"]
    names = [evaluation.data.samples[row].name for row in test]
    model = evaluation.data.contenders[0]
    objects, images = model.objects[test], model.images[test]
    text = model.encode_text(names)

    def first(queries, gallery, query_names, gallery_names):
        found = [gallery_names[int((gallery @ query).argmax())] for query in queries]
        return np.mean([name == best for name, best in zip(query_names, found, strict=True)])

    each = [name for name in names for _ in range(2)]
    expected = {
        "text -> 3D": first(text, objects, names, names),
        "3D -> text": first(objects, text, names, names),
        "image -> 3D": first(images.flatten(0, 1), objects, each, names),
        "3D -> image": first(objects, images.flatten(0, 1), names, each),
        "2 images -> 3D": first(images.mean(1), objects, names, names),
    }
    for direction, value in expected.items():
        assert figures["results"][direction]["clip-gs-tiny"]["recall"]["1"] == pytest.approx(value)
    assert "render + teacher" not in figures["results"]["image -> 3D"]
    assert figures["results"]["3D -> image"]["chance"]["recall"]["1"] == pytest.approx(1 / 6)


def test_few_shot_and_linear_probe_tell_shapes_apart(evaluation):
    """With labels of boxes, planks and poles even the untrained network does better than chance."""
    text, figures = evaluation.few_shot(FewShotConfig(ways=(3,), shots=(2,), support="train"))
    assert "3-way 2-shot" in text
    assert figures["results"]["3-way 2-shot"]["clip-gs-tiny"]["logistic"][0] > 0.6
    text, figures = evaluation.linear_probe(LinearProbeConfig(folds=3, strengths=(1.0, 100.0)))
    assert "9 objects of split train" in text
    assert figures["results"]["clip-gs-tiny"]["test"]["top1"] > 0.6
    assert figures["most frequent class"]["top1"] == pytest.approx(1 / 3)


def test_episodes_that_cannot_be_drawn_are_errors_when_none_is_left_or_they_were_asked_for(evaluation):
    with pytest.raises(DataError, match="5-way 1-shot needs 5 classes"):
        evaluation.few_shot(FewShotConfig(shots=(1,)))
    with pytest.raises(DataError, match="2-way 3-shot needs 2 classes of 4 objects"):
        evaluation.few_shot(FewShotConfig(ways=(2,), shots=(1, 3)))


def test_shards_are_evaluated_as_the_corpus_they_hold(folder, tmp_path):
    config = TripletConfig(method="surface", gaussians=256, views=2, elevations=(10.0, 30.0), jitter=0, held_out=0)
    triplets = make_triplets(list(open_corpus(f"folder:{folder}")), config)
    for number, part in enumerate((triplets[:9], triplets[9:])):
        write_shard(tmp_path / f"triplets-{number:05d}.tar", [encode_sample(triplet) for triplet in part])
    shards = Evaluation(EvaluateConfig(data=str(tmp_path), untrained=False))
    corpus = Evaluation(EvaluateConfig(data=f"folder:{folder}", **SMALL))
    assert shards.data.samples == corpus.data.samples
    for ours, theirs in zip(shards.data.contenders, corpus.data.contenders, strict=True):
        assert (ours.objects * theirs.objects).sum(1).min() > 0.97  # shards hold half precision and compressed pictures
    assert len(list(tmp_path.glob("*.safetensors"))) == 2  # the teacher's embeddings are kept beside the shards


def test_models_stand_side_by_side(folder, model_folder):
    config = EvaluateConfig(model=("clip-gs-tiny", model_folder), data=f"folder:{folder}", **SMALL)
    evaluation = Evaluation(config)
    assert [(c.name, c.kind) for c in evaluation.data.contenders] == [
        ("clip-gs-tiny", "model"), ("random", "model"), ("render + teacher", "render"),
    ]  # fmt: skip
    assert not torch.allclose(evaluation.data.contenders[0].objects, evaluation.data.contenders[1].objects)
    first = evaluation.zero_shot("name")[0].splitlines()[2]
    assert first.split("  ")[0] == "class"
    assert "clip-gs-tiny" in first
    assert "random" in first


def test_models_of_one_name_are_told_apart_by_path(model_folder, tmp_path):
    (tmp_path / "copy").symlink_to(model_folder)
    models = load_models((model_folder, str(tmp_path / "copy")))
    assert list(models.by_name) == [model_folder, str(tmp_path / "copy")]
    assert len(models.teachers) == 1
    with pytest.raises(DataError, match="different models"):
        load_models((model_folder, model_folder))
    with pytest.raises(DataError, match="one or more"):
        load_models(())


def test_labels_of_a_file_by_key_and_labels_that_are_not_in_the_set(folder, tmp_path):
    (tmp_path / "by_key.json").write_text(json.dumps({"wood": ["plank0", "pole1"], "cardboard": ["box0"]}))
    found = Evaluation(
        EvaluateConfig(data=f"folder:{folder}", labels=str(tmp_path / "by_key.json"), drop_unknown=True, **SMALL)
    )
    assert dict(zip([sample.key for sample in found.data.samples], found.labels, strict=True)) == {
        "box0": "cardboard", "plank0": "wood", "pole1": "wood",
    }  # fmt: skip
    assert "left out: 4 objects without a class of the label set" in found.notes
    with pytest.raises(DataError, match=r"(?s)2 labels of 4 objects are not in the label set 'scanobjectnn'.*--drop-unknown"):
        Evaluation(EvaluateConfig(data=f"folder:{folder}", labels="scanobjectnn", **SMALL))


def test_a_holdout_is_a_part_of_the_split(folder):
    found = Evaluation(EvaluateConfig(data=f"folder:{folder}", split="train", holdout="pole", **SMALL))
    assert [sample.key for sample in found.data.samples] == ["pole2", "pole3", "pole4"]
    assert found.classes == ["pole"]
    with_others = Evaluation(EvaluateConfig(data=f"folder:{folder}", split="train", holdout="pole", **SMALL), "test")
    assert len(with_others.data.samples) == 3 + 6


def test_all_classes_of_a_set_can_be_chosen(folder, tmp_path):
    (tmp_path / "classes.txt").write_text("box\nplank\npole\nsphere\n")
    _, figures = Evaluation(EvaluateConfig(data=f"folder:{folder}", labels=str(tmp_path / "classes.txt"), **SMALL)).zero_shot(
        "name"
    )
    assert figures["classes"] == ["box", "plank", "pole", "sphere"]
    assert figures["chance"]["top1"] == pytest.approx(0.25)
    assert set(figures["results"]["clip-gs-tiny"]["by_class"]) == set(SHAPES)


def test_the_untrained_network_depends_on_its_seed_alone(evaluation, model_folder):
    gaussians = [make_triplets(list(open_corpus(evaluation.config.data))[:1], TripletConfig(method="surface"))[0].gaussians]
    model = load_models((model_folder,)).by_name["random"]
    assert not model.encoder.training  # read before the states of random numbers are compared
    before = torch.get_rng_state()
    first, again, other = (untrained_encoder(model, seed)(gaussians) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_a_text_is_embedded_once(teacher):
    asked = []
    encode = teacher.encode_text
    teacher.encode_text = lambda texts: asked.extend(texts) or encode(texts)
    remembered = RememberedTexts(teacher)
    first = remembered.encode_text(["a chair", "a table", "a chair"])
    assert torch.equal(first, encode(["a chair", "a table", "a chair"]))
    assert torch.equal(remembered.encode_text(["a lamp", "a table"]), encode(["a lamp", "a table"]))
    assert asked == ["a chair", "a table", "a lamp"]
    assert remembered.encode_text([]).shape == (0, 16)


def test_an_empty_split_names_the_flags(library):
    with pytest.raises(DataError, match="--split and --holdout"):
        evaluate_zero_shot(EvaluateConfig(data=f"furniture:{library}", split="train", **SMALL))
    with pytest.raises(DataError, match="--gaussians and --views"):
        EvaluateConfig(views=0)


def test_without_labels_there_is_retrieval_only(tmp_path):
    (tmp_path / "chair.obj").write_text(CUBE + FACES)
    config = EvaluateConfig(data=f"folder:{tmp_path}", split="train", **SMALL)
    assert "1 objects, 1 names" in evaluate_retrieval(config)
    with pytest.raises(DataError, match="no object has a label"):
        evaluate_zero_shot(config)
    with pytest.raises(DataError, match="no object has a label"):
        evaluate_few_shot(config)


def test_probes_need_another_split(evaluation):
    for split in ("test", "validation"):
        with pytest.raises(DataError, match=f"--train {split}: must be a split with labelled objects"):
            evaluation.linear_probe(LinearProbeConfig(train=split))


def test_the_command_line(folder, tmp_path, capsys):
    words = ["evaluate", "few-shot", "--data", f"folder:{folder}", "--views", "1", "--gaussians", "64", "--no-untrained"]
    words += ["--ways", "3", "--shots", "1", "--episodes", "2", "--json", str(tmp_path / "few.json")]
    assert main(words) == 0
    assert "3-way 1-shot" in capsys.readouterr().out
    assert json.loads((tmp_path / "few.json").read_text())["few_shot"]["settings"]["episodes"] == 2
    assert main(["evaluate", "zero-shot", "--model", "no-such-model"]) == 2
    assert "no-such-model: neither a bundled model" in capsys.readouterr().err
    assert main(["evaluate", "all", "--data", str(tmp_path)]) == 2
    assert "no triplets-*.tar" in capsys.readouterr().err
    assert main(["evaluate", "all", "--data", f"folder:{folder}", "--labels", "scanobjectnn", *words[4:9]]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "splatsense: 2 labels of 10 objects are not in the label set 'scanobjectnn':" in lines
    assert lines[-1].endswith("or leave these objects out with --drop-unknown.")
    assert "\\n" not in "".join(lines)


def test_models_and_data_that_are_not_there_are_errors(tmp_path):
    with pytest.raises(CheckpointError, match="neither a bundled model"):
        Evaluation(EvaluateConfig(model=("nothing",)))
    with pytest.raises(FormatError, match="no mesh below it"):
        Evaluation(EvaluateConfig(data=f"folder:{tmp_path}"))


def test_a_split_that_is_not_there_is_an_error_that_names_those_that_are(folder):
    with pytest.raises(DataError, match="none is left; the splits are test, train; check --split"):
        Evaluation(EvaluateConfig(data=f"folder:{folder}", split="val", untrained=False, rendered=False))
