#include "interval.cuh"

#include "run_kernel.h"
RUN(interval_mean)
RUN(burn_out_mean)
