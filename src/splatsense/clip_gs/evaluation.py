"""`Evaluation`: models, labelled objects and their embeddings, and the four tables made of them (CLIP-GS, section 4).

Every object is embedded once, however many tables are made. A table is text for people and figures for programs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import torch

from splatsense.clip_gs import tabulate
from splatsense.clip_gs.captions import clean_name
from splatsense.clip_gs.evaluation_set import (
    Contender,
    EvaluationSet,
    RememberedTexts,
    embed_objects,
    load_models,
)
from splatsense.clip_gs.evaluation_sources import CorpusSource, ShardSource
from splatsense.clip_gs.few_shot import WAYS, Episode, FewShotConfig, draw_episodes, few_shot
from splatsense.clip_gs.label_sets import LabelSet, load_label_set
from splatsense.clip_gs.linear_probe import LinearProbeConfig, LinearProbeResult, linear_probe
from splatsense.clip_gs.prompts import TEMPLATES, Prompts, class_embeddings
from splatsense.clip_gs.ranking import hits_at
from splatsense.clip_gs.retrieval import RecallResult, chance_recall, recall
from splatsense.clip_gs.triplets import TripletConfig
from splatsense.clip_gs.zero_shot import chance, majority, zero_shot
from splatsense.corpora.sources import FOLDERS, open_corpus
from splatsense.errors import DataError

Table = tuple[str, dict[str, Any]]
"""A table as text and as figures."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate."""

    model: tuple[str, ...] = ("clip-gs-tiny",)
    """bundled names or model folders; several are shown side by side"""
    data: str = "furniture"
    """a corpus (furniture, furniture:PATH, folder:PATH, modelnet40:PATH, splats:PATH) or a folder of triplet shards"""
    labels: str = ""
    """furniture, modelnet40, scanobjectnn, or a file of classes; by default the labels that occur in the data"""
    drop_unknown: bool = False
    """leave out objects whose label is not in the label set"""
    split: str = "test"
    """of the data; use "train" with --holdout to make choices"""
    holdout: str = ""
    """only objects of this split whose key starts with this"""
    gaussians: int = 8192
    """sampled on the surface of each mesh; shards hold what they hold"""
    views: int = 12
    """rendered of each object for the teacher; shards hold what they hold"""
    untrained: bool = True
    """baseline: the first model's network with random weights; --no-untrained leaves it out"""
    rendered: bool = True
    """baseline: the teacher on the rendered views; --no-rendered leaves it out"""
    seed: int = 0
    """of random weights, episodes and folds"""
    json: str | None = None
    """file for the figures"""

    def __post_init__(self) -> None:
        if self.gaussians < 1 or self.views < 1:
            raise DataError(f"--gaussians and --views: must be at least 1, got {self.gaussians} and {self.views}.")


def open_source(config: EvaluateConfig) -> CorpusSource | ShardSource:
    """The objects that `--data` names. Raises FormatError when there are none."""
    if config.data.partition(":")[0] not in ("furniture", *FOLDERS):
        return ShardSource(config.data)
    made = TripletConfig(
        method="surface", gaussians=config.gaussians, views=config.views, elevations=(10.0, 30.0), jitter=0, held_out=0
    )
    return CorpusSource(open_corpus(config.data), made)


