"""The training loop of every method: it drives a `Run`, which knows the method, and does what all runs share.

Design
- A run is a function of its settings: batch, augmentation and dropout of a step depend on (seed, step) alone. So a run that
  was interrupted goes on from its checkpoint as if nothing had been, bit for bit on a CPU.
- The first process writes checkpoints, metrics and pictures; all read checkpoints.
- The order at a step is: update, metrics, checkpoint. What a checkpoint has seen is in the log.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from splatsense.errors import DataError
from splatsense.training.checkpoint import load_checkpoint, save_checkpoint
from splatsense.training.divergence import DivergedError, save_batch
from splatsense.training.metrics import METRICS, SPEED, MetricsLog, open_tensorboard, read_metrics
from splatsense.training.plot import plot_metrics
from splatsense.training.prefetch import Prefetcher
from splatsense.training.processes import Processes
from splatsense.training.progress import Progress
from splatsense.training.signals import StopSignal

PLOT = "metrics.png"
log = logging.getLogger("splatsense")


@runtime_checkable
class Run(Protocol):
    """What the loop needs of a method."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Everything with a state, by name; not wrapped for data-parallel training."""
        ...

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of the modules' parameters."""
        ...

    @property
    def steps(self) -> int:
        """Of the whole run."""
        ...

    @property
    def batch_size(self) -> int:
        """Objects per step, of all processes together."""
        ...

    def load(self, step: int) -> Any:
        """This process's batch of a step, on the CPU; a function of the step. Called in a background thread, in order."""
        ...

    def step(self, step: int, batch: Any) -> dict[str, float]:
        """One update of the modules; its metrics, "loss" among them. Raises DivergedError."""
        ...


@dataclass(frozen=True)
class LoopConfig:
    """How a run is driven.

    Attributes:
        folder: of the run.
        settings: JSON-able, of the method; a checkpoint made with others is refused.
        label: shown beside the progress.
        checkpoint_every: steps between checkpoints.
        log_every: steps between lines of metrics.
        evaluate_every: steps between evaluations; 0 evaluates at the end only.
        prefetch: batches made ahead in a background thread.
        tensorboard: also write TensorBoard's events.
    """

    folder: Path
    settings: Mapping[str, Any]
    label: str
    checkpoint_every: int
    log_every: int = 10
    evaluate_every: int = 0
    prefetch: int = 1
    tensorboard: bool = False


def train(run: Run, processes: Processes, config: LoopConfig, evaluate: Callable[[], dict[str, float]] | None = None) -> None:
    """Train from the newest checkpoint in the folder, if there is one, to the end, and plot the metrics.

    SIGTERM and SIGINT save a checkpoint at the next step and end the process with 143 or 130.

    Args:
        run: the method.
        processes: that train together.
        config: how.
        evaluate: metrics of held-out training data, never of a test split; called on the first process.

    Raises:
        CheckpointError: what is in the folder is another run's.
        DataError: a loss or gradient is not finite; the message names the file that holds the batch.
    """
    config.folder.mkdir(parents=True, exist_ok=True)
    saved = load_checkpoint(config.folder, run.modules, run.optimizer, config.settings, set_aside=processes.is_first)
    start = saved["step"] if saved else 0
    reporter = _Reporter(run, config, start, evaluate) if processes.is_first else None
    try:
        _run(run, processes, config, start, reporter)
    finally:
        if reporter:
            reporter.close()
    if reporter:
        reporter.plot()


def _run(run: Run, processes: Processes, config: LoopConfig, start: int, reporter: "_Reporter | None") -> None:
    """The steps from `start` on."""
    prefetcher = Prefetcher(run.load, range(start, run.steps), config.prefetch)
    with StopSignal() as signal, closing(iter(prefetcher)) as batches:
        for step, batch in batches:
            values, stop = _step(run, processes, config, step, batch, signal)
            if reporter:
                reporter.after(step + 1, values, prefetcher.waited, stop)
            if stop and step + 1 < run.steps:
                signal.raise_again()


def _step(
    run: Run, processes: Processes, config: LoopConfig, step: int, batch: Any, signal: StopSignal
) -> tuple[dict[str, float], bool]:
    try:
        values, stop = processes.agree(run.step(step, batch), signal.received is not None)
        if not math.isfinite(values["loss"]):
            raise DivergedError("the loss is not finite")
    except DivergedError as error:
        path = config.folder / f"diverged-step-{step}-process-{processes.rank}.safetensors"
        save_batch(path, batch)
        raise DataError(f"training diverged at step {step}: {error}; its batch is in {path}. Lower --learning-rate.") from error
    return values, stop


class _Reporter:
    """What the first process does between steps: metrics, checkpoints, progress and in the end the plot."""

    def __init__(self, run: Run, config: LoopConfig, start: int, evaluate: Callable[[], dict[str, float]] | None) -> None:
        self.run, self.config, self.evaluate = run, config, evaluate
        self.board = open_tensorboard(config.folder / "tensorboard", start) if config.tensorboard else None
        self.metrics = MetricsLog(config.folder, start, METRICS, self.board)
        self.speed = MetricsLog(config.folder, start, SPEED, self.board)
        self.progress = Progress(config.label, run.steps, start)
        self.mark, self.seconds, self.counted, self.waited = time.perf_counter(), 0.0, 0, 0.0

    def after(self, step: int, values: dict[str, float], waited: float, stop: bool) -> None:
        """`step` steps are done; `waited` seconds went into waiting for batches."""
        self.seconds += time.perf_counter() - self.mark
        self.counted += 1
        last, every = step == self.run.steps, self.config.evaluate_every
        evaluated = self.evaluate() if self.evaluate and (last or (every and step % every == 0)) else {}
        if evaluated or last or step % self.config.log_every == 0:
            self.metrics.write(step, **values, **evaluated)
            self._write_speed(step, waited)
        if stop or last or step % self.config.checkpoint_every == 0:
            state = {"step": step, "settings": self.config.settings}
            save_checkpoint(self.config.folder, self.run.modules, self.run.optimizer, state)
        self.progress.advance(1, ", ".join(f"{name} {value:.3g}" for name, value in list(values.items())[:4]))
        if stop and not last:
            self.progress.close()
            log.warning("stopped after step %d of %d; the same command goes on from there.", step, self.run.steps)
        self.mark = time.perf_counter()

    def _write_speed(self, step: int, waited: float) -> None:
        objects, share = self.counted * self.run.batch_size / self.seconds, (waited - self.waited) / self.seconds
        self.speed.write(step, objects_per_second=objects, data_share=share)
        self.seconds, self.counted, self.waited = 0.0, 0, waited

    def close(self) -> None:
        """End the progress line and write TensorBoard's events to the end."""
        self.progress.close()
        if self.board is not None:
            self.board.close()

    def plot(self) -> None:
        """Draw all metrics."""
        lines = read_metrics(self.metrics.path)
        if lines:
            plot_metrics(lines, self.config.folder / PLOT, self.config.label)
