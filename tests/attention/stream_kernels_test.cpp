// SPDX-License-Identifier: Apache-2.0
// The loops for few queries against float64: any dim, any number of keys, rows in any order, all types of rows; the tiles of a
// quantized cache within the error that tile_kernels.hpp states.
#include "catch.hpp"
#include "compare.hpp"

#include <tern/attention/tile_values.hpp>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <numeric>
#include <vector>

namespace {
using namespace tern::test;
using tern::bf16;
using tern::index;
using tern::detail::key_block;
namespace formats = tern::formats;

constexpr double u = 0x1p-24;
std::vector<index> const counts = {1, 7, 31, 32, 33, 64, 65, 127, 128};

/// n rows of dim elements of T and what they stand for; `at` reaches them in a shuffled order.
template <class T>
struct stored_rows {
  static constexpr index elements = sizeof(T) > 4 ? 32 : 1;
  index count, dim;
  std::vector<T> data;
  std::vector<double> value;
  std::vector<T const*> at;

  stored_rows(rng& r, index n, index columns) : count(n), dim(columns), data(static_cast<std::size_t>(n * dim / elements)) {
    std::vector<index> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), index{0});
    for (std::size_t i = order.size(); i > 1; --i)
      std::swap(order[i - 1], order[static_cast<std::size_t>(r.integer(0, static_cast<index>(i) - 1))]);
    value.resize(static_cast<std::size_t>(n * dim));
    for (index j = 0; j < n; ++j) {
      T* const row = data.data() + order[static_cast<std::size_t>(j)] * dim / elements;
      at.push_back(row);
      auto const x = r.normal<float>(dim);
      for (index d = 0; d < dim; d += elements) put(row + d / elements, x.data() + d, value.data() + j * dim + d);
    }
  }

 private:
  static void put(T* to, float const* x, double* is) {
    if constexpr (elements == 1) {
      *to = T(*x);
      *is = static_cast<double>(static_cast<float>(*to));
    } else {
      using format = typename tern::detail::block_format<T>::type;
      float y[32];
      *to = format::encode(x);
      format::decode(*to, y);
      std::copy(y, y + 32, is);
    }
  }
};

/// s = q . k and what its error is relative to, (rows, count) each.
struct wanted {
  std::vector<double> value, magnitude;
};
wanted products(std::vector<float> const& q, index rows, std::vector<double> const& k, index count, index dim) {
  wanted w;
  for (index r = 0; r < rows; ++r)
    for (index j = 0; j < count; ++j) {
      double s = 0, m = 0;
      for (index d = 0; d < dim; ++d) {
        double const x = static_cast<double>(q[static_cast<std::size_t>(r * dim + d)]) * k[static_cast<std::size_t>(j * dim + d)];
        s += x;
        m += std::abs(x);
      }
      w.value.push_back(s);
      w.magnitude.push_back(m);
    }
  return w;
}
/// alpha o + sum_j p v, (rows, dim) each.
wanted sums(std::vector<float> const& o, std::vector<float> const& alpha, std::vector<float> const& p, index rows,
            std::vector<double> const& v, index count, index dim) {
  wanted w;
  for (index r = 0; r < rows; ++r)
    for (index d = 0; d < dim; ++d) {
      double s = static_cast<double>(o[static_cast<std::size_t>(r * dim + d)]) * static_cast<double>(alpha[static_cast<std::size_t>(r)]),
             m = std::abs(s);
      for (index j = 0; j < count; ++j) {
        double const x = static_cast<double>(p[static_cast<std::size_t>(r * key_block + j)]) * v[static_cast<std::size_t>(j * dim + d)];
        s += x;
        m += std::abs(x);
      }
      w.value.push_back(s);
      w.magnitude.push_back(m);
    }
  return w;
}
/// (rows, key_block): of `count` keys, behind which nothing may be taken.
std::vector<float> weights(rng& r, index rows, index count) {
  std::vector<float> p(static_cast<std::size_t>(rows * key_block), poison<float>());
  for (index i = 0; i < rows; ++i)
    for (index j = 0; j < count; ++j) p[static_cast<std::size_t>(i * key_block + j)] = static_cast<float>(std::exp(r.normal() - 2));
  return p;
}
template <class T>
std::vector<void const*> untyped(std::vector<T const*> const& rows) {
  return {rows.begin(), rows.end()};
}

