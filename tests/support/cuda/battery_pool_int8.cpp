// The kernels of pool_int8.cuh over a few odd sizes, against plain loops in double precision; see battery.h.
// What they share with pool.cuh is tried by battery_pool.cpp.
#include "battery.h"

constexpr unsigned IMAGES = 3;

// Tokens of three images: skewed, constant, and nothing but the shift.
template <class Token>
void check_pool(Run kernel, int height, int across, int width, int reach) {
  const int patches = height * across, pitch = (width + 127) / 128 * 128;
  const size_t count = (size_t)patches * width, rows = (size_t)IMAGES * patches;
  Array<Token> tokens(IMAGES * count);
  Array<float4> centres(IMAGES);
  Array<float> shift(width), squares(rows), scales(rows);
  Array<int8_t> features(count_in_blocks(IMAGES, patches, pitch));
  for (size_t i = 0; i < tokens.count; i++) set(tokens[i], i < count ? battery.number(1000) / 300. : 1.5);
  for (size_t i = 2 * count; i < 3 * count; i++) set(tokens[i], i % width == 0 ? 2.5 : 1.5);
  for (unsigned i = 0; i < IMAGES; i++) centres[i] = {1.5f, 0, 0.25f, 0};
  centres[0].y = 1 / 64.f;
  for (int c = 0; c < width; c++) shift[c] = battery.number(100) / 500.f;
  shift[std::min(width, 128) - 1] = -3;  // far from all others, in the last warp where there are four
  if (reach == 0)  // the last image's rows are the shift
    for (int c = 0; c < width; c++) shift[c] = c == 0;
  if (reach == 2)  // nearly nothing is left of the constant image
    for (int c = 0; c < width; c++) shift[c] = -1e-38f;
  run(kernel, {(unsigned)patches, IMAGES}, {128}, (width + 4) * 4, tokens.data, centres.data, shift.data,
      features.data, squares.data, scales.data, height, across, width, pitch, reach);

  std::vector<double> row(width);
  for (size_t place = 0; place < rows; place++) {
    const int image = place / patches, patch = place % patches;
    double length = 0, largest = 0;
    for (int c = 0; c < width; c++) {
      row[c] = 0;
      for (int h = 0; h < height; h++)
        for (int w = 0; w < across; w++)
          if (abs(h - patch / across) <= reach && abs(w - patch % across) <= reach)
            row[c] += (value_of(tokens[image * count + (h * across + w) * width + c]) - 1.5 - centres[image].y) / 4;
      length += row[c] * row[c];
    }
    for (int c = 0; c < width; c++) row[c] = (length > 0 ? row[c] / sqrt(length) : 0) - shift[c];
    for (int c = 0; c < width; c++) largest = fmax(largest, fabs(row[c]));
    const double scale = largest / 127;
    expect("scale", place, scales[place], scale, 2e-6 * scale + (largest < 1e-6 ? 1e-9 : 0));
    int square = 0;
    for (int c = 0; c < pitch; c++) {
      const int got = features[index_in_blocks<int8_t>(image, patch, c, patches, pitch)];
      const double wanted = c < width && largest > 1e-30 ? row[c] / scale : 0;
      expect("feature", place * pitch + c, got, wanted, c < width ? 0.5 + 1e-3 : 0);
      square += got * got;
    }
    const float exact = scales[place] * scales[place];
    expect("square", place, squares[place], exact * (float)square, 0);
  }
}

int main(int count, char** arguments) {
  return battery_main(count, arguments,
                      {[] { check_pool<uint16_t>(run_pool_half_int8, 3, 4, 33, 1); },
                       [] { check_pool<float>(run_pool_float_int8, 2, 1, 130, 0); }},
                      {[] { check_pool<float>(run_pool_float_int8, 1, 3, 300, 1); },
                       [] { check_pool<uint16_t>(run_pool_half_int8, 1, 2, 64, 2); }});
}
