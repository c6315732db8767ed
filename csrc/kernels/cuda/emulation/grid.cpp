#include "grid.h"

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "fiber.h"

namespace hyperstreams::cuda::emulation {
namespace {

constexpr int kWarp = 32;

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

enum class Wait { kNone, kWarp, kBlock, kEnded };

struct Thread {
  explicit Thread(void (*body)(void*)) : fiber(body, this) {}
  Fiber fiber;
  Index index;
  Wait wait = Wait::kNone;
  int line = 0;
  // Two slots: a lane that goes on may deposit again before a slower one has read the last.
  unsigned turn = 0;
  unsigned char slot[2][kSlotBytes] = {};
  // Asynchronous copies in groups; the last group is open.
  std::deque<std::vector<Copy>> copies{1};
};

/// The block that is running, and its threads, whose stacks serve all blocks.
class Block {
 public:
  std::vector<std::unique_ptr<Thread>> threads;
  std::map<const void*, std::vector<double>> shared;
  const std::function<void()>* kernel = nullptr;
  Order order = Order::kAscending;
  Thread* current = nullptr;
  std::string failure;

  void run(int count);

 private:
  void step(int count);
  bool release(int begin, int end, Wait wait);
  std::string describe(int count) const;
};

Block& block() {
  static thread_local Block instance;
  return instance;
}

void thread_body(void* context) {
  Thread* self = static_cast<Thread*>(context);
  for (;;) {
    (*block().kernel)();
    self->wait = Wait::kEnded;
    self->line = 0;
    self->fiber.suspend();
  }
}

void wait_for(Wait wait, int line) {
  Thread* self = block().current;
  self->wait = wait;
  self->line = line;
  self->fiber.suspend();
}

/// Lets [begin, end) go on when all of them wait at the same meeting.
bool Block::release(int begin, int end, Wait wait) {
  for (int k = begin; k < end; ++k) {
    if (threads[k]->wait != wait || threads[k]->line != threads[begin]->line) return false;
  }
  for (int k = begin; k < end; ++k) threads[k]->wait = Wait::kNone;
  return true;
}

/// Gives every thread that can run its turn.
void Block::step(int count) {
  for (int k = 0; k < count && failure.empty(); ++k) {
    current = threads[order == Order::kAscending ? k : count - 1 - k].get();
    if (current->wait != Wait::kNone) continue;
    thread_index = current->index;
    current->fiber.resume();
  }
}

std::string Block::describe(int count) const {
  std::map<std::string, int> places;
  for (int k = 0; k < count; ++k) {
    const Thread& thread = *threads[k];
    ++places[thread.wait == Wait::kEnded
                 ? "ended"
                 : std::string(thread.wait == Wait::kWarp ? "in a warp shuffle" : "at a barrier") +
                       " of line " + std::to_string(thread.line)];
  }
  std::string text = "barrier divergence in block (" + std::to_string(block_index.x) + ", " +
                     std::to_string(block_index.y) + "):";
  for (const auto& [place, threads_there] : places) {
    text += " " + std::to_string(threads_there) + " threads " + place + ";";
  }
  return text;
}

void Block::run(int count) {
  while (static_cast<int>(threads.size()) < count) {
    threads.push_back(std::make_unique<Thread>(thread_body));
  }
  shared.clear();
  for (int k = 0; k < count; ++k) {
    const unsigned rank = static_cast<unsigned>(k);
    threads[k]->index = {rank % block_size.x, rank / block_size.x, 0};
    threads[k]->wait = Wait::kNone;
    threads[k]->copies.assign(1, {});
  }
  for (;;) {
    step(count);
    if (!failure.empty()) return;
    if (release(0, count, Wait::kEnded)) return;
    bool released = release(0, count, Wait::kBlock);
    for (int warp = 0; warp + kWarp <= count; warp += kWarp) {
      released |= release(warp, warp + kWarp, Wait::kWarp);
    }
    if (!released) {
      failure = describe(count);
      return;
    }
  }
}

}  // namespace

void set_order(Order order) { block().order = order; }

void run_grid(Index grid, Index size, const std::function<void()>& kernel) {
  Block& b = block();
  b.kernel = &kernel;
  b.failure.clear();
  grid_size = grid;
  block_size = size;
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      block_index = {x, y, 0};
      b.run(static_cast<int>(size.x * size.y));
      if (!b.failure.empty()) {
        b.threads.clear();  // they stand somewhere inside the kernel
        throw std::runtime_error(b.failure);
      }
    }
  }
}

void meet_block(int line) { wait_for(Wait::kBlock, line); }

void gather_warp(const void* deposit, size_t bytes, const void* (&gathered)[kWarp], int line) {
  Thread* self = block().current;
  const unsigned turn = self->turn++ % 2;
  std::memcpy(self->slot[turn], deposit, bytes);
  const Index size = block_size;
  const int rank = static_cast<int>(self->index.y * size.x + self->index.x);
  wait_for(Wait::kWarp, line);
  for (int lane = 0; lane < kWarp; ++lane) {
    gathered[lane] = block().threads[rank / kWarp * kWarp + lane]->slot[turn];
  }
}

void meet_warp(const void* deposit, void* received, size_t bytes, int source_lane, int line) {
  const void* gathered[kWarp];
  gather_warp(deposit, bytes, gathered, line);
  std::memcpy(received, gathered[source_lane], bytes);
}

void copy_later(void* to, const void* from, size_t bytes) {
  block().current->copies.back().push_back({to, from, bytes});
}

void end_copy_group() { block().current->copies.emplace_back(); }

void finish_copies(size_t left) {
  auto& groups = block().current->copies;
  for (; groups.size() > left + 1; groups.pop_front()) {
    for (const Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, copy.bytes);
  }
}

void* shared_memory(const void* key, size_t bytes) {
  auto [entry, is_new] = block().shared.try_emplace(key);
  if (is_new) {
    entry->second.resize(bytes / sizeof(double) + 1);
    std::memset(entry->second.data(), 0xff, entry->second.size() * sizeof(double));
  }
  return entry->second.data();
}

void fail(const char* message) {
  block().failure = message;
  block().current->fiber.suspend();
}

}  // namespace hyperstreams::cuda::emulation
