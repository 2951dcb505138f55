"""What rooms are like: sizes, how often a thing stands where, colours of walls, and what everything is labelled.

Design
- Statistics marked (P) are those of ProcTHOR (Deitke et al. 2022, arXiv 2206.06994), read from its package `procthor`
  0.0.1.dev2 (Apache-2.0) and mapped to our roles; the others are ours, from sizes that are usual in flats and offices.
- Labels are names of ScanNet200; the twenty classes of ScanNet follow from them, so what ScanNet leaves out of those (ceilings,
  lamps, televisions, plants, night stands, small things) has no `semantic20` here either.
"""

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class KindPrior:
    """One kind of room: how often it is drawn, and its sizes in metres."""

    share: float
    long_side: Range
    short_side: Range
    height: Range = (2.4, 2.9)
    l_shaped: float = 0.0
    windows: bool = True
    french_window: float = 0.0
    tiles: float = 0.0  # probability of tiles on the floor rather than wood


KINDS: dict[str, KindPrior] = {
    "living room": KindPrior(0.25, (4.4, 6.4), (3.5, 5.0), l_shaped=0.3, french_window=0.35, tiles=0.15),
    "bedroom": KindPrior(0.25, (3.5, 5.0), (2.9, 4.2), l_shaped=0.2, french_window=0.15),
    "office": KindPrior(0.19, (3.4, 5.6), (2.7, 4.5), l_shaped=0.15, tiles=0.2),
    "kitchen": KindPrior(0.12, (3.4, 5.2), (2.7, 4.2), tiles=0.7),
    "bathroom": KindPrior(0.10, (2.3, 3.4), (1.9, 2.8), (2.35, 2.6), windows=True, tiles=1.0),
    "dining room": KindPrior(0.09, (3.6, 5.2), (3.0, 4.4), l_shaped=0.1, french_window=0.3, tiles=0.15),
}

WINDOWS_PER_ROOM = ((0, 1, 2), (0.125, 0.375, 0.5))
"""Counts and their probabilities (P)."""

PICTURES_PER_ROOM = ((0, 1, 2, 3, 4), (0.05, 0.1, 0.5, 0.25, 0.1))
"""Counts and their probabilities (P)."""

NO_PICTURE_ABOVE = 1.15
"""Metres: no picture hangs above furniture that is higher (P)."""

ON_TOP: dict[str, dict[str, float]] = {
    "coffee_table": {"book": 0.24, "bowl": 0.19, "computer": 0.19, "small_plant": 0.17, "vase": 0.17, "cup": 0.21,
                     "plate": 0.11, "bottle": 0.09},
    "bench": {"book": 0.24, "bowl": 0.19, "small_plant": 0.17, "cup": 0.2, "plate": 0.11},
    "dining_table": {"plate": 0.39, "bowl": 0.36, "cup": 0.38, "book": 0.18, "small_plant": 0.18, "bottle": 0.17, "vase": 0.15,
                     "food": 0.11},
    "small_table": {"cup": 0.38, "small_plant": 0.3, "bottle": 0.17},
    "desk": {"book": 0.47, "computer": 0.8, "desk_lamp": 0.29, "cup": 0.33, "phone": 0.24, "printer": 0.12, "bottle": 0.16,
             "small_plant": 0.1, "photo_frame": 0.15, "fan": 0.1},
    "dresser": {"book": 0.25, "table_lamp": 0.15, "vase": 0.26, "small_plant": 0.13, "clock": 0.12, "computer": 0.11,
                "photo_frame": 0.2, "audio": 0.15, "toy": 0.1},
    "cabinet": {"vase": 0.2, "small_plant": 0.1, "box": 0.15},
    "bookcase": {"vase": 0.13, "box": 0.12, "small_plant": 0.08, "clock": 0.05},
    "shelf": {"vase": 0.13, "box": 0.08, "clock": 0.05, "small_plant": 0.05, "book": 0.05, "audio": 0.05},
    "nightstand": {"clock": 0.23, "small_plant": 0.15, "book": 0.2, "cup": 0.19, "bottle": 0.11},
    "tv_stand": {"small_plant": 0.13, "clock": 0.11, "vase": 0.11, "audio": 0.2, "bottle": 0.1},
    "file_cabinet": {"printer": 0.3, "small_plant": 0.2, "book": 0.2},
    "lower_cabinet": {"coffee_maker": 0.27, "toaster": 0.27, "microwave": 0.17, "kitchen_appliance": 0.45, "bowl": 0.19,
                      "food": 0.21, "cup": 0.25, "plate": 0.15, "bottle": 0.15, "small_plant": 0.09},
    "dishwasher": {"toaster": 0.2, "coffee_maker": 0.2, "kitchen_appliance": 0.3},
    "small_fridge": {"microwave": 0.5, "bottle": 0.3},
    "washing_machine": {"soap": 0.3, "laundry_basket": 0.05},
    "washbasin": {"soap": 0.5, "cup": 0.15},
    "piano": {"vase": 0.2, "photo_frame": 0.3, "book": 0.2},
}  # fmt: skip
"""Support -> what stands on it -> how often (P): how many of its supports of that type hold such a thing."""

