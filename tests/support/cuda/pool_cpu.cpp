#include "pool.cuh"

#include "run_kernel.h"
RUN(centre_half)
RUN(centre_float)
RUN(pool_half)
RUN(pool_float)
RUN(column_mean)