/// q, in rows q_stride apart, times stored rows. queries: the same as (R, dim) numbers.
template <int R, class Q, class Rows>
void check_scores(Q const* q, index q_stride, std::vector<float> const& queries, Rows const& rows, tern::detail::fetch_ahead const& ahead) {
  index const count = rows.count, dim = rows.dim;
  guarded<float> s(R * key_block, 3);
  tern::detail::stream_scores<R>(q, q_stride, rows.at.data(), count, dim, ahead, s.data());
  wanted const score = products(queries, R, rows.value, count, dim);
  for (index i = 0; i < R; ++i)
    CHECK(compare(s.data() + i * key_block, score.value.data() + i * count, score.magnitude.data() + i * count, count,
                  u * (2 + std::sqrt(static_cast<double>(dim)))));
  CHECK(s.intact());
}
/// Stored rows weighed by p. numbers: the same as (R, key_block) numbers.
template <int R, class P, class Rows>
void check_values(rng& r, P const* p, std::vector<float> const& numbers, Rows const& rows, tern::detail::fetch_ahead const& ahead) {
  index const count = rows.count, dim = rows.dim;
  auto const alpha = r.normal<float>(R);
  auto const before = r.normal<float>(R * dim);
  guarded<float> o(before, 1);
  tern::detail::stream_values<R>(p, rows.at.data(), count, dim, alpha.data(), ahead, o.data(), dim);
  wanted const sum = sums(before, alpha, numbers, R, rows.value, count, dim);
  CHECK(compare(o.span(), sum.value, sum.magnitude, u * (2 + std::sqrt(static_cast<double>(count)))));
  CHECK(o.intact());
}

template <class T, int R>
void check_rows(index count, index dim) {
  CAPTURE(R, count, dim);
  rng r(static_cast<std::uint64_t>(100 * count + dim + R));
  stored_rows<T> const rows(r, count, dim);
  auto const next = untyped(rows.at);
  tern::detail::fetch_ahead const ahead{next.data(), count / 2, static_cast<index>(sizeof(T)) * dim / stored_rows<T>::elements};
  guarded<float> q(r.normal<float>(R * dim), 1);
  std::vector<float> const queries(q.data(), q.data() + R * dim);
  for (index i = 0; i < R; ++i) tern::detail::order_query<T>(q.data() + i * dim, dim);

  check_scores<R>(q.data(), dim, queries, rows, ahead);
  auto const p = weights(r, R, count);
  check_values<R>(r, p.data(), p, rows, ahead);
}

/// n tokens in tiles of a format and what they stand for, each tile in a place of its own; nothing is defined behind the last token.
template <class Format>
struct stored_tiles {
  std::deque<guarded<std::uint8_t>> memory;
  std::vector<double> value;
  std::vector<std::byte const*> at;

  stored_tiles(rng& r, index n, index dim) {
    for (index t = 0; t < n; t += Format::tokens) {
      memory.emplace_back(std::vector<std::uint8_t>(static_cast<std::size_t>(Format::tile_bytes(dim)), 0xff));
      at.push_back(reinterpret_cast<std::byte const*>(memory.back().data()));
    }
    value.resize(static_cast<std::size_t>(n * dim));
    for (index t = 0; t < n; ++t) {
      auto const x = r.normal<float>(dim, t % 5 == 0 ? 4 : 1);
      auto* const tile = reinterpret_cast<std::byte*>(memory[static_cast<std::size_t>(t / Format::tokens)].data());
      for (index b = 0; b < dim / 32; ++b) {
        float y[32];
        Format::encode(x.data() + 32 * b, dim, b, t % Format::tokens, tile);
        Format::decode(tile, dim, b, t % Format::tokens, y);
        std::copy(y, y + 32, value.data() + t * dim + 32 * b);
      }
    }
  }
};

