// SPDX-License-Identifier: Apache-2.0
#include "catch.hpp"
#include "formats/vectors/blocks.hpp"
#include "random_weights.hpp"

namespace tern::test::products {
namespace {

constexpr weight_type all_types[] = {weight_type::f32,   weight_type::f16,   weight_type::bf16, weight_type::q4_0,   weight_type::q4_1,
                                     weight_type::q5_0,  weight_type::q5_1,  weight_type::q8_0, weight_type::q2_k,   weight_type::q3_k,
                                     weight_type::q4_k,  weight_type::q5_k,  weight_type::q6_k, weight_type::iq4_nl, weight_type::iq4_xs,
                                     weight_type::tq1_0, weight_type::tq2_0, weight_type::mxfp4};

}  // namespace

TEST_CASE("every format, compute type and number of rows") {
  rng r(11);
  for (weight_type type : all_types) {
    index const unit = info(type).elements;
    std::vector<index> const depths = unit == 1    ? std::vector<index>{1, 31, 300, 2100}
                                      : unit == 32 ? std::vector<index>{32, 608}
                                                   : std::vector<index>{768};
    for (index k : depths)
      for (index n : {index{1}, simd::lanes - 1, index{37}}) {
        random_weights const w(r, type, n, k);
        for (index rows : {1, 2, 3, 4, 5, 17, 33})
          for (compute mode : {compute::f32, compute::bf16, compute::int8}) {
            INFO(info(type).name << " rows " << rows << " n " << n << " k " << k << " compute " << static_cast<int>(mode));
            auto const x = r.normal(rows * k);
            guarded<float> const xs(x, 1);
            guarded<float> y(rows * n, 1);
            matmul(cpu, view(xs.data(), rows, k), w.m, view(y.data(), rows, n), mode);
            auto const want = expected(x, w, rows, mode);
            REQUIRE(compare(y.span(), want.value, want.magnitude, tolerance(k)));
            REQUIRE(y.intact());
            REQUIRE(w.bytes.intact());
          }
      }
  }
}

TEST_CASE("sums of the largest codes and activations fit where they are made") {
  rng r(15);
  constexpr index n = 2 * simd::lanes + 1, k = 512;
  for (weight_type type : all_types)
    for (int byte : {0x00, 0x80, 0xff}) {
      if (info(type).elements == 1) continue;
      random_weights const w(r, type, n, k, byte);
      for (bool alternate : {false, true})
        for (index rows : {1, 9}) {
          INFO(info(type).name << " byte " << byte << " rows " << rows << " alternate " << alternate);
          std::vector<float> x(static_cast<std::size_t>(rows * k)), y(static_cast<std::size_t>(rows * n));
          for (std::size_t i = 0; i < x.size(); ++i) x[i] = alternate && i % 2 == 1 ? -1.f : 1.f;
          for (float sign : {1.f, -1.f}) {
            for (float& v : x) v *= sign;
            matmul(cpu, view(x.data(), rows, k), w.m, view(y.data(), rows, n), compute::int8);
            auto const want = expected(x, w, rows, compute::int8);
            REQUIRE(compare(y, want.value, want.magnitude, static_cast<double>(k) * 0x1p-24));  // equal terms are rounded alike
          }
        }
    }
}

TEST_CASE("compute::fastest is int8, or bf16 for many rows where there are matrix registers") {
  rng r(16);
  constexpr index n = 70, columns = 256;
  for (weight_type type : {weight_type::q4_0, weight_type::q4_k, weight_type::f32}) {
    random_weights const w(r, type, n, columns);
    for (index rows : {1, 63, 64, 100}) {
      INFO(info(type).name << " rows " << rows);
      auto const x = r.normal(rows * columns);
      std::vector<float> want(static_cast<std::size_t>(rows * n)), got(want.size());
      auto const run = [&](compute mode, std::vector<float>& y) {
        auto const to = view(y.data(), rows, n);
        std::vector<std::byte> memory(workspace_size(matmul, cpu, view(x.data(), rows, columns), w.m, to, mode));
        workspace scratch(memory.data(), memory.size());
        matmul(cpu.with(scratch), view(x.data(), rows, columns), w.m, to, mode);
      };
      run(rows >= 64 && simd::tiles::ready() ? compute::bf16 : compute::int8, want);
      run(compute::fastest, got);
      CHECK(std::memcmp(got.data(), want.data(), 4 * want.size()) == 0);
    }
  }
}

TEST_CASE("mxfp4's scales, the smallest too, to the bit") {
  constexpr index n = 3 * simd::lanes, k = 32;
  rng r(12);
  random_weights w(r, weight_type::mxfp4, n, k);
  auto* const blocks = const_cast<std::uint8_t*>(static_cast<std::uint8_t const*>(w.m.data));
  std::vector<float> eye(k * k), y(k * n), row(k);
  for (index i = 0; i < k; ++i) eye[static_cast<std::size_t>(i * k + i)] = 1.f;
  for (index e = 0; e < 250; e += simd::lanes) {
    for (index i = 0; i < n; ++i) blocks[i * w.m.row_bytes] = static_cast<std::uint8_t>(e + i < 250 ? e + i : 250);  // all finite
    matmul(cpu, view(eye.data(), k, k), w.m, view(y.data(), k, n));
    for (index i = 0; i < n; ++i) {
      decode(w.m, i, row.data());
      for (index j = 0; j < k; ++j) CHECK(y[static_cast<std::size_t>(j * n + i)] == row[static_cast<std::size_t>(j)]);
    }
  }
}

TEST_CASE("activations are rounded as ggml rounds them") {
  for (index b = 0; b < 8; ++b) {
    float x[32];
    for (index j = 0; j < 32; ++j) x[j] = std::bit_cast<float>(vectors::inputs[32 * b + j]);
    std::int8_t q[32];
    tern::detail::q8_scales s;
    tern::detail::quantize_row(x, 1, q, &s);
    std::uint8_t const* const want = vectors::activations + 36 * b;
    f16 const scale(s.scale), sum(s.sum);
    INFO("block " << b);
    CHECK(std::memcmp(&scale, want, 2) == 0);
    CHECK(std::memcmp(&sum, want + 2, 2) == 0);
    CHECK(std::memcmp(q, want + 4, 32) == 0);
    int total = 0, first = 0;
    for (index j = 0; j < 32; ++j) (j < 16 ? first : total) += q[j];
    CHECK(s.first == first);
    CHECK(s.total == total + first);
  }
}

TEST_CASE("more rows than the sums that are kept at once, on threads that share them") {
  rng r(19);
  thread_pool pool(3);
  index const rows = 2 * tern::detail::kept_rows + 5, n = 3 * tern::detail::panel_rows + 1, k = 531;
  random_weights const w(r, weight_type::f32, n, k);
  auto const x = r.normal(rows * k);
  for (compute mode : {compute::f32, compute::bf16}) {
    guarded<float> y(rows * n, 1);
    matmul(cpu.on(pool), view(x.data(), rows, k), w.m, view(y.data(), rows, n), mode);
    auto const want = expected(x, w, rows, mode);
    REQUIRE(compare(y.span(), want.value, want.magnitude, tolerance(k)));
    REQUIRE(y.intact());
  }
}

TEST_CASE("strides of x, w and y, and their types") {
  rng r(12);
  index const n = 21, k = 65;
  auto const check = [&]<class X, class W>(index rows, X, W) {
    auto const xs = r.normal<X>(2 * rows * 3 * k);
    auto const ws = r.normal<W>(n * (k + 3));
    // x: every second row and third column; w: rows further apart than long; y: transposed.
    tensor_view<X const, 2> const x(xs.data(), shape{rows, k}, shape{2 * 3 * k, index{3}});
    tensor_view<W const, 2> const w(ws.data(), shape{n, k}, shape{k + 3, index{1}});
    std::vector<double> xd, wd;
    for (index i = 0; i < rows; ++i)
      for (index j = 0; j < k; ++j) xd.push_back(static_cast<double>(x(i, j)));
    for (index i = 0; i < n; ++i)
      for (index j = 0; j < k; ++j) wd.push_back(static_cast<double>(w(i, j)));
    auto const want = oracle::matmul(xd, wd, rows, n, k);
    guarded<float> buffer(rows * n * 2);
    tensor_view<float, 2> const y(buffer.data(), shape{rows, n}, shape{index{2}, 2 * rows});
    matmul(cpu, x, w, y);
    CHECK(compare(y, want.value, want.magnitude, tolerance(k)));
    CHECK(buffer.untouched_outside(y));
    matmul(cpu, x, w, y, accumulate{});
    std::vector<double> twice = want.value;
    for (double& e : twice) e *= 2;
    CHECK(compare(y, twice, want.magnitude, 3 * tolerance(k)));
  };
  for (index rows : {7, 29}) {
    check(rows, float{}, float{});
    check(rows, f16{}, bf16{});
    check(rows, bf16{}, f16{});
  }
}

namespace {
/// Runs tasks backwards, on one thread.
struct backwards {
  index threads;
  index concurrency() const { return threads; }
  void run(index n, task_ref f) const {
    for (index i = n; i-- > 0;) f(i);
  }
};
}  // namespace

TEST_CASE("a result is the same bits whatever the threads and whatever else is in the batch") {
  rng r(13);
  index const rows = 41, n = 150;
  thread_pool pool(3);
  for (weight_type type : {weight_type::f32, weight_type::bf16, weight_type::q4_0, weight_type::q4_1, weight_type::q5_1, weight_type::q8_0,
                           weight_type::q2_k, weight_type::q3_k, weight_type::q4_k, weight_type::q6_k, weight_type::iq4_nl,
                           weight_type::iq4_xs, weight_type::tq1_0, weight_type::mxfp4}) {
    index const k = info(type).elements == 32 ? 608 : 768;  // not a multiple of 128
    random_weights const w(r, type, n, k);
    auto const x = r.normal(rows * k);
    for (compute mode : {compute::f32, compute::bf16, compute::int8})
      for (bool add : {false, true}) {
        INFO(info(type).name << " compute " << static_cast<int>(mode) << " add " << add);
        auto const start = r.normal(rows * n);
        auto const run = [&](cpu_policy const& policy, index from, index count) {
          std::vector<float> y(start.begin() + from * n, start.begin() + (from + count) * n);
          auto const xv = view(x.data() + from * k, count, k);
          auto const yv = view(y.data(), count, n);
          add ? matmul(policy, xv, w.m, yv, mode, accumulate{}) : matmul(policy, xv, w.m, yv, mode);
          return y;
        };
        auto const whole = run(cpu.on(serial), 0, rows);
        backwards const many{7};
        REQUIRE(std::memcmp(run(cpu.on(pool), 0, rows).data(), whole.data(), whole.size() * 4) == 0);
        REQUIRE(std::memcmp(run(cpu.on(many), 0, rows).data(), whole.data(), whole.size() * 4) == 0);
        std::vector<float> one_by_one;
        for (index i = 0; i < rows; ++i) {
          auto const row = run(cpu.on(serial), i, 1);
          one_by_one.insert(one_by_one.end(), row.begin(), row.end());
        }
        if (info(type).elements != 1) REQUIRE(std::memcmp(one_by_one.data(), whole.data(), whole.size() * 4) == 0);
        // Matrix registers take bf16 where it lies for some rows, and through panels for many. f32, and bf16 elsewhere, meet panels of x.
        bool const halves = type == weight_type::bf16 && mode == compute::bf16, lying = halves && simd::tiles::ready();
        for (index count : {1, 2, 3, 4, 5, 11, 16, 24, 25, 31, 32}) {
          bool const turned = (halves || type == weight_type::f32) && count > tern::detail::most_stream_rows;
          auto const& same = turned || (lying && count >= tern::detail::least_lying_rows) ? whole : one_by_one;
          for (index from : {index{0}, rows - count}) {
            INFO("rows " << count);
            auto const part = run(cpu.on(many), from, count);
            REQUIRE(std::memcmp(part.data(), same.data() + from * n, part.size() * 4) == 0);
          }
        }
      }
  }
}

TEST_CASE("rows that fill panels of x give what many rows give") {
  rng r(31);
  index const rows = 130, n = 70, k = 530;
  auto const x = r.normal(rows * k);
  for (weight_type type : {weight_type::f32, weight_type::bf16}) {
    random_weights const w(r, type, n, k);
    auto const run = [&](index from, index count) {
      std::vector<float> y(static_cast<std::size_t>(count * n), 1.f);
      matmul(cpu, view(x.data() + from * k, count, k), w.m, view(y.data(), count, n),
             type == weight_type::bf16 ? compute::bf16 : compute::f32, accumulate{});
      return y;
    };
    auto const whole = run(0, rows);
    for (index count : {26, 32, 57, 64}) {
      INFO(info(type).name << " rows " << count);
      CHECK(std::memcmp(run(rows - count, count).data(), whole.data() + (rows - count) * n, static_cast<std::size_t>(4 * count * n)) == 0);
    }
  }
}

TEST_CASE("blocks of signed bytes that meet many rows where they lie give what one row gives") {
  rng r(29);
  for (index k : {32, 96, 512, 544, 1088})
    for (index n : {1, 15, 16, 17, 31, 32, 47, 100}) {
      // Rows further apart than long: what is between them is no weight.
      index const bytes = k / 32 * 34, apart = bytes + 6;
      random_weights const w(r, weight_type::q8_0, n, k);
      guarded<std::uint8_t> spread((n - 1) * apart + bytes, 4);
      for (index i = 0; i < n; ++i) std::memcpy(spread.data() + i * apart, w.m.row(i), static_cast<std::size_t>(bytes));
      block_matrix m(spread.data(), weight_type::q8_0, n, k);
      m.row_bytes = apart;
      for (index rows : {8, 9, 15, 16, 17, 25, 31, 32, 33})
        for (compute mode : {compute::int8, compute::int8_tokens}) {
          INFO("rows " << rows << " n " << n << " k " << k);
          auto const x = r.normal(rows * k), start = r.normal(rows * n);
          std::vector<float> all = start, alone = start;
          matmul(cpu, view(x.data(), rows, k), m, view(all.data(), rows, n), mode, accumulate{});
          for (index i = 0; i < rows; ++i)
            matmul(cpu, view(x.data() + i * k, 1, k), w.m, view(alone.data() + i * n, 1, n), mode, accumulate{});
          CHECK(all == alone);
        }
    }
}

TEST_CASE("several matrices in one call give what they give alone") {
  rng r(14);
  index const k = 64;
  random_weights const a(r, weight_type::q4_1, 70, k), b(r, weight_type::f16, 33, k), c(r, weight_type::q8_0, 5, k);
  for (index rows : {1, 9}) {
    auto const x = r.normal(rows * k);
    std::vector<float> alone[3], together[3];
    random_weights const* all[] = {&a, &b, &c};
    for (int i = 0; i < 3; ++i) {
      alone[i].resize(static_cast<std::size_t>(rows * all[i]->m.rows));
      together[i].resize(alone[i].size());
      matmul(cpu, view(x.data(), rows, k), all[i]->m, view(alone[i].data(), rows, all[i]->m.rows), compute::int8);
    }
    matmul(cpu, view(x.data(), rows, k), {a.m, b.m, c.m},
           {view(together[0].data(), rows, 70), view(together[1].data(), rows, 33), view(together[2].data(), rows, 5)}, compute::int8);
    for (int i = 0; i < 3; ++i) CHECK(alone[i] == together[i]);
  }
}

TEST_CASE("matmul at the edges: nothing to do, not a number, scratch of the caller") {
  rng r(15);
  random_weights const w(r, weight_type::q4_1, 40, 64);
  std::vector<float> y(3 * 40, 1.f);
  std::vector<float> x = r.normal(3 * 64);
  for (compute mode : {compute::f32, compute::bf16, compute::int8}) {
    matmul(cpu, view(x.data(), 0, 64), w.m, view(y.data(), 0, 40), mode);
    matmul(cpu, view(x.data(), 3, 64), block_matrix(w.m.data, weight_type::q4_1, 0, 64), view(y.data(), 3, 0), mode);
    CHECK(y[0] == 1.f);
    std::vector<float> zero(3 * 40, 1.f);
    matmul(cpu, view(x.data(), 3, 0), block_matrix(w.m.data, weight_type::q4_1, 40, 0), view(zero.data(), 3, 40), mode);
    for (float e : zero) CHECK(e == 0.f);

    for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      std::vector<float> broken = x, out(3 * 40);
      broken[64 + 5] = bad;
      matmul(cpu, view(broken.data(), 3, 64), w.m, view(out.data(), 3, 40), mode);
      for (std::size_t i = 0; i < 120; ++i) CHECK(std::isfinite(out[i]) == (i / 40 != 1));
    }

    auto const size = workspace_size(matmul, cpu, view(x.data(), 3, 64), w.m, view(y.data(), 3, 40), mode);
    std::vector<std::byte> memory(size + 1);
    workspace enough(memory.data() + 1, size), little(memory.data(), size / 2);
    matmul(cpu.with(enough), view(x.data(), 3, 64), w.m, view(y.data(), 3, 40), mode);
    CHECK_THROWS_AS(matmul(cpu.with(little), view(x.data(), 3, 64), w.m, view(y.data(), 3, 40), mode), error);
    y[0] = 1.f;
  }
}

