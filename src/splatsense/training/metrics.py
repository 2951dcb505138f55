"""The metrics of a run: one JSON object a line, flushed and cut back to the checkpoint on resume; TensorBoard if wanted.

Design
- `metrics.jsonl` holds what is computed and so is the same for the same run, interrupted or not; `speed.jsonl` holds what
  was measured with a clock.
- TensorBoard's writer (`pip install splatsense[train]`, 55 MB) is imported when it is asked for. Its events are a copy.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splatsense.errors import DataError
from splatsense.files import atomic_write

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS, SPEED = "metrics.jsonl", "speed.jsonl"


class MetricsLog:
    """Appends to a file of metrics.

    Args:
        folder: of the run.
        step: of the checkpoint resumed from; later lines of an interrupted run are dropped.
        name: of the file.
        board: TensorBoard's writer, which gets the same numbers.
    """

    def __init__(self, folder: Path, step: int = 0, name: str = METRICS, board: "SummaryWriter | None" = None) -> None:
        self.path = folder / name
        self._board = board
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
        with atomic_write(self.path) as temporary:
            Path(temporary).write_text("".join(json.dumps(line) + "\n" for line in kept))

    def write(self, step: int, **values: float) -> None:
        """Add one line, of six significant digits each."""
        with self.path.open("a") as opened:
            opened.write(json.dumps({"step": step, **{name: float(f"{value:.6g}") for name, value in values.items()}}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{self.path.stem}/{name}", value, step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file in order, but for a last one that was not written to its end."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def last_metrics(folder: Path) -> dict[str, Any]:
    """The last line of the metrics of a run; nothing when they were removed."""
    lines = read_metrics(folder / METRICS)
    return lines[-1] if lines else {}


def open_tensorboard(folder: Path, step: int) -> "SummaryWriter":
    """TensorBoard's writer into `folder`; events after `step`, of an interrupted run, are marked as void.

    Raises:
        DataError: the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DataError(f"--tensorboard: not installed ({error}); pip install 'splatsense[train]', or go without.") from error
    return SummaryWriter(str(folder), purge_step=step + 1)
