"""The mesh renderer against analytic scenes, for both backends, and one backend against the other on random meshes."""

import inspect

import numpy as np
import pytest
import torch
import trimesh

from splatsense.cameras import Cameras
from splatsense.errors import DataError, LimitError
from splatsense.mesh import Material, Mesh
from splatsense.native import load_native
from splatsense.render.mesh import MeshImages, render_mesh

WHITE = Material(np.ones(4, np.float32))


@pytest.fixture(params=["native", "reference"])
def backend(request) -> str:
    if request.param == "native" and load_native() is None:
        pytest.skip("the native library is not installed")
    return request.param


def make_mesh(vertices, faces, materials=(WHITE,), face_materials=None, instances=None, uvs=None, colors=None) -> Mesh:
    faces = np.array(faces, np.int32).reshape(-1, 3)
    per_face = np.zeros(len(faces), np.int32)
    return Mesh(
        np.array(vertices, np.float32).reshape(-1, 3),
        faces,
        per_face if face_materials is None else np.array(face_materials, np.int32),
        per_face if instances is None else np.array(instances, np.int32),
        tuple(materials),
        uvs,
        colors,
    )


def quad(x0, x1, y0, y1, z) -> tuple[list, list]:
    """Corners and two faces of a rectangle at depth z; its corner 0 is at the top left of the image."""
    return [[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]], [[0, 1, 2], [0, 2, 3]]


def camera(width: int, height: int, focal: float) -> Cameras:
    """At the origin, with the world's axes."""
    K = torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]])
    return Cameras(torch.eye(4)[None], K, width, height)


def rays(cameras: Cameras) -> torch.Tensor:
    """(H, W, 3) directions through the pixel centres with z = 1, in camera axes."""
    y, x = torch.meshgrid(torch.arange(cameras.height) + 0.5, torch.arange(cameras.width) + 0.5, indexing="ij")
    K = cameras.K[0]
    return torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)], -1)


def assert_same(a: MeshImages, b: MeshImages, color_tolerance: float = 0.0) -> None:
    for name in ("alpha", "depth", "normal", "instance_id", "face_id"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-6, atol=1e-6, msg=name)
    torch.testing.assert_close(a.color, b.color, rtol=0, atol=color_tolerance)


SOLID = np.full((2, 2, 4), 255, np.uint8)
HOLED = np.array([[[255] * 4, [0] * 4], [[255] * 4] * 2], np.uint8)


@pytest.mark.parametrize("texture", [None, SOLID, HOLED])
def test_a_triangle_seen_edge_on_is_not_drawn(backend, texture):
    """Rounding gives it a determinant, but at the pixels' centres every edge function is 0."""
    vertices = [
        [0, -0.47145840525627136, 0.8156681060791016],
        [0, 0.7894468307495117, 0.734898567199707],
        [0, 0.7360682487487793, 0.5790033340454102],
    ]
    uvs = np.array([[[0, 0], [1, 0], [0, 1]]], np.float32)
    mesh = make_mesh(vertices, [[0, 1, 2]], [Material(np.ones(4, np.float32), texture)], uvs=uvs)
    assert not render_mesh(mesh, camera(21, 21, 20), backend=backend).alpha.any()


def test_texture_has_its_first_row_at_the_top_and_repeats(backend):
    texture = np.random.default_rng(0).integers(0, 256, (4, 6, 4), np.uint8)
    texture[..., 3] = 255
    vertices, faces = quad(-6, 6, -4, 4, 2)
    corner_uvs = np.array([[-1, 2], [1, 2], [1, 0], [-1, 0]], np.float32)  # two repeats along each axis
    mesh = make_mesh(vertices, faces, [Material(np.array([1, 0.5, 1, 1], np.float32), texture)], uvs=corner_uvs[faces])
    images = render_mesh(mesh, camera(12, 8, 2.0), backend=backend)  # one pixel per texel: bilinear hits texel centres
    expected = torch.from_numpy(np.tile(texture[..., :3] / 255.0 * [1, 0.5, 1], (2, 2, 1))).float()
    torch.testing.assert_close(images.color[0], expected, rtol=0, atol=1e-5)
    assert bool((images.depth == 2).all() and (images.alpha == 1).all())


