// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/causal_conv.hpp
/// Short causal depthwise convolution along a sequence, whole or in pieces of any length.
///
///     y[b, t, c] = f(bias[c] + sum over j < width of w[j, c] x[b, t - (width - 1 - j) dilation, c])
///
///     x, y (batch, length, channels)   f32, f16 or bf16; channels contiguous; y may not be x
///     w (width, channels)              f32, channels contiguous; 2 to 8 rows in models, any number here
///
///     causal_conv(policy, x, w, y, bias{b}, act::silu{})                       Mamba's, width 4
///     causal_conv(policy, x, w, y, conv_state{s})                              the next tokens of a sequence: one, or any number
///     causal_conv(policy, x, w, y, dilation{8}, conv_state{s, first})
///
/// Options come in any order: bias (channels); a function of registers (act::*, each, a lambda); dilation{d}, 1 if nothing is said;
/// conv_state{s}, s (batch, (width - 1) dilation, channels), f32: the inputs before x, which are zeros without it, and afterwards the
/// last ones. With conv_state{s, first} the state is a ring whose oldest row is `first`, 0 to begin with: what is kept stays where it is,
/// and a call writes as many rows as x has, where without it the whole state moves. A sequence in pieces gives the same bits as in one.
///
/// Errors   extents that do not fit; channels that are not contiguous; a dilation below 1 or above 2^31; a first row that is none; y is x,
///          a state that is x or y.
/// Special  as the formula says; inputs before a sequence are left out or are 0 w: weights have to be finite.
/// Cost     2 width flop an element, one pass over x and y.
/// Error    |y - exact| <= accuracy(width) 2^-24 (|bias| + sum of |w x|), the function and y's rounding apart.
/// Source   Gu and Dao, "Mamba", 2023 (width 4, silu); So et al., "Primer", 2021 (width 3 on q, k and v).

#include <tern/conv/conv_options.hpp>
#include <tern/conv/depthwise_kernel.hpp>
#include <tern/conv/own_memory.hpp>
#include <tern/conv/register_function.hpp>
#include <tern/core/given_once.hpp>
#include <tern/core/parallel_for.hpp>
#include <tern/matmul/bias.hpp>
#include <tern/pointwise/rows.hpp>
#include <tern/simd/stream.hpp>