class Evaluation:
    """What the tables are made of.

    Args:
        config: what to evaluate.
        other_split: a second split to embed, to learn from; "" for none.
        teachers: by name, with the texts they have embedded already; evaluations that follow each other can share one.

    Attributes:
        data: objects of both splits; those without a class are left out where there are classes.
        labels: class of each object.
        classes: that objects are told apart by; empty when nothing has a label.

    Raises:
        SplatSenseError: what is wrong with the models, the data or the labels.
    """

    def __init__(
        self, config: EvaluateConfig, other_split: str = "", teachers: dict[str, RememberedTexts] | None = None
    ) -> None:
        self.config = config
        models = load_models(config.model, teachers)  # before anything is fetched for --data
        label_set = _label_set(config)
        source = open_source(config)

        def keep(key: str, split: str) -> bool:
            return key.startswith(config.holdout) if split == config.split else bool(other_split) and split == other_split

        data = embed_objects(models, source, keep, config.untrained, config.seed, config.rendered)
        labels = [sample.label for sample in data.samples]
        if label_set:
            drop = config.drop_unknown or not config.labels
            labels = label_set.match([sample.key for sample in data.samples], labels, drop)
        used = [row for row, label in enumerate(labels) if label] or list(range(len(labels)))
        self.data, self.labels = data.select(used), [labels[row] for row in used]
        self._test = [row for row, sample in enumerate(self.data.samples) if sample.split == config.split]
        if not self._test:
            raise DataError(f"--split {config.split} --holdout {config.holdout!r}: no object with a class is left.")
        present = {self.labels[row] for row in self._test}
        self.classes = list(label_set.classes) if label_set and config.labels else sorted(present - {""})
        self.notes = [f"left out: {key}: {reason}" for key, reason in data.failed.items()]
        if len(used) < len(labels):
            self.notes.append(f"left out: {len(labels) - len(used)} objects without a class of the label set")

    def zero_shot(self, prompts: Prompts = "ensemble") -> Table:
        """Accuracies of every contender, by class and over all."""
        test, labels = self._labelled_test()
        templates = TEMPLATES[prompts]
        results = {
            contender.name: zero_shot(
                contender.objects, class_embeddings(contender.encode_text, self.classes, templates), labels, self.classes
            )
            for contender in test.contenders
        }
        title = f"zero-shot, {self._about(test, self.classes)}, {_prompts(prompts)}"
        overall = tabulate.accuracies(results | {"chance": chance(labels, self.classes)})
        return f"{title}\n\n{tabulate.by_class(results)}\n\n{overall}", {
            "prompts": prompts,
            "classes": self.classes,
            "chance": _plain(chance(labels, self.classes)),
            "results": _plain(results),
        }

    def correct(self, prompts: Prompts = "ensemble") -> dict[str, dict[str, float]]:
        """Top-1 of `zero_shot` object by object, for every contender: 1 or 0 by key, in between where classes tie."""
        test, labels = self._labelled_test()
        truth = torch.tensor([[name == label for name in self.classes] for label in labels])
        keys = [sample.key for sample in test.samples]
        found = {}
        for contender in test.contenders:
            classes = class_embeddings(contender.encode_text, self.classes, TEMPLATES[prompts])
            hits = hits_at(contender.objects @ classes.T, truth, (1,))[:, 0]
            found[contender.name] = dict(zip(keys, hits.tolist(), strict=True))
        return found

    def retrieval(self, prompts: Prompts = "short") -> Table:
        """R@k of every contender in every direction."""
        test = self.data.select(self._test)
        names = [clean_name(sample.name) for sample in test.samples]
        directions: dict[str, dict[str, RecallResult]] = {}
        for contender in test.contenders:
            for direction, result in _directions(contender, names, prompts).items():
                directions.setdefault(direction, {})[contender.name] = result
        views = test.contenders[0].images.shape[1]
        each = [name for name in names for _ in range(views)]
        for direction, results in directions.items():
            results["chance"] = chance_recall(
                each if direction.startswith("image") else names, each if direction.endswith("image") else names
            )
        title = f"retrieval, {self._about(test)}, {len(set(names))} names; the same name is a hit; {_prompts(prompts)}"
        return f"{title}\n\n{tabulate.recalls(directions)}", {"prompts": prompts, "results": _plain(directions)}

    def few_shot(self, config: FewShotConfig) -> Table:
        """Accuracies of linear classifiers and class means on a few labelled objects, of every contender."""
        self._labelled_test()
        config = replace(config, support="") if config.support == self.config.split else config
        rows = list(range(len(self.labels))) if config.support else self._test
        data, labels = self.data.select(rows), [self.labels[row] for row in rows]
        settings: dict[tuple[int, int], list[Episode]] = {}
        skipped = []
        for way, shot in [(way, shot) for way in config.ways or WAYS for shot in config.shots]:
            try:
                splits = [sample.split for sample in data.samples]
                settings[way, shot] = draw_episodes(labels, splits, way, shot, config, self.config.seed)
            except DataError as error:
                if config.ways:
                    raise
                skipped.append(str(error))
        if not settings:
            raise DataError(skipped[0])
        results = {
            key: {contender.name: few_shot(contender.objects, episodes, config.C) for contender in data.contenders}
            for key, episodes in settings.items()
        }
        support = f", support from split {config.support!r}" if config.support else ""
        title = f"few-shot, {self._about(data, sorted(set(labels)))}{support}, {config.episodes} episodes, mean ± deviation"
        notes = [f"not possible: {reason.removeprefix('few-shot: ').partition(' Take')[0]}" for reason in skipped]
        named = {f"{way}-way {shot}-shot": value for (way, shot), value in results.items()}
        text = "\n".join([title, "", tabulate.episodes(results), *notes])
        return text, {"settings": asdict(config), "results": _plain(named), "not_possible": skipped}

    def linear_probe(self, config: LinearProbeConfig) -> Table:
        """Accuracies on the test split of classifiers fitted to the embeddings of another split, of every contender."""
        self._labelled_test()
        train = [row for row, sample in enumerate(self.data.samples) if sample.split == config.train]
        if config.train == self.config.split or not train:
            raise DataError(f"--train {config.train}: must be a split with labelled objects, and not the one that is measured.")
        known = {self.labels[row] for row in train}
        test = [row for row in self._test if self.labels[row] in known]
        missing = sorted({self.labels[row] for row in self._test} - known)
        if not test:
            raise DataError(f"--train {config.train}: holds none of the classes of split {self.config.split}.")
        train_labels, test_labels = ([self.labels[row] for row in rows] for rows in (train, test))
        results: dict[str, LinearProbeResult] = {
            c.name: linear_probe(c.objects[train], train_labels, c.objects[test], test_labels, config, self.config.seed)
            for c in self.data.contenders
        }
        guess = {"most frequent class": majority(train_labels, test_labels), "chance": chance(test_labels, sorted(known))}
        title = f"linear probe, {len(train)} objects of split {config.train} -> {self._about(self.data.select(test), known)}"
        chosen = [f"{name}: C = {r.C:g}, {r.validation[r.C]:.1%} in cross-validation" for name, r in results.items()]
        left = [f"left out: test objects of {', '.join(missing)}, which have no training object"] if missing else []
        tested = {name: result.test for name, result in results.items()}
        text = "\n".join([title, "", tabulate.accuracies(tested | guess), "", *chosen, *left])
        return text, {"settings": asdict(config), **_plain(guess), "results": _plain(results), "no_training_object": missing}

    def _labelled_test(self) -> tuple[EvaluationSet, list[str]]:
        if not self.classes:
            raise DataError(
                f"--data {self.config.data}: no object has a label; give it a column `label` in captions.csv, "
                "or --labels with a file that lists the keys of each class."
            )
        return self.data.select(self._test), [self.labels[row] for row in self._test]

    def _about(self, data: EvaluationSet, classes: Sequence[str] | set[str] = ()) -> str:
        count = f", {len(classes)} classes" if classes else ""
        return f"{self.config.data} {self.config.split} split: {len(data.samples)} objects{count}"


