"""Settings of rooms that are made in a second or so."""

from splatsense.corpora.rooms.camera_path import CameraSettings
from splatsense.corpora.rooms.record import RoomSettings

TINY = RoomSettings(frames=8, camera=CameraSettings(64, 48), supersample=1)
