// The kernels of csrc/kernels/cuda/boundary*, emulated: the forward against the CUDA ops one by
// one, the backward against the CPU's ops one by one in double, both on X' as the forward stored
// it.
#include <gtest/gtest.h>

#include "cuda_boundary_problem.h"
#include "kernels/cuda/plan/staged.h"

namespace hyperstreams::cuda::testing {
namespace {

template <class S, class Y = S>
void check_case(const Case& c) {
  SCOPED_TRACE(::testing::Message() << c << " bytes of x, y=" << sizeof(S) << sizeof(Y));
  const hyperstreams::testing::AtIsaLevel at(cpu::IsaLevel::kBase);
  const Problem<S, Y> problem(c);
  problem.check(run_in_both_orders([&] { return problem.run(); }));
}

constexpr MapSettings kSinkhorn = {{4, 0, 0, 0}, {1e-3, 1}};

CoefficientSettings sinkhorn(int n, int variant = 0) {
  return cases::settings(n, MapKind::kSinkhorn, kSinkhorn, variant);
}

/// Every kind of boundary for one shape.
std::vector<Case> kinds(int64_t tokens, int n, int64_t width) {
  std::vector<Case> all;
  const Case plain{tokens, width, sinkhorn(n)};
  all.push_back(plain);
  Case c = plain;  // per stream, static, with a bias
  c.settings = sinkhorn(n, 2);
  c.is_static = c.has_bias = true;
  all.push_back(c);
  c = plain;  // the first site
  c.has_write = false;
  c.eps_position = EpsPosition::kOutside;
  all.push_back(c);
  c.settings = sinkhorn(n, 2);
  c.gives_weights = true;
  all.push_back(c);
  c = plain;  // given weights
  c.gives_weights = c.is_static = c.has_bias = true;
  c.has_norm = false;
  c.eps_position = EpsPosition::kFloor;
  all.push_back(c);
  c = plain;  // no mix
  c.has_mix = false;
  c.has_bias = true;
  all.push_back(c);
  c = plain;  // no controller
  c.has_controller = false;
  c.gives_weights = true;
  all.push_back(c);
  c.is_static = true;
  c.has_mix = false;
  all.push_back(c);
  return all;
}

TEST(CudaBoundary, IsTheChainOfOpsForFewStreams) {
  for (int n = 1; n <= 4; ++n) {
    for (const Case& c : kinds(3, n, 37)) check_case<float>(c);
    for (const Case& c : kinds(2, n, 40)) check_case<BFloat16>(c);
  }
  for (const Case& c : kinds(1, 3, 24)) check_case<Float16>(c);
  for (const Case& c : kinds(2, 4, 33)) check_case<BFloat16>(c);
  for (const Case& c : kinds(0, 4, 16)) check_case<float>(c);
}

// n > 4, and more logits than the fused kernels take.
TEST(CudaBoundary, IsTheChainOfOpsForManyStreams) {
  for (const Case& c : kinds(2, 5, 19)) check_case<float>(c);
  const std::vector<Case> most = kinds(1, 16, 11);  // the slowest to emulate
  for (const size_t kind : {0, 1, 4}) check_case<float>(most[kind]);
  for (const Case& c : kinds(3, 8, 24)) check_case<BFloat16>(c);
  for (const Case& c : kinds(0, 6, 16)) check_case<Float16>(c);
  const MapSettings destinations = {{0}, {}};
  check_case<float>({2, 16, cases::settings(5, MapKind::kPermutation, destinations, 0)});
}

TEST(CudaBoundary, IsTheChainOfOpsWhereSharedMemoryIsSmall) {
  const LimitedSharedMemory limited(99 << 10);
  for (const int n : {2, 4}) {
    for (const Case& c : kinds(3, n, 24)) check_case<BFloat16>(c);
  }
}

TEST(CudaBoundary, RunsEveryMap) {
  for (int n = 1; n <= 4; ++n) {
    for (const CoefficientSettings& s : cases::all_settings({n}, {n % 3, (n + 1) % 3})) {
      check_case<float>({2, 16, s});
    }
  }
}

TEST(CudaBoundary, BranchMayHaveAnotherType) {
  check_case<float, BFloat16>({3, 16, sinkhorn(4)});
  check_case<BFloat16, float>({3, 21, sinkhorn(2)});
  check_case<Float16, float>({3, 16, sinkhorn(4)});
}

// More than one group of tokens, tile, chunk, piece and slab.
TEST(CudaBoundary, SumsOverEverySplit) {
  for (const Case& c : kinds(37, 2, 304)) check_case<BFloat16>(c);
  check_case<BFloat16>({70, 264, sinkhorn(4)});
  check_case<float>({19, 520, sinkhorn(4)});
  // Parts in which the backward comes back to its first stage.
  for (const Case& c : kinds(93, 4, 72)) check_case<BFloat16>(c);
  check_case<float>({45, 48, sinkhorn(4, 2)});
  check_case<Float16>({18, 289, sinkhorn(3)});
}

TEST(CudaBoundary, SameBitsAtAnyAlignmentAndStride) {
  for (const int variant : {0, 2}) {
    Case aligned{19, 40, sinkhorn(4, variant)};
    aligned.has_bias = true;
    const auto out = Problem<BFloat16, BFloat16>(aligned).run();
    for (const auto& [offset, padding] : {std::pair{1, 0}, {0, 1}, {8, 8}, {3, 5}}) {
      Case c = aligned;
      c.offset = offset;
      c.padding = padding;
      EXPECT_TRUE(same_bits(Problem<BFloat16, BFloat16>(c).run(), out)) << c;
    }
  }
  Case wide{3, 1032, sinkhorn(3)};  // a token's sums are a block's
  const auto out = Problem<float, float>(wide).run();
  wide.offset = 1;
  EXPECT_TRUE(same_bits(Problem<float, float>(wide).run(), out));
}

template <class S>
BoundaryPlan whole_plan(const Case& c) {
  const int n = c.settings.n_streams;
  BoundaryPlan plan =
      plan_boundary(boundary_shape(c.tokens, n, c.width, kDType<S>,
                                   c.has_controller ? &c.settings : nullptr, block_shared_limit()),
                    16);
  // Room for W in fragments.
  plan.forward.weights = plan.forward.size;
  plan.forward.size += plan.weights.grid_x * 8 * 3 * 32 * 4;
  return plan;
}

/// The plan of many tokens, in blocks of `warps` and so many parts of the channels.
template <class S>
BoundaryPlan staged_plan(const Case& c, int warps, int64_t parts) {
  BoundaryPlan plan = whole_plan<S>(c);
  plan.direct = plan.chunks_by_warp = false;
  plan.parts_per_block = parts;
  const int n = c.settings.n_streams;
  plan.write = {(c.tokens + 16 * warps - 1) / (16 * warps), plan.parts / parts, 32 * warps, 1,
                staged_write_bytes(n, plan.tiles, plan.per_stream, sizeof(S), warps)};
  return plan;
}

// Warps that take chunks, or tokens; W as it is, or in stages for blocks of any size.
TEST(CudaBoundary, SameBitsUnderEverySplit) {
  for (const int variant : {0, 2}) {
    const Case c{37, 296, sinkhorn(4, variant)};
    const Problem<BFloat16, BFloat16> problem(c);
    const auto out = problem.run();
    const auto expect_same = [&](const BoundaryPlan& plan) {
      const auto again = problem.run([&](BoundaryPlan& changed) {
        changed = plan;
        return true;
      });
      EXPECT_TRUE(same_bits(again, out));
    };
    for (const bool by_warp : {false, true}) {
      BoundaryPlan plan = whole_plan<BFloat16>(c);
      plan.direct = true;
      plan.chunks_by_warp = by_warp;
      plan.write = {by_warp ? 3 : 1, plan.parts, 256, 1};
      expect_same(plan);
    }
    for (const int warps : {2, 5}) {
      for (const int64_t parts : {1, 3}) expect_same(staged_plan<BFloat16>(c, warps, parts));
    }
  }
}

template <class S, class Y = S>
void expect_stages_same(const Case& c) {
  SCOPED_TRACE(::testing::Message() << c << " bytes of x, y=" << sizeof(S) << sizeof(Y));
  const Problem<S, Y> problem(c);
  const auto out = problem.run();
  const auto again = run_in_both_orders([&] {
    return problem.run([&](BoundaryPlan& plan) {
      plan = staged_plan<S>(c, 2, 1);
      return true;
    });
  });
  EXPECT_TRUE(same_bits(again, out));
}

TEST(CudaBoundary, SameBitsInStages) {
  for (int n = 1; n <= 4; ++n) {
    for (const Case& c : kinds(19, n, 40)) expect_stages_same<BFloat16>(c);
    expect_stages_same<float>({19, 72, sinkhorn(n)});
  }
  for (const Case& c : kinds(17, 4, 72)) expect_stages_same<float>(c);
  Case parts{33, 296, sinkhorn(4)};
  parts.has_bias = true;
  expect_stages_same<BFloat16>(parts);
  expect_stages_same<BFloat16, float>(parts);
  expect_stages_same<Float16, BFloat16>(parts);
  expect_stages_same<float, Float16>({3, 104, sinkhorn(3)});
}

TEST(CudaBoundary, TokensDoNotDependOnTheBatch) {
  const auto begins = [](const auto& whole, const auto& part) {
    return std::memcmp(whole.data(), part.data(), part.size() * sizeof(part[0])) == 0;
  };
  const auto all = Problem<float, float>({35, 64, sinkhorn(4)}).run();
  for (const int64_t tokens : {1, 8, 17}) {
    const auto few = Problem<float, float>({tokens, 64, sinkhorn(4)}).run();
    EXPECT_TRUE(begins(all.x_out, few.x_out) && begins(all.u, few.u));
    EXPECT_TRUE(begins(all.logits, few.logits) && begins(all.inv_rms, few.inv_rms));
    EXPECT_TRUE(begins(all.h_pre, few.h_pre) && begins(all.h_res, few.h_res));
    EXPECT_TRUE(begins(all.grad_x, few.grad_x) && begins(all.grad_y, few.grad_y));
    EXPECT_TRUE(begins(all.grad_h_res, few.grad_h_res));
    EXPECT_TRUE(begins(all.grad_h_post, few.grad_h_post));
  }
}

TEST(CudaBoundary, RefusesDouble) {
  BoundaryArgs args = {};
  args.read.dtype = DType::kFloat64;
  EXPECT_EQ(boundary_forward(args, nullptr), Status::kUnsupportedDType);
  BoundaryBackwardArgs backward = {};
  backward.read.dtype = DType::kFloat64;
  EXPECT_EQ(boundary_backward(backward, nullptr), Status::kUnsupportedDType);
}

}  // namespace
}  // namespace hyperstreams::cuda::testing
