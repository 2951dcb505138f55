import numpy as np
import pytest
import torch

from splatsense.corpora.rooms.sensor import BASELINE, FOCAL_OF_640, SUBPIXEL, Sensor, SensorSettings, axial_sigma
from splatsense.errors import DataError

SIZE = (120, 160)


def wall(distance: float) -> tuple[np.ndarray, ...]:
    """Arguments of `Sensor.depth` for a bright wall that is looked at straight."""
    ones = np.ones(SIZE, np.float32)
    return np.float32(distance) * ones, ones, ones, np.zeros(SIZE, bool)


def sensor(**settings: float) -> Sensor:
    return Sensor(SensorSettings(**settings), 4, np.random.default_rng(0))


@pytest.mark.parametrize("distance", [0.8, 1.5, 2.5, 3.5])
def test_noise_and_steps_of_depth_grow_with_the_square_of_the_distance(distance: float) -> None:
    measured = sensor(holes=0.0).depth(*wall(distance))
    step = distance**2 / (FOCAL_OF_640 * BASELINE * SUBPIXEL)
    expected = np.hypot(axial_sigma(np.full(1, distance))[0], step / np.sqrt(12))
    assert measured.std() == pytest.approx(expected, rel=0.2)
    assert measured.mean() == pytest.approx(distance, abs=0.003)
    values = np.unique(measured)
    assert len(values) > 2
    assert np.median(np.diff(values)) == pytest.approx(step, rel=0.2, abs=0.001)


def test_a_perfect_sensor_sees_the_truth() -> None:
    perfect = sensor(holes=0.0, depth_noise=0.0)
    depth = np.random.default_rng(1).uniform(0.5, 6, SIZE).astype(np.float32)
    np.testing.assert_array_equal(perfect.depth(depth, *wall(1)[1:]), depth)
    np.testing.assert_array_equal(perfect.depth(np.zeros_like(depth), *wall(1)[1:]), 0)


def share_lost(cosine: float = 1.0, brightness: float = 1.0, shining: bool = False, distance: float = 2.0) -> float:
    ones = np.ones(SIZE, np.float32)
    true, angle, shade = (ones * np.float32(value) for value in (distance, cosine, brightness))
    depth = sensor().depth(true, angle, shade, np.full(SIZE, shining))
    return float((depth == 0).mean())


def test_where_depth_is_missing() -> None:
    assert share_lost() < 0.02
    assert share_lost(cosine=0.05) > 0.4
    assert share_lost(brightness=0.0) > 0.2
    assert share_lost(shining=True) > 0.8
    assert share_lost(distance=0.3) == 1
    assert share_lost(distance=5.5) > 0.6


def test_depth_is_lost_at_edges_and_not_elsewhere() -> None:
    depth = wall(1.0)[0]
    depth[:, 80:] = 2.0
    lost = sensor().depth(depth, *wall(1)[1:]) == 0
    assert lost[:, 79:81].mean() > 0.4 > 0.05 > np.delete(lost, range(74, 86), 1).mean()


def test_exposure_follows_the_light_and_lags_behind() -> None:
    camera = sensor(color_noise=0.0)
    bright, dark = torch.full((3, *SIZE), 2.0), torch.full((3, *SIZE), 0.02)
    first = camera.color(0, bright, 0.0).mean()
    just_dark = camera.color(1, dark, 0.0).mean()
    adapted = [camera.color(2, dark, 0.0).mean() for _ in range(30)][-1]
    assert abs(first - adapted) < 25 < first - just_dark


def test_fast_turns_blur_the_image_sideways() -> None:
    stripes = torch.zeros(3, *SIZE)
    stripes[:, :, ::4] = 1.0
    still, moving = sensor(color_noise=0.0).color(0, stripes, 0.0), sensor(color_noise=0.0).color(0, stripes, 200.0)
    assert moving.astype(float).std() < 0.8 * still.astype(float).std()


@pytest.mark.parametrize("wrong", [{"depth_noise": -1.0}, {"holes": float("nan")}, {"nearest": 2.0, "farthest": 1.0}])
def test_bad_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match="SensorSettings"):
        SensorSettings(**wrong)
