// Z-buffer mesh renderer.
//
// Design
// - Rasterisation in 2D homogeneous coordinates (Olano and Greer 1997): with p_i = K (R v_i + t), the edge functions
//   E_i = (p_j x p_k) . (x, y, 1) are linear in the pixel, have one sign inside the part of the triangle that lies in front
//   of the camera, and E_i / sum(E) are perspective-correct barycentrics. So triangles that cross the near plane need no
//   new vertices: the plane only tightens their bounding box, and it is tested per pixel.
// - Products of two floats are exact in double, so the functions of a shared edge are exact negatives of each other and
//   no pixel falls between two neighbouring triangles. Ties in depth go to the lower face.
// - Visibility first (inverse depth and face per sample), then shading of what is visible, one face at a time.
// - mesh_reference.py states the same in NumPy.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "mesh_materials.h"
#include "splatsense.h"

namespace {

constexpr float kPad = 1e-3f;           // pixels added to bounding boxes to cover rounding
constexpr double kGroundLight = 0.25;   // light from below, relative to light from above
constexpr double kSky[3] = {0.39801488, 0.69652603, 0.59702231};  // unit vector towards the light

#ifdef __AVX512F__
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef double Doubles __attribute__((vector_size(kLanes * 8)));
typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int64_t Longs __attribute__((vector_size(kLanes * 8)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));

struct Camera {
  double m[12];  // 3x4: world to homogeneous pixels
  double eye[3];
};

struct Point {
  float x, y, w;  // homogeneous pixel; w is the depth
  float sx, sy;   // pixel, if w >= near
};

struct Edges {
  double a[3], b[3], c[3];  // E_i(x, y) = a_i x + b_i y + c_i, positive inside
  double za, zb, zc;        // 1 / depth
};

struct Box {
  int x0, x1, y0, y1;
};

struct Buffer {
  int width, height, stride;  // rows are padded to whole vectors
  std::vector<float> inverse_depth;  // 0 where there is nothing
  std::vector<int32_t> face;
};

Camera make_camera(const float* world_to_camera, const float* K, double scale) {
  Camera camera;
  const float* T = world_to_camera;
  for (int j = 0; j < 4; j++) {
    camera.m[j] = scale * (double(K[0]) * T[j] + double(K[1]) * T[4 + j] + double(K[2]) * T[8 + j]);
    camera.m[4 + j] = scale * (double(K[4]) * T[4 + j] + double(K[5]) * T[8 + j]);
    camera.m[8 + j] = T[8 + j];
  }
  for (int j = 0; j < 3; j++) {
    camera.eye[j] = -(double(T[j]) * T[3] + double(T[4 + j]) * T[7] + double(T[8 + j]) * T[11]);
  }
  return camera;
}

void project(const SsMesh& mesh, const Camera& camera, std::vector<Point>& points) {
  const double* m = camera.m;
  for (int i = 0; i < mesh.vertex_count; i++) {
    const double x = mesh.vertices[3 * i], y = mesh.vertices[3 * i + 1], z = mesh.vertices[3 * i + 2];
    const float px = float(m[0] * x + m[1] * y + m[2] * z + m[3]);
    const float py = float(m[4] * x + m[5] * y + m[6] * z + m[7]);
    const float w = float(m[8] * x + m[9] * y + m[10] * z + m[11]);
    points[i] = {px, py, w, px / w, py / w};
  }
}

// False for a triangle seen edge-on or without area.
bool make_edges(const Point* const p[3], Edges& edges) {
  double a[3], b[3], c[3];
  for (int i = 0; i < 3; i++) {
    const Point &q = *p[(i + 1) % 3], &r = *p[(i + 2) % 3];
    a[i] = double(q.y) * r.w - double(q.w) * r.y;
    b[i] = double(q.w) * r.x - double(q.x) * r.w;
    c[i] = double(q.x) * r.y - double(q.y) * r.x;
  }
  const double det = p[0]->x * a[0] + p[0]->y * b[0] + p[0]->w * c[0];
  if (!(std::abs(det) > 0) || !std::isfinite(det)) return false;
  const double sign = std::copysign(1.0, det), scale = 1 / det;
  for (int i = 0; i < 3; i++) {
    edges.a[i] = sign * a[i];
    edges.b[i] = sign * b[i];
    edges.c[i] = sign * c[i];
  }
  edges.za = (a[0] + a[1] + a[2]) * scale;
  edges.zb = (b[0] + b[1] + b[2]) * scale;
  edges.zc = (c[0] + c[1] + c[2]) * scale;
  return true;
}

int clamp_to_int(float value, int low, int high) {  // NaN becomes low
  return int(std::min(float(high), std::max(float(low), value)));
}

// Pixels whose centres may lie in the triangle; false if there are none.
bool bounding_box(const Point* const p[3], float near, const Buffer& buffer, Box& box) {
  const Point &p0 = *p[0], &p1 = *p[1], &p2 = *p[2];
  float x_low, x_high, y_low, y_high;
  if (p0.w >= near && p1.w >= near && p2.w >= near) {
    x_low = std::min({p0.sx, p1.sx, p2.sx});
    x_high = std::max({p0.sx, p1.sx, p2.sx});
    y_low = std::min({p0.sy, p1.sy, p2.sy});
    y_high = std::max({p0.sy, p1.sy, p2.sy});
  } else {
    x_low = y_low = std::numeric_limits<float>::infinity();
    x_high = y_high = -x_low;
    auto add = [&](float x, float y) {
      x_low = std::min(x_low, x), x_high = std::max(x_high, x);
      y_low = std::min(y_low, y), y_high = std::max(y_high, y);
    };
    for (int i = 0; i < 3; i++) {
      const Point &q = *p[i], &r = *p[(i + 1) % 3];
      if (q.w >= near) add(q.sx, q.sy);
      if ((q.w >= near) != (r.w >= near)) {  // where the edge meets the near plane
        const double t = (double(near) - q.w) / (double(r.w) - q.w);
        add(float((q.x + t * (double(r.x) - q.x)) / near), float((q.y + t * (double(r.y) - q.y)) / near));
      }
    }
  }
  if (!(x_high >= 0 && y_high >= 0 && x_low <= buffer.width && y_low <= buffer.height)) return false;
  box.x0 = clamp_to_int(std::ceil(x_low - 0.5f - kPad), 0, buffer.width);
  box.x1 = clamp_to_int(std::floor(x_high - 0.5f + kPad), -1, buffer.width - 1);
  box.y0 = clamp_to_int(std::ceil(y_low - 0.5f - kPad), 0, buffer.height);
  box.y1 = clamp_to_int(std::floor(y_high - 0.5f + kPad), -1, buffer.height - 1);
  return box.x0 <= box.x1 && box.y0 <= box.y1;
}

// Perspective-correct barycentrics at a pixel position.
void barycentrics(const Edges& edges, double x, double y, double weights[3]) {
  double sum = 0;
  for (int i = 0; i < 3; i++) sum += weights[i] = edges.a[i] * x + edges.b[i] * y + edges.c[i];
  const double scale = 1 / sum;
  for (int i = 0; i < 3; i++) weights[i] *= scale;
}

struct DepthRange {
  float low, high;  // of the inverse depth of the triangle's corners; unbounded above when it crosses the near plane
};

// kLanes pixels of a row at a time, without branches, always from a multiple of kLanes on: loads that overlap a recent store
// at another offset would have to wait for it. The edge functions alone decide; the box only bounds the work.
void draw_opaque(const Edges& e, const Box& box, DepthRange range, float inverse_near, int32_t face, Buffer& buffer) {
  Doubles centers;
  for (int i = 0; i < kLanes; i++) centers[i] = i + 0.5;
  for (int y = box.y0; y <= box.y1; y++) {
    const double cy = y + 0.5;
    const Doubles r0 = Doubles{} + (e.b[0] * cy + e.c[0]), r1 = Doubles{} + (e.b[1] * cy + e.c[1]),
                  r2 = Doubles{} + (e.b[2] * cy + e.c[2]), rz = Doubles{} + (e.zb * cy + e.zc);
    for (int x = box.x0 / kLanes * kLanes; x <= box.x1; x += kLanes) {
      float* depth_at = buffer.inverse_depth.data() + int64_t(y) * buffer.stride + x;
      int32_t* face_at = buffer.face.data() + int64_t(y) * buffer.stride + x;
      Floats nearest;
      Ints faces;
      std::memcpy(&nearest, depth_at, sizeof nearest);
      std::memcpy(&faces, face_at, sizeof faces);
      const Doubles cx = centers + x;
      const Doubles e0 = e.a[0] * cx + r0, e1 = e.a[1] * cx + r1, e2 = e.a[2] * cx + r2;
      // No sign bit is set, and not all are 0, as they can be in a triangle that is edge-on but for rounding.
      const Longs inside = (Longs(e0) | Longs(e1) | Longs(e2)) > 0;
      Floats z = __builtin_convertvector(e.za * cx + rz, Floats);
      z = z < range.low ? Floats{} + range.low : z;
      z = z > range.high ? Floats{} + range.high : z;
      const Ints hit = __builtin_convertvector(inside, Ints) & (z > nearest) & (z <= inverse_near);
      nearest = hit ? z : nearest;
      faces = hit ? Ints{} + face : faces;
      std::memcpy(depth_at, &nearest, sizeof nearest);
      std::memcpy(face_at, &faces, sizeof faces);
    }
  }
}

// Pixel by pixel, asking the texture for holes.
void draw_cutout(const SsMesh& mesh, const Material& material, const Edges& e, const Box& box, DepthRange range,
                 float inverse_near, int32_t face, Buffer& buffer) {
  for (int y = box.y0; y <= box.y1; y++) {
    const double cy = y + 0.5;
    const double r0 = e.b[0] * cy + e.c[0], r1 = e.b[1] * cy + e.c[1], r2 = e.b[2] * cy + e.c[2], rz = e.zb * cy + e.zc;
    for (int x = box.x0; x <= box.x1; x++) {
      const double cx = x + 0.5;
      const double e0 = e.a[0] * cx + r0, e1 = e.a[1] * cx + r1, e2 = e.a[2] * cx + r2;
      if (!((e0 >= 0) & (e1 >= 0) & (e2 >= 0))) continue;
      const int64_t at = int64_t(y) * buffer.stride + x;
      const float z = std::min(range.high, std::max(range.low, float(e.za * cx + rz)));
      if (!((z > buffer.inverse_depth[at]) & (z <= inverse_near) & (e0 + e1 + e2 > 0))) continue;
      double weights[3];
      barycentrics(e, cx, cy, weights);
      if (!(texture_at(mesh, material, face, weights)[3] * material.color[3] >= 127.5f)) continue;
      buffer.inverse_depth[at] = z;
      buffer.face[at] = face;
    }
  }
}

void corners(const SsMesh& mesh, const std::vector<Point>& points, int face, const Point* p[3]) {
  for (int i = 0; i < 3; i++) p[i] = &points[mesh.faces[int64_t(3) * face + i]];
}

void rasterise(const SsMesh& mesh, const std::vector<Material>& materials, const std::vector<Point>& points, float near,
               Buffer& buffer) {
  buffer.stride = (buffer.width + kLanes - 1) / kLanes * kLanes;
  buffer.inverse_depth.assign(int64_t(buffer.stride) * buffer.height, 0.0f);
  buffer.face.assign(int64_t(buffer.stride) * buffer.height, -1);
  const float inverse_near = 1 / near;
  for (int face = 0; face < mesh.face_count; face++) {
    const Point* p[3];
    corners(mesh, points, face, p);
    const float nearest = std::min({p[0]->w, p[1]->w, p[2]->w}), farthest = std::max({p[0]->w, p[1]->w, p[2]->w});
    Box box;
    Edges edges;
    if (!(farthest >= near) || !bounding_box(p, near, buffer, box)) continue;
    const Material& material = materials[mesh.face_materials[face]];
    if (!material.visible || !make_edges(p, edges)) continue;
    const DepthRange range = {1 / farthest, nearest >= near ? 1 / nearest : std::numeric_limits<float>::infinity()};
    if (material.cutout) {
      draw_cutout(mesh, material, edges, box, range, inverse_near, face, buffer);
    } else {
      draw_opaque(edges, box, range, inverse_near, face, buffer);
    }
  }
}

// Unit normal of a face on the camera's side, in world axes.
void face_normal(const SsMesh& mesh, const Camera& camera, int face, double normal[3]) {
  const float* v[3];
  for (int i = 0; i < 3; i++) v[i] = mesh.vertices + int64_t(3) * mesh.faces[int64_t(3) * face + i];
  double u[3], w[3], facing = 0, norm = 0;
  for (int k = 0; k < 3; k++) u[k] = double(v[1][k]) - v[0][k], w[k] = double(v[2][k]) - v[0][k];
  for (int k = 0; k < 3; k++) {
    const int i = (k + 1) % 3, j = (k + 2) % 3;
    normal[k] = u[i] * w[j] - u[j] * w[i];
    facing += normal[k] * (v[0][k] - camera.eye[k]);
    norm += normal[k] * normal[k];
  }
  const double scale = norm > 0 ? (facing > 0 ? -1 : 1) / std::sqrt(norm) : 0;
  for (int k = 0; k < 3; k++) normal[k] *= scale;
}

void write_geometry(const SsMesh& mesh, const Camera& camera, const Buffer& buffer, int64_t first, const SsMeshImages& images) {
  double normal[3] = {};
  int32_t last = -1;
  for (int y = 0; y < buffer.height; y++) {
    for (int x = 0; x < buffer.width; x++) {
      const int64_t i = int64_t(y) * buffer.stride + x, at = first + int64_t(y) * buffer.width + x;
      const int32_t face = buffer.face[i];
      images.face_id[at] = face;
      images.instance_id[at] = face < 0 ? -1 : mesh.face_instances[face];
      images.depth[at] = face < 0 ? 0.0f : 1 / buffer.inverse_depth[i];
      if (face >= 0 && face != last) face_normal(mesh, camera, last = face, normal);
      for (int k = 0; k < 3; k++) images.normal[3 * at + k] = face < 0 ? 0.0f : float(normal[k]);
    }
  }
}

// What does not change within a face.
struct FaceShader {
  Edges edges;
  const Material* material;
  const float* corner_colors;
  float light;

