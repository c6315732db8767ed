// The device layer: all that a kernel file needs beyond plain CUDA C++.
//
// Kernels include this header, are written with __global__, threadIdx and blockIdx, and use the
// functions below for everything in which threads meet. nvcc compiles them to hardware
// instructions and CUB; a host compiler compiles the same kernel file to the emulation (each CUDA
// thread a fiber), which the tests run without a GPU.
//
//   numeric.h   BFloat16, Float16, to_float, from_float; reciprocal(x)
//   vector.h    Vector<S>: 16 bytes of elements; load_vector, store_vector, load_floats and
//               store_floats
//   warp_sums.h warp_sums(values): many sums over the warp with few shuffles
//   pieces.h    split(x): floats as sums of bfloat16
//   block       lane(), block_barrier(), warp_barrier(), warp_shuffle_xor(v, mask),
//               warp_shuffle(v, lane), warp_any(v), block_sum<threads>(v, storage),
//               shared<Storage>(), dynamic_shared<T>()
//   copies      copy_async(to, from[, exists]), end_copy_group(), finish_copies<left>()
//   matrix      multiply_add(sum, a, b): a product of [16, 16] and [16, 8] over the warp;
//               multiply_add_half: of [16, 8] and [8, 8];
//               load_transposed(words, row): an operand whose columns lie in memory
//   launch      launch(kernel, shape, stream, arguments...) -> Status; device_shared_limit();
//               blocks_at_once(chosen) in __launch_bounds__
//
// Sums have one defined order, the same on both sides: in a warp, lane l adds lane l + d for
// d = 1, 2, 4, 8, 16 (warp_sums: its own); in a block, warp sums are added in ascending order.
#pragma once

#include "hyperstreams/common.h"
#include "hyperstreams/cuda.h"
#include "hyperstreams/plan.h"

#ifdef __CUDACC__
#include "block_cuda.h"
#else
#include "../emulation/block_host.h"
#endif

#include "numeric.h"
#include "pieces.h"
#include "vector.h"
#include "warp_sums.h"
