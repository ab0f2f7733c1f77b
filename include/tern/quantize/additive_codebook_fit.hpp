// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file quantize/additive_codebook_fit.hpp
/// Codes, codebooks and scales of formats/additive_codebook.hpp for given weights w (n, k), k a multiple of 8:
///
///     minimize  E = sum over i, j of |w[i, 8 j .. 8 j + 7] - scale_i (C_0[code_{i,j,0}] + ... + C_{M-1}[code_{i,j,M-1}])|^2
///
///     start      scale_i = the root mean square of row i; each codebook by k-means of what those before it leave
///     a round    codes       a beam search over combinations, book after book; a group keeps its codes if the search finds none better
///                codebooks   all vectors at once, by least squares
///                scales      each row's by least squares
///
/// No step of a round makes E larger; rounds end when one gains less than `tolerance` of E, or after `rounds`. With several books the
/// least squares lean on the vectors before them by 1e-6 of a vector's mean weight, for those that no code names. All sums are
/// made in f64, the result is rounded to f32. The same seed gives the same result on one machine, whatever the number of threads.
///
/// Cost: n k 2^bits M beam multiply-adds a round, and (M 2^bits)^3 / 3 for the codebooks where M > 1. Off line: it allocates.
/// Fails if k is no multiple of 8, w holds NaN or infinity, or M > 1 and M 2^bits > 4096.
///
/// Source: "Extreme Compression of Large Language Models via Additive Quantization" (AQLM), from knowledge: there, errors are weighted
/// by the activations' products and codebooks follow gradients; here they are those of the weights, and least squares are solved.

#include <tern/core/error.hpp>
#include <tern/core/parallel_for.hpp>
#include <tern/core/random.hpp>
#include <tern/core/rounding.hpp>
#include <tern/core/tensor_view.hpp>
#include <tern/formats/additive_codebook.hpp>

