import pytest

from splatsense import errors


@pytest.mark.parametrize("name", ["FormatError", "LimitError", "DataError", "CheckpointError"])
def test_one_class_catches_all(name):
    assert issubclass(getattr(errors, name), errors.SplatSenseError)
    assert getattr(errors, name).__doc__


def test_none_of_them_is_taken_for_a_builtin_error():
    assert errors.SplatSenseError.__bases__ == (Exception,)
