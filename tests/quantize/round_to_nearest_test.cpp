// SPDX-License-Identifier: Apache-2.0
#include "layer.hpp"

namespace tern::test::nearest_codes {
namespace {

/// sum of h (w - q)^2 over all rows
double weighed(layer const& l, std::vector<float> const& h, block_array const& q) {
  auto const values = decoded(q);
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    double const e = static_cast<double>(l.w[i]) - static_cast<double>(values[i]);
    sum += static_cast<double>(h[i % h.size()]) * e * e;
  }
  return sum;
}

/// All values that element j of a block can take, by putting each code.
template <class Format>
std::vector<float> reachable(typename Format::block block, std::size_t j) {
  std::vector<float> all;
  for (int c = 0; c < Format::codes; ++c) {
    std::uint8_t code[Format::elements] = {};
    code[j] = static_cast<std::uint8_t>(c);
    Format::put(block, code);
    float x[Format::elements];
    Format::decode(block, x);
    all.push_back(x[j]);
  }
  return all;
}
float closest(std::vector<float> const& values, float w) {
  return *std::min_element(values.begin(), values.end(), [w](float a, float b) { return std::abs(a - w) < std::abs(b - w); });
}

}  // namespace

TEST_CASE("rounding gives each row the encoder's blocks, whatever the threads and the strides") {
  rng r(81);
  layer const l(r, 5, 512, 1);
  thread_pool pool(3);
  std::vector<float> turned(l.w.size());
  for (index i = 0; i < l.n; ++i)
    for (index j = 0; j < l.k; ++j) turned[static_cast<std::size_t>(j * l.n + i)] = l.weights()(i, j);
  for (weight_type type : quantized_types) {
    INFO(info(type).name);
    auto const q = round_to_nearest(cpu.on(serial), l.weights(), type);
    CHECK(bytes_of(q) == bytes_of(round_to_nearest(cpu.on(pool), view(turned.data(), l.k, l.n).transposed(0, 1), type)));
    std::vector<float> want(l.w.size());
    tern::detail::with_block_format(type, [&]<class Format>(Format) {
      if constexpr (tern::detail::encodable_format<Format>)
        for (std::size_t i = 0; i < want.size(); i += static_cast<std::size_t>(Format::elements))
          Format::decode(Format::encode(l.w.data() + i), want.data() + i);
    });
    CHECK(decoded(q) == want);
  }
}

TEST_CASE("the code grid finds the nearest value, and those around, among all that a code can say") {
  rng r(82);
  for (weight_type type : quantized_types)
    tern::detail::with_block_format(type, [&]<class Format>(Format) {
      if constexpr (tern::detail::encodable_format<Format>) {
        INFO(info(type).name);
        using grid = tern::detail::code_grid<Format>;
        auto const x = r.normal(Format::elements);
        auto const block = Format::encode(x.data());
        tern::detail::element_scale scale[Format::elements];
        std::uint8_t code[Format::elements];
        grid::scales(block, scale);
        grid::codes(block, code);
        float stored[Format::elements];
        Format::decode(block, stored);
        for (std::size_t j = 0; j < static_cast<std::size_t>(Format::elements); j += 5) {
          auto const values = reachable<Format>(block, j);
          REQUIRE(grid::value(code[j], scale[j]) == stored[j]);
          for (int c = 0; c < Format::codes; ++c) REQUIRE(grid::value(c, scale[j]) == values[static_cast<std::size_t>(c)]);
          for (float w : {x[j], -x[j], 3 * x[j], 100.f, -100.f, stored[j]}) {
            float const best = grid::value(grid::nearest(w, scale[j]), scale[j]);
            REQUIRE(std::abs(best - w) <= std::abs(closest(values, w) - w) * (1 + 1e-5f));
            int one, other;
            grid::around(w, scale[j], one, other);
            float low = grid::value(one, scale[j]), high = grid::value(other, scale[j]);
            if (low > high) std::swap(low, high);
            auto const [least, most] = std::minmax_element(values.begin(), values.end());
            if (w < *least || w > *most) continue;
            for (float v : values) REQUIRE((v <= low || v >= high || std::abs(v - w) <= 1e-6f * std::abs(w)));
            REQUIRE((low <= w + 1e-6f * std::abs(w) && w - 1e-6f * std::abs(w) <= high));
          }
        }
      }
    });
}

TEST_CASE("importances lower the error that they weigh") {
  rng r(83);
  layer const l(r, 16, 512, 1);
  std::vector<float> h(512), alike(512, 2.f);
  for (float& e : h) e = static_cast<float>(std::exp(2 * r.normal()));
  for (weight_type type : quantized_types) {
    INFO(info(type).name);
    auto const plain = round_to_nearest(cpu, l.weights(), type);
    auto const important = round_to_nearest(cpu, l.weights(), type, {.importances = view(h)});
    CHECK(weighed(l, h, important) <= weighed(l, h, plain));
    CHECK(weighed(l, alike, round_to_nearest(cpu, l.weights(), type, {.importances = view(alike)})) <= weighed(l, alike, plain));
    if (type == weight_type::q4_0 || type == weight_type::q2_k) CHECK(weighed(l, h, important) < 0.95 * weighed(l, h, plain));
  }
}

TEST_CASE("rounding tells how far it is") {
  std::vector<float> w(64 * 32);
  std::vector<index> heard;
  auto const hear = [&](index done, index total) {
    CHECK(total == 64);
    heard.push_back(done);
  };
  (void)round_to_nearest(cpu, view(w.data(), 64, 32), weight_type::q4_0, {.progress = hear});
  REQUIRE(heard.size() == 64);
  for (index i = 0; i < 64; ++i) CHECK(heard[static_cast<std::size_t>(i)] == i + 1);
}

TEST_CASE("rounding checks its arguments") {
  std::vector<float> w(64), h(32, 1.f);
  auto const m = view(w.data(), 2, 32);
  CHECK_THROWS_WITH(round_to_nearest(cpu, m, weight_type::q4_k),
                    "round_to_nearest: w.extent(1) is 32, expected a multiple of the format's 256");
  CHECK_THROWS_WITH(round_to_nearest(cpu, m, weight_type::f16), "round_to_nearest: type is 1, expected a block format");
  CHECK_THROWS_WITH(round_to_nearest(cpu, m, weight_type::q4_0, {.importances = view(h.data(), 31)}),
                    "round_to_nearest: importances.extent(0) is 31, expected w.extent(1) = 32");
  h[7] = -1;
  CHECK_THROWS_WITH(round_to_nearest(cpu, m, weight_type::q4_0, {.importances = view(h)}),
                    "round_to_nearest: importances: an element that is negative, NaN or infinite is 7, expected finite importances");
  w[40] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(round_to_nearest(cpu, m, weight_type::q4_0),
                    "round_to_nearest: w: a row that holds NaN or infinity is 1, expected finite weights");
}

}  // namespace tern::test::nearest_codes
