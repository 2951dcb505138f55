import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from splatsense.errors import CheckpointError, DataError
from splatsense.training.checkpoint import CURRENT, PREVIOUS
from splatsense.training.loop import PLOT, train
from splatsense.training.metrics import METRICS, SPEED, read_metrics
from splatsense.training.processes import Processes
from training import tiny_run
from training.tiny_run import TinyRun, config_of
from training_runs import TWO_PROCESSES, assert_same_runs, python_environment

STEPS = 40


def run_to_end(folder, steps=STEPS, **changes):
    run = TinyRun(steps)
    train(run, run.processes, config_of(folder, **changes))
    return run


def state_of(folder):
    with safe_open(folder / CURRENT, "pt") as opened:
        return json.loads(opened.metadata()["state"])


def start_process(folder, steps, pause, *launcher):
    command = [*(launcher or (sys.executable,)), tiny_run.__file__, str(folder), str(steps), str(pause)]
    return subprocess.Popen(command, env=python_environment(), stderr=subprocess.PIPE, text=True)


def finish_process(folder, steps):
    """A run in a process of its own: the last bits depend on the number of threads, which other tests change in this one."""
    process = start_process(folder, steps, 0)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def wait_for_lines(folder, count, process):
    """Until that many steps are logged."""
    while len(read_metrics(folder / METRICS)) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)


def test_a_run_learns_and_leaves_metrics_speed_and_a_plot(tmp_path):
    run_to_end(tmp_path)
    lines = read_metrics(tmp_path / METRICS)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert all(line["objects_per_second"] > 0 and 0 <= line["data_share"] <= 1 for line in read_metrics(tmp_path / SPEED))
    assert (tmp_path / PLOT).stat().st_size > 1000
    assert state_of(tmp_path) == {"step": STEPS, "settings": tiny_run.SETTINGS}


def test_prefetching_changes_nothing(tmp_path):
    run_to_end(tmp_path / "ahead", prefetch=3)
    run_to_end(tmp_path / "not", prefetch=0)
    assert_same_runs(tmp_path / "ahead", tmp_path / "not")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_a_killed_run_loses_no_more_than_since_its_checkpoint_and_ends_the_same(tmp_path):
    finish_process(tmp_path / "whole", STEPS)
    folder = tmp_path / "killed"
    process = start_process(folder, STEPS, 0.02)
    wait_for_lines(folder, 13, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = read_metrics(folder / METRICS)[-1]["step"]
    assert STEPS > done >= state_of(folder)["step"] >= done - 5
    shutil.copytree(folder, tmp_path / "again")
    for resumed in (folder, tmp_path / "again"):
        finish_process(resumed, STEPS)
        assert_same_runs(resumed, tmp_path / "whole")


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_the_same(tmp_path):
    steps = 300
    finish_process(tmp_path / "whole", steps)
    folder = tmp_path / "killed"
    generator = torch.Generator().manual_seed(0)
    kills = 0
    while kills < 10:
        process = start_process(folder, steps, 0.01)
        before = state_of(folder)["step"] if (folder / CURRENT).exists() else 0
        wait_for_lines(folder, before + 1, process)
        time.sleep(0.3 * float(torch.rand((), generator=generator)))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        reached = read_metrics(folder / METRICS)[-1]["step"]
        checkpoints = [name for name in (CURRENT, PREVIOUS) if (folder / name).exists()]
        saved = state_of(folder)["step"] if CURRENT in checkpoints else 0
        assert reached - saved <= 10  # five steps; ten in the moment between two renames
    run_to_end(folder, steps)
    assert_same_runs(folder, tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "error", "status"), [(signal.SIGTERM, SystemExit, 143), (signal.SIGINT, KeyboardInterrupt, None)]
)
def test_a_signal_saves_at_the_next_step_and_ends_the_process(tmp_path, caplog, number, error, status):
    run_to_end(tmp_path / "whole")
    before = signal.getsignal(number)
    run = TinyRun(STEPS)
    original = run.step

    def interrupted(step, batch):
        if step == 11:
            os.kill(os.getpid(), number)
        return original(step, batch)

    run.step = interrupted
    with pytest.raises(error) as caught:
        train(run, run.processes, config_of(tmp_path / "stopped"))
    assert getattr(caught.value, "code", None) == status
    assert state_of(tmp_path / "stopped")["step"] == 12
    assert "stopped after step 12 of 40; the same command goes on" in caplog.text
    assert signal.getsignal(number) is before
    run_to_end(tmp_path / "stopped")
    assert_same_runs(tmp_path / "stopped", tmp_path / "whole")


