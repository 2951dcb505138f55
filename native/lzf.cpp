// LZF decompression (the format of Marc Lehmann's liblzf), written for input that cannot be trusted.
#include <cstring>

#include "splatsense.h"

int64_t ss_lzf_decompress(const uint8_t* input, int64_t input_size, uint8_t* output, int64_t output_size) {
  int64_t in = 0, out = 0;
  while (in < input_size) {
    const int64_t control = input[in++];
    if (control < 32) {  // a run of control + 1 bytes as they are
      const int64_t length = control + 1;
      if (in + length > input_size || out + length > output_size) return -1 - out;
      std::memcpy(output + out, input + in, length);
      in += length;
      out += length;
      continue;
    }
    int64_t length = (control >> 5) + 2;  // a copy of what came before
    if (length == 9) {
      if (in >= input_size) return -1 - out;
      length += input[in++];
    }
    if (in >= input_size) return -1 - out;
    const int64_t distance = ((control & 31) << 8) + input[in++] + 1;
    if (distance > out || out + length > output_size) return -1 - out;
    for (int64_t end = out + length; out < end; ++out) output[out] = output[out - distance];  // may overlap itself
  }
  return out;
}
