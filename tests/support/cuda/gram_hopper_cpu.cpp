#include "gram_hopper.cuh"

#include "run_kernel.h"
RUN(gram_min_128)
RUN(gram_min_192)
