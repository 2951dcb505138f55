"""Copies a trained backbone or segmentation model of the synthetic rooms into the package and completes its card.

python tools/publish_scene_model.py RUN/model gaussian-cross-tiny "linear probe, test rooms=probe.json"
python tools/publish_scene_model.py RUN/model rooms20-tiny "test rooms=semantic.json" "test rooms, instances=instance.json"

A model that was fine-tuned from another segmentation model, from its linear probe say, gets the settings of those runs too.

The figures are what `splatsense evaluate semantic` and `evaluate instance` write with --json.
"""

import argparse
import json
import shutil
from pathlib import Path, PurePath

from splatsense import __version__
from splatsense.model_folder import BUNDLED, CONFIG, WEIGHTS, find_model, read_card
from splatsense.segmentation.model import KIND

FACTS = {
    "licence": "Apache-2.0",
    "data": [
        "synthetic rooms furnished from the train split of the Sweet Home 3D furniture libraries (Scopia, BlendSwap-CC-BY, "
        "Reallusion, default catalogue): CC-BY 3.0"
    ],
    "limits": "Trained on synthetic rooms alone, fused from rendered depth; real scans differ; 2D teacher EfficientNet-Lite2.",
}
FILES = ("scenes", "cache", "out", "validation")  # settings that name files of the machine it was trained on
PER_CLASS = ("classes", "by_class", "confusion")


def without_paths(training: dict) -> dict:
    """The settings, with the last part of each path only, and the name of the backbone it started from."""
    shown = {}
    for key, value in training.items():
        if key == "backbone" and value:
            value = read_card(find_model(value)).get("name")
        elif key in FILES and value:
            many = [PurePath(one).name for one in ([value] if isinstance(value, str) else value)]
            value = many[0] if isinstance(value, str) else many
        shown[key] = value
    return shown


def earlier_runs(training: dict) -> list[dict]:
    """Settings of the runs before the last, the first one first, for a segmentation model that starts from another."""
    card = read_card(find_model(training["backbone"])) if training.get("backbone") else {}
    if card.get("kind") != KIND:
        return []
    return [*earlier_runs(card["training"]), without_paths(card["training"])]


def measured(path: str) -> dict:
    """The overall figures of an evaluation."""
    figures = json.loads(Path(path).read_text())
    return {key: value for key, value in figures.items() if isinstance(value, float | int) and key not in PER_CLASS}


def main() -> None:
    """Write `weights/NAME/`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("name", help="that it is loaded by")
    parser.add_argument("figures", nargs="*", metavar="TITLE=JSON")
    options = parser.parse_args()
    card = json.loads((options.model / CONFIG).read_text())
    earlier = earlier_runs(card["training"])
    card["training"] = without_paths(card["training"])
    if earlier:
        card["earlier_training"] = earlier
    metrics = {title: measured(path) for title, path in (each.split("=", 1) for each in options.figures)}
    folder = BUNDLED / options.name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(options.model / WEIGHTS, folder / WEIGHTS)
    described = {**card, "name": options.name, **FACTS, "code_version": __version__, "measured": metrics}
    (folder / CONFIG).write_text(json.dumps(described, indent=2) + "\n")
    print(f"{folder}: {(folder / WEIGHTS).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
