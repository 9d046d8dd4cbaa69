// What the batteries share: programs that drive the kernels over odd sizes and know what should come out.
//
//   battery_<kernel> values|watched seed...     0 if all is right; it ends at the first case that is not
//
// Built without sanitizers they judge values, as the emulation's own findings.  "watched" is for builds with
// them, which are slow: it leaves out the sizes that ask nothing new of barriers and bounds.  The patches of
// mutants.py are judged by the same programs.
#pragma once
#include <sys/mman.h>

#include <functional>

#include "cuda_cpu.h"

constexpr unsigned INFINITY_BITS = 0x7f800000;

struct Battery {
  uint64_t seed = 0, random = 1;
  int wrong = 0;

  unsigned number(unsigned below) {  // 0..below-1, the same from run to run
    random = random * 6364136223846793005ull + 1442695040888963407ull;
    return unsigned(random >> 33) % below;
  }
};
inline Battery battery;

// Memory of its own, so that AddressSanitizer knows its ends; NaN until it is written.
template <class T>
struct Array {
  size_t count;
  T* data;

  explicit Array(size_t count) : count(count), data((T*)malloc(count * sizeof(T))) {
    memset((void*)data, 0xff, count * sizeof(T));
  }
  Array(const Array&) = delete;
  ~Array() { free(data); }
  T& operator[](size_t i) const { return data[i]; }
  operator T*() const { return data; }
  operator const T*() const { return data; }
};

using Run = int(const unsigned* grid, const unsigned* block, unsigned shared, uint64_t seed, void** values);
extern "C" Run run_centre_half, run_centre_float, run_pool_half, run_pool_float, run_column_mean;
extern "C" Run run_gram_min, run_interval_mean, run_burn_out_mean;
extern "C" Run run_pool_half_int8, run_pool_float_int8, run_gram_min_int8;

// Runs a kernel with the battery's seed.
template <class... Arguments>
void run(Run kernel, dim3 grid, dim3 block, unsigned shared, Arguments... arguments) {
  const unsigned sizes[2][3] = {{grid.x, grid.y, grid.z}, {block.x, block.y, block.z}};
  void* pointers[] = {&arguments...};
  battery.wrong += kernel(sizes[0], sizes[1], shared, battery.seed, pointers);
}

inline void expect(const char* what, size_t where, double got, double wanted, double tolerance) {
  if (fabs(got - wanted) <= tolerance || got == wanted || (std::isnan(got) && std::isnan(wanted))) return;
  if (battery.wrong++ < 5) printf("%s[%zu]: %.9g, expected %.9g\n", what, where, got, wanted);
}

using Case = std::function<void()>;

inline int battery_main(int count, char** arguments, std::vector<Case> cases,
                        const std::vector<Case>& of_values) {
  if (!strcmp(arguments[1], "values")) cases.insert(cases.end(), of_values.begin(), of_values.end());
  for (const Case& check : cases)
    for (int i = 2; i < count; i++) {
      battery = {strtoull(arguments[i], nullptr, 10)};
      check();
      if (battery.wrong) return 1;
    }
  return 0;
}

// Features in blocks, as blocks.cuh describes them, written down anew: how many values there are of ``images``,
// and the index of one of them.
inline size_t count_in_blocks(int images, int patches, int pitch) {
  return (size_t)images * ((patches + 7) / 8) * 8 * pitch;
}
template <class Value>
size_t index_in_blocks(int image, int row, int column, int patches, int pitch) {
  const int step = 128 / sizeof(Value), chunk = 16 / sizeof(Value), groups = (patches + 7) / 8;
  const size_t block = ((size_t)image * (pitch / step) + column / step) * groups + row / 8;
  const int place = (column % step / chunk) ^ (row % 8);
  return (block * 8 + row % 8) * step + place * chunk + column % chunk;
}

inline void set(float& to, double value) { to = (float)value; }
inline void set(uint16_t& to, double value) { to = emulated::float_to_half((float)value); }
inline double value_of(float value) { return value; }
inline double value_of(uint16_t value) { return emulated::half_to_float(value); }
