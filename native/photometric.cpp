// The photometric loss of 3DGS and its gradient in one pass: (1 - w) l1 + w (1 - SSIM), per view.
//
// Design
// - SSIM as Wang et al. 2004: Gaussian window of 11 x 11, sigma 1.5, zeros beyond the image; separable.
// - Where both pictures are the same over a whole window, SSIM is 1 and has no gradient. So only the rectangle around the
//   pixels that differ is looked at, which of an object on a plain background is a part of the picture. Exact, not a heuristic.
// - Rows stream through two rings of 11: blurred inputs, then blurred derivatives; all of it stays in the first-level caches.
// - photometric.py states the same in PyTorch.
#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "parallel.h"
#include "simd.h"
#include "splatsense.h"

namespace {

constexpr int RADIUS = 5, TAPS = 2 * RADIUS + 1, CHANNELS = 3;
constexpr float C1 = 0.01f * 0.01f, C2 = 0.03f * 0.03f;

struct Window {
  float weight[TAPS];
  Window() {
    double sum = 0, value[TAPS];
    for (int k = 0; k < TAPS; k++) sum += value[k] = std::exp(-(k - RADIUS) * (k - RADIUS) / (2 * 1.5 * 1.5));
    for (int k = 0; k < TAPS; k++) weight[k] = float(value[k] / sum);
  }
};
const Window WINDOW;

Floats load_any(const float* p) { return *reinterpret_cast<const FloatsUnaligned*>(p); }
void store_any(float* p, Floats x) { *reinterpret_cast<FloatsUnaligned*>(p) = x; }
int64_t whole_vectors(int64_t width) { return (width + LANES - 1) / LANES * LANES; }

// Rows that may be read RADIUS to either side of `width` and written up to the next whole vector. Those of another size are
// zero; those of the same size are as they were left.
class Rows {
 public:
  void resize(int64_t rows, int64_t width) {
    if (rows == rows_ && width == width_) return;
    const int64_t stride = RADIUS + whole_vectors(width) + RADIUS;
    data_.assign(rows * stride, 0.0f);  // may throw, and the next call finds these rows as they are
    rows_ = rows, width_ = width, stride_ = stride;
  }
  float* operator[](int64_t row) { return data_.data() + row * stride_ + RADIUS; }

 private:
  int64_t rows_ = 0, width_ = 0, stride_ = 0;
  std::vector<float> data_;
};

// A ring of the last TAPS rows, each of N quantities, blurred along x; blurs them along y.
template <int N>
class Ring {
 public:
  void resize(int64_t width) { rows_.resize(TAPS * N + 1, width), width_ = width; }

  void push(Rows& values, int64_t y) {
    for (int q = 0; q < N; q++) {
      const float* from = values[q];
      float* to = rows_[y % TAPS * N + q];
      for (int64_t x = 0; x < width_; x += LANES) {
        Floats sum{};
        for (int k = 0; k < TAPS; k++) sum += WINDOW.weight[k] * load_any(from + x + k - RADIUS);
        store_any(to + x, sum);
      }
    }
  }

  void blur_at(int64_t y, int64_t height, Rows& out) {
    for (int q = 0; q < N; q++) {
      const float* from[TAPS];
      for (int k = 0; k < TAPS; k++) {
        const int64_t row = y + k - RADIUS;
        from[k] = rows_[row < 0 || row >= height ? TAPS * N : row % TAPS * N + q];  // the last row is zero
      }
      float* to = out[q];
      for (int64_t x = 0; x < width_; x += LANES) {
        Floats sum{};
        for (int k = 0; k < TAPS; k++) sum += WINDOW.weight[k] * load_any(from[k] + x);
        store_any(to + x, sum);
      }
    }
  }

