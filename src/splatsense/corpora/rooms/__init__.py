"""Synthetic rooms: furnished from the furniture corpus, filmed by a simulated hand-held RGB-D sensor, fused and labelled.

Reading order
- `priors` what rooms are like, `pieces` and `procedural` what they are made of, `boxes` the geometry they are planned with
- `layout` the empty room; `placement` where things may stand; `groups`, `kitchen`, `details`, `furnish` what stands where
- `textures`, `shell`, `assemble` the room as one mesh; `lighting` its light
- `free_space`, `camera_path` where the camera goes; `sensor` what it makes of what it sees
- `record` one room from its number to a scene folder; `build` the whole corpus; `sheet` pictures to look at

The rooms are synthetic, and everything written about them says so.
"""

from splatsense.corpora.rooms.build import build_rooms as build_rooms
from splatsense.corpora.rooms.record import Room as Room
from splatsense.corpora.rooms.record import RoomSettings as RoomSettings
from splatsense.corpora.rooms.record import make_room as make_room
from splatsense.corpora.rooms.record import record_room as record_room
