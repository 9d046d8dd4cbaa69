// The kernels of near.cuh over a few odd grids, against plain loops, exactly; see battery.h.
#include "battery.h"

extern "C" Run run_gram_min_near, run_gram_min_int8_near, run_gram_min_near_128, run_burn_out_mean_near;

constexpr unsigned FAR_BITS = 0x40800000, HOPPER_SHARED = 4 * ((256 + 128) * 128 + 16);

inline void set(int8_t& to, double value) { to = int8_t(value); }
inline double value_of(int8_t value) { return value; }

// Small whole numbers, whose products and sums are exact in float.
template <class Value>
void check_gram(int height, int across, int reach, bool hopper = false) {
  const int patches = height * across, pitch = sizeof(Value) == 1 ? 128 : 64, tiles = (patches + 127) / 128;
  const bool scaled = sizeof(Value) == 1;
  const int4 list[] = {{0, 1, 0, 3}, {1, 1, 1, -1}, {1, 0, -1, 2}};
  Array<Value> features(count_in_blocks(2, patches, pitch));
  Array<float> squares(2 * (size_t)patches), scales(2 * (size_t)patches);
  Array<int4> pairs(3);
  Array<unsigned> distances(5 * (size_t)patches);
  for (size_t i = 0; i < features.count; i++) set(features[i], 0);
  for (int row = 0; row < 2 * patches; row++) {
    for (int c = 0; c < 4; c++)
      set(features[index_in_blocks<Value>(row / patches, row % patches, c, patches, pitch)], (int)battery.number(9) - 4);
    squares[row] = 40 + battery.number(30), scales[row] = scaled ? 1.f / (1 << battery.number(2)) : 1;
  }
  for (int i = 0; i < 3; i++) pairs[i] = list[i];
  for (size_t i = 0; i < distances.count; i++) distances[i] = INFINITY_BITS;
  if (hopper)
    run(run_gram_min_near_128, {3}, {384}, HOPPER_SHARED, features.data, squares.data, pairs.data, distances.data,
        patches, pitch, 3, across, reach);
  else if (scaled)
    run(run_gram_min_int8_near, {3u * tiles * tiles}, {256}, 3 * 2 * 128 * 64, features.data, squares.data,
        scales.data, pairs.data, distances.data, patches, pitch, across, reach);
  else
    run(run_gram_min_near, {3u * tiles * tiles}, {256}, 3 * 2 * 128 * 64, features.data, squares.data, pairs.data,
        distances.data, patches, pitch, across, reach);

  std::vector<float> wanted(distances.count, INFINITY);
  for (const int4& p : list)
    for (int m = 0; m < patches; m++)
      for (int n = 0; n < patches; n++) {
        if (abs(m / across - n / across) > reach || abs(m % across - n % across) > reach) continue;
        float product = 0;
        for (int c = 0; c < 4; c++)
          product += (float)value_of(features[index_in_blocks<Value>(p.x, m, c, patches, pitch)]) *
                     (float)value_of(features[index_in_blocks<Value>(p.y, n, c, patches, pitch)]);
        const int of_a = p.x * patches + m, of_b = p.y * patches + n;
        const float square = squares[of_a] + squares[of_b] - 2 * product * scales[of_a] * scales[of_b];
        if (p.z >= 0) wanted[p.z * patches + m] = fminf(wanted[p.z * patches + m], fmaxf(square, 0));
        if (p.w >= 0) wanted[p.w * patches + n] = fminf(wanted[p.w * patches + n], fmaxf(square, 0));
      }
  for (size_t i = 0; i < distances.count; i++)
    expect("distance", i, __uint_as_float(distances[i]), wanted[i], 0);
}

// Each patch has another number of neighbors, from none on; one of ``part`` is of what is on a few images only.
void check_burn_out(int judges, int patches, int stop, int part = 3, float near = 0.3f) {
  const int images = 2;
  Array<unsigned> distances((size_t)images * judges * patches);
  Array<float> scores((size_t)images * patches), later((size_t)images * patches);
  for (int image = 0; image < images; image++)
    for (int patch = 0; patch < patches; patch++)
      for (int k = 0; k < judges; k++) {
        const float value = (k * 7 % judges) * part < judges ? near : 1.f;
        const bool none = k * 5 % judges >= (patch + image * 3) % (judges + 1);
        distances[((size_t)image * judges + k) * patches + patch] =
            none ? FAR_BITS : __float_as_uint(value + battery.number(1000) / 1e4f);
      }
  run(run_burn_out_mean_near, {(unsigned)(patches + 127) / 128, (unsigned)images}, {128}, 0, distances.data, scores.data,
      later.data, judges, patches, stop);
  for (int image = 0; image < images; image++)
    for (int patch = 0; patch < patches; patch++) {
      std::vector<float> s(judges);
      int found = 0, start = 0;
      for (int k = 0; k < judges; k++) {
        s[k] = sqrtf(__uint_as_float(distances[((size_t)image * judges + k) * patches + patch]));
        found += s[k] < 2;
      }
      std::sort(s.begin(), s.end());
      double best = found ? 0.1 * ((double)s[(found - 1) / 2] + s[found / 2]) / 2 : 0, mean = 0;
      for (int k = (found + 9) / 10; found && k <= std::min(stop, found - stop); k++)
        if ((double)s[k] - s[k - 1] > best) best = (double)s[k] - s[k - 1], start = k;
      for (int k = start; k < start + stop; k++) mean += (double)s[k] / stop;
      expect("score", image * patches + patch, scores[image * patches + patch], mean, 6.1e-8 * mean);
      expect("later", image * patches + patch, later[image * patches + patch], start > 0, 0);
    }
}

int main(int count, char** arguments) {
  return battery_main(count, arguments,
                      {[] { check_gram<uint16_t>(3, 5, 1); }, [] { check_gram<int8_t>(2, 9, 0); },
                       [] { check_burn_out(31, 130, 9); }},
                      // ThreadSanitizer is not told of Hopper's barriers: what uses them is judged by values alone.
                      {[] { check_gram<uint16_t>(5, 4, 1, true); }, [] { check_gram<uint16_t>(19, 16, 2); }, [] { check_gram<uint16_t>(33, 8, 1); },
                       [] { check_gram<uint16_t>(19, 16, 2, true); }, [] { check_gram<uint16_t>(9, 43, 3, true); },
                       [] { check_gram<int8_t>(13, 11, 2); }, [] { check_gram<uint16_t>(3, 3, 3); },
                       [] { check_burn_out(10, 12, 3); }, [] { check_burn_out(61, 130, 18, 6); },
                       [] { check_burn_out(61, 130, 18, 6, 0.72f); }});
}
