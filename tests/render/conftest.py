"""Builds of the native library, and backends, to run a test with."""

import ctypes

import pytest

from splatsense.native import LEVELS, LIBRARY_DIR, load_native
from splatsense.render import native


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Serves one build of the native library after the other."""
    path = LIBRARY_DIR / f"libsplatsense_{request.param}.so"
    library = load_native()
    if library is None or LEVELS.index(request.param) > library.ss_cpu_level() or not path.is_file():
        pytest.skip(f"no {request.param} build, or the CPU cannot run it")
    build = ctypes.CDLL(str(path))
    monkeypatch.setattr(native, "load_native", lambda: build)
    return request.param


@pytest.fixture(params=["reference", "native"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that float32 on a CPU can have."""
    if request.param == "native" and load_native() is None:
        pytest.skip("the native library is not built (make native)")
    return request.param