/// Rows of bf16 by numbers of bf16, in rows that are as far apart as those of f32.
template <int R>
void check_bf16_rows(index count, index dim) {
  CAPTURE(R, count, dim);
  rng r(static_cast<std::uint64_t>(100 * count + dim + R));
  stored_rows<bf16> const rows(r, count, dim);
  auto const next = untyped(rows.at);
  tern::detail::fetch_ahead const ahead{next.data(), count, 2 * dim};
  auto const round_to = [](guarded<bf16>& to, std::vector<float>& x, index stride, index n) {
    for (index i = 0; i < R; ++i)
      for (index j = 0; j < n; ++j) {
        float& e = x[static_cast<std::size_t>(i * stride + j)];
        to[2 * i * stride + j] = bf16(e);
        e = static_cast<float>(to[2 * i * stride + j]);
      }
  };
  auto queries = r.normal<float>(R * dim);
  guarded<bf16> q(2 * R * dim, 1), p(2 * R * key_block, 1);
  round_to(q, queries, dim, dim);
  check_scores<R>(q.data(), 2 * dim, queries, rows, ahead);
  auto weight = weights(r, R, count);
  round_to(p, weight, key_block, count);
  check_values<R>(r, p.data(), weight, rows, ahead);
}

template <class Format, int R>
void check_scores(index count, index dim) {
  CAPTURE(R, count, dim, Format::bits);
  rng r(static_cast<std::uint64_t>(100 * count + dim + R));
  stored_tiles<Format> const tiles(r, count, dim);
  auto const next = untyped(tiles.at);
  auto const q = r.normal<float>(R * dim);
  guarded<std::int32_t> words(tern::detail::tile_query::size(R, dim));
  tern::detail::quantize_query<R>(q.data(), dim, dim, words.data());
  guarded<float> s(R * key_block, 1);
  tern::detail::tile_scores<R, Format>(words.data(), tiles.at.data(), count, dim, {next.data(), 1, Format::tile_bytes(dim)}, s.data());
  CHECK(words.intact());
  CHECK(s.intact());
  wanted const w = products(q, R, tiles.value, count, dim);
  for (index i = 0; i < R; ++i)
    for (index j = 0; j < count; ++j) {
      double bound = static_cast<double>(dim / 32 + 4) * u * w.magnitude[static_cast<std::size_t>(i * count + j)];
      for (index b = 0; b < dim; b += 32) {
        double most = 0, keys = 0;
        for (index d = b; d < b + 32; ++d) {
          most = std::max(most, std::abs(static_cast<double>(q[static_cast<std::size_t>(i * dim + d)])));
          keys += std::abs(tiles.value[static_cast<std::size_t>(j * dim + d)]);
        }
        bound += 1.0001 * most / 254 * keys;
      }
      double const error = std::abs(static_cast<double>(s[i * key_block + j]) - w.value[static_cast<std::size_t>(i * count + j)]);
      if (!(error <= bound)) FAIL_CHECK("row " << i << " key " << j << ": error " << error << ", allowed " << bound);
    }
}

template <class Format, int R>
void check_values(index count, index dim) {
  CAPTURE(R, count, dim, Format::bits);
  rng r(static_cast<std::uint64_t>(100 * count + dim + R));
  stored_tiles<Format> const tiles(r, count, dim);
  auto const next = untyped(tiles.at);
  auto const p = weights(r, R, count);
  auto const alpha = r.normal<float>(R);
  auto const before = r.normal<float>(R * dim);
  guarded<float> o(before, 1);
  tern::detail::tile_values<R, Format>(p.data(), tiles.at.data(), count, dim, alpha.data(), {next.data(), 1, Format::tile_bytes(dim)},
                                       o.data(), dim);
  CHECK(o.intact());
  wanted const w = sums(before, alpha, p, R, tiles.value, count, dim);
  for (index i = 0; i < R; ++i)
    for (index d = 0; d < dim; ++d) {
      double bound = 8 * u * w.magnitude[static_cast<std::size_t>(i * dim + d)];
      // Of 2 bits, weights are rounded for all tiles at once, and D c is at most the difference of two values.
      constexpr bool few_bits = Format::bits == 2;
      constexpr index together = few_bits ? key_block : Format::tokens;
      for (index t = 0; t < count; t += together) {
        index const end = std::min(count, t + together);
        double most = 0, largest = 0;
        for (index j = t; j < end; ++j) {
          most = std::max(most, static_cast<double>(p[static_cast<std::size_t>(i * key_block + j)]));
          for (index e = d / 32 * 32; e < d / 32 * 32 + 32; ++e)
            largest = std::max(largest, std::abs(tiles.value[static_cast<std::size_t>(j * dim + e)]));
        }
        bound += static_cast<double>(end - t) * most * largest / (few_bits ? 510 / 2. : 510) * 1.001;
      }
      double const error = std::abs(static_cast<double>(o[i * dim + d]) - w.value[static_cast<std::size_t>(i * dim + d)]);
      if (!(error <= bound)) FAIL_CHECK("row " << i << " element " << d << ": error " << error << ", allowed " << bound);
    }
}

