// Batch normalisation of rows, with what follows it: an addition and ReLU (splatsense/sparse/normalization.py). Sums run over
// fixed runs of rows and are joined in their order, so results are the same to the last bit for any number of threads.
#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "large_array.h"
#include "parallel.h"
#include "splatsense.h"

namespace {

constexpr int64_t ROWS = 256;  // of a run
constexpr int64_t LINE = 16;   // floats of a cache line, which keeps runs apart

struct Run {
  Run(const SsBatchNorm& in, int64_t index) : begin(index * ROWS), end(std::min(in.rows, begin + ROWS)) {}
  int64_t begin, end;
};

int64_t run_count(const SsBatchNorm& in) { return (in.rows + ROWS - 1) / ROWS; }
int64_t partial_size(const SsBatchNorm& in) { return 2 * in.channels + LINE; }  // of a run's two rows of sums

// Chan et al. (1983): means and sums of squares about them, of runs, then of all.
void statistics(const SsBatchNorm& in) {
  const int64_t channels = in.channels;
  std::vector<float> partial(run_count(in) * partial_size(in));
  parallel_for(in.threads, run_count(in), [&](int64_t index) {
    const Run run(in, index);
    float *__restrict mean = partial.data() + index * partial_size(in), *__restrict squares = mean + channels;
    for (int64_t r = run.begin; r < run.end; r++) {
      const float* x = in.input + r * channels;
      for (int64_t c = 0; c < channels; c++) mean[c] += x[c];
    }
    for (int64_t c = 0; c < channels; c++) mean[c] /= float(run.end - run.begin);
    for (int64_t r = run.begin; r < run.end; r++) {
      const float* x = in.input + r * channels;
      for (int64_t c = 0; c < channels; c++) squares[c] += (x[c] - mean[c]) * (x[c] - mean[c]);
    }
  });
  std::vector<double> mean(channels), squares(channels);
  for (int64_t index = 0; index < run_count(in); index++) {
    const Run run(in, index);
    const float* sum = partial.data() + index * partial_size(in);
    const double here = double(run.end - run.begin), share = here / double(run.end);
    for (int64_t c = 0; c < channels; c++) {
      const double d = sum[c] - mean[c];
      mean[c] += d * share;
      squares[c] += sum[channels + c] + d * d * double(run.begin) * share;
    }
  }
  for (int64_t c = 0; c < channels; c++) in.mean[c] = float(mean[c]), in.variance[c] = float(squares[c] / double(in.rows));
}

template <bool RELU, bool RESIDUAL>
void normalise(const SsBatchNorm& in, const float* scale, float* out) {
  parallel_for(in.threads, run_count(in), [&](int64_t index) {
    const Run run(in, index);
    const float *mean = in.mean, *bias = in.bias;
    for (int64_t r = run.begin; r < run.end; r++) {
      const float *x = in.input + r * in.channels, *beside = RESIDUAL ? in.residual + r * in.channels : nullptr;
      float* __restrict y = out + r * in.channels;
      for (int64_t c = 0; c < in.channels; c++) {
        float value = (x[c] - mean[c]) * scale[c] + bias[c];
        if (RESIDUAL) value += beside[c];
        y[c] = RELU && value <= 0 ? 0 : value;  // NaN stays NaN
      }
    }
  });
}

std::vector<float> scales(const SsBatchNorm& in) {
  std::vector<float> scale(in.channels);
  for (int64_t c = 0; c < in.channels; c++) scale[c] = in.weight[c] / std::sqrt(in.variance[c] + in.epsilon);
  return scale;
}

// What ReLU lets through of an output's gradient.
template <bool RELU>
inline float through(const float* output, const float* gradient, int64_t i) {
  return RELU ? (output[i] > 0 ? gradient[i] : 0.0f) : gradient[i];
}

// Of one run: sums of the gradient, and of its products with what the input is above the mean.
template <bool RELU>
void sum_run(const SsBatchNorm& in, const float* output, const float* gradient, const Run& run, float* partial) {
  const int64_t channels = in.channels;
  float *__restrict total = partial, *__restrict products = partial + channels;
  const float* __restrict mean = in.mean;
  for (int64_t r = run.begin; r < run.end; r++) {
    const float* x = in.input + r * channels;
    for (int64_t c = 0; c < channels; c++) {
      const float g = through<RELU>(output, gradient, r * channels + c);
      total[c] += g;
      products[c] += g * (x[c] - mean[c]);
    }
  }
}

// scale (g - offset - (x - mean) slope) of one run.
template <bool RELU, bool RESIDUAL>
void input_gradient_run(const SsBatchNorm& in, const float* output, const float* gradient, const Run& run,
                        const float* scale, const float* offset, const float* slope, const SsBatchNormGradients& to) {
  const float* mean = in.mean;
  for (int64_t r = run.begin; r < run.end; r++) {
    const int64_t row = r * in.channels;
    const float* x = in.input + row;
    float *__restrict of_input = to.input + row, *__restrict of_residual = RESIDUAL ? to.residual + row : nullptr;
    for (int64_t c = 0; c < in.channels; c++) {
      const float g = through<RELU>(output, gradient, row + c);
      of_input[c] = scale[c] * (g - offset[c] - (x[c] - mean[c]) * slope[c]);
      if (RESIDUAL) of_residual[c] = g;
    }
  }
}

}  // namespace