def _label_set(config: EvaluateConfig) -> LabelSet | None:
    if config.labels:
        return load_label_set(config.labels)
    return load_label_set("furniture") if config.data.partition(":")[0] == "furniture" else None


def _directions(contender: Contender, names: Sequence[str], prompts: Prompts) -> dict[str, RecallResult]:
    """R@k between the objects, texts and pictures of a contender. The teacher's objects are pictures: it gets texts only."""
    unique = list(dict.fromkeys(names))
    texts = class_embeddings(contender.encode_text, unique, TEMPLATES[prompts])
    scores = texts[[unique.index(name) for name in names]] @ contender.objects.T
    found = {"text -> 3D": recall(scores, names), "3D -> text": recall(scores.T, names)}
    if contender.kind == "render":
        return found
    views = contender.images.shape[1]
    each = [name for name in names for _ in range(views)]
    owners = [row for row in range(len(names)) for _ in range(views)]
    scores = contender.images.flatten(0, 1) @ contender.objects.T
    found["image -> 3D"] = recall(scores, each, names, owners=owners)
    found["3D -> image"] = recall(scores.T, names, each)
    scores = torch.nn.functional.normalize(contender.images.mean(1), dim=-1) @ contender.objects.T
    found[f"{views} images -> 3D"] = recall(scores, names)
    found[f"3D -> {views} images"] = recall(scores.T, names)
    return found


def _prompts(prompts: Prompts) -> str:
    count = len(TEMPLATES[prompts])
    return f"{count} prompt{'s' if count > 1 else ''} a name"


def _plain(value: Any) -> Any:
    """Results as JSON has them: dataclasses as objects, keys as strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    return {str(key): _plain(entry) for key, entry in value.items()} if isinstance(value, dict) else value
