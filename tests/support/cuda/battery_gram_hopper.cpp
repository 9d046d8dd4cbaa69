// gram_min_128 and gram_min_192 over a few odd sizes, against plain loops, exactly; see battery.h.
#include "battery.h"

extern "C" Run run_gram_min_128, run_gram_min_192;

// Numbers whose products and sums are exact in float.  The squares are not those of the features: some distances
// would be negative, and are zero.  What lies behind the last patch is nearer than anything, and no number.
void check_gram(Run kernel, int columns, int patches, int pitch, int images = 3) {
  const std::vector<int4> list = {{0, 1, 0, 3}, {2, 1, -1, 1}, {2, 2, 2, -1}, {1, 0, 5, 6}};
  const unsigned count = images == 3 ? 4 : 1;
  const int rows = (patches + 7) / 8 * 8;
  Array<uint16_t> features(count_in_blocks(images, patches, pitch));
  Array<float> squares((size_t)images * patches);
  Array<int4> pairs(count);
  Array<unsigned> distances(7 * (size_t)patches);
  std::vector<float> exact((size_t)images * patches * pitch);
  for (int image = 0; image < images; image++)
    for (int row = 0; row < rows; row++)
      for (int c = 0; c < pitch; c++) {
        uint16_t& value = features[index_in_blocks<uint16_t>(image, row, c, patches, pitch)];
        if (row >= patches) set(value, row % 2 ? NAN : 100);
        else set(value, (int)battery.number(17) / 4. - 2);
        if (row < patches) exact[((size_t)image * patches + row) * pitch + c] = (float)value_of(value);
      }
  for (size_t i = 0; i < squares.count; i++) squares[i] = pitch * (int)battery.number(64) / 64.f;
  for (unsigned i = 0; i < count; i++) pairs[i] = list[i];
  for (size_t i = 0; i < distances.count; i++) distances[i] = INFINITY_BITS;
  run(kernel, {3}, {384}, 4 * ((256 + columns) * 128 + 16), features.data, squares.data, pairs.data, distances.data,
      patches, pitch, (int)count);

  std::vector<float> wanted(distances.count, INFINITY);
  for (unsigned i = 0; i < count; i++) {
    const int4 p = pairs[i];
    for (int m = 0; m < patches; m++)
      for (int n = 0; n < patches; n++) {
        const int of_a = p.x * patches + m, of_b = p.y * patches + n;
        float product = 0;
        for (int c = 0; c < pitch; c++)
          product += exact[(size_t)of_a * pitch + c] * exact[(size_t)of_b * pitch + c];
        const float square = fmaxf(squares[of_a] + squares[of_b] - 2 * product, 0);
        if (p.z >= 0) wanted[p.z * patches + m] = fminf(wanted[p.z * patches + m], square);
        if (p.w >= 0) wanted[p.w * patches + n] = fminf(wanted[p.w * patches + n], square);
      }
  }
  for (size_t i = 0; i < distances.count; i++)
    expect("distance", i, __uint_as_float(distances[i]), wanted[i], 0);
}

int main(int count, char** arguments) {
  return battery_main(count, arguments,
                      {[] { check_gram(run_gram_min_128, 128, 20, 128); },
                       [] { check_gram(run_gram_min_192, 192, 130, 64); }},
                      {[] { check_gram(run_gram_min_128, 128, 270, 384, 2); },
                       [] { check_gram(run_gram_min_192, 192, 1, 320); },
                       [] { check_gram(run_gram_min_128, 128, 128, 64); }});
}