TEST_CASE("matmul without columns is zero, however many rows") {
  std::vector<float> memory(1), y(600 * 500);
  for (weight_type type : {weight_type::f32, weight_type::bf16, weight_type::q8_0})
    for (compute mode : {compute::f32, compute::bf16, compute::int8, compute::int8_tokens})
      for (index rows : {1, 100, 600}) {
        std::fill(y.begin(), y.end(), 1.f);
        matmul(cpu.on(serial), view(memory.data(), rows, 0), block_matrix(memory.data(), type, 500, 0), view(y.data(), rows, 500), mode);
        CHECK(std::count(y.begin(), y.end(), 0.f) == rows * 500);
      }
}

TEST_CASE("matmul says what is wrong") {
  float x[4 * 64] = {}, y[4 * 64] = {};
  alignas(4) std::uint8_t bytes[40 * 40] = {};
  block_matrix const w(bytes, weight_type::q4_1, 40, 64);
  CHECK_THROWS_WITH(matmul(cpu, view(x, 2, 32), w, view(y, 2, 40)), "matmul: x.extent(1) is 32, expected w's columns = 64");
  CHECK_THROWS_WITH(matmul(cpu, view(x, 2, 64), w, view(y, 1, 40)), "matmul: y.extent(0) is 1, expected x.extent(0) = 2");
  CHECK_THROWS_WITH(matmul(cpu, view(x, 2, 64), w, view(y, 2, 41)), "matmul: y.extent(1) is 41, expected w's rows = 40");
  CHECK_THROWS_AS(matmul(cpu, view(x, 2, 4), view(x, 4, 2).transposed(0, 1).slice(0, 0, 2).transposed(0, 1), view(y, 2, 4)), error);
}

}  // namespace tern::test::products