  void select(const SsMesh& mesh, const std::vector<Material>& materials, const std::vector<Point>& points,
              const Camera& camera, float shading, int face) {
    const Point* p[3];
    corners(mesh, points, face, p);
    make_edges(p, edges);
    material = &materials[mesh.face_materials[face]];
    corner_colors = mesh.corner_colors ? mesh.corner_colors + int64_t(9) * face : nullptr;
    light = 1;
    if (shading > 0) {
      double normal[3];
      face_normal(mesh, camera, face, normal);
      const double up = 0.5 + 0.5 * (normal[0] * kSky[0] + normal[1] * kSky[1] + normal[2] * kSky[2]);
      light = float(1 - shading + shading * (kGroundLight + (1 - kGroundLight) * up));
    }
  }

  void shade(const SsMesh& mesh, int face, double x, double y, float rgb[3]) const {
    for (int k = 0; k < 3; k++) rgb[k] = material->color[k] * light;
    if (!material->texture && !corner_colors) return;
    double weights[3];
    barycentrics(edges, x, y, weights);
    if (material->texture) {
      const Rgba rgba = texture_at(mesh, *material, face, weights);
      for (int k = 0; k < 3; k++) rgb[k] *= rgba[k] * (1 / 255.0f);
    }
    if (corner_colors) {
      for (int k = 0; k < 3; k++) {
        rgb[k] *= float(weights[0] * corner_colors[k] + weights[1] * corner_colors[3 + k] + weights[2] * corner_colors[6 + k]);
      }
    }
  }
};

void write_color(const SsMesh& mesh, const std::vector<Material>& materials, const std::vector<Point>& points,
                 const Camera& camera, float shading, const float background[3], int supersample, const Buffer& buffer,
                 int64_t first, const SsMeshImages& images) {
  const int width = buffer.width / supersample, height = buffer.height / supersample;
  const float share = 1.0f / (supersample * supersample);
  std::vector<float> sum(int64_t(4) * width);
  FaceShader shader;
  int32_t last = -1;
  for (int row = 0; row < height; row++) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (int y = row * supersample; y < (row + 1) * supersample; y++) {
      const int32_t* faces = buffer.face.data() + int64_t(y) * buffer.stride;
      for (int x = 0; x < buffer.width; x++) {
        if (faces[x] < 0) continue;
        if (faces[x] != last) shader.select(mesh, materials, points, camera, shading, last = faces[x]);
        float rgb[3];
        shader.shade(mesh, last, x + 0.5, y + 0.5, rgb);
        float* pixel = sum.data() + int64_t(4) * (x / supersample);
        for (int k = 0; k < 3; k++) pixel[k] += rgb[k];
        pixel[3] += 1;
      }
    }
    for (int x = 0; x < width; x++) {
      const int64_t at = first + int64_t(row) * width + x;
      const float alpha = sum[4 * x + 3] * share;
      images.alpha[at] = alpha;
      for (int k = 0; k < 3; k++) {
        const float value = sum[4 * x + k] * share + (1 - alpha) * background[k];
        images.color[3 * at + k] = std::min(1.0f, std::max(0.0f, value));
      }
    }
  }
}

}  // namespace