 private:
  int64_t width_ = 0;
  Rows rows_;
};

struct Box {
  int64_t x0, x1, y0, y1;  // x0 <= x < x1
};

// One view: what is compared, and where the results go.
struct View {
  const float *color, *alpha, *target, *background;  // (H,W,3) (H,W) (H,W,4) (3)
  int64_t height, width;
  float ssim_weight;
  float *loss, *color_gradient, *alpha_gradient;
};

// Memory that a thread uses again from call to call: fresh pages would take as long as the work.
struct Scratch {
  Rows rendered, wanted, gradient;  // row `c * height + y` of channel c, over the background
  Ring<4> inputs;
  Ring<3> outputs;
  Rows values, moments, derivatives, blurred;
  std::vector<float> sum;
};

// Splits channels, lays both pictures over the background, and returns the rectangle around the pixels that differ, with room
// for two windows: one to see them, one to bring the gradient back.
Box lay_over_background(const View& view, Scratch& s) {
  const int64_t width = view.width, height = view.height;
  s.rendered.resize(CHANNELS * height, width);
  s.wanted.resize(CHANNELS * height, width);
  Box box{width, 0, height, 0};
  for (int64_t y = 0; y < height; y++) {
    const float *__restrict color = view.color + 3 * y * width, *__restrict alpha = view.alpha + y * width;
    const float* __restrict target = view.target + 4 * y * width;
    int64_t first = width, last = -1;
    for (int c = 0; c < CHANNELS; c++) {
      float *__restrict rendered = s.rendered[c * height + y], *__restrict wanted = s.wanted[c * height + y];
      const float behind = view.background[c];
      for (int64_t x = 0; x < width; x++) {
        rendered[x] = color[3 * x + c] + (1 - alpha[x]) * behind;
        wanted[x] = target[4 * x + c] + (1 - target[4 * x + 3]) * behind;
      }
      auto differs = [&](int64_t x) { return !(rendered[x] == wanted[x]); };  // also for NaN
      for (int64_t x = 0; x < first; x++) {
        if (differs(x)) first = x;
      }
      for (int64_t x = width - 1; x > last; x--) {
        if (differs(x)) last = x;
      }
    }
    if (last < 0) continue;
    box = {std::min(box.x0, first), std::max(box.x1, last + 1), std::min(box.y0, y), y + 1};
  }
  if (box.x1 == 0) return {0, 0, 0, 0};
  return {std::max<int64_t>(0, box.x0 - 2 * RADIUS), std::min(width, box.x1 + 2 * RADIUS),
          std::max<int64_t>(0, box.y0 - 2 * RADIUS), std::min(height, box.y1 + 2 * RADIUS)};
}

// From the blurred x, y, x^2 + y^2 and x y (x rendered, y wanted), SSIM and its derivatives a by the mean of x, b by that of
// x^2 and c by that of x y. The gradient of a pixel is then blur(a) + 2 x blur(b) + y blur(c).
void ssim_row(Scratch& s, int64_t width) {
  const float *mean_x = s.moments[0], *mean_y = s.moments[1], *squares = s.moments[2], *products = s.moments[3];
  float *a = s.derivatives[0], *b = s.derivatives[1], *c = s.derivatives[2];
  for (int64_t i = 0; i < width; i += LANES) {
    const Floats mx = load_any(mean_x + i), my = load_any(mean_y + i), mxy = mx * my, mm = mx * mx + my * my;
    const Floats luminance = 2 * mxy + C1, luminance_base = mm + C1;
    const Floats contrast = 2 * (load_any(products + i) - mxy) + C2, contrast_base = load_any(squares + i) - mm + C2;
    const Floats inverse = 1 / (luminance_base * contrast_base), ssim = luminance * contrast * inverse;
    store_any(a + i, 2 * inverse * (my * (contrast - luminance) - mx * ssim * (contrast_base - luminance_base)));
    store_any(b + i, -ssim * luminance_base * inverse);
    store_any(c + i, 2 * luminance * inverse);
    store_any(&s.sum[i], load_any(&s.sum[i]) + ssim);
  }
  for (int q = 0; q < 3; q++) std::fill(s.derivatives[q] + width, s.derivatives[q] + whole_vectors(width), 0.0f);
}

// Adds scale * d(sum of SSIM) of channel c to the gradient, and returns that sum over the box.
double add_ssim(const View& view, const Box& box, int c, float scale, Scratch& s) {
  const int64_t width = box.x1 - box.x0, height = box.y1 - box.y0;
  s.inputs.resize(width), s.outputs.resize(width);
  s.values.resize(4, width), s.moments.resize(4, width), s.derivatives.resize(3, width), s.blurred.resize(3, width);
  s.sum.assign(whole_vectors(width), 0.0f);
  for (int64_t y = 0; y < height + 2 * RADIUS; y++) {
    if (y < height) {
      const int64_t row = c * view.height + box.y0 + y;
      const float *rendered = s.rendered[row] + box.x0, *wanted = s.wanted[row] + box.x0;
      for (int64_t i = 0; i < width; i++) {
        const float p = rendered[i], q = wanted[i];
        s.values[0][i] = p, s.values[1][i] = q, s.values[2][i] = p * p + q * q, s.values[3][i] = p * q;
      }
      s.inputs.push(s.values, y);
    }
    const int64_t middle = y - RADIUS, done = y - 2 * RADIUS;
    if (middle >= 0 && middle < height) {
      s.inputs.blur_at(middle, height, s.moments);
      ssim_row(s, width);
      s.outputs.push(s.derivatives, middle);
    }
    if (done < 0) continue;
    s.outputs.blur_at(done, height, s.blurred);
    const int64_t row = c * view.height + box.y0 + done;
    const float *__restrict rendered = s.rendered[row] + box.x0, *__restrict wanted = s.wanted[row] + box.x0;
    const float *__restrict by_mean = s.blurred[0], *__restrict by_square = s.blurred[1], *__restrict by_product = s.blurred[2];
    float* __restrict gradient = s.gradient[row] + box.x0;
    for (int64_t i = 0; i < width; i++) {
      gradient[i] += scale * (by_mean[i] + 2 * rendered[i] * by_square[i] + wanted[i] * by_product[i]);
    }
  }
  double total = 0;
  for (int64_t i = 0; i < width; i++) total += s.sum[i];
  return total;
}

// Sets the gradient of channel c to scale * d(sum of |difference|), and returns that sum over the box.
double set_l1(const View& view, const Box& box, int c, float scale, Scratch& s) {
  s.sum.assign(view.width, 0.0f);
  float* __restrict sum = s.sum.data();
  for (int64_t y = box.y0; y < box.y1; y++) {
    const int64_t row = c * view.height + y;
    const float *__restrict rendered = s.rendered[row], *__restrict wanted = s.wanted[row];
    float* __restrict gradient = s.gradient[row];
    for (int64_t x = box.x0; x < box.x1; x++) {
      const float difference = rendered[x] - wanted[x];
      sum[x] += std::abs(difference);
      gradient[x] = scale * (float(difference > 0) - float(difference < 0));
    }
  }
  double total = 0;
  for (int64_t x = box.x0; x < box.x1; x++) total += sum[x];
  return total;
}

void run(const View& view) {
  static thread_local Scratch s;
  const Box box = lay_over_background(view, s);
  const int64_t width = view.width, pixels = view.height * width;
  const double count = double(CHANNELS) * double(pixels), area = double((box.x1 - box.x0) * (box.y1 - box.y0));
  const float w = view.ssim_weight;
  s.gradient.resize(CHANNELS * view.height, width);
  double loss = 0;
  for (int c = 0; c < CHANNELS; c++) {
    loss += (1 - w) * set_l1(view, box, c, float((1 - w) / count), s) / count;
    if (w > 0) loss += w * (area - add_ssim(view, box, c, float(-w / count), s)) / count;
  }
  *view.loss = float(loss);
  std::fill(view.color_gradient, view.color_gradient + 3 * pixels, 0.0f);
  std::fill(view.alpha_gradient, view.alpha_gradient + pixels, 0.0f);
  for (int64_t y = box.y0; y < box.y1; y++) {
    const float *__restrict red = s.gradient[y], *__restrict green = s.gradient[view.height + y];
    const float *__restrict blue = s.gradient[2 * view.height + y], *behind = view.background;
    float *__restrict color = view.color_gradient + 3 * y * width, *__restrict alpha = view.alpha_gradient + y * width;
    for (int64_t x = box.x0; x < box.x1; x++) {
      color[3 * x] = red[x], color[3 * x + 1] = green[x], color[3 * x + 2] = blue[x];
      alpha[x] = -(behind[0] * red[x] + behind[1] * green[x] + behind[2] * blue[x]);
    }
  }
}

}  // namespace

SS_API int ss_photometric_loss(const float* color, const float* alpha, const float* target, const float* background,
                               int64_t views, int64_t height, int64_t width, float ssim_weight, int32_t threads, float* loss,
                               float* color_gradient, float* alpha_gradient) {
  int failed = 0;
  const int64_t pixels = height * width;
  parallel_for(threads, views, [&](int64_t v) {
    try {
      run({color + 3 * v * pixels, alpha + v * pixels, target + 4 * v * pixels, background + 3 * v, height, width,
           ssim_weight, loss + v, color_gradient + 3 * v * pixels, alpha_gradient + v * pixels});
    } catch (const std::bad_alloc&) {
      __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
    }
  });
  return failed;
}
