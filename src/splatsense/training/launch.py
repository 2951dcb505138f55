"""What every command that trains does: bring the processes together, drive the run by its settings, save the model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from splatsense.training.loop import LoopConfig, Run, train
from splatsense.training.processes import Processes
from splatsense.training.settings import RunSettings

MODEL = "model"  # folder of the saved model in that of the run


@dataclass(frozen=True)
class Training:
    """A run that is ready to begin.

    Attributes:
        run: the method.
        label: shown beside the progress.
        data: fingerprint of what is trained on: a run that is resumed must have the same.
        save: writes the trained model into a folder; called on the first process.
        evaluate: metrics of held-out training data; None for no evaluation.
    """

    run: Run
    label: str
    data: str
    save: Callable[[Path], None]
    evaluate: Callable[[], dict[str, float]] | None = None


def train_and_save(config: RunSettings, prepare: Callable[[Processes], Training]) -> Path:
    """Train, or go on training, and save the model.

    Args:
        config: settings of the method.
        prepare: makes the run in each of the processes that train together.

    Returns:
        The folder of the saved model, `<out>/model`.

    Raises:
        CheckpointError: what is in the folder is another run's.
        DataError: a loss or gradient is not finite.
    """
    processes = Processes()
    try:
        training = prepare(processes)
        folder = Path(config.out)
        loop = LoopConfig(
            folder=folder,
            settings=config.settings() | {"data": training.data},
            label=training.label,
            checkpoint_every=config.checkpoint_every,
            log_every=config.log_every,
            evaluate_every=config.evaluate_every,
            prefetch=config.prefetch,
            tensorboard=config.tensorboard,
        )
        train(training.run, processes, loop, training.evaluate)
        if processes.is_first:
            training.save(folder / MODEL)
        processes.wait()
        return folder / MODEL
    finally:
        processes.close()