namespace tern {
inline namespace TERN_ABI {

/// The inputs before a piece of a sequence (batch, (width - 1) dilation, channels), replaced by those before the next piece.
struct conv_state {
  tensor_view<float, 3> values;
  index* first = nullptr;  ///< of a ring, the row of the oldest inputs
  TERN_INLINE explicit conv_state(tensor_view<float, 3> const& v) : values(v) {}
  TERN_INLINE conv_state(tensor_view<float, 3> const& v, index& oldest) : values(v), first(&oldest) {}
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// Of a call without one.
struct no_function {
  TERN_INLINE simd::pack<float> operator()(simd::pack<float> z) const { return z; }
};
inline constexpr no_function function_among() { return {}; }
/// The function among the options.
template <class O, class... More>
TERN_INLINE auto function_among(O const& o, More const&... more) {
  if constexpr (requires { requires register_function<decltype(o.f)>; })
    return o.f;
  else if constexpr (register_function<O>)
    return o;
  else
    return function_among(more...);
}

/// What the options of a call say. It refers to them.
struct causal_request {
  tensor_view<float const, 1> bias;
  tensor_view<float, 3> state;
  index* first = nullptr;
  tern::dilation dilation{1};

  bool has_bias = false, has_state = false, has_function = false;

  TERN_INLINE void set(tern::bias const& b) {
    bias = b.values;
    has_bias = true;
  }
  TERN_INLINE void set(conv_state const& s) {
    state = s.values;
    first = s.first;
    has_state = true;
  }
  TERN_INLINE void set(tern::dilation const& d) { dilation = d; }
  /// The row of the state with the inputs of time t < 0.
  TERN_INLINE index row(index t) const {
    index const kept = state.extent(1), at = t + kept + (first != nullptr ? *first : 0);
    return at < kept ? at : at - kept;
  }
  template <class F>
  TERN_INLINE void set(each<F> const& e) {
    set(e.f);
  }
  template <register_function F>
  TERN_INLINE void set(F const&) {
    expect(!has_function, "causal_conv", "the number of functions", 2, "at most 1");
    has_function = true;
  }
};
template <class O>
concept causal_option = requires(causal_request& r, O const& o) { r.set(o); };

/// Tokens that are summed side by side: fewer where kernels are narrow; where they have more than causal_narrow taps, as many as registers
/// hold, which share what they load. Eight rows of results that go past the caches side by side take a quarter less time than four.
inline constexpr index causal_tokens = simd::many_registers ? 8 : 4, causal_wide_tokens = simd::many_registers ? 12 : 8, causal_narrow = 8;
/// Dilations up to this one leave room for their products with widths and tiles.
inline constexpr index most_causal_dilation = index{1} << 31;
/// Channels whose sums are finished at a time.
inline constexpr index causal_channels = 8 * simd::lanes;

/// Results of more bytes go past the caches, which they would not stay in.
inline constexpr index causal_cached_bytes = 32 * 1024 * 1024;
/// Whether all rows of y start where registers may be stored so.
TERN_INLINE bool past_caches(tensor_view<float, 3> const& y) {
  return y.size() * index{sizeof(float)} > causal_cached_bytes && simd::can_store_past(y.data()) && y.stride(0) % simd::lanes == 0 &&
         y.stride(1) % simd::lanes == 0;
}
template <class Y>
TERN_INLINE bool past_caches(tensor_view<Y, 3> const&) {
  return false;
}

/// Where some tokens' sums for a register of channels come from and go: rows of the input, of the taps and of the results are so many
/// floats apart.
struct causal_rows {
  float const* s;
  index s_step;
  float const* w;
  index w_step;
  float const* bias;  // null: none
  float* out;
  index out_step;
  bool past;

  TERN_INLINE void advance() {
    s += simd::lanes;
    w += simd::lanes;
    out += simd::lanes;
    if (bias != nullptr) bias += simd::lanes;
  }
  template <index tokens>
  TERN_INLINE void start(simd::pack<float> (&acc)[tokens]) const {
    simd::pack<float> const b = bias != nullptr ? simd::load(bias) : simd::pack<float>(0.f);
    TERN_UNROLL
    for (index p = 0; p < tokens; ++p) acc[p] = b;
  }
  template <index tokens, class F>
  TERN_INLINE void finish(simd::pack<float> const (&acc)[tokens], F const& f) const {
    TERN_UNROLL
    for (index p = 0; p < tokens; ++p) {
      simd::pack<float> const y = f(acc[p]);
      past ? simd::store_past(out + p * out_step, y) : simd::store(out + p * out_step, y);
    }
  }
};

/// out[p] = f(bias + sum over j < taps of s[p + j] w[j])
template <index tokens, index taps, class F>
TERN_INLINE void causal_sums(causal_rows rows, index registers, F const& f) {
  for (index r = 0; r < registers; ++r, rows.advance()) {
    simd::pack<float> acc[tokens];
    rows.start(acc);
    add_taps<tokens, taps>(acc, rows.s, rows.s_step, rows.w, rows.w_step);
    rows.finish(acc, f);
  }
}
/// out[p] = f(bias + sum over j < width of s[p + j - skipped] w[j]), where that is no row before s.
template <index tokens, class F>
TERN_INLINE void causal_sums(causal_rows rows, index registers, index width, index skipped, F const& f) {
  for (index r = 0; r < registers; ++r, rows.advance()) {
    simd::pack<float> acc[tokens];
    rows.start(acc);
    float const *s = rows.s, *w = rows.w + skipped * rows.w_step;
    if (skipped > 0) {  // the first token's taps begin with this one, later tokens' before it
      TERN_UNROLL
      for (index p = 1; p < tokens; ++p)
        for (index j = p < skipped ? skipped - p : 0; j < skipped; ++j)
          acc[p] = simd::fma(simd::load(s + (p + j - skipped) * rows.s_step), simd::load(rows.w + j * rows.w_step), acc[p]);
    }
    index left = width - skipped;
    for (; left > 4; left -= 4, s += 4 * rows.s_step, w += 4 * rows.w_step) add_taps<tokens, 4>(acc, s, rows.s_step, w, rows.w_step);
    if (left == 4) add_taps<tokens, 4>(acc, s, rows.s_step, w, rows.w_step);
    if (left == 3) add_taps<tokens, 3>(acc, s, rows.s_step, w, rows.w_step);
    if (left == 2) add_taps<tokens, 2>(acc, s, rows.s_step, w, rows.w_step);
    if (left == 1) add_taps<tokens, 1>(acc, s, rows.s_step, w, rows.w_step);
    rows.finish(acc, f);
  }
}

template <class X, class Y, class F>
class causal_block {
 public:
  causal_block(tensor_view<X, 3> const& x, tensor_view<float const, 2> const& w, tensor_view<Y, 3> const& y, causal_request const& r,
               F const& f, bool past)
      : x_(x),
        w_(w),
        y_(y),
        request_(r),
        f_(f),
        width_(w.extent(0)),
        spread_(r.dilation[0]),
        side_(width_ > causal_narrow ? causal_wide_tokens : causal_tokens),
        past_(past) {}

  /// Tokens of a tile, which lie `dilation` apart; and tiles, those of one run of tokens after those of the run before.
  TERN_INLINE index side() const { return side_; }
  TERN_INLINE index tiles() const {
    index const run = side_ * spread_, length = x_.extent(1);
    return length / run * spread_ + least(spread_, length % run);
  }
  /// The outputs of tiles `begin` to `end`.
  void run(index batch, index begin, index end) const {
    index const channels = x_.extent(2), length = x_.extent(1);
    for (index tile = begin; tile < end; ++tile) {
      index const t = tile / spread_ * spread_ * side_ + tile % spread_, tokens = divide_up(length - t, spread_);
      for (index c = 0; c < channels; c += causal_channels)
        run_tile(batch, t, least(side_, tokens), c, least(causal_channels, channels - c));
    }
    if (past_) simd::finish_stores_past();
  }

 private:
  /// `tokens` by `channels` outputs, into y where it takes them as they are.
  void run_tile(index batch, index t, index tokens, index c, index channels) const {
    float block[causal_wide_tokens * causal_channels];
    bool const direct = std::is_same_v<Y, float> && channels % simd::lanes == 0;
    float* out = block;
    index step = causal_channels;
    if constexpr (std::is_same_v<Y, float>)
      if (direct) {
        out = &y_(batch, t, c);
        step = spread_ * y_.stride(1);
      }
    index whole = 0;  // registers of channels that are read where they lie
    if constexpr (std::is_same_v<X, float const>)
      if (t >= before() || request_.state.data() == nullptr) {
        whole = channels / simd::lanes;
        index p = 0;
        if (tokens == causal_wide_tokens) sum_tokens<causal_wide_tokens>(batch, t, p, c, whole, out, step, direct && past_);
        while (p + causal_tokens <= tokens) sum_tokens<causal_tokens>(batch, t, p, c, whole, out, step, direct && past_);
        if constexpr (causal_tokens > 4)  // the rest of a tile
          if (p + 4 <= tokens) sum_tokens<4>(batch, t, p, c, whole, out, step, direct && past_);
        while (p < tokens) sum_tokens<1>(batch, t, p, c, whole, out, step, direct && past_);
      }
    for (index i = whole * simd::lanes; i < channels; i += simd::lanes)
      sum_any(batch, t, tokens, c + i, least(simd::lanes, channels - i), out + i, step);
    if (direct) return;
    for (index p = 0; p < tokens; ++p)
      convert_row(static_cast<float const*>(block + p * causal_channels), &y_(batch, t + p * spread_, c), channels);
  }

  /// Registers of some tokens of a tile, from number p on, which moves on.
  template <index tokens>
  TERN_INLINE void sum_tokens(index batch, index t, index& p, index c, index registers, float* out, index step, bool past) const {
    index const from = t + p * spread_ - before(), skipped = from < 0 ? divide_up(-from, spread_) : 0;
    float const* const b = request_.bias.data() == nullptr ? nullptr : &request_.bias[c];
    causal_rows const rows{
        &x_(batch, from + skipped * spread_, c), spread_ * x_.stride(1), &w_(0, c), w_.stride(0), b, out + p * step, step, past};
    if (tokens <= causal_tokens && skipped == 0 && width_ == 4)
      causal_sums<tokens, 4>(rows, registers, f_);
    else if (tokens <= causal_tokens && skipped == 0 && width_ == 3)
      causal_sums<tokens, 3>(rows, registers, f_);
    else
      causal_sums<tokens>(rows, registers, width_, skipped, f_);
    p += tokens;
  }

  /// The same sums for one register or a part of it, of any type, and of inputs that may lie before x.
  void sum_any(index batch, index t, index tokens, index c, index n, float* out, index step) const {
    using simd::lanes;
    simd::pack<float> const b = bias(c, n);
    for (index p = 0; p < tokens; ++p) {
      simd::pack<float> sum = b;
      for (index j = 0; j < width_; ++j) sum = simd::fma(input(batch, t + (p + j) * spread_ - before(), c, n), weight(j, c, n), sum);
      simd::store(out + p * step, f_(sum));
    }
  }

  simd::pack<float> input(index batch, index t, index c, index n) const {
    if (t >= 0) return n == simd::lanes ? simd::load(&x_(batch, t, c)) : simd::load_n(&x_(batch, t, c), n);
    if (request_.state.data() == nullptr) return simd::pack<float>(0.f);
    return simd::load_n(static_cast<float const*>(&request_.state(batch, request_.row(t), c)), n);
  }
  /// Inputs that the first tap of an output lies before it.
  TERN_INLINE index before() const { return (width_ - 1) * spread_; }
  simd::pack<float> weight(index j, index c, index n) const {
    return n == simd::lanes ? simd::load(&w_(j, c)) : simd::load_n(&w_(j, c), n);
  }
  simd::pack<float> bias(index c, index n) const {
    return request_.bias.data() == nullptr ? simd::pack<float>(0.f) : simd::load_n(&request_.bias[c], n);
  }

  tensor_view<X, 3> const& x_;
  tensor_view<float const, 2> const& w_;
  tensor_view<Y, 3> const& y_;
  causal_request const& request_;
  F const& f_;
  index width_, spread_, side_;
  bool past_;
};

/// The last inputs before and in x, as many as the state has rows. Rows of a ring stay where they are; others move down, so that each is
/// read before it is replaced.
template <class X>
inline void keep_inputs(tensor_view<X, 3> const& x, causal_request const& r) {
  index const length = x.extent(1), kept = r.state.extent(1), fresh = least(length, kept);
  if (kept == 0) return;
  for (index b = 0; b < x.extent(0); ++b) {
    if (r.first == nullptr)
      for (index i = 0; i < kept - fresh; ++i)
        convert_row(static_cast<float const*>(&r.state(b, i + length, 0)), &r.state(b, i, 0), x.extent(2));
    for (index t = length - fresh; t < length; ++t)
      convert_row(&x(b, t, 0), &r.state(b, r.row(r.first == nullptr ? t - length : t % kept - kept), 0), x.extent(2));
  }
  if (r.first != nullptr) *r.first = (*r.first + length) % kept;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::causal_conv(policy, x, w, y, options...)`: see the top of conv/causal_conv.hpp.
inline constexpr struct causal_conv_fn : takes_policy {
  using takes_policy::operator();

  /// |y - exact| <= this * 2^-24 * (|bias| + sum over taps of |w x|): each product and each addition rounds once.
  static constexpr double accuracy(index width) { return static_cast<double>(width) + 2; }

  template <tensor_like X, tensor_like W, tensor_like Y, class... Options>
  void operator()(cpu_policy const& policy, X&& x, W&& w, Y&& y, Options const&... options) const {
    static_assert(view_of<X>::rank == 3 && view_of<Y>::rank == 3, "tern: causal_conv takes x and y (batch, length, channels)");
    static_assert(!std::is_const_v<typename view_of<Y>::element_type>, "tern: causal_conv writes y, which is not const");
    auto const xs = tern::view(x);                         // (batch, length, channels)
    tensor_view<float const, 2> const ws = tern::view(w);  // (width, channels)
    auto const ys = tern::view(y);                         // (batch, length, channels)
    static_assert((detail::causal_option<Options> && ...),
                  "tern: an option of causal_conv is bias, conv_state, dilation, or a function of registers (act::*, each)");
    static_assert(detail::settings<tern::bias, conv_state, tern::dilation>::given_once<Options...>,
                  "tern: the same option of causal_conv is given twice");
    detail::causal_request r;
    if constexpr ((detail::causal_option<Options> && ...)) (r.set(options), ...);
    check(xs, ws, ys, r);
    if (xs.size() == 0) return;
    using element = typename decltype(xs)::value_type const;
    tensor_view<element, 3> const from = xs;
    auto const f = detail::function_among(options...);
    detail::causal_block const block(from, ws, ys, r, f, detail::past_caches(ys));
    // Pieces of four times the pointwise grain: each reads the inputs before its own again.
    index const share = 4 * detail::pointwise_grain / (block.side() * xs.extent(2));
    index const each = share < 2 ? 2 : share, tiles = block.tiles(), pieces = detail::divide_up(tiles, each);
    detail::parallel_for(policy, xs.extent(0) * pieces, [&](index item, index) TERN_LAMBDA {
      index const begin = item % pieces * each;
      block.run(item / pieces, begin, detail::least(begin + each, tiles));
    });
    if (r.state.data() != nullptr) detail::keep_inputs(from, r);
  }

 private:
  template <class X, class Y>
  static void check(X const& x, tensor_view<float const, 2> const& w, Y const& y, detail::causal_request const& r) {
    constexpr char const* op = "causal_conv";
    detail::expect_rows(op, "x", x);
    detail::expect_rows(op, "w", w);
    detail::expect_like(op, "y", y, "x", x);
    detail::expect_extent(op, "w", w, 1, "x", x, 2);
    detail::expect(w.extent(0) >= 1, op, "w.extent(0)", w.extent(0), "at least 1");
    detail::expect_own_memory(op, "y", y, "x", x);
    if (r.has_bias) {
      detail::expect_rows(op, "bias", r.bias);
      detail::expect_extent(op, "bias", r.bias, 0, "x", x, 2);
    }
    detail::expect(r.dilation.count == 1 && r.dilation[0] >= 1 && r.dilation[0] <= detail::most_causal_dilation, op, "dilation",
                   r.dilation[0], "one number, 1 to 2^31");
    if (!r.has_state) return;
    detail::expect_own_memory(op, "conv_state", r.state, "x", x);
    detail::expect_own_memory(op, "conv_state", r.state, "y", y);
    detail::expect_rows(op, "conv_state", r.state);
    detail::expect_extent(op, "conv_state", r.state, 0, "x", x, 0);
    index const kept = (w.extent(0) - 1) * r.dilation[0];
    detail::expect_equal(op, "conv_state.extent(1)", r.state.extent(1), "(w.extent(0) - 1) dilation", kept);
    detail::expect_extent(op, "conv_state", r.state, 2, "x", x, 2);
    if (r.first != nullptr)
      detail::expect(*r.first == 0 || (*r.first > 0 && *r.first < kept), op, "conv_state's first row", *r.first, "one of the state's");
  }
} causal_conv{};

}  // namespace TERN_ABI
}  // namespace tern
