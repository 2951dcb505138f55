"""The metrics log: one JSON object a line, appended and flushed, cut back to the checkpoint on resume."""

import json
from pathlib import Path

from splatsense.files import atomic_write


class MetricsLog:
    """Appends to `metrics.jsonl`.

    Args:
        folder: of the run.
        step: of the checkpoint resumed from; later lines of an interrupted run are dropped.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [line for line in self._lines() if json.loads(line)["step"] <= step]
        with atomic_write(self.path) as temporary:
            Path(temporary).write_text("".join(line + "\n" for line in kept))

    def _lines(self) -> list[str]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [line for line in lines if line.endswith("}")]

    def write(self, step: int, **values: float) -> None:
        """Add one line."""
        with self.path.open("a") as opened:
            opened.write(json.dumps({"step": step, **{name: round(value, 6) for name, value in values.items()}}) + "\n")
