// The kernels of mutual scoring, as one module: compiled once for each architecture (compiler.py) and
// launched by launches.py, in this order for every layer and degree.
//   centre_*       each image's mean and scale                              pool.cuh
//   pool_*         tokens -> rows in half precision and their squares       pool.cuh
//   column_mean    the rows' common part, from a few images                 pool.cuh
//   gram_min       squared distances to the nearest patch, pair by pair     gram.cuh
//   gram_min_*     the same on Hopper                                       gram_hopper.cuh
//   interval_mean  mutual scores of a layer and degree                      interval.cuh
//   burn_out_mean  the same, with intervals that may begin later            interval.cuh
// or, with --precision int8, in place of pool_* and gram_min,
//   pool_*_int8    tokens -> rows in int8, with a scale for each            pool_int8.cuh
//   gram_min_int8  squared distances from these, by products of integers    gram.cuh
// or, with --window, in place of gram_min and burn_out_mean,
//   *_near*        the same of patches near each other                      near.cuh
// and, apart from these,
//   exclude_patches  which rows are nobody's nearest                        exclude.cuh
//   gather_rows    tokens of some patches, for the host                     gather.cuh
//   peak_*         what the GPU gives at most                               peak.cuh
#include "exclude.cuh"
#include "gather.cuh"
#include "gram.cuh"
#include "gram_hopper.cuh"
#include "interval.cuh"
#include "near.cuh"
#include "peak.cuh"
#include "pool.cuh"
#include "pool_int8.cuh"
