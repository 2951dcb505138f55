"""The mesh renderer of `native/mesh.cpp` in plain NumPy: the same method, to be read and to test against.

Rasterisation in 2D homogeneous coordinates (Olano and Greer 1997). With p_i = K (R v_i + t) the edge functions
E_i = (p_j x p_k) . (x, y, 1) all have the sign of det(p_0, p_1, p_2) inside the part of the triangle in front of the
camera; E_i / sum(E) are perspective-correct barycentrics and sum(E) / det is the inverse depth.
"""

from collections.abc import Iterator

import numpy as np

from splatsense.mesh import Material, Mesh

GROUND_LIGHT = 0.25
SKY = np.array([0.4, 0.7, 0.6]) / np.linalg.norm([0.4, 0.7, 0.6])
BOX_PADDING = 1e-3  # pixels, covers rounding
PAIRS_PER_CHUNK = 1_000_000


def render_view(
    mesh: Mesh,
    world_to_camera: np.ndarray,
    K: np.ndarray,
    width: int,
    height: int,
    near: float,
    supersample: int,
    shading: float,
    background: np.ndarray,
) -> dict[str, np.ndarray]:
    """One view of `mesh`: the fields of `MeshImages` by name, without the view axis."""
    inverse_depth, face_id = rasterise(mesh, project(mesh, world_to_camera, K, 1), width, height, near)
    hit = face_id >= 0
    face = face_id[hit]
    normals = face_normals(mesh, world_to_camera)
    depth = np.zeros((height, width), np.float32)
    depth[hit] = 1 / inverse_depth[hit]
    normal = np.zeros((height, width, 3), np.float32)
    normal[hit] = normals[face]
    instance_id = np.full((height, width), -1, np.int32)
    instance_id[hit] = mesh.face_instances[face]

    points, sampled = project(mesh, world_to_camera, K, supersample), face_id
    if supersample > 1:
        _, sampled = rasterise(mesh, points, width * supersample, height * supersample, near)
    rgba = shade(mesh, points, normals, sampled, shading)
    rgba = rgba.reshape(height, supersample, width, supersample, 4).mean(axis=(1, 3))
    color = (rgba[..., :3] + (1 - rgba[..., 3:]) * background).clip(0, 1).astype(np.float32)
    alpha = rgba[..., 3].astype(np.float32)
    return {
        "color": color, "alpha": alpha, "depth": depth, "normal": normal, "instance_id": instance_id, "face_id": face_id,
    }  # fmt: skip


def project(mesh: Mesh, world_to_camera: np.ndarray, K: np.ndarray, scale: int) -> np.ndarray:
    """(N, 3) homogeneous pixels (x w, y w, w) of the vertices, w the depth, in an image `scale` times as large."""
    intrinsics = np.diag([scale, scale, 1.0]) @ [[*K[0]], [0, K[1, 1], K[1, 2]], [0, 0, 1]]
    matrix = intrinsics @ world_to_camera[:3].astype(np.float64)
    return (mesh.vertices.astype(np.float64) @ matrix[:, :3].T + matrix[:, 3]).astype(np.float32)


def rasterise(mesh: Mesh, points: np.ndarray, width: int, height: int, near: float) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) inverse depth (0 where there is nothing) and (H, W) int32 nearest face (-1), the lower one in a tie."""
    best_depth, best_face = np.zeros(height * width, np.float32), np.full(height * width, -1, np.int32)
    edges, determinants = edge_functions(mesh, points)
    depth_of_corner = points[mesh.faces, 2]
    nearest, farthest = depth_of_corner.min(1, initial=np.inf), depth_of_corner.max(1, initial=-np.inf)
    lowest, highest = 1 / farthest, np.where(nearest >= near, 1 / nearest, np.inf)
    for face, x, y in candidate_pixels(mesh, points, width, height, near):
        values = np.einsum("nij,nj->ni", edges[face], np.stack([x + 0.5, y + 0.5, np.ones(len(x))], 1))
        inverse_depth = values.sum(1) / determinants[face]
        inverse_depth = np.clip(inverse_depth, lowest[face], highest[face]).astype(np.float32)
        values *= np.sign(determinants[face])[:, None]
        inside = (values >= 0).all(1) & (values.sum(1) > 0)  # all 0: seen edge-on but for rounding
        drawn = inside & (determinants[face] != 0) & (inverse_depth > 0) & (inverse_depth <= np.float32(1 / near))
        face, pixel, inverse_depth, values = face[drawn], (y * width + x)[drawn], inverse_depth[drawn], values[drawn]
        solid = opacity(mesh, face, values / values.sum(1, keepdims=True)) >= 0.5
        face, pixel, inverse_depth = face[solid], pixel[solid], inverse_depth[solid]
        order = np.lexsort((face, -inverse_depth, pixel))
        order = order[np.unique(pixel[order], return_index=True)[1]]  # the nearest fragment of every pixel
        order = order[inverse_depth[order] > best_depth[pixel[order]]]
        best_depth[pixel[order]], best_face[pixel[order]] = inverse_depth[order], face[order]
    return best_depth.reshape(height, width), best_face.reshape(height, width)


def edge_functions(mesh: Mesh, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F, 3, 3) coefficients of E_i over (x, y, 1), and (F,) determinants, 0 where a face has no area on the screen."""
    corners = points[mesh.faces].astype(np.float64)
    edges = np.cross(np.roll(corners, -1, axis=1), np.roll(corners, -2, axis=1))
    determinants = (corners[:, 0] * edges[:, 0]).sum(1)
    return edges, np.where(np.isfinite(determinants), determinants, 0)


