// interval_mean over a few odd sizes, against sorting; see battery.h.
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
      count, arguments, {[] { check_interval(5, 3, 0, 1, 1000); }, [] { check_interval(4, 130, 1, 3, 5); }},
      {[] { check_interval(40, 128, 0, 12, 1 << 30); }, [] { check_interval(37, 5, 30, 37, 1 << 30); },
       [] { check_interval(300, 7, 20, 90, 20); }, [] { check_interval(9, 60, 2, 7, 3); },
       [] { check_interval(6, 40, 0, 6, 1); }, [] { check_interval(8, 50, 3, 4, 4); }, check_far_interval});
}
