import pytest

from segmentation_scenes import write_rooms


@pytest.fixture(scope="session")
def rooms(tmp_path_factory):
    return write_rooms(tmp_path_factory.mktemp("rooms"))
