// Materials of the mesh renderer: which are visible, which have holes, and what their textures say at a point.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "splatsense.h"

namespace {

typedef float Rgba __attribute__((vector_size(16)));
typedef uint8_t Bytes4 __attribute__((vector_size(4)));

struct Material {
  const float* color;
  const uint8_t* texture;
  int height, width;
  bool visible, cutout;
};

inline std::vector<Material> make_materials(const SsMesh& mesh) {
  std::vector<Material> materials(mesh.material_count);
  for (int i = 0; i < mesh.material_count; i++) {
    Material& material = materials[i];
    material = {mesh.material_colors + 4 * i, mesh.textures[i], mesh.texture_sizes[2 * i], mesh.texture_sizes[2 * i + 1],
                true, false};
    const float opacity = material.color[3];
    material.visible = opacity >= 0.5f;
    if (material.texture && material.visible) {
      const int64_t texels = int64_t(material.height) * material.width;
      uint8_t lowest = 255;
      for (int64_t t = 0; t < texels; t++) lowest = std::min(lowest, material.texture[4 * t + 3]);
      material.cutout = opacity * (lowest / 255.0f) < 0.5f;
    }
  }
  return materials;
}

inline Rgba texel(const uint8_t* row, int x) {
  Bytes4 bytes;
  std::memcpy(&bytes, row + 4 * x, 4);
  return __builtin_convertvector(bytes, Rgba);
}

// Bilinear, repeating in both directions, in [0, 255]; NaN where u or v is.
inline Rgba sample_texture(const Material& material, double u, double v) {
  const int width = material.width, height = material.height;
  v = 1 - v;
  const float x = float((u - std::floor(u)) * width) - 0.5f, y = float((v - std::floor(v)) * height) - 0.5f;
  const float x_floor = std::floor(x), y_floor = std::floor(y), fx = x - x_floor, fy = y - y_floor;
  const int left = int(x_floor), top = int(y_floor);
  // Outside is what NaN makes, too.
  const auto or_if_outside = [](int at, int size, int other) { return unsigned(at) < unsigned(size) ? at : other; };
  const int x0 = or_if_outside(left, width, width - 1), x1 = or_if_outside(left + 1, width, 0);
  const int y0 = or_if_outside(top, height, height - 1), y1 = or_if_outside(top + 1, height, 0);
  const uint8_t *row0 = material.texture + int64_t(4) * y0 * width, *row1 = material.texture + int64_t(4) * y1 * width;
  const Rgba upper = (1 - fx) * texel(row0, x0) + fx * texel(row0, x1);
  const Rgba lower = (1 - fx) * texel(row1, x0) + fx * texel(row1, x1);
  return (1 - fy) * upper + fy * lower;
}

inline Rgba texture_at(const SsMesh& mesh, const Material& material, int face, const double weights[3]) {
  const float* uv = mesh.corner_uvs + int64_t(6) * face;
  return sample_texture(material, weights[0] * uv[0] + weights[1] * uv[2] + weights[2] * uv[4],
                        weights[0] * uv[1] + weights[1] * uv[3] + weights[2] * uv[5]);
}

}  // namespace