SS_API int ss_batch_norm(const SsBatchNorm* input, float* out) try {
  const SsBatchNorm& in = *input;
  prefer_huge_pages(out, in.rows * in.channels * sizeof(float));
  if (in.training) statistics(in);
  const std::vector<float> scale = scales(in);
  if (in.relu) {
    in.residual ? normalise<true, true>(in, scale.data(), out) : normalise<true, false>(in, scale.data(), out);
  } else {
    in.residual ? normalise<false, true>(in, scale.data(), out) : normalise<false, false>(in, scale.data(), out);
  }
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

SS_API int ss_batch_norm_backward(const SsBatchNorm* input, const float* output, const float* gradient,
                                  const SsBatchNormGradients* to) try {
  const SsBatchNorm& in = *input;
  const int64_t channels = in.channels;
  std::vector<float> partial(run_count(in) * partial_size(in));
  prefer_huge_pages(to->input, in.rows * channels * sizeof(float));
  if (to->residual) prefer_huge_pages(to->residual, in.rows * channels * sizeof(float));
  parallel_for(in.threads, run_count(in), [&](int64_t index) {
    float* sums = partial.data() + index * partial_size(in);
    (in.relu ? sum_run<true> : sum_run<false>)(in, output, gradient, Run(in, index), sums);
  });
  std::vector<double> total(channels), products(channels);
  for (int64_t index = 0; index < run_count(in); index++) {
    const float* sums = partial.data() + index * partial_size(in);
    for (int64_t c = 0; c < channels; c++) total[c] += sums[c], products[c] += sums[channels + c];
  }
  // dx = scale (g - mean of g - (x - mean) * mean of g (x - mean) / variance); with running statistics only the first term.
  const std::vector<float> scale = scales(in);
  std::vector<float> offset(channels), slope(channels);
  for (int64_t c = 0; c < channels; c++) {
    const double inverse = 1 / (double(in.variance[c]) + in.epsilon);
    to->bias[c] = float(total[c]);
    to->weight[c] = float(products[c] * std::sqrt(inverse));
    if (in.training) offset[c] = float(total[c] / in.rows), slope[c] = float(products[c] * inverse / in.rows);
  }
  const auto run = to->residual ? (in.relu ? input_gradient_run<true, true> : input_gradient_run<false, true>)
                                : (in.relu ? input_gradient_run<true, false> : input_gradient_run<false, false>);
  parallel_for(in.threads, run_count(in), [&](int64_t index) {
    run(in, output, gradient, Run(in, index), scale.data(), offset.data(), slope.data(), *to);
  });
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}
