// SPDX-License-Identifier: Apache-2.0
// The compute tiles of the prompt path against float64: scores, and the weighted sum over two blocks of keys.
#include "../catch.hpp"
#include "../compare.hpp"

#include <tern/attention/tile_bf16.hpp>
#include <tern/attention/tile_f32.hpp>
#include <tern/attention/tile_int8.hpp>
#include <tern/attention/tile_softmax.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

namespace tern::test {
namespace {

using namespace tern::detail;
using std::vector;

/// `count` rows as a cache holds them, and what they stand for.
template <class T>
struct stored_rows {
  index dim, stride;
  vector<T> memory;
  vector<float> values;

  stored_rows(rng& r, index count, index n) : dim(n), stride(n), values(static_cast<std::size_t>(count * n)) {
    r.fill(std::span<float>(values));
    if constexpr (float_storage<T>) {
      for (float& x : values) {
        memory.push_back(static_cast<T>(x));
        x = static_cast<float>(memory.back());
      }
    } else {
      using format = typename block_format<T>::type;
      stride = n / 32;
      for (std::size_t i = 0; i < values.size(); i += 32) {
        memory.push_back(format::encode(values.data() + i));
        format::decode(memory.back(), values.data() + i);
      }
    }
  }
  vector<T const*> pointers() const {
    vector<T const*> p;
    for (index i = 0; i < static_cast<index>(memory.size()) / stride; ++i) p.push_back(memory.data() + i * stride);
    return p;
  }
  double at(index row, index d) const { return values[static_cast<std::size_t>(row * dim + d)]; }
  double largest(index row, index begin, index end) const {
    double most = 0;
    for (index d = begin; d < std::min(end, dim); ++d) most = std::max(most, std::abs(at(row, d)));
    return most;
  }
};

struct packed : guarded<std::uint8_t> {
  explicit packed(index bytes) : guarded<std::uint8_t>(bytes) { std::memset(data(), 0xff, size()); }  // NaN
  std::byte* bytes() { return reinterpret_cast<std::byte*>(data()); }
  float* floats() { return reinterpret_cast<float*>(data()); }
};

constexpr double epsilon = 0x1p-24, half_bf16 = 0x1p-8;

/// How far each tile's arithmetic may be from exact, as its header says.
template <class Tile, class T>
struct bounds {
  static constexpr bool bf16s = std::is_same_v<Tile, bf16_tile>, int8s = std::is_same_v<Tile, int8_tile>;

  static double score(stored_rows<float> const& q, index r, stored_rows<T> const& k, index j) {
    double sum = 0, rounded = 0;
    for (index b = 0; b < q.dim; b += 32) {
      double q_sum = 0, k_sum = 0;
      for (index d = b; d < std::min(b + 32, q.dim); ++d) {
        sum += std::abs(q.at(r, d) * k.at(j, d));
        q_sum += std::abs(q.at(r, d));
        k_sum += std::abs(k.at(j, d));
      }
      double const q_most = q.largest(r, b, b + 32), k_most = float_storage<T> ? k.largest(j, b, b + 32) : 0;
      rounded += (q_most * k_sum + k_most * q_sum) / 254 + q_most * k_most / 2016;
    }
    double const plain = (static_cast<double>(q.dim) + 4) * epsilon * sum;
    if (bf16s) return plain * 2 + (std::is_same_v<T, bf16> ? 1 : 2) * half_bf16 * 1.01 * sum;
    return int8s ? plain * 2 + rounded * 1.01 : plain;
  }
};

template <class Tile, class T>
struct run_of {
  index dim, count, rows;  // rows that are computed, of those that a tile has
  stored_rows<float> q;
  stored_rows<T> k[2], v[2];
  packed pq{Tile::query_bytes(dim)}, pk{Tile::key_bytes(dim)}, pv{Tile::value_bytes(dim)}, pp{Tile::weight_bytes(dim)};
  packed s{4 * Tile::rows * key_block}, o{4 * Tile::rows * round_to_multiple(dim, simd::lanes)};
  vector<float> m, l, alpha;

