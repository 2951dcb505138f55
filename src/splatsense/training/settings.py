"""What the settings of every method have in common: `RunSettings`.

A method's settings are a frozen dataclass over this class that declares all of its fields itself, so that its defaults and
its help stand in one place and in one order. Here is which fields every method has, which of them do not decide the result,
and what range they lie in.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, ClassVar

from splatsense.errors import DataError


class RunSettings:
    """Settings of a training run. A subclass is a frozen dataclass with fields for all attributes.

    Attributes:
        out: folder of the run.
        batch_size: of all processes together.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW.
        clip_gradient: norm that gradients are clipped to.
        checkpoint_every: steps.
        log_every: steps.
        evaluate_every: steps; 0 evaluates at the end. A method without an evaluation has no such field.
        prefetch: batches made ahead.
        tensorboard: whether TensorBoard's events are written too.
        seed: of everything random.
    """

    HOW_IT_RUNS: ClassVar[tuple[str, ...]] = (
        "out", "checkpoint_every", "log_every", "evaluate_every", "tensorboard", "prefetch",
    )  # fmt: skip
    """What changes nothing in the result; a method may have more."""

    out: str
    batch_size: int
    learning_rate: float
    weight_decay: float
    clip_gradient: float
    checkpoint_every: int
    log_every: int
    evaluate_every: int = 0
    prefetch: int
    tensorboard: bool
    seed: int

    def __post_init__(self) -> None:
        self.at_least_one("batch_size", "checkpoint_every", "log_every")
        self.not_negative("evaluate_every", "prefetch", "weight_decay")
        self.above_zero("learning_rate", "clip_gradient")

    def settings(self) -> dict[str, Any]:
        """What decides the result, as JSON gives it back: a run that is resumed must have the same."""
        fields: dict[str, Any] = asdict(self)  # pyright: ignore[reportArgumentType]
        return json.loads(json.dumps({name: value for name, value in fields.items() if name not in self.HOW_IT_RUNS}))

    def at_least_one(self, *names: str) -> None:
        """Raise DataError, naming the flag, when a field is below 1."""
        self._check(names, lambda value: value >= 1, "be at least 1")

    def not_negative(self, *names: str) -> None:
        """Raise DataError, naming the flag, when a field is below 0."""
        self._check(names, lambda value: value >= 0, "not be negative")

    def above_zero(self, *names: str) -> None:
        """Raise DataError, naming the flag, when a field is 0 or below."""
        self._check(names, lambda value: value > 0, "be above 0")

    def below_one(self, *names: str) -> None:
        """Raise DataError, naming the flag, when a field is not in [0, 1)."""
        self._check(names, lambda value: 0 <= value < 1, "lie in [0, 1)")

    def up_to_one(self, *names: str) -> None:
        """Raise DataError, naming the flag, when a field is not in [0, 1]."""
        self._check(names, lambda value: 0 <= value <= 1, "lie in [0, 1]")

    def _check(self, names: tuple[str, ...], is_good: Callable[[float], bool], must: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not is_good(value):  # NaN is not good
                raise DataError(f"--{name.replace('_', '-')}: must {must}, got {value}.")