def test_bilinear_filter_between_texels(backend):
    texture = np.zeros((1, 2, 4), np.uint8)
    texture[..., 3], texture[0, 1, :3] = 255, 200
    vertices, faces = quad(-4, 4, -1, 1, 1)
    uvs = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)[faces]
    images = render_mesh(
        make_mesh(vertices, faces, [Material(np.ones(4, np.float32), texture)], uvs=uvs), camera(8, 2, 1), backend=backend
    )
    u = (torch.arange(8) + 0.5) / 8
    expected = torch.where(u < 0.25, 0.5 - 2 * (u), torch.where(u > 0.75, 1 - 2 * (u - 0.75), 2 * (u - 0.25)))  # wraps
    torch.testing.assert_close(images.color[0, 0, :, 0] * 255 / 200, expected, rtol=0, atol=1e-5)


def test_attributes_are_perspective_correct(backend):
    """Corner colours equal to positions: every pixel must show the point that its depth unprojects to."""
    vertices = np.array([[-3, 1, 1], [3, -1, 9], [1, 2, 2], [-1, -3, 6]], np.float32)
    faces = [[0, 1, 2], [0, 1, 3]]
    mesh = make_mesh(vertices, faces, colors=((vertices + 4) / 16)[faces].astype(np.float32))
    cameras = camera(64, 48, 30.0)
    images = render_mesh(mesh, cameras, backend=backend)
    hit = images.face_id[0] >= 0
    points = rays(cameras) * images.depth[0, ..., None]
    assert 300 < int(hit.sum()) < 64 * 48
    torch.testing.assert_close(images.color[0][hit] * 16 - 4, points[hit], rtol=0, atol=1e-4)


def test_sphere_depth_and_normals(backend):
    ball = trimesh.creation.icosphere(subdivisions=4, radius=1.0)
    cameras = Cameras.orbit(3, size=64, elevation=35.0)
    images = render_mesh(make_mesh(ball.vertices, ball.faces), cameras, backend=backend)
    for view in range(3):
        to_world = cameras.world_to_camera[view, :3, :3].T
        directions = rays(cameras) @ to_world.T
        eye = cameras.centers[view]
        a, b, c = directions.square().sum(-1), directions @ eye, eye @ eye - 1
        discriminant = b * b - a * c
        inner = discriminant > 0.05 * (b * b).max()  # away from the silhouette, where the mesh is inside the ball
        depth = (-b - discriminant.clamp(min=0).sqrt()) / a
        assert bool((images.face_id[view] >= 0)[inner].all())
        assert not bool((images.face_id[view] >= 0)[discriminant < 0].any())
        torch.testing.assert_close(images.depth[view][inner], depth[inner], rtol=0, atol=0.01)
        normals = eye + depth[..., None] * directions
        cosine = (images.normal[view] * normals).sum(-1)[inner]
        assert float(cosine.min()) > 0.995
        torch.testing.assert_close(images.normal[view].norm(dim=-1)[inner], torch.ones(int(inner.sum())))


def test_cube_shows_the_side_that_faces_the_camera(backend):
    box = trimesh.creation.box(extents=(2, 2, 2))
    sides = np.argmax(box.face_normals @ np.vstack([np.eye(3), -np.eye(3)]).T, axis=1)  # +x +y +z -x -y -z
    directions = torch.from_numpy(np.vstack([np.eye(3), -np.eye(3)])).float()
    cameras = [
        Cameras.look_at(d[None] * 5, torch.zeros(3), torch.tensor([0.1, 0.2, 0.3]), 40, 40, fov=40.0) for d in directions
    ]
    for side, view in enumerate(cameras):
        images = render_mesh(make_mesh(box.vertices, box.faces, instances=sides + 10), view, backend=backend)
        hit = images.instance_id[0] >= 0
        assert set(images.instance_id[0].unique().tolist()) == {-1, side + 10}
        torch.testing.assert_close(images.depth[0][hit], torch.full((int(hit.sum()),), 4.0))
        torch.testing.assert_close(images.normal[0][hit], directions[side].expand(int(hit.sum()), 3), rtol=0, atol=1e-6)
        assert set(np.unique(sides[images.face_id[0][hit].numpy()])) == {side}
        projected = (2 * float(view.K[0, 0, 0]) / 4) ** 2  # square pixels of a 2 x 2 square at depth 4
        assert abs(int(hit.sum()) - projected) < 0.1 * projected


def test_ground_plane_is_clipped_at_the_camera_and_at_the_horizon(backend):
    vertices, faces = quad(-1e5, 1e5, 1, 1, 0)
    vertices = [[x, 1.0, z] for (x, _, _), z in zip(vertices, (-1e5, -1e5, 1e5, 1e5), strict=True)]
    cameras = camera(32, 24, 10.0)
    images = render_mesh(make_mesh(vertices, faces), cameras, near=1.2, backend=backend)
    down = rays(cameras)[..., 1]
    depth = 1 / down
    expected = torch.where((down > 0) & (depth >= 1.2), depth, 0)
    torch.testing.assert_close(images.depth[0], expected, rtol=1e-4, atol=0)
    assert 0 < int((expected == 0)[12:].sum()) < 12 * 32  # the near plane did cut something below the horizon
    torch.testing.assert_close(images.normal[0][expected > 0][0], torch.tensor([0.0, -1.0, 0.0]))


