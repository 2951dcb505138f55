"""Data sets and recordings of the synthetic room, written byte by byte in the formats of their authors."""

import io
import json
import struct
import zlib

import numpy as np
from PIL import Image

from synthetic_room import box, room_frames

WIDTH, HEIGHT, VIEWS = 96, 72, 8


LOST = 2  # the frame whose camera is unknown


def encode(color: np.ndarray, kind: int) -> bytes:
    if kind == 0:
        return color.tobytes()
    buffer = io.BytesIO()
    Image.fromarray(color).save(buffer, **({"format": "PNG"} if kind == 1 else {"format": "JPEG", "quality": 95}))
    return buffer.getvalue()


def intrinsics(K) -> np.ndarray:
    """As ScanNet has them: 4x4, pixel centres at whole numbers."""
    matrix = np.eye(4)
    matrix[:3, :3] = K
    matrix[:2, 2] -= 0.5
    return matrix


def write_sens(path, color_kind=2, depth_kind=1, scale=2, version=4, depth_to_color=None):
    """Colour is `scale` times as fine as depth, as in ScanNet."""
    fine, _ = room_frames(4, WIDTH * scale, HEIGHT * scale)
    frames, _ = room_frames(4, WIDTH, HEIGHT)
    matrices = [intrinsics(fine.cameras.K[0]), np.eye(4), intrinsics(frames.cameras.K[0]),
                np.eye(4) if depth_to_color is None else depth_to_color]  # fmt: skip
    data = struct.pack("<I", version) + struct.pack("<Q", 12) + b"StructureSen"
    data += b"".join(np.asarray(matrix, "<f4").tobytes() for matrix in matrices)
    data += struct.pack("<ii", color_kind, depth_kind)
    data += struct.pack("<IIII", WIDTH * scale, HEIGHT * scale, WIDTH, HEIGHT) + struct.pack("<f", 1000.0)
    data += struct.pack("<Q", 4)
    for index in range(4):
        to_world = np.full((4, 4), -np.inf) if index == LOST else frames.camera_to_world[index]
        color = encode(fine.color_bytes[index], color_kind)
        depth = (frames.depth[index] * 1000).round().astype("<u2").tobytes()
        depth = zlib.compress(depth) if depth_kind == 1 else depth
        data += np.asarray(to_world, "<f4").tobytes() + struct.pack("<QQ", 1000 * index, 1000 * index + 7)
        data += struct.pack("<QQ", len(color), len(depth)) + color + depth
    data += struct.pack("<Q", 1) + bytes(6 * 3 * 8)  # one IMU sample, which is passed over
    path.write_bytes(data)
    return frames


def write_scan(root, name="scene0000_00", annotated=True, align=True):
    folder = root / "scans" / name
    folder.mkdir(parents=True)
    mesh = box()
    vertices, faces = mesh.vertices[mesh.faces].reshape(-1, 3), np.arange(36).reshape(-1, 3)
    header = "ply\nformat binary_little_endian 1.0\ncomment VCGLIB generated\n"
    header += f"element vertex {len(vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
    header += "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty uchar alpha\n"
    header += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    body = b"".join(struct.pack("<fffBBBB", *vertex, 10, 20, row, 255) for row, vertex in enumerate(vertices))
    body += b"".join(struct.pack("<Biii", 3, *face) for face in faces)
    (folder / f"{name}_vh_clean_2.ply").write_bytes(header.encode() + body)
    matrix = [0, -1, 0, 1, 1, 0, 0, 2, 0, 0, 1, 0.5, 0, 0, 0, 1]
    text = "colorHeight = 968\n" + (f"axisAlignment = {' '.join(map(str, matrix))} \n" if align else "")
    (folder / f"{name}.txt").write_text(text + "sceneType = Misc.\n")
    write_sens(folder / f"{name}.sens")
    if annotated:
        # six vertices for each wall; segments with gaps in their numbers
        segments = np.repeat([0, 7, 7, 31, 500, 40], 6).tolist()
        (folder / f"{name}_vh_clean_2.0.010000.segs.json").write_text(
            json.dumps({"params": {"kThresh": "0.0001"}, "sceneId": name, "segIndices": segments})
        )
        groups = [
            {"id": 0, "objectId": 0, "segments": [500], "label": "floor"},
            {"id": 1, "objectId": 1, "segments": [7, 31], "label": "office chair"},
            {"id": 2, "objectId": 2, "segments": [31], "label": "lamp"},
            {"id": 5, "objectId": 5, "segments": [40], "label": "no such word"},
        ]
        (folder / f"{name}.aggregation.json").write_text(
            json.dumps({"sceneId": name, "appId": "Aggregator.v2", "segGroups": groups, "segmentsFile": "scannet"})
        )
    return folder


