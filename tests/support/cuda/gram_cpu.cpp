#include "gram.cuh"

#include "run_kernel.h"
RUN(gram_min)
