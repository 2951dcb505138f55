import ctypes
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from splatsense import native
from splatsense.errors import SplatSenseError

needs_native = pytest.mark.skipif(native.load_native() is None, reason="the native library is off or was not built")


@pytest.fixture
def fresh(monkeypatch):
    """Loads the library anew with SPLATSENSE_NATIVE set to a choice, in this process."""

    def load(choice):
        monkeypatch.setenv("SPLATSENSE_NATIVE", choice)
        native.load_native.cache_clear()
        return native.load_native()

    yield load
    native.load_native.cache_clear()


@needs_native
def test_the_best_build_for_this_cpu_is_loaded(fresh):
    library = fresh("auto")
    built = [level for level in native.LEVELS if (native.LIBRARY_DIR / f"libsplatsense_{level}.so").is_file()]
    runnable = native.LEVELS[: library.ss_cpu_level() + 1]
    assert native.native_level() == [level for level in runnable if level in built][-1]


@needs_native
@pytest.mark.parametrize("level", native.LEVELS)
def test_each_build_can_be_forced(fresh, level):
    baseline = fresh("baseline")
    if native.LEVELS.index(level) > baseline.ss_cpu_level():
        pytest.skip(f"this CPU has no {level}")
    if not (native.LIBRARY_DIR / f"libsplatsense_{level}.so").is_file():
        pytest.skip(f"no {level} build on this architecture")
    fresh(level)
    assert native.native_level() == level


@needs_native
def test_a_build_the_cpu_cannot_run_is_refused(fresh, monkeypatch):
    class OldCpu(ctypes.CDLL):
        def __init__(self):
            pass

        def ss_cpu_level(self):
            return 0

    monkeypatch.setattr(native, "_open", lambda level: OldCpu())
    with pytest.raises(SplatSenseError, match="SPLATSENSE_NATIVE=avx512: this CPU cannot run it; the best here is baseline"):
        fresh("avx512")


@needs_native
def test_a_build_that_is_not_there_cannot_be_forced(fresh, monkeypatch, tmp_path):
    level = native.LEVELS[fresh("baseline").ss_cpu_level()]
    if level == "baseline":
        pytest.skip("this CPU runs the baseline only")
    shutil.copy(native.LIBRARY_DIR / "libsplatsense_baseline.so", tmp_path)
    monkeypatch.setattr(native, "LIBRARY_DIR", tmp_path)
    with pytest.raises(SplatSenseError, match="this build is not installed"):
        fresh(level)
    fresh("auto")
    assert native.native_level() == "baseline"


def test_off_means_off(fresh):
    assert fresh("off") is None
    assert native.native_level() == "off"


def test_an_unknown_choice_is_an_error(fresh):
    with pytest.raises(SplatSenseError, match="SPLATSENSE_NATIVE='sse9': expected auto, off, baseline, avx2, avx512"):
        fresh("sse9")


def test_a_missing_library_is_said_once(fresh, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(native, "LIBRARY_DIR", tmp_path)
    assert fresh("auto") is None
    assert native.load_native() is None
    assert [record.message for record in caplog.records] == [
        "splatsense was installed without its native library; plain PyTorch serves, more slowly."
    ]


@needs_native
def test_a_library_of_another_version_is_an_error(fresh, monkeypatch):
    monkeypatch.setattr(native, "ABI_VERSION", -1)
    with pytest.raises(
        SplatSenseError, match=r"libsplatsense_baseline\.so: built for another version of splatsense; reinstall"
    ):
        fresh("auto")


def test_a_damaged_library_is_an_error(fresh, monkeypatch, tmp_path):
    (tmp_path / "libsplatsense_baseline.so").write_bytes(b"not a library")
    monkeypatch.setattr(native, "LIBRARY_DIR", tmp_path)
    with pytest.raises(SplatSenseError, match=r"libsplatsense_baseline\.so: cannot be loaded .*; reinstall the package"):
        fresh("auto")


def test_pointers():
    tensor, array = torch.arange(3.0), np.arange(3.0)
    assert ctypes.cast(native.pointer(tensor), ctypes.POINTER(ctypes.c_float))[2] == 2
    assert ctypes.cast(native.pointer(array), ctypes.POINTER(ctypes.c_double))[2] == 2
    assert native.pointer(None).value is None


@pytest.mark.parametrize("value", [torch.zeros(4, 4).T[1:], torch.zeros(3, device="meta"), np.zeros((4, 4))[:, 1]])
def test_pointers_to_what_native_code_cannot_read(value):
    with pytest.raises(ValueError, match="native code takes contiguous"):
        native.pointer(value)


def test_the_suite_fails_when_the_native_build_did(tmp_path):
    """With a compiler at hand but no library, the session must stop instead of skipping the native tests."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no compiler here")
    package = os.path.dirname(native.__file__)
    shutil.copytree(
        package, tmp_path / "src" / "splatsense", ignore=shutil.ignore_patterns("_native", "__pycache__", "weights")
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "SPLATSENSE_NATIVE": "auto"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", "test_pointers"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "its build failed silently" in result.stdout + result.stderr
