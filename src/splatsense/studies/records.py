"""Records of the runs of a study: the settings a run was begun with, every version of the code that worked on it, figures.

A run with other settings is refused, finished or not. Files are written whole or not at all.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch

import splatsense
from splatsense.errors import FormatError
from splatsense.files import atomic_write
from splatsense.training.checkpoint import check_settings

RECORD = "run.json"


def keep_record(path: Path, settings: dict[str, Any]) -> None:
    """Note that this code trains a run with these settings. Raises CheckpointError when it was begun with others."""
    code = check_record(path, settings) if path.exists() else []
    if code_version() not in code:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"settings": settings, "code": [*code, code_version()]})


def check_record(path: Path, settings: dict[str, Any]) -> list[str]:
    """Versions of the code that trained a run. Raises CheckpointError when its settings are others."""
    record = read_json(path, "settings", "code")
    check_settings(path, record["settings"], json.loads(json.dumps(settings)))
    return record["code"]


@cache
def code_version() -> str:
    """Version of splatsense, a hash of its Python files, and the version of PyTorch."""
    root = Path(str(resources.files("splatsense")))
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return f"splatsense {splatsense.__version__}, source {digest.hexdigest()[:12]}, torch {torch.__version__}"


def machine() -> str:
    """What computes here."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def read_json(path: Path, *names: str) -> dict[str, Any]:
    """A record or figures, which have entries of these names. Raises FormatError when the file is damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
        lacking = [name for name in names if name not in content] if isinstance(content, dict) else ["everything"]
        if lacking:
            raise ValueError(f"lacks {', '.join(lacking)}")
        return content
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); remove it, and the same command makes it again.") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record or figures, whole or not at all."""
    with atomic_write(path) as temporary:
        Path(temporary).write_text(json.dumps(content, indent=1) + "\n")
