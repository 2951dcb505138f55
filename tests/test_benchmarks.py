"""The benchmarks, as far as a test can run them: they can be imported, and say truly what meets its target."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
IMPORT_ALL = """
import pathlib, runpy, sys
sys.path.insert(0, sys.argv[1])
for script in sorted(pathlib.Path(sys.argv[1]).glob("*.py")):
    assert "main" in runpy.run_path(str(script), run_name="benchmark"), script
    print(script.stem)
"""


def test_every_script_finds_what_it_imports():
    done = subprocess.run([sys.executable, "-W", "error", "-c", IMPORT_ALL, str(BENCHMARKS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(script.stem for script in BENCHMARKS.glob("*.py"))


@pytest.mark.parametrize(
    ("value", "at_least", "verdict"), [(1.9, False, "met"), (2.1, False, "MISSED"), (1.9, True, "MISSED"), (2.0, True, "met")]
)
def test_a_figure_stands_beside_its_target(monkeypatch, value, at_least, verdict):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from shared.targets import judged

    line = judged("loading", value, "s", 2.0, at_least)
    assert line.split() == ["loading", f"{value:.2f}", "s", "wanted", "at", "least" if at_least else "most", "2", "s", verdict]
