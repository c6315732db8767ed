// A fiber: a function with its own stack, resumed by its owner and suspended by itself.
#pragma once

#include <memory>

namespace hyperstreams::cuda::emulation {

class Fiber {
 public:
  /// `body(context)` runs from the first resume on and must never return.
  Fiber(void (*body)(void* context), void* context);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Called by the owner: runs the fiber until it suspends.
  void resume();
  /// Called on the fiber: returns to the resume that is running it.
  void suspend();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hyperstreams::cuda::emulation
