"""Point geometry: farthest point sampling, nearest neighbours and serial orders."""

from splatsense.geometry.neighbours import k_nearest_neighbours as k_nearest_neighbours
from splatsense.geometry.sampling import farthest_point_sampling as farthest_point_sampling
from splatsense.geometry.serialize import serial_order as serial_order
