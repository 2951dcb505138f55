"""Frozen text+image models that say what training should agree with. All share one small interface, `Teacher`."""

from splatsense.errors import CheckpointError
from splatsense.teachers.interface import FeatureTeacher, Teacher
from splatsense.teachers.mini import MiniTeacher

__all__ = ["TEACHERS", "FeatureTeacher", "Teacher", "load_teacher"]

TEACHERS = {"mini": MiniTeacher}


def load_teacher(name: str = "mini") -> Teacher:
    """A teacher by name: "mini", or one of open_clip as `teachers.open_clip` says. Its weights are read at first use.

    Raises:
        CheckpointError: There is no teacher of this name, or open_clip is not installed.
    """
    if name.startswith("open_clip:"):
        from splatsense.teachers.open_clip import OpenClipTeacher

        return OpenClipTeacher.from_name(name)
    if name not in TEACHERS:
        raise CheckpointError(f"There is no teacher {name!r}; choose from {', '.join(TEACHERS)}, open_clip:MODEL:TAG.")
    return TEACHERS[name]()
