// RUN(kernel) defines run_<kernel>(grid, block, shared bytes, seed, arguments).
#pragma once
#include "cuda_cpu.h"

#define RUN(kernel)                                                                                        \
  extern "C" int run_##kernel(const unsigned* grid, const unsigned* block, unsigned shared, uint64_t seed, \
                              void** arguments) {                                                          \
    return emulated::launch(kernel, grid, block, shared, seed, arguments);                                 \
  }
