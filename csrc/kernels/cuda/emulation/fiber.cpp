// Fibers enter their stack once through ucontext and then switch with _setjmp and _longjmp, which
// make no system call. AddressSanitizer is told of every switch.
#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks

#include "fiber.h"

#include <ucontext.h>

#include <csetjmp>
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define HYPERSTREAMS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HYPERSTREAMS_ASAN 1
#endif
#endif
#ifdef HYPERSTREAMS_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace hyperstreams::cuda::emulation {
namespace {

// Matrices for 16 streams lie on it several times.
constexpr size_t kStackBytes = 256 * 1024;

void before_switch([[maybe_unused]] void** own_fake_stack, [[maybe_unused]] const void* stack,
                   [[maybe_unused]] size_t bytes) {
#ifdef HYPERSTREAMS_ASAN
  __sanitizer_start_switch_fiber(own_fake_stack, stack, bytes);
#endif
}

void after_switch([[maybe_unused]] void* own_fake_stack, [[maybe_unused]] const void** stack,
                  [[maybe_unused]] size_t* bytes) {
#ifdef HYPERSTREAMS_ASAN
  __sanitizer_finish_switch_fiber(own_fake_stack, stack, bytes);
#endif
}

}  // namespace

struct Fiber::State {
  State(void (*function)(void*), void* argument) : body(function), context(argument) {}
  void (*body)(void*);
  void* context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  bool started = false;
  jmp_buf inside, outside;
  void* fake_stack = nullptr;
  const void* owner_stack = nullptr;
  size_t owner_bytes = 0;

  static inline thread_local State* entering = nullptr;

  static void enter() {
    State* state = entering;
    after_switch(nullptr, &state->owner_stack, &state->owner_bytes);
    state->body(state->context);
  }
};

Fiber::Fiber(void (*body)(void*), void* context) : state_(new State(body, context)) {}

Fiber::~Fiber() = default;

void Fiber::resume() {
  State* state = state_.get();
  void* fake_stack = nullptr;
  before_switch(&fake_stack, state->stack.get(), kStackBytes);
  if (_setjmp(state->outside) == 0) {
    if (state->started) _longjmp(state->inside, 1);
    state->started = true;
    State::entering = state;
    ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = state->stack.get();
    start.uc_stack.ss_size = kStackBytes;
    start.uc_link = nullptr;
    makecontext(&start, &State::enter, 0);
    setcontext(&start);
  }
  after_switch(fake_stack, nullptr, nullptr);
}

void Fiber::suspend() {
  State* state = state_.get();
  before_switch(&state->fake_stack, state->owner_stack, state->owner_bytes);
  if (_setjmp(state->inside) == 0) _longjmp(state->outside, 1);
  after_switch(state->fake_stack, &state->owner_stack, &state->owner_bytes);
}

}  // namespace hyperstreams::cuda::emulation
