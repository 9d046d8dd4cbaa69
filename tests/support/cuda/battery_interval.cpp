// interval_mean and burn_out_mean over a few odd sizes, against sorting; see battery.h.
#include "battery.h"

void check_interval(int judges, int patches, int start, int stop, unsigned kinds) {
  const int images = 2;
  Array<unsigned> distances((size_t)images * judges * patches);
  Array<float> scores((size_t)images * patches);
  for (size_t i = 0; i < distances.count; i++) {  // few kinds: many ties, and zeros
    const unsigned number = battery.number(kinds);
    distances[i] = __float_as_uint(number / (float)kinds * (number % 7 ? 1 : 1e-3f));
  }
  run(run_interval_mean, {(unsigned)(patches + 127) / 128, images}, {128}, 0, distances.data, scores.data,
      judges, patches, start, stop);
  for (int image = 0; image < images; image++)
    for (int patch = 0; patch < patches; patch++) {
      std::vector<float> sorted(judges);
      for (int k = 0; k < judges; k++)
        sorted[k] = __uint_as_float(distances[((size_t)image * judges + k) * patches + patch]);
      std::sort(sorted.begin(), sorted.end());
      double mean = 0;
      for (int k = start; k < stop; k++) mean += (double)sqrtf(sorted[k]) / (stop - start);
      expect("score", image * patches + patch, scores[image * patches + patch], mean, 6.1e-8 * mean);
    }
}

// How many of the sorted values s_1, s_2, ... are left out before the mean, in the formula's own words.
int left_out(const std::vector<float>& s, int found, int stop) {
  const double median = ((double)s[(found - 1) / 2] + s[found / 2]) / 2;
  double best = 0.1 * median;
  int start = 0;
  for (int k = (found + 9) / 10; k <= stop; k++)
    if ((double)s[k] - s[k - 1] > best) best = (double)s[k] - s[k - 1], start = k;
  return start;
}

void expect_burnt(const Array<unsigned>& distances, const Array<float>& scores, const Array<float>& later,
                  int images, int judges, int patches, int found, int stop) {
  for (int image = 0; image < images; image++)
    for (int patch = 0; patch < patches; patch++) {
      std::vector<float> sorted(judges);
      for (int k = 0; k < judges; k++)
        sorted[k] = sqrtf(__uint_as_float(distances[((size_t)image * judges + k) * patches + patch]));
      std::sort(sorted.begin(), sorted.end());
      const int start = left_out(sorted, found, stop);
      double mean = 0;
      for (int k = start; k < start + stop; k++) mean += (double)sorted[k] / stop;
      expect("score", image * patches + patch, scores[image * patches + patch], mean, 6.1e-8 * mean);
      expect("later", image * patches + patch, later[image * patches + patch], start > 0, 0);
    }
}

// A gap beside a tenth of the median, between 1 and 1.2: above it in every other patch, by 5 %.
void check_gap_at_the_limit(int missing) {
  const int found = 40, stop = 12, patches = 6, judges = found + missing;
  Array<unsigned> distances((size_t)judges * patches);
  Array<float> scores(patches), later(patches);
  for (int patch = 0; patch < patches; patch++)
    for (int k = 0; k < judges; k++) {
      const float behind = 0.5f + (patch % 2 ? 0.116f : 0.104f);
      float value = k < 4 ? 0.5f : k < 20 ? behind + (1 - behind) * (k - 4) / 15 : 1.2f + 0.05f * (k - 20);
      if (k >= found) value = __uint_as_float(INFINITY_BITS);
      distances[(size_t)(k * 7 % judges) * patches + patch] = __float_as_uint(value * value);
    }
  run(run_burn_out_mean, {1, 1}, {128}, 0, distances.data, scores.data, later.data, judges, patches, found, 4,
      stop);
  expect_burnt(distances, scores, later, 1, judges, patches, found, stop);
}

// ``missing`` distances of each patch are infinite; ``near`` of ten are of what is on a few images only.
void check_burn_out(int found, int missing, int patches, int stop, unsigned near, unsigned kinds) {
  const int images = 2, judges = found + missing;
  Array<unsigned> distances((size_t)images * judges * patches);
  Array<float> scores((size_t)images * patches), later((size_t)images * patches);
  for (size_t i = 0; i < distances.count; i++) {
    const int k = i / patches % judges;
    const float number = battery.number(kinds) / (float)kinds;
    distances[i] = __float_as_uint(battery.number(10) < near ? 0.6f * number : 1 + 0.7f * number);
    if ((k * 7 + 3) % judges < missing) distances[i] = INFINITY_BITS;
  }
  run(run_burn_out_mean, {(unsigned)(patches + 127) / 128, images}, {128}, 0, distances.data, scores.data,
      later.data, judges, patches, found, (found + 9) / 10, stop);
  expect_burnt(distances, scores, later, images, judges, patches, found, stop);
}

void check_far_interval() {
  const int judges = 3, patches = 1'500'000'000;
  const size_t bytes = 2ull * judges * patches * 4 + (8ull << 30);
  char* promised = (char*)mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (promised == MAP_FAILED) return (void)puts("no 44 GB of addresses: far places are not tested");
  unsigned* distances = (unsigned*)promised;
  float* scores = (float*)(promised + 2ull * judges * patches * 4);
  for (int k = 0; k < judges; k++)
    for (int i = 0; i < 128; i++) distances[((size_t)judges + k) * patches + i] = __float_as_uint(4.f);
  run(run_interval_mean, {1, 2}, {128}, 0, distances, scores, judges, patches, 0, 3);
  for (int i = 0; i < 128; i++) expect("far score", i, scores[(size_t)patches + i], 2, 0);
  munmap(promised, bytes);
}

int main(int count, char** arguments) {
  return battery_main(
      count, arguments, {[] { check_interval(5, 3, 0, 1, 1000); }, [] { check_interval(4, 130, 1, 3, 5); },
                         [] { check_burn_out(4, 2, 3, 1, 3, 1000); }, [] { check_burn_out(11, 0, 130, 3, 2, 9); }},
      {[] { check_interval(40, 128, 0, 12, 1 << 30); }, [] { check_interval(37, 5, 30, 37, 1 << 30); },
       [] { check_interval(300, 7, 20, 90, 20); }, [] { check_interval(9, 60, 2, 7, 3); },
       [] { check_interval(6, 40, 0, 6, 1); }, [] { check_interval(8, 50, 3, 4, 4); },
       [] { check_burn_out(40, 0, 128, 12, 1, 1 << 30); }, [] { check_burn_out(41, 9, 60, 12, 2, 1 << 30); },
       [] { check_burn_out(30, 0, 200, 15, 3, 40); }, [] { check_burn_out(20, 3, 128, 6, 0, 1 << 30); },
       [] { check_burn_out(300, 0, 9, 90, 2, 1 << 30); }, [] { check_burn_out(24, 5, 90, 7, 5, 3); },
       [] { check_burn_out(10, 0, 50, 3, 10, 1); }, [] { check_gap_at_the_limit(0); },
       [] { check_gap_at_the_limit(11); }, check_far_interval});
}
