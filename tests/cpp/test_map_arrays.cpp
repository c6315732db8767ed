// The maps with their arrays in memory that tokens share, as GPU kernels give it to them: the same
// bits as with arrays of their own, within the space that they ask for.
#include <gtest/gtest.h>

#include "hyperstreams/maps/circulant.h"
#include "hyperstreams/maps/free.h"
#include "hyperstreams/maps/kronecker.h"
#include "hyperstreams/maps/permutation.h"
#include "hyperstreams/maps/sinkhorn.h"
#include "kernel_testing.h"

namespace hyperstreams::testing {
namespace {

constexpr int kTokens = 3, kToken = 1;

/// Memory for so many numbers of each token.
class SharedNumbers {
 public:
  explicit SharedNumbers(int count) : numbers_(int64_t{count} * kTokens) {}
  float* of_token() { return numbers_.data() + kToken; }

  /// Nothing but the token's own numbers was written.
  void check() {
    EXPECT_TRUE(numbers_.intact());
    const std::vector<float> untouched = Guarded<float>(1).copy();
    for (int64_t k = 0; k < numbers_.size(); ++k) {
      if (k % kTokens == kToken) continue;
      EXPECT_EQ(std::memcmp(&numbers_[k], untouched.data(), sizeof(float)), 0) << k;
    }
  }

 private:
  Guarded<float> numbers_;
};

template <class Map, int kN>
void check(const MapSettings& s, int n, int logit_count, double scale) {
  SCOPED_TRACE(::testing::Message() << "n=" << n << " kN=" << kN << " scale=" << scale);
  std::vector<float> logits = random_values<float>(logit_count, 6);
  for (float& z : logits) z *= static_cast<float>(scale);
  const std::vector<float> grad_h = random_values<float>(n * n, 7);
  const MapSpace forward = Map::forward_space(s, n), backward = Map::backward_space(s, n);
  using Shared = maps::InterleavedScratch<float, kTokens, float*>;

  Guarded<float> h(n * n), expected_h(n * n), kept(forward.kept), own(forward.kept);
  SharedNumbers arrays(forward.arrays);
  Map::template forward<kN, float>(s, n, logits.data(), expected_h.data(), own.data());
  Map::template forward<kN, float>(s, n, logits.data(), h.data(),
                                   Shared{arrays.of_token(), kept.data()});
  EXPECT_EQ(std::memcmp(h.data(), expected_h.data(), n * n * sizeof(float)), 0);
  EXPECT_TRUE(h.intact() && kept.intact() && own.intact());
  arrays.check();

  Guarded<float> grad(logit_count), expected_grad(logit_count);
  Guarded<float> kept_back(backward.kept), own_back(backward.kept);
  SharedNumbers arrays_back(backward.arrays);
  Map::template backward<kN, float>(s, n, logits.data(), grad_h.data(), expected_grad.data(),
                                    own_back.data());
  Map::template backward<kN, float>(s, n, logits.data(), grad_h.data(), grad.data(),
                                    Shared{arrays_back.of_token(), kept_back.data()});
  EXPECT_EQ(std::memcmp(grad.data(), expected_grad.data(), logit_count * sizeof(float)), 0);
  EXPECT_TRUE(grad.intact() && kept_back.intact() && own_back.intact());
  arrays_back.check();
}

TEST(MapArrays, OfSinkhorn) {
  for (const double scale : {2.0, 300.0}) {
    for (const double eps : {0.0, 1e-6, 1e-30}) {
      for (const int softmax : {0, 1}) {
        for (const int rows_first : {0, 1}) {
          const MapSettings s = {{7, softmax, rows_first, 1}, {eps, 0.8}};
          for (const int n : {5, 8, 16}) check<maps::Sinkhorn, 0>(s, n, n * n, scale);
          check<maps::Sinkhorn, 8>(s, 8, 64, scale);
        }
      }
    }
  }
}

TEST(MapArrays, OfKronecker) {
  const auto with = [](const std::vector<int>& factors, bool source_rows) {
    MapSettings s = {{source_rows}, {}};
    std::copy(factors.begin(), factors.end(), s.ints + 1);
    return s;
  };
  for (const bool source_rows : {false, true}) {
    for (const std::vector<int>& factors : std::vector<std::vector<int>>{
             {2, 2, 2}, {4, 2}, {2, 4}, {5}, {3, 2}, {5, 3}, {4, 4}, {2, 4, 2}, {2, 2, 2, 2}}) {
      const MapSettings s = with(factors, source_rows);
      int n = 1;
      for (const int factor : factors) n *= factor;
      const int count = maps::Kronecker::logit_count(s, n);
      check<maps::Kronecker, 0>(s, n, count, 2);
      if (n == 8) check<maps::Kronecker, 8>(s, 8, count, 2);
    }
  }
}

TEST(MapArrays, OfTheOthers) {
  for (const int source_rows : {0, 1}) {
    const MapSettings s = {{source_rows}, {0.6}};
    check<maps::Permutation, 5>(s, 5, 120, 3);
    for (const int n : {5, 8, 16}) {
      check<maps::Circulant, 0>(s, n, n, 3);
      check<maps::Free, 0>(s, n, n * n, 3);
    }
    check<maps::Circulant, 8>(s, 8, 8, 3);
  }
}

}  // namespace
}  // namespace hyperstreams::testing
