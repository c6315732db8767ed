// The maps on plain numbers: one token per thread, as a GPU runs them.
#include <gtest/gtest.h>

#include "hyperstreams/maps/circulant.h"
#include "hyperstreams/maps/free.h"
#include "hyperstreams/maps/kronecker.h"
#include "hyperstreams/maps/permutation.h"
#include "hyperstreams/maps/sinkhorn.h"
#include "hyperstreams/maps/spectral.h"
#include "kernel_testing.h"
#include "mixer_definitions.h"

namespace hyperstreams::testing {
namespace {

template <class Map, int kN, class T>
void run(const MapSettings& s, int n, const std::vector<T>& logits, const std::vector<T>& grad_h,
         Guarded<T>& h, Guarded<T>& grad) {
  Guarded<T> scratch(Map::backward_space(s, n).kept);
  Map::template forward<kN, T>(s, n, logits.data(), h.data(), scratch.data());
  Map::template backward<kN, T>(s, n, logits.data(), grad_h.data(), grad.data(), scratch.data());
  EXPECT_TRUE(scratch.intact());
}

template <class Map, int kN, class T>
void check(MapKind map, const MapSettings& s, int n, const Values& logits, double tolerance) {
  const Values weight = random_values<double>(n * n, 77);
  Guarded<T> h(n * n), grad(static_cast<int64_t>(logits.size()));
  run<Map, kN, T>(s, n, std::vector<T>(logits.begin(), logits.end()),
                  std::vector<T>(weight.begin(), weight.end()), h, grad);
  const auto define = [&](const Values& x) { return define_map(map, s, n, x); };
  const Values expected = define(logits), expected_grad = differentiate(define, logits, weight);
  for (int k = 0; k < n * n; ++k) ASSERT_NEAR(h[k], expected[k], tolerance) << k;
  for (size_t k = 0; k < logits.size(); ++k) {
    ASSERT_NEAR(grad[k], expected_grad[k], 20 * tolerance + 1e-8) << k;
  }
  EXPECT_TRUE(h.intact() && grad.intact());
}

MapSettings sinkhorn(int iterations, bool softmax, bool rows_first, bool source_rows, double eps,
                     double temperature = 1) {
  return {{iterations, softmax, rows_first, source_rows}, {eps, temperature}};
}

std::vector<MapSettings> sinkhorn_dialects() {
  std::vector<MapSettings> all;
  for (const int iterations : {1, 4, 20}) {
    for (const double eps : {0.0, 1e-6, 1e-2}) {
      for (const bool source_rows : {false, true}) {
        all.push_back(sinkhorn(iterations, false, false, source_rows, eps));
        all.push_back(sinkhorn(iterations, false, true, source_rows, eps, 0.5));
        all.push_back(sinkhorn(iterations, true, true, source_rows, eps, 1.7));
      }
    }
  }
  return all;
}

Values normal_logits(int count, double scale, uint32_t seed) {
  Values x = random_values<double>(count, seed);
  for (double& v : x) v *= scale;
  return x;
}

std::string name(const MapSettings& s) {
  std::string text;
  for (int k = 0; k < 4; ++k) text += std::to_string(s.ints[k]) + " ";
  return text + "eps " + std::to_string(s.floats[0]) + " tau " + std::to_string(s.floats[1]);
}

TEST(Sinkhorn, EveryDialectEqualsItsDefinition) {
  for (const MapSettings& s : sinkhorn_dialects()) {
    SCOPED_TRACE(name(s));
    check<maps::Sinkhorn, 1, double>(MapKind::kSinkhorn, s, 1, normal_logits(1, 2, 1), 1e-12);
    check<maps::Sinkhorn, 2, double>(MapKind::kSinkhorn, s, 2, normal_logits(4, 3, 2), 1e-12);
    check<maps::Sinkhorn, 4, double>(MapKind::kSinkhorn, s, 4, normal_logits(16, 6, 3), 1e-12);
    check<maps::Sinkhorn, 0, double>(MapKind::kSinkhorn, s, 4, normal_logits(16, 6, 3), 1e-12);
    check<maps::Sinkhorn, 0, double>(MapKind::kSinkhorn, s, 5, normal_logits(25, 3, 4), 1e-12);
    check<maps::Sinkhorn, 4, float>(MapKind::kSinkhorn, s, 4, normal_logits(16, 3, 5), 3e-6);
  }
}

TEST(Sinkhorn, EveryStreamCountEqualsItsDefinition) {
  const MapSettings s = sinkhorn(3, false, false, false, 0);
  for (int n = 1; n <= 16; ++n) {
    SCOPED_TRACE(n);
    check<maps::Sinkhorn, 0, double>(MapKind::kSinkhorn, s, n, normal_logits(n * n, 3, n), 1e-12);
  }
  check<maps::Sinkhorn, 3, double>(MapKind::kSinkhorn, s, 3, normal_logits(9, 3, 3), 1e-12);
  check<maps::Sinkhorn, 8, double>(MapKind::kSinkhorn, s, 8, normal_logits(64, 3, 8), 1e-12);
}

TEST(Sinkhorn, ExtremeLogitsEqualTheLogDomainDefinition) {
  // All equal; a huge common offset; spread 200; a row, a column and single entries far below.
  std::vector<Values> extremes = {Values(16, 0.0), Values(16, 100.0), Values(16, -100.0)};
  extremes.push_back(normal_logits(16, 100, 9));
  for (int k = 0; k < 4; ++k) {
    Values far = normal_logits(16, 1, 10);
    for (int j = 0; j < 4; ++j) {
      if (k == 0) far[8 + j] -= 200;
      if (k == 1) far[4 * j + 1] -= 200;
      if (k == 2) far[5 * j] += 100;
      if (k == 3) far[4 * j + 3] += 100, far[12 + j] -= 100;
    }
    extremes.push_back(far);
  }
  for (const Values& logits : extremes) {
    for (const bool rows_first : {false, true}) {
      for (const double eps : {0.0, 1e-6}) {
        const MapSettings s = sinkhorn(20, false, rows_first, false, eps);
        SCOPED_TRACE(::testing::Message() << name(s) << " first logits " << logits[0] << " "
                                          << logits[1] << " " << logits[8]);
        check<maps::Sinkhorn, 4, double>(MapKind::kSinkhorn, s, 4, logits, 1e-10);
        check<maps::Sinkhorn, 4, float>(MapKind::kSinkhorn, s, 4, logits, 4e-5);
      }
      const MapSettings s = sinkhorn(20, true, true, rows_first, 1e-6);
      check<maps::Sinkhorn, 4, float>(MapKind::kSinkhorn, s, 4, logits, 4e-5);
    }
  }
}

// Two columns supported on one row: the far entries grow by a constant factor each round, until
// scalings leave the range of float.
Values starved_logits(double far) { return {0, 0, far, far, far, 0, far, far, 0}; }

template <class T>
bool linear_is_good(const MapSettings& settings, int n, const Values& logits) {
  using maps::Sinkhorn;
  const auto s = Sinkhorn::Settings::from<T>(settings);
  std::vector<T> kernel(n * n), r(n), c(n), values(logits.begin(), logits.end());
  T* const none = nullptr;
  const T in_range = Sinkhorn::start<0, T>(s, n, values.data(), kernel.data(), r.data(), c.data());
  const maps::Arrays<T, T*> arrays(none);
  maps::LinearScaling::forward<0, false, T>(s.rounds, n, kernel.data(), r.data(), c.data(), arrays,
                                            none);
  return Sinkhorn::good_lanes<0>(n, in_range, r.data(), c.data()) > 0;
}

TEST(Sinkhorn, UsesTheLogDomainWhereLinearScalingsLeaveTheRange) {
  const MapSettings few = sinkhorn(20, false, false, false, 0);
  const MapSettings many = sinkhorn(150, false, false, false, 0);
  EXPECT_TRUE(linear_is_good<float>(few, 3, starved_logits(-90)));
  EXPECT_FALSE(linear_is_good<float>(many, 3, starved_logits(-90)));
  check<maps::Sinkhorn, 3, float>(MapKind::kSinkhorn, many, 3, starved_logits(-90), 1e-4);
  check<maps::Sinkhorn, 0, float>(MapKind::kSinkhorn, many, 3, starved_logits(-120), 1e-4);
  const MapSettings very_many = sinkhorn(1000, false, true, true, 0);
  EXPECT_FALSE(linear_is_good<double>(very_many, 3, starved_logits(-800)));
  check<maps::Sinkhorn, 0, double>(MapKind::kSinkhorn, very_many, 3, starved_logits(-800), 1e-10);
  // With eps, a column far below exp(-60) is scaled up by 1/eps each round.
  const MapSettings eps = sinkhorn(20, false, false, false, 1e-6);
  const Values low(9, -95.0);
  EXPECT_FALSE(linear_is_good<float>(eps, 3, low));
  check<maps::Sinkhorn, 0, float>(MapKind::kSinkhorn, eps, 3, low, 1e-4);
}

TEST(Sinkhorn, NaNGivesNaN) {
  const MapSettings s = sinkhorn(20, false, false, false, 0);
  std::vector<double> logits(16, 0.0), grad_h(16, 1.0);
  logits[6] = std::nan("");
  Guarded<double> h(16), grad(16);
  run<maps::Sinkhorn, 4, double>(s, 4, logits, grad_h, h, grad);
  EXPECT_TRUE(std::isnan(h[6]) && std::isnan(grad[6]));
}

template <int kN>
void check_permutation() {
  for (const int source_rows : {0, 1}) {
    const MapSettings s = {{source_rows}, {}};
    const int count = maps::factorial(kN);
    SCOPED_TRACE(::testing::Message() << "n=" << kN << " source_rows=" << source_rows);
    for (const double scale : {2.0, 100.0, 0.0}) {
      const Values logits = normal_logits(count, scale, 20 + kN);
      check<maps::Permutation, kN, double>(MapKind::kPermutation, s, kN, logits, 1e-11);
      check<maps::Permutation, kN, float>(MapKind::kPermutation, s, kN, logits, 3e-5);
    }
  }
}

TEST(Permutation, EqualsItsDefinition) {
  check_permutation<1>();
  check_permutation<2>();
  check_permutation<3>();
  check_permutation<4>();
  check_permutation<5>();
}

TEST(Permutation, TableIsLexicographicWithTheIdentityFirst) {
  constexpr maps::PermutationTable<5> table = maps::permutation_table<5>();
  std::vector<int> expected = {0, 1, 2, 3, 4};
  for (int k = 0; k < 120; ++k) {
    for (int r = 0; r < 5; ++r) ASSERT_EQ(table.column[k][r], expected[r]) << k;
    std::next_permutation(expected.begin(), expected.end());
  }
}

template <int kN>
void check_kronecker(const std::vector<int>& factors) {
  int n = 1;
  MapSettings s = {};
  for (size_t k = 0; k < factors.size(); ++k) {
    s.ints[1 + k] = factors[k];
    n *= factors[k];
  }
  for (const int source_rows : {0, 1}) {
    s.ints[0] = source_rows;
    const int count = maps::Kronecker::logit_count(s, n);
    SCOPED_TRACE(::testing::Message() << "n=" << n << " kN=" << kN << " first factor " << s.ints[1]
                                      << " source_rows=" << source_rows);
    for (const double scale : {2.0, 100.0, 0.0}) {
      const Values logits = normal_logits(count, scale, 40 + n);
      check<maps::Kronecker, kN, double>(MapKind::kKronecker, s, n, logits, 1e-11);
      check<maps::Kronecker, kN, float>(MapKind::kKronecker, s, n, logits, 1e-5);
    }
  }
}

TEST(Kronecker, EveryFactorisationEqualsItsDefinition) {
  for (const auto& factors : std::vector<std::vector<int>>{{},
                                                           {2},
                                                           {3},
                                                           {4},
                                                           {5},
                                                           {2, 2},
                                                           {2, 3},
                                                           {3, 2},
                                                           {2, 4},
                                                           {4, 2},
                                                           {3, 3},
                                                           {2, 5},
                                                           {3, 4},
                                                           {2, 3, 2},
                                                           {2, 2, 2, 2},
                                                           {5, 3},
                                                           {4, 4},
                                                           {2, 2, 4},
                                                           {2, 2, 2}}) {
    check_kronecker<0>(factors);
  }
  check_kronecker<1>({});
  check_kronecker<2>({2});
  check_kronecker<3>({3});
  check_kronecker<4>({2, 2});
  check_kronecker<4>({4});
  check_kronecker<8>({2, 2, 2});
  check_kronecker<8>({2, 4});
}

TEST(Kronecker, WrongFactorisationsDoNotExist) {
  const auto count = [](const MapSettings& s, int n) { return maps::Kronecker::logit_count(s, n); };
  EXPECT_EQ(count({{0, 2, 3}, {}}, 6), 8);
  EXPECT_EQ(count({{0, 2, 3}, {}}, 5), -1);
  EXPECT_EQ(count({{0, 7}, {}}, 7), -1);
  EXPECT_EQ(count({{0, 1, 4}, {}}, 4), -1);
  EXPECT_EQ(count({{0, -2, -2}, {}}, 4), -1);
  EXPECT_EQ(count({}, 2), -1);
}

template <int kN>
void check_spectral() {
  for (const double gamma : {1.0, 2.5, 0.0}) {
    const MapSettings s = {{}, {gamma, 1.0 + gamma / 2}};
    const int count = (kN - 1) * (kN - 1);
    SCOPED_TRACE(::testing::Message() << "n=" << kN << " gamma=" << gamma);
    for (const double scale : {1.0, 4.0, 50.0, 0.0}) {
      const Values logits = normal_logits(count, scale, 60 + kN);
      check<maps::Spectral, kN, double>(MapKind::kSpectral, s, kN, logits, 1e-12);
      check<maps::Spectral, kN, float>(MapKind::kSpectral, s, kN, logits, 2e-6);
    }
  }
}

TEST(Spectral, EqualsItsDefinition) {
  check_spectral<1>();
  check_spectral<2>();
  check_spectral<3>();
  check_spectral<4>();
}

TEST(Circulant, EqualsItsDefinition) {
  for (const int source_rows : {0, 1}) {
    for (const double gamma : {1.0, 0.25, 0.0}) {
      const MapSettings s = {{source_rows}, {gamma}};
      SCOPED_TRACE(::testing::Message() << "gamma=" << gamma << " source_rows=" << source_rows);
      for (int n = 1; n <= 16; ++n) {
        check<maps::Circulant, 0, double>(MapKind::kCirculant, s, n, normal_logits(n, 3, n), 1e-12);
      }
      check<maps::Circulant, 4, float>(MapKind::kCirculant, s, 4, normal_logits(4, 3, 5), 1e-6);
      check<maps::Circulant, 8, float>(MapKind::kCirculant, s, 8, normal_logits(8, 50, 5), 1e-6);
    }
  }
}

TEST(Free, IsTheLogits) {
  check<maps::Free, 0, double>(MapKind::kFree, {}, 7, normal_logits(49, 3, 30), 1e-9);
}

}  // namespace
}  // namespace hyperstreams::testing
