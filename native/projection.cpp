// Gaussians to ellipses on screen (EWA splatting, Zwicker et al. 2001, as in 3DGS) and back; one Gaussian per lane.
#include "rasterise.h"

Camera::Camera(const SsRasteriseInput& in, int64_t view) {
  const float* m = in.world_to_camera + 16 * view;
  const float* k = in.K + 9 * view;
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) rotation[3 * i + j] = m[4 * i + j];
    translation[i] = m[4 * i + 3];
  }
  fx = k[0], fy = k[4], cx = k[2], cy = k[5];
  const float margin_x = 0.15f * in.width / fx, margin_y = 0.15f * in.height / fy;
  min_tan_x = -(cx / fx + margin_x), max_tan_x = (in.width - cx) / fx + margin_x;
  min_tan_y = -(cy / fy + margin_y), max_tan_y = (in.height - cy) / fy + margin_y;
}

namespace {

// Everything between a Gaussian and its covariance on screen. Matrices are row-major.
struct Projection {
  Floats rotation[9], unit_quat[4], inverse_norm;
  Floats axes[9];                   // columns: the Gaussian's axes times its scales, in camera coordinates
  Floats center[3], inverse_z;      // in camera coordinates
  Floats tan_x, tan_y;              // x/z and y/z, clamped
  Floats j00, j02, j11, j12;        // Jacobian of the projection
  Floats screen[6];                 // Jacobian times axes, (2, 3)
  Floats c00, c01, c11, det;        // covariance on screen = screen screen^T + eps2d I
  Floats normal[3], sharp_det;      // cross product of screen's rows; its square, det(screen screen^T)
};

SS_INLINE Floats dot(const Floats* a, const Floats* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

SS_INLINE void cross(const Floats* a, const Floats* b, Floats* out) {
  out[0] = a[1] * b[2] - a[2] * b[1], out[1] = a[2] * b[0] - a[0] * b[2], out[2] = a[0] * b[1] - a[1] * b[0];
}

SS_INLINE void rotation_of(const Floats* quat, Projection& o) {
  const Floats norm2 = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
  o.inverse_norm = 1.0f / sqrt(max(norm2, broadcast(1e-24f)));
  for (int k = 0; k < 4; k++) o.unit_quat[k] = quat[k] * o.inverse_norm;
  const Floats w = o.unit_quat[0], x = o.unit_quat[1], y = o.unit_quat[2], z = o.unit_quat[3];
  Floats* r = o.rotation;
  r[0] = 1.0f - 2.0f * (y * y + z * z), r[1] = 2.0f * (x * y - w * z), r[2] = 2.0f * (x * z + w * y);
  r[3] = 2.0f * (x * y + w * z), r[4] = 1.0f - 2.0f * (x * x + z * z), r[5] = 2.0f * (y * z - w * x);
  r[6] = 2.0f * (x * z - w * y), r[7] = 2.0f * (y * z + w * x), r[8] = 1.0f - 2.0f * (x * x + y * y);
}

SS_INLINE void project(const Camera& c, const Floats* mean, const Floats* quat, const Floats* scale, float eps2d,
                       Projection& o) {
  rotation_of(quat, o);
  for (int i = 0; i < 3; i++) {
    const float* row = c.rotation + 3 * i;
    o.center[i] = row[0] * mean[0] + row[1] * mean[1] + row[2] * mean[2] + c.translation[i];
    for (int j = 0; j < 3; j++) {
      o.axes[3 * i + j] = (row[0] * o.rotation[j] + row[1] * o.rotation[3 + j] + row[2] * o.rotation[6 + j]) * scale[j];
    }
  }
  o.inverse_z = 1.0f / o.center[2];
  o.tan_x = clamp(o.center[0] * o.inverse_z, broadcast(c.min_tan_x), broadcast(c.max_tan_x));
  o.tan_y = clamp(o.center[1] * o.inverse_z, broadcast(c.min_tan_y), broadcast(c.max_tan_y));
  o.j00 = c.fx * o.inverse_z, o.j02 = -o.j00 * o.tan_x;
  o.j11 = c.fy * o.inverse_z, o.j12 = -o.j11 * o.tan_y;
  Floats *a = o.screen, *b = o.screen + 3;
  for (int j = 0; j < 3; j++) {
    a[j] = o.j00 * o.axes[j] + o.j02 * o.axes[6 + j];
    b[j] = o.j11 * o.axes[3 + j] + o.j12 * o.axes[6 + j];
  }
  const Floats aa = dot(a, a), bb = dot(b, b);
  o.c00 = aa + eps2d, o.c01 = dot(a, b), o.c11 = bb + eps2d;
  // det(S S^T + eps I) by Cauchy-Binet: a sum of squares, free of the cancellation in c00 c11 - c01^2.
  cross(a, b, o.normal);
  o.sharp_det = dot(o.normal, o.normal);
  o.det = o.sharp_det + eps2d * (aa + bb + eps2d);
}

// Component k of the Gaussians first, first + 1, ... in lanes; the last Gaussian fills the lanes beyond the end.
template <int K>
SS_INLINE void load_lanes(const float* values, int64_t first, int64_t count, Floats* out) {
  alignas(64) float lanes[K][LANES];
  for (int l = 0; l < LANES; l++) {
    const float* p = values + K * std::min(first + l, count - 1);
    for (int k = 0; k < K; k++) lanes[k][l] = p[k];
  }
  for (int k = 0; k < K; k++) out[k] = load(lanes[k]);
}

struct Gaussian {
  Floats mean[3], quat[4], scale[3];
  Gaussian(const SsRasteriseInput& in, int64_t first) {
    load_lanes<3>(in.means, first, in.gaussians, mean);
    load_lanes<4>(in.quats, first, in.gaussians, quat);
    load_lanes<3>(in.scales, first, in.gaussians, scale);
  }
};

// First and one past the last pixel whose centre lies within `radius` of `center`, both clamped to [0, size].
SS_INLINE void pixel_range(Floats center, Floats radius, int size, int32_t* low, int32_t* high) {
  const Floats zero{}, limit = broadcast(float(size));
  alignas(64) float bounds[2][LANES];
  store(bounds[0], clamp(center - radius - 0.5f, zero, limit));
  store(bounds[1], clamp(center + radius + 0.5f, zero, limit));
  for (int l = 0; l < LANES; l++) {
    low[l] = int32_t(std::ceil(bounds[0][l]));
    high[l] = int32_t(bounds[1][l]);
  }
}

}  // namespace

static void project_lanes(const SsRasteriseInput& in, const Camera& camera, const Grid& grid, View& view, int64_t first) {
  const Gaussian g(in, first);
  Floats opacity[1];
  load_lanes<1>(in.opacities, first, in.gaussians, opacity);
  Projection o;
  project(camera, g.mean, g.quat, g.scale, in.eps2d, o);

  if (in.antialiased) opacity[0] *= sqrt(o.sharp_det / o.det);
  const Floats log2_opacity = log2(max(opacity[0], broadcast(1e-9f)));
  const Floats reach = log2_opacity - LOG2_MIN_ALPHA;  // log2 density left before the alpha threshold
  const Floats half_width2 = (2.0f / LOG2_E) * reach;
  const Floats x = camera.fx * o.center[0] * o.inverse_z + camera.cx, y = camera.fy * o.center[1] * o.inverse_z + camera.cy;
  const Floats zero{}, infinity = broadcast(INFINITY), size = x * x + y * y + o.center[2] + opacity[0];
  // A reach rounded up to whole pixels exceeds the clip where it exceeds the whole pixels of the clip.
  const float clip = std::floor(in.radius_clip);
  const Floats largest2 = half_width2 * max(o.c00, o.c11);
  const unsigned visible = bits(at_least(o.center[2], broadcast(in.near_plane))) &
                           bits(at_least(broadcast(in.far_plane), o.center[2])) & bits(at_least(reach, zero)) &
                           bits(greater(largest2, broadcast(clip * clip))) & bits(greater(o.det, zero)) &
                           bits(greater(infinity, o.det)) & bits(greater(infinity, size));
  // A thousandth more than the ellipse, so that rounding cannot lose a pixel.
  const Floats radius_x = sqrt(max(half_width2 * o.c00, zero)) * 1.001f + 0.001f;
  const Floats radius_y = sqrt(max(half_width2 * o.c11, zero)) * 1.001f + 0.001f;
  alignas(64) int32_t x0[LANES], x1[LANES], y0[LANES], y1[LANES];
  pixel_range(x, radius_x, grid.width, x0, x1);
  pixel_range(y, radius_y, grid.height, y0, y1);

  const Floats r2 = (LOG2_E / 2) / o.c11, p = sqrt(r2 * o.c11 * o.c11 / o.det);
  alignas(64) float lanes[8][LANES];
  store(lanes[0], x);
  store(lanes[1], y);
  store(lanes[2], p);
  store(lanes[3], -o.c01 / o.c11 * p);
  store(lanes[4], sqrt(r2));
  store(lanes[5], log2_opacity);
  store(lanes[6], o.c01 / o.c00);
  store(lanes[7], o.center[2]);
  const int count = int(std::min<int64_t>(LANES, in.gaussians - first));
  for (int l = 0; l < count; l++) {
    if (!(visible >> l & 1) || x0[l] >= x1[l] || y0[l] >= y1[l]) {
      view.footprints[first + l] = {0, 0, 0, 0};
      continue;
    }
    view.footprints[first + l] = {uint16_t(x0[l] / TILE_WIDTH), uint16_t(y0[l] / TILE_HEIGHT),
                                  uint16_t((x1[l] - 1) / TILE_WIDTH + 1), uint16_t((y1[l] - 1) / TILE_HEIGHT + 1)};
    view.splats[first + l] = {lanes[0][l], lanes[1][l], lanes[2][l], lanes[3][l],
                              lanes[4][l], lanes[5][l], lanes[6][l], lanes[7][l]};
  }
}

void project_view(const SsRasteriseInput& in, const Camera& camera, const Grid& grid, View& view, int threads) {
  view.splats.reserve(in.gaussians);
  view.footprints.reserve(in.gaussians);
  parallel_for(threads, parts(in.gaussians), [&](int64_t part) {
    for_part(in.gaussians, part, [&](int64_t first) { project_lanes(in, camera, grid, view, first); });
  });
}

namespace {

// dL/d(axes) and dL/d(center), both in camera coordinates, from the moments.
SS_INLINE void screen_gradients(const Camera& c, const Projection& o, bool antialiased, const Floats* moments, Floats grad_z,
                                Floats* grad_axes, Floats* grad_center) {
  const Floats a = o.c11 / o.det, b = -o.c01 / o.det, d = o.c00 / o.det;  // the inverse covariance Q = [[a, b], [b, d]]
  // s = 1/2 offset^T Q offset: dL/d(mean) = -Q [sum g dx, sum g dy], dL/dQ = 1/2 sum g offset offset^T
  const Floats grad_x = -(a * moments[1] + b * moments[2]), grad_y = -(b * moments[1] + d * moments[2]);
  // dL/d(cov) = -Q dL/dQ Q, symmetric
  const Floats t00 = a * moments[3] + b * moments[4], t01 = a * moments[4] + b * moments[5];
  const Floats t10 = b * moments[3] + d * moments[4], t11 = b * moments[4] + d * moments[5];
  Floats g00 = -0.5f * (t00 * a + t01 * b), g01 = -0.5f * (t00 * b + t01 * d), g11 = -0.5f * (t10 * b + t11 * d);
  // s also holds -log of the compensation, -1/2 log det(S S^T) + 1/2 log det(cov). The first part's gradient is added below.
  Floats n_b[3]{}, a_n[3]{};
  if (antialiased) {
    g00 += 0.5f * moments[0] * a, g01 += 0.5f * moments[0] * b, g11 += 0.5f * moments[0] * d;
    cross(o.normal, o.screen + 3, n_b);
    cross(o.screen, o.normal, a_n);
    for (int j = 0; j < 3; j++) n_b[j] *= moments[0] / o.sharp_det, a_n[j] *= moments[0] / o.sharp_det;
  }
  // cov = S S^T + eps I: dL/dS = 2 dL/d(cov) S, then S = J axes
  const Floats *s0 = o.screen, *s1 = o.screen + 3, *axes = o.axes;
  Floats grad0[3], grad1[3];
  for (int j = 0; j < 3; j++) {
    grad0[j] = 2.0f * (g00 * s0[j] + g01 * s1[j]) + n_b[j];
    grad1[j] = 2.0f * (g01 * s0[j] + g11 * s1[j]) + a_n[j];
    grad_axes[j] = o.j00 * grad0[j];
    grad_axes[3 + j] = o.j11 * grad1[j];
    grad_axes[6 + j] = o.j02 * grad0[j] + o.j12 * grad1[j];
  }
  const Floats grad_j00 = dot(grad0, axes), grad_j02 = dot(grad0, axes + 6);
  const Floats grad_j11 = dot(grad1, axes + 3), grad_j12 = dot(grad1, axes + 6);
  // j02 = -fx tan_x / z, where tan_x = x / z unless clamped
  const Floats iz = o.inverse_z, raw_x = o.center[0] * iz, raw_y = o.center[1] * iz;
  const Floats one = broadcast(1.0f), two = broadcast(2.0f);
  const Mask free_x = at_least(raw_x, broadcast(c.min_tan_x)) & at_least(broadcast(c.max_tan_x), raw_x);
  const Mask free_y = at_least(raw_y, broadcast(c.min_tan_y)) & at_least(broadcast(c.max_tan_y), raw_y);
  grad_center[0] = grad_x * o.j00 - keep(free_x, grad_j02 * o.j00 * iz);
  grad_center[1] = grad_y * o.j11 - keep(free_y, grad_j12 * o.j11 * iz);
  grad_center[2] = grad_z - (grad_x * o.j00 * raw_x + grad_y * o.j11 * raw_y) -
                   iz * (grad_j00 * o.j00 + grad_j11 * o.j11 +
                         select(free_x, two, one) * grad_j02 * o.j02 + select(free_y, two, one) * grad_j12 * o.j12);
}

// dL/d(quat) from dL/d(rotation matrix) `r`, through the normalisation.
SS_INLINE void quat_gradient(const Projection& o, const Floats* r, Floats* grad) {
  const Floats w = o.unit_quat[0], x = o.unit_quat[1], y = o.unit_quat[2], z = o.unit_quat[3];
  const Floats unit[4] = {
      2.0f * (x * (r[7] - r[5]) + y * (r[2] - r[6]) + z * (r[3] - r[1])),
      2.0f * (-2.0f * x * (r[4] + r[8]) + y * (r[3] + r[1]) + z * (r[6] + r[2]) + w * (r[7] - r[5])),
      2.0f * (x * (r[3] + r[1]) - 2.0f * y * (r[0] + r[8]) + z * (r[7] + r[5]) + w * (r[2] - r[6])),
      2.0f * (x * (r[6] + r[2]) + y * (r[7] + r[5]) - 2.0f * z * (r[0] + r[4]) + w * (r[3] - r[1]))};
  const Floats radial = unit[0] * w + unit[1] * x + unit[2] * y + unit[3] * z;
  for (int k = 0; k < 4; k++) grad[k] = (unit[k] - radial * o.unit_quat[k]) * o.inverse_norm;
}

// Writes component k of each lane's Gaussian; zero where it is not drawn, whatever the lane holds.
template <int K>
SS_INLINE void store_lanes(float* values, int64_t first, int count, unsigned drawn, bool add, const Floats* in) {
  alignas(64) float lanes[K][LANES];
  for (int k = 0; k < K; k++) store(lanes[k], in[k]);
  for (int l = 0; l < count; l++) {
    for (int k = 0; k < K; k++) {
      float& value = values[K * (first + l) + k];
      const float gradient = drawn >> l & 1 ? lanes[k][l] : 0.0f;
      value = add ? value + gradient : gradient;
    }
  }
}

// Sums of [dL/d(rotation), dL/d(translation)] of the camera over the drawn lanes, in the order of lanes.
SS_INLINE void camera_gradient(const Projection& o, const Gaussian& g, const Floats* axes, const Floats* center, unsigned drawn,
                               float* sums) {
  Floats gradient[CAMERA_SUMS];
  for (int i = 0; i < 3; i++) {
    for (int k = 0; k < 3; k++) {
      Floats sum = center[i] * g.mean[k];
      for (int j = 0; j < 3; j++) sum += axes[3 * i + j] * (o.rotation[3 * k + j] * g.scale[j]);
      gradient[3 * i + k] = sum;
    }
    gradient[9 + i] = center[i];
  }
  for (int k = 0; k < CAMERA_SUMS; k++) {
    alignas(64) float lanes[LANES];
    store(lanes, gradient[k]);
    for (int l = 0; l < LANES; l++) sums[k] += drawn >> l & 1 ? lanes[l] : 0.0f;
  }
}

}  // namespace

void project_backward(const SsRasteriseInput& in, const Camera& camera, const View& view, int64_t first,
                      const float (*rows)[SUMS], bool add, const SsRasteriseGradients& out) {
  const int count = int(std::min<int64_t>(LANES, in.gaussians - first));
  unsigned drawn = 0;
  for (int l = 0; l < count; l++) drawn |= unsigned(view.footprints[first + l].tiles() > 0) << l;
  Floats mean[3]{}, quat[4]{}, scale[3]{}, opacity[1]{};
  float* camera_sums = out.world_to_camera ? view.camera_sums.get() + first / LANES * CAMERA_SUMS : nullptr;
  if (camera_sums) std::fill(camera_sums, camera_sums + CAMERA_SUMS, 0.0f);
  if (drawn) {
    alignas(64) float lanes[SUMS][LANES];
    for (int l = 0; l < LANES; l++) {
      for (int k = 0; k < SUMS; k++) lanes[k][l] = rows[l][k];
    }
    for (int l = 0; in.median_depth && l < count; l++) lanes[MOMENTS][l] += view.median_gradients[first + l];
    Floats moments[MOMENTS];
    for (int k = 0; k < MOMENTS; k++) moments[k] = load(lanes[k]);
    const Gaussian g(in, first);
    Projection o;
    project(camera, g.mean, g.quat, g.scale, in.eps2d, o);
    Floats axes[9], center[3], world_axes[9], rotation[9];
    screen_gradients(camera, o, in.antialiased, moments, load(lanes[MOMENTS]), axes, center);
    if (camera_sums) camera_gradient(o, g, axes, center, drawn, camera_sums);
    const float* r = camera.rotation;
    for (int k = 0; k < 3; k++) mean[k] = r[k] * center[0] + r[3 + k] * center[1] + r[6 + k] * center[2];
    for (int i = 0; i < 3; i++) {
      for (int j = 0; j < 3; j++) {
        world_axes[3 * i + j] = r[i] * axes[j] + r[3 + i] * axes[3 + j] + r[6 + i] * axes[6 + j];
        rotation[3 * i + j] = world_axes[3 * i + j] * g.scale[j];
      }
    }
    for (int j = 0; j < 3; j++) {
      scale[j] = o.rotation[j] * world_axes[j] + o.rotation[3 + j] * world_axes[3 + j] + o.rotation[6 + j] * world_axes[6 + j];
    }
    quat_gradient(o, rotation, quat);
    load_lanes<1>(in.opacities, first, in.gaussians, opacity);
    opacity[0] = -moments[0] / opacity[0];  // alpha = opacity exp(-s), s with the compensation
  }
  store_lanes<3>(out.means, first, count, drawn, add, mean);
  store_lanes<4>(out.quats, first, count, drawn, add, quat);
  store_lanes<3>(out.scales, first, count, drawn, add, scale);
  store_lanes<1>(out.opacities, first, count, drawn, add, opacity);
}
