import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from splatsense.gaussians import quaternion_to_matrix
from splatsense.spherical_harmonics import SH_C0, rotate_sh, sh_basis, sh_to_rgb


def sphere_quadrature():
    """Directions and weights that integrate polynomials up to degree 8 on the sphere exactly: Gauss-Legendre in z,
    equal steps around it."""
    nodes = [-0.9061798459386640, -0.5384693101056831, 0.0, 0.5384693101056831, 0.9061798459386640]
    shares = [0.2369268850561891, 0.4786286704993665, 0.5688888888888889, 0.4786286704993665, 0.2369268850561891]
    nodes, weights = torch.tensor(nodes, dtype=torch.float64), torch.tensor(shares, dtype=torch.float64)
    steps = 16
    angle = torch.arange(steps, dtype=torch.float64) * (2 * math.pi / steps)
    z, angle = (grid.flatten() for grid in torch.meshgrid(nodes, angle, indexing="ij"))
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1), weights.repeat_interleave(steps) * (
        2 * math.pi / steps
    )


def test_the_basis_is_orthonormal():
    directions, weights = sphere_quadrature()
    basis = sh_basis(4, directions)
    torch.testing.assert_close(torch.einsum("n,ni,nj->ij", weights, basis, basis), torch.eye(25).double(), rtol=0, atol=1e-10)


def test_order_and_signs_of_the_first_bands_are_those_of_3dgs():
    # The constants and terms as tabulated in the 3DGS code base (SH_C1, SH_C2), degree 3 by its first and last term.
    x, y, z = 0.36, -0.48, 0.8
    expected = [
        0.28209479177387814,
        -0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x,
        1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * z * z - x * x - y * y),
        -1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y),
    ]  # fmt: skip
    basis = sh_basis(3, torch.tensor([x, y, z], dtype=torch.float64))
    torch.testing.assert_close(basis[:9], torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(float(basis[9]), -0.5900435899266435 * y * (3 * x * x - y * y))
    torch.testing.assert_close(float(basis[15]), -0.5900435899266435 * x * (x * x - 3 * y * y))


@pytest.mark.parametrize("degree", range(5))
def test_each_degree_is_a_prefix_of_the_next(degree):
    directions = normalize(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    values = sh_basis(degree, directions)
    assert values.shape == (7, (degree + 1) ** 2)
    assert torch.equal(values, sh_basis(4, directions)[:, : (degree + 1) ** 2])


def test_colours_do_not_depend_on_the_length_of_the_direction_and_are_not_negative():
    sh = torch.randn(50, 9, 3, generator=torch.Generator().manual_seed(0))
    directions = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    colors = sh_to_rgb(sh, directions)
    torch.testing.assert_close(colors, sh_to_rgb(sh, 5 * directions))
    assert float(colors.min()) == 0
    torch.testing.assert_close(sh_to_rgb(torch.ones(1, 1, 3), directions[:1]), torch.full((1, 3), 0.5 + SH_C0))


@given(quat=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(v * v for v in q) > 0.01), degree=st.integers(0, 4))
def test_rotated_coefficients_are_the_rotated_function(quat, degree):
    rotation = quaternion_to_matrix(torch.tensor(quat, dtype=torch.float64))
    random = torch.Generator().manual_seed(0)
    sh = torch.randn(5, (degree + 1) ** 2, 3, generator=random, dtype=torch.float64)
    directions = normalize(torch.randn(5, 3, generator=random, dtype=torch.float64), dim=-1)
    before = torch.einsum("nk,nkc->nc", sh_basis(degree, directions), sh)
    after = torch.einsum("nk,nkc->nc", sh_basis(degree, directions @ rotation.T), rotate_sh(sh, rotation))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-9)


def test_rotation_keeps_the_energy_of_each_band():
    sh = torch.randn(4, 16, 3, generator=torch.Generator().manual_seed(0))
    rotated = rotate_sh(sh, quaternion_to_matrix(torch.tensor([0.5, 0.1, -0.7, 0.2])))
    for low, high in ((0, 1), (1, 4), (4, 9), (9, 16)):
        torch.testing.assert_close(rotated[:, low:high].square().sum(1), sh[:, low:high].square().sum(1))