template <class F>
void each_row_count(F f) {
  f(std::integral_constant<int, 1>{});
  f(std::integral_constant<int, 2>{});
  f(std::integral_constant<int, 3>{});
  f(std::integral_constant<int, 4>{});
}

TEMPLATE_TEST_CASE("rows of numbers", "[attention]", float, tern::f16, tern::bf16) {
  for (index count : counts)
    for (index dim : {1, 5, 16, 33, 80, 128, 200}) each_row_count([&](auto R) { check_rows<TestType, R.value>(count, dim); });
}
TEST_CASE("rows of bf16 by bf16", "[attention]") {
  for (index count : counts)
    for (index dim : {1, 5, 16, 33, 80, 128, 200}) each_row_count([&](auto R) { check_bf16_rows<R.value>(count, dim); });
}
TEMPLATE_TEST_CASE("rows of blocks", "[attention]", formats::q8_0::block, formats::q4_0::block, formats::e8p::block) {
  for (index count : counts)
    for (index dim : {32, 96, 128}) each_row_count([&](auto R) { check_rows<TestType, R.value>(count, dim); });
}
TEMPLATE_TEST_CASE("scores of tiles", "[attention]", formats::keys8, formats::keys4) {
  for (index count : counts)
    for (index dim : {32, 96, 128}) each_row_count([&](auto R) { check_scores<TestType, R.value>(count, dim); });
}
TEMPLATE_TEST_CASE("values of tiles", "[attention]", formats::values8, formats::values4, formats::values2) {
  for (index count : counts)
    for (index dim : {32, 96, 128, 160}) each_row_count([&](auto R) { check_values<TestType, R.value>(count, dim); });
}

TEMPLATE_TEST_CASE("tiles: weights of zero, and NaN", "[attention]", formats::values8, formats::values4, formats::values2) {
  rng r(3);
  float const nan = std::numeric_limits<float>::quiet_NaN(), one = 1;
  stored_tiles<TestType> tiles(r, 64, 64);
  auto sum = [&](std::vector<float> const& p) {
    std::vector<float> o(64, 2.f);
    tern::detail::tile_values<1, TestType>(p.data(), tiles.at.data(), 64, 64, &one, {nullptr, 0, 0}, o.data(), 64);
    return o;
  };
  std::vector<float> p(key_block, 0.f);
  for (float x : sum(p)) CHECK(x == 2.f);
  // So small that 255 / P is infinite: keys that are 84 below the largest score.
  std::fill(p.begin(), p.begin() + 64, 1e-37f);
  for (float x : sum(p)) CHECK(x == 2.f);
  std::fill(p.begin(), p.end(), 0.f);
  p[5] = nan;
  for (float x : sum(p)) CHECK(std::isnan(x));
  p[5] = -nan;
  for (float x : sum(p)) CHECK(std::isnan(x));
  p[5] = 0.5f;
  // A value that is NaN makes NaN of the block that it is in, and of no other.
  std::vector<float> x(32, nan);
  TestType::encode(x.data(), 64, 1, 9, reinterpret_cast<std::byte*>(tiles.memory[0].data()));
  auto const o = sum(p);
  for (std::size_t d = 0; d < 64; ++d) CHECK(std::isnan(o[d]) == (d >= 32));
}

}  // namespace
