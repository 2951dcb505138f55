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

struct Run {
  Run(const SsBatchNorm& in, int64_t index) : begin(index * ROWS), end(std::min(in.rows, begin + ROWS)) {}
  int64_t begin, end;
};

int64_t run_count(const SsBatchNorm& in) { return (in.rows + ROWS - 1) / ROWS; }

// Chan et al. (1983): means and sums of squares about them, of runs, then of all.
void statistics(const SsBatchNorm& in, double* partial) {
  const int64_t channels = in.channels;
  parallel_for(in.threads, run_count(in), [&](int64_t index) {
    const Run run(in, index);
    double* sum = partial + index * 2 * channels;
    std::vector<float> sums(3 * channels);
    float *__restrict mean = sums.data(), *__restrict total = mean + channels, *__restrict squares = total + channels;
    for (int64_t r = run.begin; r < run.end; r++) {
      const float* x = in.input + r * channels;
      for (int64_t c = 0; c < channels; c++) total[c] += x[c];
    }
    for (int64_t c = 0; c < channels; c++) mean[c] = total[c] / float(run.end - run.begin);
    for (int64_t r = run.begin; r < run.end; r++) {
      const float* x = in.input + r * channels;
      for (int64_t c = 0; c < channels; c++) squares[c] += (x[c] - mean[c]) * (x[c] - mean[c]);
    }
    for (int64_t c = 0; c < channels; c++) sum[c] = mean[c], sum[channels + c] = squares[c];
  });
  std::vector<double> mean(channels), squares(channels);
  for (int64_t index = 0; index < run_count(in); index++) {
    const Run run(in, index);
    const double* sum = partial + index * 2 * channels;
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
void sum_run(const SsBatchNorm& in, const float* output, const float* gradient, const Run& run, double* partial) {
  const int64_t channels = in.channels;
  std::vector<float> sums(2 * channels);
  float *__restrict total = sums.data(), *__restrict products = sums.data() + channels;
  const float* __restrict mean = in.mean;
  for (int64_t r = run.begin; r < run.end; r++) {
    const float* x = in.input + r * channels;
    for (int64_t c = 0; c < channels; c++) {
      const float g = through<RELU>(output, gradient, r * channels + c);
      total[c] += g;
      products[c] += g * (x[c] - mean[c]);
    }
  }
  std::copy(sums.begin(), sums.end(), partial);
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
  if (in.training) {
    std::vector<double> partial(run_count(in) * 2 * in.channels);
    statistics(in, partial.data());
  }
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
  std::vector<double> partial(run_count(in) * 2 * channels);
  prefer_huge_pages(to->input, in.rows * channels * sizeof(float));
  if (to->residual) prefer_huge_pages(to->residual, in.rows * channels * sizeof(float));
  parallel_for(in.threads, run_count(in), [&](int64_t index) {
    (in.relu ? sum_run<true> : sum_run<false>)(in, output, gradient, Run(in, index), partial.data() + index * 2 * channels);
  });
  std::vector<double> total(channels), products(channels);
  for (int64_t index = 0; index < run_count(in); index++) {
    for (int64_t c = 0; c < channels; c++) {
      total[c] += partial[index * 2 * channels + c], products[c] += partial[(index * 2 + 1) * channels + c];
    }
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
