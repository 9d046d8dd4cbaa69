#include "pool_int8.cuh"

#include "run_kernel.h"
RUN(pool_half_int8)
RUN(pool_float_int8)