#include <Eigen/Dense>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace tern {
inline namespace TERN_ABI {

/// What fit_additive_codebook may be told.
struct additive_codebook_options {
  index books = 2;
  int bits = 8;             ///< of a code: a book has 2^bits vectors
  index beam = 8;           ///< combinations that the search keeps
  index rounds = 20;        ///< at most
  index start_rounds = 10;  ///< of k-means
  double tolerance = 1e-3;
  std::uint64_t seed = 0;
  std::function<void(index round, double relative_error)> progress{};  ///< after the start (round 0) and each round: E over |w|^2
};

/// Codes, codebooks and scales, and what they lose.
template <formats::codebook_code Code>
struct additive_codebook {
  index rows = 0, columns = 0, books = 0, names = 0;
  std::vector<Code> codes;             // (rows, columns / 8, books)
  std::vector<float> vectors, scales;  // (books, names, 8), (rows)
  double relative_error = 0;           // E over |w|^2

  /// As weights; valid as long as this lives.
  formats::additive_codebook_weights<Code> view() const {
    return {tensor_view<Code const, 3>(codes.data(), shape<3>{{rows, columns / 8, books}}),
            tensor_view<float const, 3>(vectors.data(), shape<3>{{books, names, 8}}),
            tensor_view<float const, 1>(scales.data(), shape<1>{{rows}})};
  }
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// Groups of eight weights, one a row, and the state of the fit.
class codebook_fit {
 public:
  using groups = Eigen::Matrix<double, Eigen::Dynamic, 8, Eigen::RowMajor>;
  using vector8 = Eigen::Matrix<double, 1, 8>;

  codebook_fit(cpu_policy const& policy, tensor_view<float const, 2> const& w, additive_codebook_options const& o)
      : books(o.books),
        names(index{1} << o.bits),
        per_row(w.extent(1) / 8),
        weights_(w.extent(0) * per_row, 8),
        beam_(o.beam),
        random_(o.seed),
        policy_(policy) {
    for (index i = 0; i < weights_.rows(); ++i)
      for (index e = 0; e < 8; ++e) weights_(i, e) = static_cast<double>(w(i / per_row, i % per_row * 8 + e));
    total_ = weights_.squaredNorm();
    scales.resize(static_cast<std::size_t>(w.extent(0)));
    for (index r = 0; r < w.extent(0); ++r)
      scale(r) = std::sqrt(weights_.middleRows(r * per_row, per_row).squaredNorm() / static_cast<double>(8 * per_row));
    codes.assign(static_cast<std::size_t>(weights_.rows() * books), 0);
    vectors.setZero(books * names, 8);
    for (index m = 0; m < books; ++m) start_book(m, o.start_rounds);
  }

  index books, names, per_row;
  std::vector<index> codes;  // (groups, books): rows of `vectors`
  groups vectors;
  std::vector<double> scales;

  /// E over |w|^2.
  double relative_error() const {
    double sum = 0;
    for (index i = 0; i < weights_.rows(); ++i) sum += (weights_.row(i) - scale(i / per_row) * decoded(i, books)).squaredNorm();
    return total_ > 0 ? sum / total_ : 0;
  }
  void search_codes() {
    Eigen::VectorXd const norms = vectors.rowwise().squaredNorm();
    each_group([&](index i) {
      if (scale(i / per_row) != 0) search_group(i, norms);
    });
  }
  void solve_vectors() {
    if (books == 1)
      solve_means();
    else
      solve_jointly();
  }
  void solve_scales() {
    for (index r = 0; r < static_cast<index>(scales.size()); ++r) {
      double product = 0, square = 0;
      for (index i = r * per_row; i < (r + 1) * per_row; ++i) {
        vector8 const d = decoded(i, books);
        product += d.dot(weights_.row(i));
        square += d.squaredNorm();
      }
      if (square > 0) scale(r) = product / square;
    }
  }

 private:
  /// Calls f for all groups, on the policy's threads.
  template <class F>
  void each_group(F&& f) {
    constexpr index piece = 64;
    index const n = weights_.rows();
    parallel_for(policy_, divide_up(n, piece), [&](index p, index) {
      for (index i = p * piece; i < std::min(n, (p + 1) * piece); ++i) f(i);
    });
  }
  double& scale(index row) { return scales[static_cast<std::size_t>(row)]; }
  double scale(index row) const { return scales[static_cast<std::size_t>(row)]; }
  index& code(index i, index m) { return codes[static_cast<std::size_t>(i * books + m)]; }
  index code(index i, index m) const { return codes[static_cast<std::size_t>(i * books + m)]; }
  /// The sum of the first `count` books, not scaled.
  vector8 decoded(index i, index count) const {
    vector8 sum = vector8::Zero();
    for (index m = 0; m < count; ++m) sum += vectors.row(code(i, m));
    return sum;
  }
  /// A group over its scale.
  vector8 target(index i) const {
    double const s = scale(i / per_row);
    return s != 0 ? vector8(weights_.row(i) / s) : vector8(vector8::Zero());
  }

  /// k-means, Lloyd's, from vectors drawn among the groups; a vector that no group is nearest to stays.
  void start_book(index m, index rounds) {
    index const n = weights_.rows();
    groups left(n, 8);
    for (index i = 0; i < n; ++i) left.row(i) = target(i) - decoded(i, m);
    auto book = vectors.middleRows(m * names, names);
    for (index c = 0; c < names && n > 0; ++c) book.row(c) = left.row(static_cast<index>(random_() % static_cast<std::uint64_t>(n)));
    for (index round = 0; round <= rounds; ++round) {
      Eigen::VectorXd const half_norms = book.rowwise().squaredNorm() / 2;
      each_group([&](index i) {
        index best = 0;
        (half_norms - book * left.row(i).transpose()).minCoeff(&best);
        code(i, m) = m * names + best;
      });
      if (round == rounds) break;
      groups sum = groups::Zero(names, 8);
      Eigen::VectorXd weight = Eigen::VectorXd::Zero(names);
      for (index i = 0; i < n; ++i) {
        index const c = code(i, m) - m * names;
        double const s = scale(i / per_row);
        sum.row(c) += s * s * left.row(i);
        weight(c) += s * s;
      }
      for (index c = 0; c < names; ++c)
        if (weight(c) > 0) book.row(c) = sum.row(c) / weight(c);
    }
  }

  /// A partial combination: what it leaves, and its codes.
  struct partial {
    vector8 left;
    double error;
    std::vector<index> codes;
  };
  struct candidate {
    double error;
    index from, code;
    bool operator<(candidate const& o) const { return error != o.error ? error < o.error : from != o.from ? from < o.from : code < o.code; }
  };
  void search_group(index i, Eigen::VectorXd const& norms) {
    vector8 const goal = target(i);
    double const before = (goal - decoded(i, books)).squaredNorm();
    std::vector<partial> kept{{goal, goal.squaredNorm(), {}}};
    std::vector<candidate> all;
    for (index m = 0; m < books; ++m) {
      all.clear();
      for (std::size_t b = 0; b < kept.size(); ++b) {
        Eigen::VectorXd const change =
            norms.segment(m * names, names) - 2 * (vectors.middleRows(m * names, names) * kept[b].left.transpose());
        for (index c = 0; c < names; ++c) all.push_back({kept[b].error + change(c), static_cast<index>(b), m * names + c});
      }
      auto const keep = static_cast<std::size_t>(m + 1 < books ? beam_ : 1);
      auto const end = all.begin() + static_cast<std::ptrdiff_t>(std::min(keep, all.size()));
      std::partial_sort(all.begin(), end, all.end());
      std::vector<partial> next;
      for (auto c = all.begin(); c != end; ++c) {
        partial p = kept[static_cast<std::size_t>(c->from)];
        p.left -= vectors.row(c->code);
        p.error = p.left.squaredNorm();
        p.codes.push_back(c->code);
        next.push_back(std::move(p));
      }
      kept = std::move(next);
    }
    if (kept[0].error < before)
      for (index m = 0; m < books; ++m) code(i, m) = kept[0].codes[static_cast<std::size_t>(m)];
  }

  /// Each vector is the mean of its groups, weighted by their scales' squares.
  void solve_means() {
    groups sum = groups::Zero(names, 8);
    Eigen::VectorXd weight = Eigen::VectorXd::Zero(names);
    for (index i = 0; i < weights_.rows(); ++i) {
      double const s = scale(i / per_row);
      sum.row(code(i, 0)) += s * weights_.row(i);
      weight(code(i, 0)) += s * s;
    }
    for (index c = 0; c < names; ++c)
      if (weight(c) > 0) vectors.row(c) = sum.row(c) / weight(c);
  }
  /// Normal equations over all books' vectors; leaning on the vectors before keeps them regular and E from growing.
  void solve_jointly() {
    index const n = books * names;
    Eigen::MatrixXd products = Eigen::MatrixXd::Zero(n, n);
    groups right = groups::Zero(n, 8);
    for (index i = 0; i < weights_.rows(); ++i) {
      double const s = scale(i / per_row);
      for (index m = 0; m < books; ++m) {
        right.row(code(i, m)) += s * weights_.row(i);
        for (index l = 0; l < books; ++l) products(code(i, m), code(i, l)) += s * s;
      }
    }
    double const lean = 1e-6 * products.trace() / static_cast<double>(n);
    if (!(lean > 0)) return;
    products.diagonal().array() += lean;
    right += lean * vectors;
    vectors = products.llt().solve(right);
  }

  groups weights_;
  double total_ = 0;
  index beam_;
  random random_;
  cpu_policy const& policy_;
};

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// Fits codes, codebooks and scales to w.
template <formats::codebook_code Code = std::uint8_t>
additive_codebook<Code> fit_additive_codebook(cpu_policy const& policy, tensor_view<float const, 2> const& w,
                                              additive_codebook_options const& options = {}) {
  char const* const op = "fit_additive_codebook";
  detail::expect(w.extent(1) % 8 == 0, op, "w.extent(1)", w.extent(1), "a multiple of 8");
  detail::expect(options.bits >= 1 && options.bits <= static_cast<int>(8 * sizeof(Code)), op, "bits", options.bits,
                 "1 to the bits of a code");
  detail::expect(options.books >= 1, op, "books", options.books, "at least 1");
  detail::expect(options.books == 1 || options.books << options.bits <= 4096, op, "books times 2^bits", options.books << options.bits,
                 "at most 4096, or one book");
  detail::expect(options.beam >= 1, op, "beam", options.beam, "at least 1");
  for (index i = 0; i < w.extent(0); ++i)
    for (index j = 0; j < w.extent(1); ++j)
      detail::expect(std::isfinite(w(i, j)), op, "w: a row that holds NaN or infinity", i, "finite weights");

  detail::codebook_fit fit(policy, w, options);
  double error = fit.relative_error();
  if (options.progress) options.progress(0, error);
  for (index round = 1; round <= options.rounds && error > 0; ++round) {
    fit.search_codes();
    fit.solve_vectors();
    fit.solve_scales();
    double const before = error;
    error = fit.relative_error();
    if (options.progress) options.progress(round, error);
    if (before - error < options.tolerance * before) break;
  }
  additive_codebook<Code> result{w.extent(0), w.extent(1), fit.books, fit.names, {}, {}, {}, error};
  for (std::size_t i = 0; i < fit.codes.size(); ++i) result.codes.push_back(static_cast<Code>(fit.codes[i] % fit.names));
  result.vectors.assign(fit.vectors.data(), fit.vectors.data() + fit.vectors.size());
  result.scales.assign(fit.scales.begin(), fit.scales.end());
  return result;
}

}  // namespace TERN_ABI
}  // namespace tern