def write_depth(path, depth, units_per_metre=1000, invalid=0):
    units = (depth * units_per_metre).round().astype(np.uint16)
    units[depth == 0] = invalid
    Image.fromarray(units).save(path)


def write_seven_scenes(folder, units_per_metre=1000, camera_to_world=None):
    folder.mkdir(parents=True)
    frames, _ = room_frames(VIEWS, WIDTH, HEIGHT)
    cameras = frames.camera_to_world if camera_to_world is None else camera_to_world
    for index in range(VIEWS):
        stem = folder / f"frame-{index:06d}"
        Image.fromarray(frames.color_bytes[index]).save(f"{stem}.color.png")
        depth = frames.depth[index].copy()
        depth[:4, :9] = 0
        write_depth(f"{stem}.depth.png", depth, units_per_metre, invalid=65535)
        rows = ["\t ".join(f"{value: .7e}" for value in row) + "\t \n" for row in cameras[index]]
        (folder / f"frame-{index:06d}.pose.txt").write_text("".join(rows))
    return frames


def quaternion_xyzw(rotation) -> np.ndarray:
    """Of a rotation matrix, by the eigenvector of Bar-Itzhack (2000)."""
    m = rotation
    matrix = np.array([
        [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
        [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
        [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
    ])  # fmt: skip
    return np.linalg.eigh(matrix)[1][:, -1]


def write_tum(folder):
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    frames, _ = room_frames(VIEWS, WIDTH, HEIGHT)
    color, depth, truth = ("# timestamp filename\n# file: 'room.bag'\n" for _ in range(3))
    for index in range(VIEWS):
        time = 1305031102.0 + index / 30
        Image.fromarray(frames.color_bytes[index]).save(folder / "rgb" / f"{time:.6f}.png")
        write_depth(folder / "depth" / f"{time + 0.004:.6f}.png", frames.depth[index], 5000)
        color += f"{time:.6f} rgb/{time:.6f}.png\n"
        depth += f"{time + 0.004:.6f} depth/{time + 0.004:.6f}.png\n"
        matrix = frames.camera_to_world[index]
        values = [*matrix[:3, 3], *quaternion_xyzw(matrix[:3, :3])]
        truth += f"{time + 0.009:.4f} {' '.join(f'{value:.6f}' for value in values)}\n"
    for name, text in (("rgb", color), ("depth", depth), ("groundtruth", truth)):
        (folder / f"{name}.txt").write_text(text)


def write_nerfstudio(folder, scale=2):
    """Colour `scale` times as fine as depth, as phones have it."""
    for name in ("images", "depth"):
        (folder / name).mkdir(parents=True)
    fine, _ = room_frames(VIEWS, WIDTH * scale, HEIGHT * scale)
    frames, _ = room_frames(VIEWS, WIDTH, HEIGHT)
    listed = []
    for index in range(VIEWS):
        Image.fromarray(fine.color_bytes[index]).save(folder / f"images/{index}.png")
        write_depth(folder / f"depth/{index}.png", frames.depth[index])
        matrix = (frames.camera_to_world[index] @ np.diag([1, -1, -1, 1])).tolist()  # OpenGL cameras
        listed.append({"file_path": f"images/{index}.png", "depth_file_path": f"depth/{index}.png", "transform_matrix": matrix})
    K = fine.cameras.K[0]
    content = {"fl_x": float(K[0, 0]), "fl_y": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2])}
    content |= {"w": WIDTH * scale, "h": HEIGHT * scale, "camera_model": "OPENCV", "k1": 0.0, "frames": listed}
    (folder / "transforms.json").write_text(json.dumps(content))


def write_room(root, area="Area_5", room="hallway_6"):
    """A floor and a wall of 400 points each, a chair, and stairs; numbers as the data set writes them."""
    folder = root / area / room
    (folder / "Annotations").mkdir(parents=True)
    grid = [(0.05 * i, 0.05 * j) for i in range(20) for j in range(20)]
    objects = {
        "floor_1": [(x, y, 0.0, 100, 90, 80) for x, y in grid],
        "wall_1": [(x, 0.0, y, 200, 200, 190) for x, y in grid],
        "chair_2": [(0.5, 0.5, 0.4, 10, 20, 30)],
        "stairs_1": [(0.9, 0.9, 0.1, 1, 2, 3)],
    }
    for name, rows in objects.items():
        text = "".join(f"{x:.3f} {y:.3f} {z:.3f} {r} {g} {b}\n" for x, y, z, r, g, b in rows)
        (folder / "Annotations" / f"{name}.txt").write_text(text)
    (folder / "Annotations" / "Icon\r").write_bytes(b"")
    (folder / f"{room}.txt").write_text("not used\n")
    return folder