def candidate_pixels(
    mesh: Mesh, points: np.ndarray, width: int, height: int, near: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Chunks of (face, x, y): every pixel in the screen bounding box of every face clipped to the near plane."""
    corners = points[mesh.faces].astype(np.float64)
    following = np.roll(corners, -1, axis=1)
    depth, next_depth = corners[..., 2], following[..., 2]
    crosses = (depth >= near) != (next_depth >= near)
    step = np.where(crosses, (near - depth) / np.where(crosses, next_depth - depth, 1), 0)[..., None]
    on_plane = (corners + step * (following - corners))[..., :2] / near
    in_front = (depth >= near)[..., None]
    on_screen = corners[..., :2] / np.where(in_front, corners[..., 2:], 1)
    kept = np.concatenate([in_front, crosses[..., None]], axis=1)
    polygon = np.concatenate([on_screen, on_plane], axis=1)
    low = np.where(kept, polygon, np.inf).min(1, initial=np.inf)
    high = np.where(kept, polygon, -np.inf).max(1, initial=-np.inf)

    size = np.array([width, height])
    first = np.clip(np.ceil(low - 0.5 - BOX_PADDING), 0, size).astype(np.int64)
    last = np.clip(np.floor(high - 0.5 + BOX_PADDING), -1, size - 1).astype(np.int64)
    extent = np.maximum(last - first + 1, 0)
    visible = np.array([material.color[3] >= 0.5 for material in mesh.materials])[mesh.face_materials]
    count = np.where(visible & np.isfinite(corners).all((1, 2)), extent.prod(1), 0)
    chunk_of_face = np.cumsum(count) // PAIRS_PER_CHUNK
    for chunk in np.unique(chunk_of_face[count > 0]):
        faces = np.flatnonzero((chunk_of_face == chunk) & (count > 0))
        face = np.repeat(faces, count[faces])
        offset = np.arange(len(face)) - np.repeat(np.cumsum(count[faces]) - count[faces], count[faces])
        yield face, first[face, 0] + offset % extent[face, 0], first[face, 1] + offset // extent[face, 0]


def face_normals(mesh: Mesh, world_to_camera: np.ndarray) -> np.ndarray:
    """(F, 3) unit normals in world axes on the camera's side; 0 for faces without area."""
    a, b, c = mesh.vertices[mesh.faces].astype(np.float64).transpose(1, 0, 2)
    normals = np.cross(b - a, c - a)
    eye = -world_to_camera[:3, :3].T.astype(np.float64) @ world_to_camera[:3, 3]
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = normals / np.where(lengths > 0, lengths, 1)
    return np.where((normals * (a - eye)).sum(1, keepdims=True) > 0, -normals, normals)


def opacity(mesh: Mesh, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Opacity of faces (n,) at barycentrics (n, 3)."""
    values = np.empty(len(face))
    for index, material, rows in _by_material(mesh, face):
        values[index] = material.color[3] * texture_at(mesh, material, rows, weights[index])[:, 3]
    return values


def shade(mesh: Mesh, points: np.ndarray, normals: np.ndarray, face_id: np.ndarray, shading: float) -> np.ndarray:
    """(H, W, 4) colour and coverage of the faces seen in `face_id` (H, W)."""
    rgba = np.zeros((*face_id.shape, 4))
    y, x = np.nonzero(face_id >= 0)
    face = face_id[y, x]
    values = np.einsum("nij,nj->ni", edge_functions(mesh, points)[0][face], np.stack([x + 0.5, y + 0.5, np.ones(len(x))], 1))
    weights = values / values.sum(1, keepdims=True)
    rgb = np.empty((len(face), 3))
    for index, material, rows in _by_material(mesh, face):
        rgb[index] = material.color[:3] * texture_at(mesh, material, rows, weights[index])[:, :3]
    if mesh.corner_colors is not None:
        rgb *= (weights[..., None] * mesh.corner_colors[face]).sum(1)
    sky_share = 0.5 + 0.5 * normals[face] @ SKY
    rgb *= (1 - shading + shading * (GROUND_LIGHT + (1 - GROUND_LIGHT) * sky_share))[:, None]
    rgba[y, x, :3], rgba[y, x, 3] = rgb, 1
    return rgba


def texture_at(mesh: Mesh, material: Material, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, 4) bilinear, repeating texture colour in [0, 1] of faces (n,) at barycentrics (n, 3); 1 without a texture."""
    texture = material.texture
    if texture is None or mesh.corner_uvs is None:
        return np.ones((len(face), 4))
    height, width = texture.shape[:2]
    u, v = (weights[..., None] * mesh.corner_uvs[face]).sum(1).T
    x, y = (u % 1) * width - 0.5, ((1 - v) % 1) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - left)[:, None], (y - top)[:, None]

    def texel(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return texture[row % height, column % width] / 255.0

    upper = (1 - fx) * texel(top, left) + fx * texel(top, left + 1)
    lower = (1 - fx) * texel(top + 1, left) + fx * texel(top + 1, left + 1)
    return (1 - fy) * upper + fy * lower


def _by_material(mesh: Mesh, face: np.ndarray) -> Iterator[tuple[np.ndarray, Material, np.ndarray]]:
    """The rows of `face` that share a material: their indices, the material, and the faces."""
    of_row = mesh.face_materials[face]
    for number in np.unique(of_row):
        index = np.flatnonzero(of_row == number)
        yield index, mesh.materials[number], face[index]
