#include "gram.cuh"

#include "run_kernel.h"
RUN(gram_min)
RUN(gram_min_int8)
