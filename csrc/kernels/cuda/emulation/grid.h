// Runs a CUDA grid on the host, one block after the other, each thread of a block a fiber.
//
// A fiber runs until it meets other threads (barrier, shuffle) or ends; when none can run, those
// whose meeting is complete go on. A meeting that can never complete (some threads ended, or wait
// somewhere else) is barrier divergence and ends the launch with std::runtime_error. Shared memory
// is poisoned (NaN) at the start of every block.
#pragma once

#include <cstddef>
#include <functional>

namespace hyperstreams::cuda::emulation {

constexpr size_t kSlotBytes = 48;

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

/// What kernels know as threadIdx, blockIdx, blockDim and gridDim.
inline thread_local Index thread_index, block_index, block_size, grid_size;

/// Size of the launch's dynamic shared memory.
inline thread_local size_t dynamic_shared_bytes = 0;

/// What a block can have: a device of compute capability 9.0 unless a test says otherwise.
inline int shared_limit = 227 << 10;

/// The order in which the threads of a block get their turn. A missing barrier goes unnoticed in
/// one order and not in the other, so tests run both.
enum class Order { kAscending, kDescending };
void set_order(Order order);

/// Runs kernel() on every thread of the grid. Throws std::runtime_error on divergence or fail().
void run_grid(Index grid, Index block, const std::function<void()>& kernel);

// The rest is called on a thread of a running block; `line` names the meeting.

void meet_block(int line);
/// Every lane of the warp deposits `bytes` (at most kSlotBytes) bytes and receives those of
/// `source_lane`.
void meet_warp(const void* deposit, void* received, size_t bytes, int source_lane, int line);
/// The same, and gathered[lane] points to what each lane deposited, until this lane's meeting after
/// the next.
void gather_warp(const void* deposit, size_t bytes, const void* (&gathered)[32], int line);
/// An asynchronous copy of this thread: made when its group is finished, not before.
void copy_later(void* to, const void* from, size_t bytes);
/// The copies since the last call are a group; finish_copies makes all but the last `left` groups.
void end_copy_group();
void finish_copies(size_t left);
/// The block's memory known by `key`, the same for all of its threads.
void* shared_memory(const void* key, size_t bytes);
/// Ends the launch with a message.
void fail(const char* message);

}  // namespace hyperstreams::cuda::emulation
