"""One run of the study: train it unless it is trained, measure it unless it is measured, and keep a record of both.

Design
- `run.json` in the folder of a run holds its settings, a fingerprint of the triplets and every version of the code that trained
  it. A run with other settings or data is refused, trained or not.
- Training goes on from the trainer's own checkpoint. A saved model ends it: it is never trained again.
- `figures-<data>.json` beside the model is written when the model is measured, which is not done twice on the same objects.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from splatsense.clip_gs.evaluate import all_tables
from splatsense.clip_gs.evaluation import EvaluateConfig, Evaluation
from splatsense.clip_gs.evaluation_set import RememberedTexts
from splatsense.clip_gs.few_shot import FewShotConfig
from splatsense.clip_gs.pretrain import pretrain
from splatsense.clip_gs.pretrain_config import PretrainConfig
from splatsense.clip_gs.shards import fingerprint
from splatsense.model_folder import CONFIG
from splatsense.studies.records import RECORD, check_record, code_version, keep_record, machine, read_json, write_json
from splatsense.training.metrics import SPEED, read_metrics

WAY, SHOT = 10, 5
EPISODES = FewShotConfig(ways=(WAY,), shots=(SHOT,))

Figures = dict[str, Any]
"""Of one contender: "metrics" by name in [0, 1], "correct" by object, "not_possible" reasons by table."""


def train_once(config: PretrainConfig) -> Path:
    """The model folder of a run, trained as far as it is not yet.

    Raises:
        CheckpointError: the folder holds a run with other settings or other triplets.
    """
    out = Path(config.out)
    settings = {**config.settings(), "data": fingerprint(config.triplets)}
    if is_trained(config):
        check_record(out / RECORD, settings)
        return out / "model"
    keep_record(out / RECORD, settings)
    return pretrain(config)


def is_trained(config: PretrainConfig) -> bool:
    """Whether the run has saved its model."""
    return (Path(config.out) / "model" / CONFIG).is_file()


def training_seconds(config: PretrainConfig) -> float:
    """What the steps of a run took, over all its starts; without loading, evaluation and saving."""
    before, seconds = 0, 0.0
    for line in read_metrics(Path(config.out) / SPEED):
        seconds += (line["step"] - before) * config.batch_size / line["objects_per_second"]
        before = line["step"]
    return seconds


def measure_once(
    model: Path, out: Path, data: str, labels: str, teachers: dict[str, RememberedTexts], teacher_out: Path
) -> Figures:
    """Figures of a model on the test split of a folder of triplets; the teacher's are kept the first time.

    Args:
        model: folder of the model.
        out: file for its figures.
        data: folder of triplets.
        labels: label set, see `EvaluateConfig`; labels that are not in it are left out.
        teachers: loaded already, by name.
        teacher_out: file for the figures of the teacher on rendered views.
    """
    measured_on = {"labels": labels, "triplets": fingerprint([data])}
    is_known, is_teacher_known = (_is_measured(path, measured_on) for path in (out, teacher_out))
    if is_known and is_teacher_known:
        return read_json(out)
    config = EvaluateConfig(
        model=(str(model),),
        data=data,
        labels=labels,
        drop_unknown=bool(labels),
        untrained=False,
        rendered=not is_teacher_known,
    )
    evaluation = Evaluation(config, "train", teachers)
    tables = {name: figures for name, (_, figures) in all_tables(evaluation, EPISODES).items()}
    correct = evaluation.correct()
    for contender in evaluation.data.contenders:
        path = teacher_out if contender.kind == "render" else out
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "measured_on": measured_on,
            "code": code_version(),
            "hash": contender.hash,
            "classes": len(evaluation.classes),
            "date": date.today().isoformat(),
            "machine": machine(),
        }
        write_json(path, {**about, **_figures(tables, contender.name), "correct": correct[contender.name]})
    return read_json(out)


def _is_measured(path: Path, measured_on: dict[str, str]) -> bool:
    return path.exists() and read_json(path)["measured_on"] == measured_on


def _figures(tables: Mapping[str, Any], name: str) -> Figures:
    reasons = {
        table: figures["not_possible"] for table, figures in tables.items() if isinstance(figures.get("not_possible"), str)
    }
    metrics: dict[str, float] = {}
    if "zero_shot" not in reasons:
        result = tables["zero_shot"]["results"][name]
        metrics |= {metric: result[metric] for metric in ("top1", "top3", "top5", "class_mean")}
    if "retrieval" not in reasons:
        for direction, results in tables["retrieval"]["results"].items():
            if name in results:
                metrics |= {f"{direction} R@{k}": results[name]["recall"][k] for k in ("1", "5")}
    if "few_shot" not in reasons:
        metrics["few_shot"] = tables["few_shot"]["results"][f"{WAY}-way {SHOT}-shot"][name]["logistic"][0]
    if "linear_probe" not in reasons:
        metrics["linear_probe"] = tables["linear_probe"]["results"][name]["test"]["top1"]
    return {"metrics": metrics, "not_possible": reasons}
