"""Fields of JSON from strangers: each is checked for its type and range, and an error names the file and the field."""

import json
import math
from typing import Any, TypeGuard

from splatsense.errors import FormatError

Json = dict[str, Any]


def parse_object(data: bytes | bytearray, where: str) -> Json:
    """The JSON object in UTF-8 `data`; `where` names the file in errors.

    Raises:
        FormatError: it is not JSON, or not an object.
    """
    try:
        parsed = json.loads(bytes(data).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: is not JSON ({error}); copy or export the file again.") from error
    if not isinstance(parsed, dict):
        raise FormatError(f"{where}: is a JSON {type(parsed).__name__}, not an object; export the file again.")
    return parsed


def integer(parent: Json, key: str, where: str, low: int, high: int | None = None, default: int | None = None) -> int:
    """An integer field in [low, high]; `default` if it is absent and one is given. Raises FormatError otherwise."""
    value = parent.get(key, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        bounds = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise FormatError(f"{where}: {key} is {_shown(value)}, not a whole number {bounds}; export the file again.")
    return value


def number(parent: Json, key: str, where: str) -> float:
    """A field that is a finite number. Raises FormatError otherwise."""
    value = parent.get(key)
    if not _is_finite(value):
        raise FormatError(f"{where}: {key} is {_shown(value)}, not a finite number; export the file again.")
    return float(value)


def numbers(parent: Json, key: str, where: str, count: int) -> list[float]:
    """A list field of `count` finite numbers. Raises FormatError otherwise."""
    value = parent.get(key)
    if not isinstance(value, list) or len(value) != count or not all(_is_finite(entry) for entry in value):
        raise FormatError(f"{where}: {key} is {_shown(value)}, not {count} finite numbers; export the file again.")
    return [float(entry) for entry in value]


def objects(parent: Json, key: str, where: str) -> list[Json]:
    """A list field of objects, empty if it is absent. Raises FormatError otherwise."""
    value = parent.get(key, [])
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise FormatError(f"{where}: {key} is {_shown(value)}, not a list of objects; export the file again.")
    return value


def member(parent: Json, key: str, where: str) -> Json:
    """An object field, empty if it is absent. Raises FormatError otherwise."""
    value = parent.get(key, {})
    if not isinstance(value, dict):
        raise FormatError(f"{where}: {key} is {_shown(value)}, not an object; export the file again.")
    return value


def _is_finite(value: Any) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