  run_of(rng& r, index n, index keys, index some = Tile::rows)
      : dim(n),
        count(keys),
        rows(some),
        q(r, Tile::rows, n),
        k{{r, keys, n}, {r, keys, n}},
        v{{r, keys, n}, {r, keys, n}},
        m(Tile::rows, negative_infinity),
        l(Tile::rows, 0.f),
        alpha(Tile::rows) {
    for (float& x : q.values) x *= static_cast<float>(1.5 / std::sqrt(static_cast<double>(n)));
    q.memory = q.values;
    std::fill(o.floats(), o.floats() + Tile::rows * round_to_multiple(dim, simd::lanes), 0.f);
  }
  /// Both blocks; `after_scores(block)` runs between the products.
  template <class F>
  void operator()(F const& after_scores) {
    index const panels = divide(count, panel_width);
    Tile::pack_queries(q.pointers().data(), dim, pq.bytes());
    Tile::start();
    for (int b = 0; b < 2; ++b) {
      Tile::pack_keys(k[b].pointers().data(), count, dim, pk.bytes());
      Tile::pack_values(v[b].pointers().data(), count, dim, pv.bytes());
      Tile::scores(pq.bytes(), pk.bytes(), dim, rows, 0, count, s.floats());
      after_scores(b);
      float highest[round_to_multiple(Tile::rows, simd::lanes)] = {};
      for (index r = 0; r < rows; ++r) {
        float* const row = s.floats() + r * key_block;
        std::fill(row + count, row + panels * panel_width, negative_infinity);
        highest[r] = *std::max_element(row, row + count);
      }
      softmax_weights<Tile>(s.floats(), rows, 0, panels, highest, {m.data(), l.data(), alpha.data()}, pp.bytes());
      Tile::values(pp.bytes(), pv.bytes(), dim, rows, 0, count, alpha.data(), o.floats(), round_to_multiple(dim, simd::lanes));
    }
    Tile::finish();
  }
  static index divide(index a, index b) { return (a + b - 1) / b; }
  float output(index r, index d) { return o.floats()[r * round_to_multiple(dim, simd::lanes) + d] / l[static_cast<std::size_t>(r)]; }
  bool intact() const { return pq.intact() && pk.intact() && pv.intact() && pp.intact() && s.intact() && o.intact(); }
};

/// One row's softmax in float64, and what its outputs may be off by.
template <class Tile, class T>
struct exact_row {
  run_of<Tile, T> const& x;
  index r;
  vector<double> score[2], error[2];
  double m = -1e300, l = 0, most[2] = {0, 0}, sum[2] = {0, 0};

