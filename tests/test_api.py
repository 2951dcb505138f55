import shutil
import subprocess
import sys

import pytest

import splatsense


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_everything_public_is_there_and_listed():
    for name in splatsense.__all__:
        assert getattr(splatsense, name) is not None
        assert name in dir(splatsense)
    assert splatsense.__all__ == sorted(splatsense.__all__)
    assert isinstance(splatsense.__version__, str)


def test_a_source_tree_says_the_version_of_its_pyproject(tmp_path):
    package, pyproject = tmp_path / "src" / "splatsense", tmp_path / "pyproject.toml"
    package.mkdir(parents=True)
    shutil.copy(splatsense.__file__, package)
    code = f"import sys; sys.path.insert(0, {str(package.parent)!r}); import splatsense; print(splatsense.__version__)"
    pyproject.write_text('[project]\nname = "splatsense"\nversion = "7.8.9"\n')
    assert run(code).strip() == "7.8.9+source"
    pyproject.write_text('[project]\nname = "another"\nversion = "7.8.9"\n')  # that has taken a copy in
    assert "7.8.9" not in run(code)


def test_unknown_names_are_errors():
    with pytest.raises(AttributeError, match="no attribute 'chair'"):
        splatsense.chair  # noqa: B018


def test_importing_costs_nothing():
    assert run("import sys, splatsense; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])").strip() == "[]"


def test_render_is_a_function_whatever_was_imported_before():
    code = "{}; import splatsense; print(callable(splatsense.render))"
    for before in ("pass", "import splatsense.render", "from splatsense.render import reference"):
        assert run(code.format(before)).strip() == "True", before


def test_every_error_is_a_splatsense_error():
    errors = [getattr(splatsense, name) for name in splatsense.__all__ if name.endswith("Error")]
    assert len(errors) == 6
    assert all(issubclass(error, splatsense.SplatSenseError) for error in errors)