def test_a_truncated_checkpoint_is_noticed_and_the_one_before_serves(tmp_path, caplog):
    run_to_end(tmp_path)
    metrics = (tmp_path / METRICS).read_text()
    whole = {name: value.clone() for name, value in load_file(tmp_path / CURRENT).items()}  # not a view of the file
    content = bytearray((tmp_path / CURRENT).read_bytes())
    content[-5] ^= 1
    for damaged in (content[:-100], content):
        (tmp_path / CURRENT).write_bytes(damaged)
        run_to_end(tmp_path)
        assert f"going on from {tmp_path / PREVIOUS}" in caplog.text
        assert all(torch.equal(value, whole[name]) for name, value in load_file(tmp_path / CURRENT).items())
        assert (tmp_path / METRICS).read_text() == metrics
        caplog.clear()


def test_a_finished_run_is_left_as_it_is(tmp_path):
    run_to_end(tmp_path)
    before = (tmp_path / CURRENT).stat().st_mtime_ns, (tmp_path / METRICS).read_text()
    run_to_end(tmp_path)
    assert ((tmp_path / CURRENT).stat().st_mtime_ns, (tmp_path / METRICS).read_text()) == before


def test_other_settings_are_named(tmp_path):
    run_to_end(tmp_path)
    with pytest.raises(CheckpointError, match=r"width was 8 and is 9; deep\.er was None and is 1\. Set them back"):
        run_to_end(tmp_path, settings={"width": 9, "deep": {"er": 1}})


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch(tmp_path):
    run = TinyRun(STEPS)
    original = run.load

    def damaged(step):
        batch = original(step)
        if step == 7:
            batch["x"][2, 1] = torch.inf
        return batch

    run.load = damaged
    with pytest.raises(DataError, match="diverged at step 7: the gradient is not finite; its batch is in ") as caught:
        train(run, run.processes, config_of(tmp_path))
    path = tmp_path / "diverged-step-7-process-0.safetensors"
    assert str(path) in str(caught.value)
    kept = load_file(path)
    assert torch.equal(kept["x"], damaged(7)["x"])
    assert kept.keys() == {"x", "y"}
    assert state_of(tmp_path)["step"] == 5
    assert all(bool(value.isfinite().all()) for value in run.net.parameters())


def test_evaluation_is_logged_when_due_and_changes_nothing(tmp_path):
    run_to_end(tmp_path / "without")
    run = TinyRun(STEPS)
    calls = []

    def evaluate():
        calls.append(torch.randn(3))  # draws from the global generator
        return {"holdout_error": float(len(calls))}

    train(run, run.processes, config_of(tmp_path / "with", evaluate_every=16), evaluate)
    found = {
        line["step"]: line["holdout_error"] for line in read_metrics(tmp_path / "with" / METRICS) if "holdout_error" in line
    }
    assert found == {16: 1.0, 32: 2.0, 40: 3.0}
    ours, theirs = (load_file(tmp_path / name / CURRENT) for name in ("with", "without"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_error_while_loading_a_batch_reaches_the_caller(tmp_path):
    run = TinyRun(STEPS)
    run.load = lambda step: 1 / 0
    with pytest.raises(ZeroDivisionError):
        train(run, run.processes, config_of(tmp_path))


def test_two_processes_take_the_steps_of_one(tmp_path):
    run_to_end(tmp_path / "one", 12)
    process = start_process(tmp_path / "two", 12, 0.0, *TWO_PROCESSES)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    one, two = (read_metrics(tmp_path / name / METRICS) for name in ("one", "two"))
    for ours, theirs in zip(one, two, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    ours, theirs = (load_file(tmp_path / name / CURRENT) for name in ("one", "two"))
    for name in ours:
        assert torch.allclose(ours[name].float(), theirs[name].float(), atol=1e-4), name


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on_the_same(tmp_path):
    whole = start_process(tmp_path / "whole", STEPS, 0.0, *TWO_PROCESSES)
    _, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, errors
    folder = tmp_path / "stopped"
    process = start_process(folder, STEPS, 0.05, *TWO_PROCESSES)
    wait_for_lines(folder, 7, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert "stopped after step" in errors
    assert 7 <= state_of(folder)["step"] < STEPS
    again = start_process(folder, STEPS, 0.0, *TWO_PROCESSES)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert_same_runs(folder, tmp_path / "whole")


def test_processes_refuse_a_batch_that_does_not_divide():
    share = tiny_run.Share.whole(8)
    assert [(part.start, part.stop) for part in share.split(4, "processes")] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    with pytest.raises(DataError, match="8 objects cannot be shared equally among 3 processes; change --batch-size"):
        share.split(3, "processes")
    assert Processes().agree({"loss": 2.0}, True) == ({"loss": 2.0}, True)