SS_API int ss_render_mesh(const SsMesh* mesh, const float* world_to_camera, const float* K, int32_t views, int32_t width,
                          int32_t height, float near, int32_t supersample, float shading, const float* background,
                          const SsMeshImages* images) {
  std::vector<Material> materials;
  try {
    materials = make_materials(*mesh);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  const int64_t pixels = int64_t(width) * height;
  const int64_t work = views * (mesh->face_count + pixels * supersample * supersample);
  int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) reduction(| : failed) if (views > 1 && work > 200000)
  for (int view = 0; view < views; view++) {
    try {
      const float *T = world_to_camera + 16 * view, *intrinsics = K + 9 * view;
      std::vector<Point> points(mesh->vertex_count);
      Buffer buffer{width, height, 0, {}, {}};
      Camera camera = make_camera(T, intrinsics, 1);
      project(*mesh, camera, points);
      rasterise(*mesh, materials, points, near, buffer);
      write_geometry(*mesh, camera, buffer, view * pixels, *images);
      if (supersample > 1) {
        camera = make_camera(T, intrinsics, supersample);
        buffer.width *= supersample;
        buffer.height *= supersample;
        project(*mesh, camera, points);
        rasterise(*mesh, materials, points, near, buffer);
      }
      write_color(*mesh, materials, points, camera, shading, background, supersample, buffer, view * pixels, *images);
    } catch (const std::bad_alloc&) {
      failed = 1;
    }
  }
  return failed;
}
