#include "gather.cuh"

#include "run_kernel.h"
RUN(gather_rows)
