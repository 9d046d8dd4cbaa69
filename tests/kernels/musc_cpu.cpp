// The kernels as a library for the CPU: run_<kernel>(grid, block, shared bytes, seed, arguments).
#include "musc.cu"

#define RUN(kernel)                                                                                        \
  extern "C" int run_##kernel(const unsigned* grid, const unsigned* block, unsigned shared, uint64_t seed, \
                              void** arguments) {                                                          \
    return emulated::launch(kernel, grid, block, shared, seed, arguments);                                 \
  }
RUN(centre_half)
RUN(centre_float)
RUN(pool_half)
RUN(pool_float)
RUN(column_mean)
RUN(gram_min)
RUN(interval_mean)
