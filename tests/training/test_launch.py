"""What all commands that train share, on a run of a small network."""

import json
from dataclasses import dataclass

import pytest

from splatsense.errors import CheckpointError
from splatsense.training.launch import Training, train_and_save
from splatsense.training.metrics import METRICS, read_metrics
from splatsense.training.settings import RunSettings
from training.tiny_run import SETTINGS, TinyRun


@dataclass(frozen=True)
class Config(RunSettings):
    out: str
    batch_size: int = 1
    learning_rate: float = 0.1
    weight_decay: float = 0.0
    clip_gradient: float = 1.0
    checkpoint_every: int = 5
    log_every: int = 3
    evaluate_every: int = 4
    prefetch: int = 0
    tensorboard: bool = False
    seed: int = 0

    def settings(self):
        return SETTINGS


def launch(config, data="same", steps=8):
    def prepare(processes):
        run = TinyRun(steps, processes)

        def save(folder):
            folder.mkdir()
            (folder / "card.json").write_text(json.dumps({"steps": run.steps}))

        return Training(run, "tiny", data, save, lambda: {"held_out": 0.5})

    return train_and_save(config, prepare)


def test_a_run_is_driven_by_its_settings_and_saved(tmp_path):
    folder = launch(Config(str(tmp_path)))
    assert folder == tmp_path / "model"
    assert json.loads((folder / "card.json").read_text()) == {"steps": 8}
    lines = read_metrics(tmp_path / METRICS)
    assert [line["step"] for line in lines] == [3, 4, 6, 8]
    assert [line["step"] for line in lines if "held_out" in line] == [4, 8]


def test_a_run_on_other_data_is_refused_and_nothing_is_saved(tmp_path):
    (launch(Config(str(tmp_path))) / "card.json").unlink()
    with pytest.raises(CheckpointError, match="data was same and is other"):
        launch(Config(str(tmp_path)), data="other")
    assert list((tmp_path / "model").iterdir()) == []