def test_room_seen_from_inside_has_no_holes(backend):
    room = trimesh.creation.box(extents=(4, 3, 5))
    eyes = torch.tensor([[1.0, 0.5, 0.2], [-1.9, -1.4, -2.4], [0.0, 0.0, 0.0]])
    cameras = Cameras.look_at(eyes, torch.tensor([0.3, 0.1, 0.7]), torch.tensor([0.0, 1.0, 0.0]), 60, 40, fov=90.0)
    images = render_mesh(make_mesh(room.vertices, room.faces), cameras, backend=backend)
    assert bool((images.alpha == 1).all())
    for view in range(3):
        directions = rays(cameras) @ cameras.world_to_camera[view, :3, :3]
        walls = torch.tensor([2.0, 1.5, 2.5]) * directions.sign()
        expected = ((walls - eyes[view]) / directions).amin(-1)
        torch.testing.assert_close(images.depth[view], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_shared_edges_leave_no_gaps(backend, jitter):
    """Neighbouring triangles whose edges run exactly through pixel centres, or anywhere."""
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(np.arange(-1, 18.0) + 0.5, np.arange(-1, 18.0) + 0.5)
    points = np.stack([x, y], -1) + rng.uniform(-jitter, jitter, (19, 19, 2))
    depth = rng.uniform(1, 3, (19, 19, 1)) if jitter else np.ones((19, 19, 1))
    vertices = np.concatenate([(points - 8) * depth, depth], -1).reshape(-1, 3)
    corner = np.arange(18 * 19).reshape(18, 19)[:, :18].ravel()
    faces = np.concatenate([np.stack([corner, corner + 1, corner + 20], 1), np.stack([corner, corner + 20, corner + 19], 1)])
    soup = make_mesh(vertices[faces].reshape(-1, 3), np.arange(faces.size))  # no vertex is shared by index
    images = render_mesh(soup, camera(16, 16, 1.0), backend=backend)
    assert int((images.face_id < 0).sum()) == 0


def test_supersampling_smooths_coverage_and_leaves_depth_alone(backend):
    vertices, faces = quad(-0.9, 0.65, -0.4, 0.8, 1)
    view = camera(8, 8, 4.0)
    mesh = make_mesh(vertices, faces)
    plain = render_mesh(mesh, view, backend=backend)
    smooth = render_mesh(mesh, view, supersample=8, background=(0.0, 0.5, 1.0), backend=backend)
    assert set(plain.alpha.unique().tolist()) == {0.0, 1.0}
    area = 1.55 * 1.2 * 16
    assert abs(float(smooth.alpha.sum()) - area) < 0.03 * area
    assert 0 < float(smooth.alpha[0, 4, 0]) < 1
    for name in ("depth", "normal", "instance_id", "face_id"):
        assert torch.equal(getattr(plain, name), getattr(smooth, name))
    alpha = smooth.alpha[..., None]
    torch.testing.assert_close(smooth.color, alpha + (1 - alpha) * torch.tensor([0.0, 0.5, 1.0]))


def test_holes_show_what_is_behind(backend):
    texture = np.full((2, 2, 4), 255, np.uint8)
    texture[0, 0, 3] = 0
    front, faces = quad(-2, 2, -2, 2, 1)
    behind, _ = quad(-4, 4, -4, 4, 2)
    faces = np.array(faces)
    uvs = np.tile(np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)[faces], (3, 1, 1))
    glass, paper = Material(np.array([1, 1, 1, 0.4], np.float32)), Material(np.array([1, 0, 0, 1], np.float32), texture)
    closest = np.array(front) * 0.5
    mesh = make_mesh(
        [*closest, *front, *behind], np.concatenate([faces, faces + 4, faces + 8]), [glass, paper, WHITE],
        face_materials=[0, 0, 1, 1, 2, 2], uvs=uvs,
    )  # fmt: skip
    images = render_mesh(mesh, camera(4, 4, 1.0), backend=backend)
    expected = torch.ones(4, 4)
    expected[:2, :2] = 2.0  # the transparent texel fills a quarter, and bilinear alpha is 0.5 only past its border
    assert torch.equal(images.depth[0], expected)
    assert torch.equal(images.color[0, ..., 1], (expected == 2).float())


