"""`splatsense evaluate`: the tables of CLIP-GS on the furniture test split, beside chance and render-and-classify."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from splatsense.clip_gs.captions import clean_name
from splatsense.clip_gs.evaluation_set import EvaluationSet, embed_objects
from splatsense.clip_gs.model import load_model
from splatsense.clip_gs.retrieval import KS, chance_recall, recall
from splatsense.clip_gs.zero_shot import class_embeddings, zero_shot
from splatsense.corpora import CorpusObject
from splatsense.corpora.furniture import evaluation_labels, furniture
from splatsense.errors import DataError
from splatsense.files import atomic_write


@dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate."""

    model: str = "clip-gs-tiny"
    """bundled name or model folder"""
    furniture: str | None = None
    """folder of the Sweet Home 3D libraries; by default installed or fetched"""
    split: str = "test"
    """of the corpus; use "train" with --holdout to make choices"""
    holdout: str = ""
    """only objects whose key starts with this"""
    out: str | None = None
    """JSON file for the figures"""


def evaluate_zero_shot(config: EvaluateConfig) -> str:
    """Zero-shot classification of the labelled objects of a split, as a printed table."""
    objects = _objects(config)
    labels = [name for name in evaluation_labels() if any(item.label == name for item in objects)]
    model = load_model(config.model)
    data = embed_objects(model, [item for item in objects if item.label in labels])
    classes = class_embeddings(model.encode_text, labels)
    teacher_classes = class_embeddings(model.teacher.encode_text, labels)
    truth = [item.label for item in data.objects]
    results = {
        "model": zero_shot(data.model, classes, truth, labels),
        "render": zero_shot(data.rendered, teacher_classes, truth, labels),
    }
    ours = results["model"]
    lines = [f"zero-shot, furniture {config.split} split: {len(truth)} objects, {len(labels)} classes", ""]
    lines += [f"{'class':<26}{'objects':>8}{model.name:>16}{'render+teacher':>16}"]
    for name, (hits, count) in ours.by_class.items():
        lines.append(f"{name:<26}{count:>8}{hits:>16}{results['render'].by_class[name][0]:>16}")
    lines += ["", f"{'':<26}{'top-1':>8}{'top-3':>8}{'top-5':>8}{'class mean':>12}"]
    for label, result in ((model.name, ours), ("render + teacher, 12 views", results["render"])):
        lines.append(f"{label:<26}{result.top1:>8.1%}{result.top3:>8.1%}{result.top5:>8.1%}{result.class_mean:>12.1%}")
    top = [min(k / len(labels), 1.0) for k in (1, 3, 5)]
    lines.append(f"{'chance':<26}{top[0]:>8.1%}{top[1]:>8.1%}{top[2]:>8.1%}{top[0]:>12.1%}")
    _write(config, {"zero_shot": {name: asdict(result) for name, result in results.items()}, "failed": data.failed})
    return "\n".join(lines + _failures(data))


def evaluate_retrieval(config: EvaluateConfig) -> str:
    """Retrieval in four directions over all objects of a split with a class, as a printed table."""
    labels = set(evaluation_labels())
    model = load_model(config.model)
    data = embed_objects(model, [item for item in _objects(config) if item.label in labels])
    names = [clean_name(item.name) for item in data.objects]
    unique = list(dict.fromkeys(names))
    rows_of = torch.tensor([unique.index(name) for name in names])
    text = class_embeddings(model.encode_text, unique)[rows_of]
    teacher_text = class_embeddings(model.teacher.encode_text, unique)[rows_of]
    rows = {
        "text -> 3D": recall(text, data.model, names),
        "3D -> text": recall(data.model, text, names),
        "image -> 3D": recall(data.rendered, data.model, names),
        "3D -> image": recall(data.model, data.rendered, names),
        "text -> image (render + teacher)": recall(teacher_text, data.rendered, names),
        "chance": chance_recall(names),
    }
    lines = [
        f"retrieval, furniture {config.split} split: {len(names)} objects, {len(unique)} names; the same name is a hit",
        "",
    ]
    lines += [f"{'':<34}" + "".join(f"{f'R@{k}':>8}" for k in KS)]
    lines += [f"{label:<34}" + "".join(f"{row[k]:>8.1%}" for k in KS) for label, row in rows.items()]
    _write(config, {"retrieval": rows, "failed": data.failed})
    return "\n".join(lines + _failures(data))


def _objects(config: EvaluateConfig) -> list[CorpusObject]:
    chosen = [
        item for item in furniture(config.furniture) if item.split == config.split and item.key.startswith(config.holdout)
    ]
    if not chosen:
        raise DataError(f"--split {config.split} --holdout {config.holdout!r}: no object of the corpus is left.")
    return chosen


def _failures(data: EvaluationSet) -> list[str]:
    return ["", *(f"left out: {key}: {reason}" for key, reason in data.failed.items())] if data.failed else []


def _write(config: EvaluateConfig, figures: dict[str, Any]) -> None:
    if config.out:
        with atomic_write(config.out) as temporary:
            Path(temporary).write_text(json.dumps({"model": config.model, "split": config.split, **figures}, indent=1))
