// gram_min and gram_min_int8 over a few odd sizes, against plain loops, exactly; see battery.h.
#include "battery.h"

constexpr unsigned GRAM_SHARED = 3 * 2 * 128 * 64;

constexpr int LARGER = 16;  // numbers of int8 than those of halves

void set(int8_t& to, double value) { to = int8_t(LARGER * value); }
double value_of(int8_t value) { return value; }

// Numbers whose products and sums are exact in float, so that the result is as well.  The squares are not
// those of the features: some distances would be negative, and are zero.  The scales of int8 are powers of two.
template <class Value>
void check_gram(int patches, int pitch, int images = 3) {
  const std::vector<int4> list = {{0, 1, 0, 3}, {2, 1, -1, 1}, {2, 2, 2, -1}, {1, 0, 5, 6}};
  const unsigned tiles = (patches + 127) / 128, count = images == 3 ? 4 : 1;
  const size_t length = (size_t)patches * pitch;
  const bool scaled = sizeof(Value) == 1;
  Array<Value> features(count_in_blocks(images, patches, pitch));
  Array<float> squares((size_t)images * patches), scales((size_t)images * patches);
  Array<int4> pairs(count);
  Array<unsigned> distances(7 * (size_t)patches);
  for (size_t i = 0; i < features.count; i++) set(features[i], (int)battery.number(17) / 4. - 2);
  for (size_t i = 0; i < scales.count; i++) scales[i] = scaled ? 1.f / (1 << battery.number(3)) : 1;
  for (size_t i = 0; i < squares.count; i++) squares[i] = pitch * (int)battery.number(64) / 64.f;
  for (size_t i = 0; i < squares.count && scaled; i++) squares[i] *= LARGER * LARGER;
  for (unsigned i = 0; i < count; i++) pairs[i] = list[i];
  for (size_t i = 0; i < distances.count; i++) distances[i] = INFINITY_BITS;
  const dim3 grid = {count * tiles * tiles};
  if (scaled)
    run(run_gram_min_int8, grid, {256}, GRAM_SHARED, features.data, squares.data, scales.data, pairs.data,
        distances.data, patches, pitch);
  else
    run(run_gram_min, grid, {256}, GRAM_SHARED, features.data, squares.data, pairs.data, distances.data, patches,
        pitch);

  std::vector<float> wanted(distances.count, INFINITY), exact(images * length);
  for (size_t i = 0; i < exact.size(); i++) {
    const int image = i / length, row = i % length / pitch, column = i % pitch;
    exact[i] = value_of(features[index_in_blocks<Value>(image, row, column, patches, pitch)]);
  }
  for (unsigned i = 0; i < count; i++) {
    const int4 p = pairs[i];
    for (int m = 0; m < patches; m++)
      for (int n = 0; n < patches; n++) {
        const float* a = &exact[p.x * length + (size_t)m * pitch];
        const float* b = &exact[p.y * length + (size_t)n * pitch];
        float product = 0;
        for (int c = 0; c < pitch; c++) product += a[c] * b[c];
        const int of_a = p.x * patches + m, of_b = p.y * patches + n;
        product *= scales[of_a] * scales[of_b];
        const float square = fmaxf(squares[of_a] + squares[of_b] - 2 * product, 0);
        if (p.z >= 0) wanted[p.z * patches + m] = fminf(wanted[p.z * patches + m], square);
        if (p.w >= 0) wanted[p.w * patches + n] = fminf(wanted[p.w * patches + n], square);
      }
  }
  for (size_t i = 0; i < distances.count; i++)
    expect("distance", i, __uint_as_float(distances[i]), wanted[i], 0);
}

// Places that no 32 bits can number, in memory that is only promised.
void check_far_gram() {
  const int patches = 8, pitch = 64, far = 9'000'000, far_row = 300'000'000;
  const size_t bytes = 16ull << 30;
  char* promised = (char*)mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (promised == MAP_FAILED) return (void)puts("no 16 GiB of addresses: far places are not tested");
  uint16_t* features = (uint16_t*)promised;
  unsigned* distances = (unsigned*)promised;  // each elsewhere within
  float* squares = (float*)(promised + (1ull << 30));
  for (int i = 0; i < patches * pitch; i++) set(features[(size_t)far * patches * pitch + i], 1);
  for (int i = 0; i < patches; i++) squares[(size_t)far * patches + i] = pitch;
  for (int i = 0; i < patches; i++) distances[(size_t)far_row * patches + i] = INFINITY_BITS;
  const int4 pairs[] = {{far, far, far_row, -1}, {far - 1, far, -1, far_row + 1}};
  for (int i = 0; i < patches; i++) distances[(size_t)(far_row + 1) * patches + i] = INFINITY_BITS;
  run(run_gram_min, {2}, {256}, GRAM_SHARED, features, squares, (const int4*)pairs, distances, patches,
      pitch);
  for (int i = 0; i < 2 * patches; i++)
    expect("far distance", i, __uint_as_float(distances[(size_t)far_row * patches + i]),
           i < patches ? 0 : pitch, 0);
  munmap(promised, bytes);
}

int main(int count, char** arguments) {
  return battery_main(count, arguments,
                      {[] { check_gram<uint16_t>(1, 64); }, [] { check_gram<uint16_t>(20, 128); },
                       [] { check_gram<uint16_t>(130, 192); }, [] { check_gram<int8_t>(130, 128); }},
                      // What takes long comes last: most mutants are caught before.
                      {[] { check_gram<int8_t>(3, 384); }, check_far_gram,
                       [] { check_gram<uint16_t>(128, 64); }, [] { check_gram<uint16_t>(1030, 64, 2); },
                       [] { check_gram<uint16_t>(270, 192); }});
}