def test_material_opacity_multiplies_texture_opacity(backend):
    texture = np.full((1, 1, 4), 160, np.uint8)  # 0.63
    vertices, faces = quad(-2, 2, -2, 2, 1)
    uvs = np.zeros((2, 3, 2), np.float32)
    for opacity, expected in ((1.0, 1.0), (0.7, 0.0)):
        material = Material(np.array([1, 1, 1, opacity], np.float32), texture)
        images = render_mesh(make_mesh(vertices, faces, [material], uvs=uvs), camera(4, 4, 1.0), backend=backend)
        assert bool((images.alpha == expected).all())


def test_light_is_fixed_in_the_world(backend):
    ball = trimesh.creation.icosphere(subdivisions=3, radius=1.0)
    mesh = make_mesh(ball.vertices, ball.faces)
    views = Cameras.orbit(4, size=48)
    lit = render_mesh(mesh, views, shading=1.0, backend=backend)
    half = render_mesh(mesh, views, shading=0.5, backend=backend)
    hit = lit.face_id >= 0
    brightness = lit.color[..., 0]
    sky = torch.nn.functional.normalize(torch.tensor([0.4, 0.7, 0.6]), dim=0)
    torch.testing.assert_close(brightness[hit], (0.625 + 0.375 * lit.normal @ sky)[hit], rtol=0, atol=1e-5)
    torch.testing.assert_close(half.color[hit], 0.5 + 0.5 * lit.color[hit])
    by_face = {}
    for face, value in zip(lit.face_id[hit].tolist(), brightness[hit].tolist(), strict=True):
        assert by_face.setdefault(face, value) == pytest.approx(value, abs=1e-6)


def test_equal_depth_goes_to_the_lower_face(backend):
    vertices, faces = quad(-1, 1, -1, 1, 2)
    images = render_mesh(make_mesh(vertices, faces + faces, instances=[3, 3, 4, 4]), camera(9, 9, 6.0), backend=backend)
    assert set(images.instance_id.unique().tolist()) == {-1, 3}


def test_nothing_to_draw(backend):
    empty = render_mesh(make_mesh([], []), camera(5, 4, 3.0), background=(0.25, 0.5, 0.75), backend=backend)
    torch.testing.assert_close(empty.color, torch.tensor([0.25, 0.5, 0.75]).expand(1, 4, 5, 3))
    for name, value in (("alpha", 0), ("depth", 0), ("normal", 0), ("instance_id", -1), ("face_id", -1)):
        assert bool((getattr(empty, name) == value).all())
    vertices, faces = quad(-1, 1, -1, 1, -2)
    assert float(render_mesh(make_mesh(vertices, faces), camera(5, 4, 3.0), backend=backend).alpha.sum()) == 0
    no_views = camera(5, 4, 3.0)[:0]
    assert render_mesh(make_mesh(vertices, faces), no_views, backend=backend).color.shape == (0, 4, 5, 3)


def test_degenerate_and_huge_triangles_do_no_harm(backend):
    vertices, faces = quad(-1, 1, -1, 1, 2)
    strange = [[0, 0, 0], [0, 0, 1], [0, 0, 1], [3e38, -3e38, 3e38], [-3e38, 1, 5], [1e30, 1e30, 1e30], [-1e30, 0, 9]]
    bad = [[4, 5, 6], [5, 6, 6], [7, 8, 9], [7, 0, 8], [4, 4, 4], [10, 10, 5]]
    expected = render_mesh(make_mesh(vertices, faces), camera(9, 9, 4.0), backend=backend)
    images = render_mesh(make_mesh(vertices + strange, faces + bad), camera(9, 9, 4.0), backend=backend)
    assert_same(images, expected)
    wall = np.array([[-1e30, -1e30, 1e30], [1e30, -1e30, 1e30], [0, 1e30, 1e30]])
    images = render_mesh(make_mesh(wall, [[0, 1, 2]]), camera(9, 9, 20.0), backend=backend)
    torch.testing.assert_close(images.depth, torch.full((1, 9, 9), 1e30))


def test_views_do_not_depend_on_each_other(backend):
    mesh = random_mesh(7)
    views = Cameras.orbit(5, size=64, distance=1.5)
    together = render_mesh(mesh, views, supersample=2, backend=backend)
    for view in range(5):
        alone = render_mesh(mesh, views[view : view + 1], supersample=2, backend=backend)
        assert torch.equal(alone.color[0], together.color[view])
        assert torch.equal(alone.face_id[0], together.face_id[view])


