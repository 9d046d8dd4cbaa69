// The kernels of pool.cuh over a few odd sizes, against plain loops in double precision; see battery.h.
#include "battery.h"

constexpr unsigned IMAGES = 6;

// Tokens of six images: skewed up, skewed down, far from zero with little between them, constant, zero, huge.
template <class Token>
void fill_tokens(Array<Token>& tokens, size_t count) {
  const double far = sizeof(Token) == 2 ? 1000 : 10000, step = sizeof(Token) == 2 ? 0.5 : 1. / 1024;
  for (size_t i = 0; i < count; i++) {
    const double x = battery.number(1000) / 300.;
    set(tokens[i], x * x + 1), set(tokens[count + i], -x * x - 7);
    set(tokens[2 * count + i], far + step * battery.number(5));
    set(tokens[3 * count + i], 0.1), set(tokens[4 * count + i], 0);
    set(tokens[5 * count + i], (battery.number(2) ? 1 : -1) * (sizeof(Token) == 2 ? 65000 : 3.3e38));
  }
}

template <class Token>
void check_centre(Run kernel, int patches, int width) {
  const size_t count = (size_t)patches * width;
  Array<Token> tokens(IMAGES * count);
  Array<float4> centres(IMAGES);
  fill_tokens(tokens, count);
  run(kernel, {IMAGES}, {1024}, 32 * 16, tokens.data, centres.data, patches, width);
  for (int image = 0; image < IMAGES; image++) {
    double mean = 0, most = 0;
    for (size_t i = 0; i < count; i++) mean += value_of(tokens[image * count + i]) / count;
    for (size_t i = 0; i < count; i++) most = fmax(most, fabs(value_of(tokens[image * count + i]) - mean));
    if (most < 1e-9) most = 0;  // what rounding left of a constant image
    int exponent = 0;
    frexp(most, &exponent);
    const float4 got = centres[image];
    expect("mean", image, got.x, (float)mean, 1e-10 * most);
    expect("mean and rest", image, (double)got.x + got.y, mean, 1e-10 * fmax(1, most));
    expect("scale", image, got.z, ldexp(1, -std::min(exponent, 126)), 0);
    expect("largest", image, got.w, (float)most, 1e-7 * most);
  }
}

template <class Token>
void check_pool(Run kernel, int height, int across, int width, int reach) {
  const int images = IMAGES, patches = height * across, pitch = (width + 63) / 64 * 64;
  const size_t count = (size_t)patches * width, rows = (size_t)images * patches;
  Array<Token> tokens(images * count);
  Array<float4> centres(images);
  Array<float> shift(pitch), squares(rows);
  Array<uint16_t> features(count_in_blocks(images, patches, pitch));
  fill_tokens(tokens, count);
  for (int i = 0; i < images; i++) centres[i] = {1.5f, i == 4 ? -1.5f : 1 / 64.f, 0.25f, 0};
  centres[2].x = 1000, centres[5].z = ldexpf(1, sizeof(Token) == 2 ? -16 : -120);
  if (sizeof(Token) == 4) {
    centres[2].x = 10000;
    const float huge = 1.2676506e30f;  // 2^100: squares of what is not scaled are infinite
    for (size_t i = count; i < 2 * count; i++) set(tokens[i], value_of(tokens[i]) * huge);
    centres[1] = {-9 * huge, huge / 64, 1 / huge, 0};
  }
  for (int c = 0; c < pitch; c++) shift[c] = battery.number(100) / 500.f;
  run(kernel, {(unsigned)patches, (unsigned)images}, {128}, (width + 4) * 4, tokens.data, centres.data,
      shift.data, features.data, squares.data, height, across, width, pitch, reach);

  std::vector<double> sum(width);
  for (size_t row = 0; row < rows; row++) {
    const int image = row / patches, patch = row % patches;
    double length = 0, square = 0;
    for (int c = 0; c < width; c++) {
      sum[c] = 0;
      for (int h = 0; h < height; h++)
        for (int w = 0; w < across; w++)
          if (abs(h - patch / across) <= reach && abs(w - patch % across) <= reach)
            sum[c] += (value_of(tokens[image * count + (h * across + w) * width + c]) - centres[image].x -
                       centres[image].y) *
                      centres[image].z;
      length += sum[c] * sum[c];
    }
    for (int c = 0; c < pitch; c++) {
      const double got = value_of(features[index_in_blocks<uint16_t>(image, patch, c, patches, pitch)]);
      const double unit = c < width && length > 0 ? sum[c] / sqrt(length) : 0;
      const double wanted = c < width ? unit - shift[c] : 0;
      expect("feature", row * pitch + c, got, wanted, fabs(wanted) / 2047 + 2e-6);
      square += got * got;
    }
    expect("square", row, squares[row], square, square * 1e-6);
  }
}

void check_column_mean(int images, int patches, int pitch) {
  Array<uint16_t> features(count_in_blocks(images, patches, pitch));
  Array<float> shift(pitch);
  for (size_t i = 0; i < features.count; i++) set(features[i], battery.number(100) / 8.);
  run(run_column_mean, {(unsigned)pitch / 32}, {32, 32}, 32 * 32 * 4, features.data, shift.data, images,
      patches, pitch);
  for (int c = 0; c < pitch; c++) {
    double mean = 0;
    for (int row = 0; row < images * patches; row++) {
      const size_t from = index_in_blocks<uint16_t>(row / patches, row % patches, c, patches, pitch);
      mean += value_of(features[from]) / (images * patches);
    }
    expect("shift", c, shift[c], mean, 1e-6 * mean);
  }
}

int main(int count, char** arguments) {
  return battery_main(
      count, arguments,
      {[] { check_centre<uint16_t>(run_centre_half, 5, 7); },
       [] { check_pool<uint16_t>(run_pool_half, 3, 4, 33, 1); },
       [] { check_column_mean(2, 35, 128); }, [] { check_pool<float>(run_pool_float, 2, 1, 130, 0); }},
      {[] { check_centre<float>(run_centre_float, 37, 31); },
       [] { check_pool<float>(run_pool_float, 5, 3, 6, 2); },
       [] { check_pool<uint16_t>(run_pool_half, 1, 3, 32, 3); }, [] { check_column_mean(1, 5, 64); }});
}
