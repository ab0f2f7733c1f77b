// SPDX-License-Identifier: Apache-2.0
#include <tern/conv/causal_conv.hpp>
#include <tern/core/thread_pool.hpp>

#include "depthwise_case.hpp"

namespace tern::test {
namespace {

using sequence = tensor_view<float, 3>;

/// The definition, on the inputs before x and x in one.
oracle::expected definition(std::vector<double> const& before, std::vector<double> const& x, std::vector<double> const& w,
                            std::vector<double> const& b, index batch, index length, index channels, index width, index apart = 1) {
  oracle::expected e;
  index const kept = (width - 1) * apart;
  for (index n = 0; n < batch; ++n)
    for (index t = 0; t < length; ++t)
      for (index c = 0; c < channels; ++c) {
        double value = b[static_cast<std::size_t>(c)], magnitude = std::abs(value);
        for (index j = 0; j < width; ++j) {
          index const at = t - kept + j * apart;
          double const input = at >= 0          ? x[static_cast<std::size_t>((n * length + at) * channels + c)]
                               : before.empty() ? 0
                                                : before[static_cast<std::size_t>((n * kept + at + kept) * channels + c)];
          double const term = input * w[static_cast<std::size_t>(j * channels + c)];
          value += term;
          magnitude += std::abs(term);
        }
        e.value.push_back(value);
        e.magnitude.push_back(magnitude);
      }
  return e;
}

template <class X, class Y>
void check(index length, index channels, index width, bool with_state, index apart = 1) {
  rng r(static_cast<std::uint64_t>(length * 1000 + channels * 10 + width));
  padded_tensor<X, 3> const x(r, shape<3>{{2, length, channels}});
  padded_tensor<float, 2> const w(r, shape<2>{{width, channels}});
  padded_tensor<float, 3> state(r, shape<3>{{2, with_state ? (width - 1) * apart : 0, channels}});
  padded_tensor<Y, 3> y(shape<3>{{2, length, channels}});
  auto const b = r.normal(channels);
  auto const before = dense(state.view);
  if (with_state)
    causal_conv(cpu, x.view, w.view, y.view, conv_state{state.view}, bias{b}, dilation{apart});
  else
    causal_conv(cpu, x.view, w.view, y.view, bias{b}, dilation{apart});
  auto const want =
      definition(with_state ? before : std::vector<double>{}, dense(x.view), dense(w.view), widened(b), 2, length, channels, width, apart);
  INFO("length " << length << " channels " << channels << " width " << width << " dilation " << apart);
  CHECK(compare(y.view, want.value, want.magnitude, causal_conv.accuracy(width) * 0x1p-24));
  CHECK(y.intact());
  CHECK(state.intact());
}

}  // namespace

TEST_CASE("causal_conv: equals its definition, any width and length, with a state and without", "[conv]") {
  for (index channels : lengths_around(simd::lanes))
    for (index width : {1, 2, 3, 4, 5, 7, 8})
      for (index length : {1, 3, 4, 13}) check<float, float>(length, channels, width, length % 2 == 1);
  check<f16, bf16>(9, simd::lanes + 3, 4, true);
  check<float, float>(300, 40 * simd::lanes, 4, false);
}

TEST_CASE("causal_conv: taps that lie apart", "[conv]") {
  for (index apart : {2, 3, 7})
    for (index width : {1, 2, 4, 5, 17})
      for (index length : {1, 5, 8, 30, 61}) check<float, float>(length, simd::lanes + 3, width, length % 2 == 1, apart);
  check<bf16, f16>(40, simd::lanes + 1, 3, true, 5);
  check<float, float>(700, 2 * simd::lanes, 3, false, 150);
  check<float, float>(20, simd::lanes, 3, false, index{1} << 31);
}

TEST_CASE("causal_conv: a sequence in pieces of any length is the whole, bit by bit", "[conv]") {
  rng r(4);
  index const length = 41, channels = 3 * simd::lanes + 2;
  for (index width : {2, 4, 8}) {
    auto const x = r.normal(2 * length * channels), w = r.normal(width * channels), b = r.normal(channels);
    std::vector<float> whole(x.size()), pieces(x.size()), kept(static_cast<std::size_t>(2 * (width - 1) * channels));
    auto const xs = view(x.data(), 2, length, channels);
    auto const ws = view(w.data(), width, channels);
    sequence const ys(pieces.data(), shape{index{2}, length, channels}), state(kept.data(), shape{index{2}, width - 1, channels});
    causal_conv(cpu, xs, ws, view(whole.data(), 2, length, channels), act::silu{}, bias{b});
    for (index at = 0, step = 1; at < length; at += step, step = step % 9 + 1) {
      index const end = std::min(length, at + step);
      causal_conv(cpu, xs.slice(1, at, end), ws, ys.slice(1, at, end), act::silu{}, bias{b}, conv_state{state});
    }
    CHECK(whole == pieces);
  }
}

TEST_CASE("causal_conv: with a ring for a state too, also where taps lie apart", "[conv]") {
  rng r(7);
  index const length = 57, channels = simd::lanes + 2;
  for (index width : {1, 2, 4})
    for (index apart : {1, 3, 10}) {
      index const kept = (width - 1) * apart;
      auto const x = r.normal(2 * length * channels), w = r.normal(width * channels);
      std::vector<float> whole(x.size()), pieces(x.size()), moved(static_cast<std::size_t>(2 * kept * channels)), turned(moved);
      auto const xs = view(x.data(), 2, length, channels);
      auto const ws = view(w.data(), width, channels);
      auto const ys = view(pieces.data(), 2, length, channels);
      auto const all = view(moved.data(), 2, kept, channels), ring = view(turned.data(), 2, kept, channels);
      causal_conv(cpu, xs, ws, view(whole.data(), 2, length, channels), dilation{apart}, conv_state{all});
      index first = 0;
      for (index at = 0, step = 1; at < length; at += step, step = step % 9 + 1) {
        index const end = std::min(length, at + step);
        causal_conv(cpu, xs.slice(1, at, end), ws, ys.slice(1, at, end), dilation{apart}, conv_state{ring, first});
      }
      CHECK(whole == pieces);
      for (index i = 0; i < 2 * kept * channels; ++i) {
        index const b = i / channels / kept, row = i / channels % kept, c = i % channels;
        REQUIRE(ring(b, (first + row) % kept, c) == all(b, row, c));
      }
    }
}

TEST_CASE("causal_conv: functions, threads", "[conv]") {
  rng r(5);
  index const length = 500, channels = 20 * simd::lanes;
  auto const x = r.normal(length * channels), w = r.normal(4 * channels);
  std::vector<float> one(x.size()), many(x.size()), squares(x.size());
  auto const xs = view(x.data(), 1, length, channels);
  auto const ws = view(w.data(), 4, channels);
  thread_pool pool(3);
  causal_conv(cpu.on(serial), xs, ws, view(one.data(), 1, length, channels));
  causal_conv(cpu.on(pool), xs, ws, view(many.data(), 1, length, channels));
  CHECK(one == many);
  causal_conv(cpu, xs, ws, view(squares.data(), 1, length, channels), each{[](simd::pack<float> z) { return z * z; }});
  for (float& e : one) e *= e;
  CHECK(one == squares);
}

TEST_CASE("causal_conv: results that go past the caches are the same", "[conv]") {
  rng r(6);
  index const length = 11, channels = 9 * simd::lanes;
  auto const x = r.normal(length * channels), w = r.normal(4 * channels);
  std::vector<float> want(x.size());
  tensor_view<float const, 3> const xs(x.data(), shape{index{1}, length, channels});
  tensor_view<float const, 2> const ws(w.data(), shape{index{4}, channels});
  auto const compare_with = [&](auto const&... options) {
    guarded<float> got(length * channels);
    tensor_view<float, 3> const ys(got.data(), shape{index{1}, length, channels});
    tern::detail::causal_request request;
    (request.set(options), ...);
    auto const f = tern::detail::function_among(options...);
    tern::detail::causal_block<float const, float, decltype(f)> const block(xs, ws, ys, request, f, true);
    block.run(0, 0, block.tiles());
    causal_conv(cpu, xs, ws, view(want.data(), 1, length, channels), options...);
    CHECK(std::equal(want.begin(), want.end(), got.data()));
    CHECK(got.intact());
  };
  compare_with();
  compare_with(each{[](simd::pack<float> z) { return z * z; }});
}

TEST_CASE("causal_conv: errors name what is wrong", "[conv]") {
  std::vector<float> x(2 * 5 * 6), y(x.size()), w(4 * 6), s(2 * 4 * 6);
  auto const xs = view(x.data(), 2, 5, 6), ys = view(y.data(), 2, 5, 6);
  auto const says = [&](auto const& at_w, auto const& to, auto const&... options) {
    return message_of([&] { causal_conv(cpu, xs, at_w, to, options...); });
  };
  auto const ws = view(w.data(), 4, 6);
  CHECK(says(view(w.data(), 4, 5), ys) == "causal_conv: w.extent(1) is 5, expected x.extent(2) = 6");
  CHECK(says(view(w.data(), 0, 6), ys) == "causal_conv: w.extent(0) is 0, expected at least 1");
  CHECK(says(ws, view(y.data(), 2, 4, 6)) == "causal_conv: y.extent(1) is 4, expected x.extent(1) = 5");
  CHECK(says(ws, xs) == "causal_conv: y is x, expected memory of its own");
  CHECK(says(ws, ys, bias{w}) == "causal_conv: bias.extent(0) is 24, expected x.extent(2) = 6");
  CHECK(says(ws, ys, conv_state{view(s.data(), 2, 4, 6)}) ==
        "causal_conv: conv_state.extent(1) is 4, expected (w.extent(0) - 1) dilation = 3");
  CHECK(says(ws, ys, dilation{2}, conv_state{view(s.data(), 2, 3, 6)}) ==
        "causal_conv: conv_state.extent(1) is 3, expected (w.extent(0) - 1) dilation = 6");
  index first = 3;
  CHECK(says(ws, ys, conv_state{view(s.data(), 2, 3, 6), first}) ==
        "causal_conv: conv_state's first row is 3, expected one of the state's");
  CHECK(says(ws, ys, dilation{0}) == "causal_conv: dilation is 0, expected one number, 1 to 2^31");
  CHECK(says(ws, ys, dilation{index{1} << 62}) == "causal_conv: dilation is 4611686018427387904, expected one number, 1 to 2^31");
  CHECK(says(ws, ys, conv_state{view(x.data(), 2, 3, 6)}) == "causal_conv: conv_state is x, expected memory of its own");
  CHECK(says(ws, ys, conv_state{view(y.data(), 2, 3, 6)}) == "causal_conv: conv_state is y, expected memory of its own");
  CHECK(says(ws, ys, act::silu{}, act::silu{}) == "causal_conv: the number of functions is 2, expected at most 1");
  CHECK(message_of([&] { causal_conv(cpu, xs.transposed(1, 2), ws, ys); }) ==
        "causal_conv: x.stride(2) is 6, expected 1: rows are contiguous");
}

}  // namespace tern::test