SEATS_FACING_TABLE = 0.93
"""Share of the places at a table that have a chair."""

WALL_COLORS: tuple[tuple[int, int, int], ...] = (
    (233, 213, 200), (173, 173, 170), (242, 240, 234), (242, 242, 236), (204, 206, 203), (195, 219, 235), (163, 149, 145),
    (240, 219, 204), (216, 207, 191), (232, 226, 214), (219, 237, 232), (189, 219, 219), (187, 134, 118), (193, 170, 152),
    (213, 201, 185), (135, 132, 126), (177, 187, 167), (182, 203, 203), (85, 112, 115), (90, 114, 143), (169, 112, 89),
    (225, 208, 191), (203, 208, 185), (112, 132, 125), (140, 195, 195), (193, 155, 130), (222, 180, 130), (255, 230, 178),
    (142, 155, 136),
)  # fmt: skip
"""sRGB of painted walls (P), without the darkest."""

LABELS: dict[str, str] = {
    "floor": "floor", "ceiling": "ceiling", "wall": "wall", "door": "door", "window": "window", "french_window": "window",
    "curtain": "curtain", "blind": "blinds", "shower_curtain": "shower curtain", "double_bed": "bed", "single_bed": "bed",
    "bunk_bed": "bed", "day_bed": "bed", "crib": "bed", "nightstand": "nightstand", "wardrobe": "wardrobe",
    "dresser": "dresser", "tv_stand": "tv stand", "cabinet": "cabinet", "file_cabinet": "file cabinet",
    "dressing_table": "table", "sofa": "couch", "corner_sofa": "couch", "armchair": "armchair",
    "office_chair": "office chair", "chair": "chair", "stool": "stool", "bar_stool": "stool", "ottoman": "ottoman",
    "bench": "bench", "dining_table": "dining table", "small_table": "table", "coffee_table": "coffee table", "desk": "desk",
    "bookcase": "bookshelf", "shelf": "shelf", "television": "tv", "wall_television": "tv", "audio": "speaker",
    "computer": "laptop", "printer": "printer", "phone": "telephone", "desk_lamp": "lamp", "table_lamp": "lamp",
    "floor_lamp": "lamp", "pendant_lamp": "ceiling light", "ceiling_lamp": "ceiling light", "wall_lamp": "lamp",
    "plant": "potted plant", "small_plant": "plant", "vase": "decoration", "floor_vase": "decoration", "book": "book",
    "clock": "alarm clock", "wall_clock": "clock", "photo_frame": "decoration", "picture": "picture", "mirror": "mirror",
    "toy": "", "fridge": "refrigerator", "small_fridge": "mini fridge", "lower_cabinet": "kitchen cabinet",
    "sink_cabinet": "kitchen cabinet", "upper_cabinet": "kitchen cabinet", "high_cabinet": "kitchen cabinet",
    "counter": "kitchen counter", "sink": "sink", "stove": "stove", "cooktop": "stove", "oven": "oven",
    "range_hood": "range hood", "dishwasher": "dishwasher", "washing_machine": "washing machine", "microwave": "microwave",
    "toaster": "toaster", "coffee_maker": "coffee maker", "kitchen_appliance": "", "bowl": "bowl", "plate": "plate",
    "cup": "cup", "bottle": "bottle", "food": "", "toilet": "toilet", "washbasin": "sink", "bathtub": "bathtub",
    "shower": "shower", "toilet_paper": "toilet paper", "towel": "towel", "soap": "soap dispenser",
    "laundry_basket": "laundry basket", "trash_bin": "trash can", "radiator": "radiator", "towel_radiator": "radiator",
    "fireplace": "fireplace", "piano": "piano", "guitar": "guitar", "box": "box", "suitcase": "suitcase", "bag": "bag",
    "shoes": "shoe", "clothes_rack": "rack", "whiteboard": "whiteboard", "water_cooler": "water cooler", "safe": "",
    "fan": "fan", "ball": "ball", "rug": "mat", "bath_mat": "mat", "animal": "",
}  # fmt: skip
"""Role -> name of its class in ScanNet200; "" where there is none. The class in ScanNet20 follows from it, as in ScanNet."""