  exact_row(run_of<Tile, T> const& run, index row) : x(run), r(row) {
    for (int b = 0; b < 2; ++b)
      for (index j = 0; j < x.count; ++j) {
        double s = 0;
        for (index d = 0; d < x.dim; ++d) s += x.q.at(r, d) * x.k[b].at(j, d);
        score[b].push_back(s);
        error[b].push_back(bounds<Tile, T>::score(x.q, r, x.k[b], j));
        m = std::max(m, s);
      }
    for (int b = 0; b < 2; ++b)
      for (index j = 0; j < x.count; ++j) {
        l += weight(b, j);
        sum[b] += weight(b, j);
        most[b] = std::max(most[b], weight(b, j));
      }
  }
  double weight(int b, index j) const { return std::exp2(score[b][static_cast<std::size_t>(j)] - m); }
  double output(index d) const {
    double o = 0;
    for (int b = 0; b < 2; ++b)
      for (index j = 0; j < x.count; ++j) o += weight(b, j) * x.v[b].at(j, d);
    return o / l;
  }
  double bound(index d) const {
    double const o = std::abs(output(d));
    double total = 0, magnitude = 0, grown = 0;
    for (int b = 0; b < 2; ++b) {
      double column = 0, largest = 0;
      for (index j = 0; j < x.count; ++j) {
        double const v = std::abs(x.v[b].at(j, d)), p = weight(b, j);
        double const moved = std::expm1(0.6932 * error[b][static_cast<std::size_t>(j)]) + 16 * epsilon;
        total += p * moved * (v + o);
        magnitude += p * v;
        column += v;
        largest = std::max(largest, v);
        grown = std::max(grown, moved);
      }
      if (bounds<Tile, T>::int8s) total += 1.01 * (1 + 2 * grown) * (largest / 254 * sum[b] + most[b] / 254 * column);
    }
    if (bounds<Tile, T>::bf16s) total += (std::is_same_v<T, bf16> ? 1 : 2) * half_bf16 * 1.01 * (1 + grown) * magnitude;
    return (1 + 2 * grown) * (total + (2 * static_cast<double>(x.count) + 8) * epsilon * magnitude) / l + 0x1p-100;
  }
};

template <class Tile, class T>
void check(index dim, index count) {
  INFO("dim " << dim << ", " << count << " keys");
  rng r(static_cast<std::uint64_t>(1000 * dim + count));
  run_of<Tile, T> x(r, dim, count, Tile::row_step * (1 + (dim + count) % (Tile::rows / Tile::row_step)));
  vector<exact_row<Tile, T>> rows;
  for (index i = 0; i < x.rows; ++i) rows.emplace_back(x, i);
  x([&](int b) {
    for (index i = 0; i < x.rows; ++i) {
      auto const& row = rows[static_cast<std::size_t>(i)];
      CHECK(compare(static_cast<float const*>(x.s.floats() + i * key_block), row.score[b].data(), row.error[b].data(), count, 1.0));
    }
  });
  for (index i = 0; i < x.rows; ++i) {
    vector<float> got;
    vector<double> want, magnitude;
    for (index d = 0; d < dim; ++d) {
      got.push_back(x.output(i, d));
      want.push_back(rows[static_cast<std::size_t>(i)].output(d));
      magnitude.push_back(rows[static_cast<std::size_t>(i)].bound(d));
    }
    CHECK(compare(static_cast<float const*>(got.data()), want.data(), magnitude.data(), dim, 1.0));
  }
  CHECK(x.intact());
}

}  // namespace

TEMPLATE_PRODUCT_TEST_CASE("a tile's scores and weighted sums", "[attention]", std::pair,
                           ((f32_tile, float), (f32_tile, f16), (f32_tile, bf16), (f32_tile, formats::q8_0::block),
                            (f32_tile, formats::q4_0::block), (f32_tile, formats::e8p::block), (bf16_tile, float), (bf16_tile, f16),
                            (bf16_tile, bf16), (bf16_tile, formats::q8_0::block), (bf16_tile, formats::q4_0::block),
                            (bf16_tile, formats::e8p::block), (int8_tile, float), (int8_tile, f16), (int8_tile, bf16),
                            (int8_tile, formats::q8_0::block), (int8_tile, formats::q4_0::block), (int8_tile, formats::e8p::block))) {
  using tile = typename TestType::first_type;
  using stored = typename TestType::second_type;
  for (index const dim : {1, 5, 17, 32, 64, 80, 128})
    for (index const count : {1, 31, 32, 33, 127, 128})
      if (float_storage<stored> || dim % 32 == 0) check<tile, stored>(dim, count);
}

TEMPLATE_TEST_CASE("a tile that sees some keys of a block computes what it sees, to the bit", "[attention]", f32_tile, bf16_tile,
                   int8_tile) {
  constexpr index dim = 72, stride = round_to_multiple(dim, simd::lanes), rows = TestType::rows;
  rng r(5);
  run_of<TestType, float> x(r, dim, key_block);
  packed all{4 * rows * key_block}, of_all{4 * rows * stride};
  float highest[round_to_multiple(rows, simd::lanes)] = {};
  TestType::pack_queries(x.q.pointers().data(), dim, x.pq.bytes());
  TestType::pack_keys(x.k[0].pointers().data(), key_block, dim, x.pk.bytes());
  TestType::pack_values(x.v[0].pointers().data(), key_block, dim, x.pv.bytes());
  TestType::start();
  TestType::scores(x.pq.bytes(), x.pk.bytes(), dim, rows, 0, key_block, all.floats());
  for (auto const& [begin, end] : {std::pair<index, index>{0, 1}, {1, 2}, {15, 17}, {16, 32}, {31, 65}, {37, 128}, {127, 128}}) {
    INFO("keys " << begin << " to " << end);
    TestType::scores(x.pq.bytes(), x.pk.bytes(), dim, rows, begin, end, x.s.floats());
    for (index i = 0; i < rows; ++i)
      for (index j = 0; j < key_block; ++j) {
        float& s = x.s.floats()[i * key_block + j];
        if (j < begin || j >= end)
          s = negative_infinity;
        else
          CHECK(s == all.floats()[i * key_block + j]);
      }
    std::fill(x.m.begin(), x.m.end(), negative_infinity);
    std::fill(x.l.begin(), x.l.end(), 0.f);
    softmax_weights<TestType>(x.s.floats(), rows, 0, key_block / panel_width, highest, {x.m.data(), x.l.data(), x.alpha.data()},
                              x.pp.bytes());
    std::fill(of_all.floats(), of_all.floats() + rows * stride, 0.f);
    std::fill(x.o.floats(), x.o.floats() + rows * stride, 0.f);
    TestType::values(x.pp.bytes(), x.pv.bytes(), dim, rows, 0, key_block, x.alpha.data(), of_all.floats(), stride);
    TestType::values(x.pp.bytes(), x.pv.bytes(), dim, rows, begin, end, x.alpha.data(), x.o.floats(), stride);
    for (index i = 0; i < rows * stride; ++i) CHECK(x.o.floats()[i] == of_all.floats()[i]);
    CHECK(std::abs(x.o.floats()[0]) > 0);
  }
  TestType::finish();
  CHECK((x.intact() && all.intact() && of_all.intact()));
}

TEMPLATE_TEST_CASE("NaN and infinity reach the outputs of a tile", "[attention]", f32_tile, bf16_tile, int8_tile) {
  for (float const odd : {__builtin_nanf(""), __builtin_inff()})
    for (int const where : {0, 1, 2}) {
      INFO(odd << " in " << where);
      rng r(3);
      run_of<TestType, float> x(r, 40, 33);
      (where == 0 ? x.q : where == 1 ? x.k[0] : x.v[0]).memory[40 * 2 + 35] = odd;  // row 2, dim 35
      x([](int) {});
      for (index i = 0; i < TestType::rows; ++i)
        for (index d = 0; d < 40; ++d) {
          bool const reached = where == 0 ? i == 2 : where == 1 || d == 35;
          // An infinite score of the other sign is a weight of zero.
          if (where == 1 && odd > 0 && !std::is_same_v<TestType, int8_tile> && x.q.at(i, 35) < 0) continue;
          CHECK(std::isfinite(x.output(i, d)) != reached);
        }
    }
}

}  // namespace tern::test