def random_mesh(seed: int) -> Mesh:
    """A soup of triangles of all sizes with plain, textured and cut-out materials and corner colours."""
    rng = np.random.default_rng(seed)
    count = 300
    centers = rng.uniform(-1.5, 1.5, (count, 1, 3))
    corners = centers + rng.normal(size=(count, 3, 3)) * rng.choice([0.02, 0.2, 1.5], (count, 1, 1), p=[0.5, 0.4, 0.1])
    solid = rng.integers(0, 256, (5, 7, 4), np.uint8)
    solid[..., 3] = 255
    lace = rng.integers(0, 256, (8, 3, 4), np.uint8)
    materials = [
        Material(rng.random(4).astype(np.float32) * 0.5 + 0.5),
        Material(np.array([1, 0.8, 0.6, 1], np.float32), solid),
        Material(np.array([0.7, 1, 1, 1], np.float32), lace),
        Material(np.array([1, 1, 1, 0.2], np.float32)),
    ]
    return make_mesh(
        corners, np.arange(3 * count), materials, rng.integers(0, 4, count), rng.integers(0, 9, count),
        rng.normal(size=(count, 3, 2)).astype(np.float32), rng.random((count, 3, 3)).astype(np.float32),
    )  # fmt: skip


@pytest.mark.skipif(load_native() is None, reason="the native library is not installed")
@pytest.mark.parametrize("seed", range(6))
def test_native_equals_reference(seed):
    """Cameras among the triangles, so that many cross the near plane; seeds vary the size and the settings too."""
    mesh = random_mesh(seed)
    generator = torch.Generator().manual_seed(seed)
    eyes = torch.randn(2, 3, generator=generator)
    width, height = 40 + 13 * seed, 61 - 7 * seed
    cameras = Cameras.look_at(eyes, torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]), width, height, fov=70.0)
    settings = {"supersample": 1 + seed % 3, "shading": 0.2 * seed, "background": (0.1, 0.2, 0.3), "near": 0.02 + 0.1 * seed}
    native = render_mesh(mesh, cameras, backend="native", **settings)
    reference = render_mesh(mesh, cameras, backend="reference", **settings)
    assert float(reference.alpha.mean()) > 0.2
    assert_same(native, reference, color_tolerance=2e-4)


def test_bad_input_is_named():
    vertices, faces = quad(-1, 1, -1, 1, 2)
    view = camera(4, 4, 2.0)
    good = make_mesh(vertices, faces)
    vertices[2][1] = float("nan")
    with pytest.raises(DataError, match=r"Mesh\.vertices\[2\] is not finite"):
        render_mesh(make_mesh(vertices, faces), view)
    with pytest.raises(DataError, match=r"supersample must be 1 to 16, got 0"):
        render_mesh(good, view, supersample=0)
    with pytest.raises(DataError, match=r"shading must be in \[0, 1\]"):
        render_mesh(good, view, shading=1.5)
    with pytest.raises(DataError, match=r"near must be positive"):
        render_mesh(good, view, near=0.0)
    with pytest.raises(DataError, match=r"background must be three values"):
        render_mesh(good, view, background=(0.0, 2.0, 0.0))
    with pytest.raises(DataError, match="cameras hold NaN"):
        render_mesh(good, Cameras(torch.full((1, 4, 4), torch.nan), view.K, 4, 4))
    texture = np.zeros((2, 2, 4), np.uint8)
    with pytest.raises(DataError, match=r"materials\[0\] has a texture, but Mesh.corner_uvs is None"):
        render_mesh(make_mesh(good.vertices, faces, [Material(np.ones(4, np.float32), texture)]), view)
    with pytest.raises(DataError, match=r"materials\[0\]\.texture is float64"):
        render_mesh(make_mesh(good.vertices, faces, [Material(np.ones(4, np.float32), texture / 255.0)]), view)


def test_images_beyond_memory_are_our_own_error(backend):
    cameras = Cameras.orbit(1, 65535)[torch.zeros(10_000, dtype=torch.long)]  # more than a process can address
    with pytest.raises(LimitError, match="out of memory at 10000 images of 65535 x 65535"):
        render_mesh(make_mesh(np.eye(3), [0, 1, 2]), cameras, backend=backend)


def test_only_known_backends_are_taken():
    with pytest.raises(DataError, match="backend must be one of auto, native, reference, got 'gpu'"):
        inspect.unwrap(render_mesh)(make_mesh(np.eye(3), [0, 1, 2]), Cameras.orbit(1, 8), backend="gpu")
