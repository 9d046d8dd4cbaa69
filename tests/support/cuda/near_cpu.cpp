#include "near.cuh"

#include "run_kernel.h"
RUN(gram_min_near)
RUN(gram_min_int8_near)
RUN(gram_min_near_128)
RUN(burn_out_mean_near)
