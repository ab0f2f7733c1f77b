// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file conv/monarch.hpp
/// Transforms of N = n_1 n_2 ... n_p numbers that are products of p block-diagonal matrices: Monarch and butterfly matrices, of which a
/// Fourier transform is one. A number's place has the digits d_1 ... d_p, d_1 the slowest, and factor s mixes numbers that differ in
/// digit s alone:
///
///     z(.., k, ..) = t_s(.., k, ..) sum over j < n_s of W_s(b, k, j) z(.., j, ..)       b: the place without digit s
///
///     monarch_plan plan({64, 64}, {{w1, t1}, {w2}});                from the first factor to the last
///     monarch_plan back({64, 64}, {{v1, s1}, {v2}}, fft_direction::inverse);   from the last to the first, the sums of t_s z instead
///     auto exact = monarch_plan::dft({64, 64});                     the frequency k_1 + n_1 k_2 + n_1 n_2 k_3 + ... at (k_1, k_2, ..)
///     auto undone = monarch_plan::dft({64, 64}, fft_direction::inverse);
///     monarch(policy, plan, x, z)                                   real to complex
///     monarch_inverse(policy, back, z, x)                           complex to real: the real part
///
/// In an exact transform W_s is that of n_s numbers and t_s = e^(-2 pi i k r / (n_s M)), r < M = n_(s + 1) ... n_p being the number that
/// the faster digits make.
///
/// Shapes  x f32 (rows, N) of any strides, z complex (rows, N), contiguous along N. w_s complex (N / n_s, n_s, n_s), or (1, n_s, n_s), a
///         block that all places share; t_s complex (N), or nothing, as of the last factor. A compute type may follow: compute::bf16.
/// Errors  more than 4 sizes, sizes below 1, extents that do not fit, twiddles of the last factor, a plan of the other direction.
/// Memory  a plan: 16 n_s^2 bytes a block and 8 N bytes of twiddles. Scratch from the policy: 256 N bytes a thread, and matmul's.
/// Cost    8 N (n_1 + ... + n_p) flop a row, of which the factor at the real end saves half; real transforms by butterflies take
///         2.5 N log2 N: at N = 4096 = 64 64 there are 26 times as many, at 16 16 16 11 times. Nowhere measured is that made up for: such a
///         row takes 34 and 36 us, by real_fft 24 us; there and back, for a convolution, 68 and 71 us, with bf16 in AMX's registers 37 and
///         58 us, by long_conv 8 us (AVX-512, one thread; the same at N = 1024 and 16384). It is here for factors that are learned.
/// Error   |z - z*|_2 <= plan.error() |x|_2 times the product over factors of the largest spectral norm of a block and the largest twiddle:
///         sqrt(N) for an exact transform, 1 / sqrt(N) for its inverse. Of compute::f32.
/// Same    a row's results depend on it alone.
/// Source  Dao et al., "Monarch", 2022, arXiv:2204.00595; Fu et al., "Simple Hardware-Efficient Long Convolutions", 2023, arXiv:2302.06646,
///         abstracts; the factors of a Fourier transform are those of Cooley and Tukey.

#include <tern/fft/fft.hpp>
#include <tern/matmul/matmul.hpp>

namespace tern {
inline namespace TERN_ABI {

/// A factor: blocks (N / n, n, n) or (1, n, n), and twiddles (N) or none.
struct monarch_factor {
  tensor_view<complex_f32 const, 3> blocks;
  tensor_view<complex_f32 const, 1> twiddles = {};
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// Rows that are transformed side by side: matmul adds up as many in one order, however many there are.
inline constexpr index monarch_rows = 16;
static_assert(monarch_rows <= most_stream_rows);

/// A factor within its transform: N = outer n inner.
struct monarch_stage {
  index outer = 1, n = 1, inner = 1;
  bool shared = false;
  float const* blocks = nullptr;    // (blocks, 2 n, 2 n): forward (k, part) from (part, j), inverse (part, j) from (k, part)
  float const* twiddles = nullptr;  // (outer, n, inner) complex, or none
  TERN_INLINE index count() const { return outer * inner; }
  /// Whether all blocks are one product, of more rows than are added up in the order of few, whatever the rows of a block.
  TERN_INLINE bool at_once() const { return shared && count() > most_stream_rows; }
};

/// Rows of small matrices are turned so many columns at a time: streams of memory that a cache keeps apart.
inline constexpr index monarch_streams = 8;
/// Calls body(i, j) for i < m and j < n, a few j after each other for all i.
template <class Body>
TERN_INLINE void each_turned(index m, index n, Body&& body) {
  for (index first = 0; first < n; first += monarch_streams)
    for (index i = 0; i < m; ++i)
      for (index j = first; j < least(n, first + monarch_streams); ++j) body(i, j);
}

/// From behind stage a, (outer, inner, row, k, part), to before the next stage b, (outer, inner, row, part, j): what was k is now among the
/// outer digits, and j was among the inner ones. With twiddles on the way; or back.
template <bool forward>
inline void regroup(monarch_stage const& a, monarch_stage const& b, index rows, float const* from, float* to) noexcept {
  for (index o = 0; o < a.outer; ++o)
    for (index r = 0; r < b.inner; ++r)
      for (index row = 0; row < rows; ++row)
        each_turned(b.n, a.n, [&](index j, index k) TERN_LAMBDA {
          index const here = 2 * (((o * a.inner + j * b.inner + r) * rows + row) * a.n + k);
          index const there = 2 * (((o * a.n + k) * b.inner + r) * rows + row) * b.n + j;
          float re = forward ? from[here] : from[there], im = forward ? from[here + 1] : from[there + b.n];
          if (a.twiddles != nullptr) {
            float const* const t = a.twiddles + 2 * (((o * a.n + k) * b.n + j) * b.inner + r);
            float const turned = re * t[0] - im * t[1];
            im = re * t[1] + im * t[0];
            re = turned;
          }
          to[forward ? there : here] = re;
          to[forward ? there + b.n : here + 1] = im;
        });
}

/// The products of a stage, in (blocks, rows, columns) and out (blocks, rows, outputs): all of the 2 n columns and outputs, or the first n
/// where one end is real.
inline void multiply_stage(cpu_policy const& policy, monarch_stage const& s, index rows, index columns, index outputs, compute mode,
                           float const* in, float* out) {
  index const calls = s.at_once() ? 1 : s.count(), each = s.at_once() ? s.count() * rows : rows;
  for (index c = 0; c < calls; ++c) {
    float const* const w = s.blocks + (s.shared ? 0 : c * 4 * s.n * s.n);
    tensor_view<float const, 2> const weights(w, shape<2>{{outputs, columns}}, shape<2>{{2 * s.n, 1}});
    matmul(policy, tensor_view<float const, 2>(in + c * each * columns, shape<2>{{each, columns}}), weights,
           tern::view(out + c * each * outputs, each, outputs), mode);
  }
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// The factors of a transform, ready: see the top of conv/monarch.hpp.
class monarch_plan {
 public:
  static constexpr int most_factors = 4;

  template <std::size_t P>
  monarch_plan(index const (&sizes)[P], monarch_factor const (&factors)[P], fft_direction direction = fft_direction::forward)
      : monarch_plan(sizes, static_cast<int>(P), direction) {
    static_assert(P <= most_factors, "tern: a Monarch matrix has at most 4 factors");
    for (int s = 0; s < count_; ++s) set(s, factors[s]);
  }
  /// The exact transform of N numbers.
  template <std::size_t P>
  static monarch_plan dft(index const (&sizes)[P], fft_direction direction = fft_direction::forward) {
    static_assert(P <= most_factors, "tern: a Monarch matrix has at most 4 factors");
    monarch_plan plan(sizes, static_cast<int>(P), direction);
    for (int s = 0; s < plan.count_; ++s) plan.set_dft(s);
    return plan;
  }
  monarch_plan(monarch_plan&& other) noexcept = default;
  monarch_plan& operator=(monarch_plan&& other) noexcept = default;
  ~monarch_plan() {}

  TERN_INLINE index size() const { return size_; }
  TERN_INLINE int factors() const { return count_; }
  TERN_INLINE fft_direction direction() const { return direction_; }
  TERN_INLINE detail::monarch_stage const& stage(int s) const { return stages_[s]; }
  /// A block's sums are off by matmul's accuracy times its Frobenius norm, which is sqrt(2 n) of its spectral norm at most; its numbers
  /// were rounded once, and twiddles round three times more.
  TERN_INLINE double error() const {
    double sum = 0;
    for (int s = 0; s < count_; ++s) {
      index const n = 2 * stages_[s].n;
      sum += (matmul.accuracy(n) + 1) * __builtin_sqrt(static_cast<double>(n)) + 4;
    }
    return 0x1p-24 * sum;
  }

  /// What the scratch of one thread is.
  TERN_INLINE std::size_t buffer_bytes() const {
    return workspace::rounded(static_cast<std::size_t>(2 * size_ * detail::monarch_rows) * sizeof(float));
  }
  inline std::size_t matmul_bytes(compute mode) const {
    std::size_t most = 0;
    for (int s = 0; s < count_; ++s) {
      detail::monarch_stage const& st = stages_[s];
      index const rows = (st.at_once() ? st.count() : 1) * detail::monarch_rows, n = 2 * st.n;
      std::size_t const bytes = workspace_size(matmul, cpu_policy{}.on(serial), tensor_view<float const, 2>(st.blocks, shape<2>{{rows, n}}),
                                               tensor_view<float const, 2>(st.blocks, shape<2>{{n, n}}),
                                               tensor_view<float, 2>(nullptr, shape<2>{{rows, n}}), mode);
      most = bytes > most ? bytes : most;
    }
    return workspace::rounded(most);
  }
  /// All factors. Of two buffers of 2 N rows floats `a` has the numbers, and the one that is returned has the result: the real ones as
  /// (inner of the first factor, rows, n_1), complex ones as (outer of the last, rows, n_p, 2).
  inline float* run(cpu_policy const& policy, index rows, compute mode, float* a, float* b) const {
    bool const forward = direction_ == fft_direction::forward;
    for (int i = 0; i < count_; ++i) {
      int const s = forward ? i : count_ - 1 - i;
      bool const real = s == 0;
      index const n = stages_[s].n, half = real ? n : 2 * n;
      detail::multiply_stage(policy, stages_[s], rows, forward ? half : 2 * n, forward ? 2 * n : half, mode, a, b);
      if (i + 1 == count_) return b;
      if (forward)
        detail::regroup<true>(stages_[s], stages_[s + 1], rows, b, a);
      else
        detail::regroup<false>(stages_[s - 1], stages_[s], rows, b, a);
    }
    return a;
  }

 private:
  inline monarch_plan(index const* sizes, int count, fft_direction direction) : count_(count), direction_(direction) {
    for (int s = 0; s < count; ++s) {
      detail::expect(sizes[s] >= 1, "monarch_plan", "a size", sizes[s], "at least 1");
      stages_[s].outer = size_;
      stages_[s].n = sizes[s];
      size_ *= sizes[s];
    }
    for (int s = 0; s < count; ++s) stages_[s].inner = size_ / stages_[s].outer / stages_[s].n;
  }
  /// Memory for the blocks of a stage, and its twiddles.
  inline float* make(int s, bool shared, bool turned) {
    detail::monarch_stage& stage = stages_[s];
    index const blocks = (shared ? 1 : stage.count()) * 4 * stage.n * stage.n;
    memory_[s] = detail::owned_floats(blocks + (turned ? 2 * size_ : 0));
    stage.shared = shared;
    stage.blocks = memory_[s].data();
    if (turned) stage.twiddles = memory_[s].data() + blocks;
    return memory_[s].data();
  }
  /// Element (k, j) of a block, or (j, k) of an inverse's, as the real matrix that multiplies pairs.
  inline void put(float* block, index n, index row, index column, float re, float im) const {
    bool const forward = direction_ == fft_direction::forward;
    index const out[2] = {forward ? 2 * row : row, forward ? 2 * row + 1 : n + row};
    index const in[2] = {forward ? column : 2 * column, forward ? n + column : 2 * column + 1};
    block[out[0] * 2 * n + in[0]] = block[out[1] * 2 * n + in[1]] = re;
    block[out[0] * 2 * n + in[1]] = -im;
    block[out[1] * 2 * n + in[0]] = im;
  }
  inline void set(int s, monarch_factor const& f) {
    constexpr char const* op = "monarch_plan";
    detail::monarch_stage const& stage = stages_[s];
    index const n = stage.n, count = f.blocks.extent(0);
    if (count != 1) detail::expect_equal(op, "the number of a factor's blocks", count, "1 or N / n", stage.count());
    for (int d = 1; d < 3; ++d) detail::expect_equal(op, "an extent of a factor's blocks", f.blocks.extent(d), "n", n);
    bool const turned = f.twiddles.data() != nullptr;
    if (turned) {
      detail::expect_equal(op, "a factor's twiddles.extent(0)", f.twiddles.extent(0), "N", size_);
      detail::expect(s + 1 < count_, op, "the twiddles of factor", s + 1, "a factor before the last");
    }
    float* const blocks = make(s, count == 1, turned);
    for (index i = 0; i < count * n * n; ++i) {
      complex_f32 const w = f.blocks(i / (n * n), i / n % n, i % n);
      put(blocks + i / (n * n) * 4 * n * n, n, i / n % n, i % n, w.re, w.im);
    }
    float* at = blocks + count * 4 * n * n;
    for (index i = 0; turned && i < size_; ++i) {
      *at++ = f.twiddles[i].re;
      *at++ = f.twiddles[i].im;
    }
  }
  inline void set_dft(int s) {
    detail::monarch_stage const& stage = stages_[s];
    bool const forward = direction_ == fft_direction::forward, turned = s + 1 < count_;
    index const n = stage.n;
    double const sign = forward ? -1 : 1, factor = forward ? 1 : 1 / static_cast<double>(n);
    float* at = make(s, true, turned);
    for (index k = 0; k < n; ++k)
      for (index j = 0; j < n; ++j) {
        detail::unit const w = detail::turn(sign * static_cast<double>(k * j % n) / static_cast<double>(n));
        put(at, n, k, j, static_cast<float>(factor * w.re), static_cast<float>(factor * w.im));
      }
    at += 4 * n * n;
    for (index i = 0; turned && i < size_; ++i) {
      index const k = i / stage.inner % n, r = i % stage.inner;
      at = detail::put(at, detail::turn(sign * static_cast<double>(k * r) / static_cast<double>(n * stage.inner)));
    }
  }

  index size_ = 1;
  int count_;
  fft_direction direction_;
  detail::monarch_stage stages_[most_factors];
  detail::owned_floats memory_[most_factors];
};

}  // namespace TERN_ABI

namespace detail {
inline namespace TERN_ABI {

/// Up to N real numbers of each row as the first factor takes them, zeros behind them; and back.
inline void load_real(monarch_stage const& s, tensor_view<float const, 2> const& x, float* to) noexcept {
  index const rows = x.extent(0), given = x.extent(1);
  for (index row = 0; row < rows; ++row)
    each_turned(s.n, s.inner, [&](index j, index r) TERN_LAMBDA {
      index const place = j * s.inner + r;
      to[(r * rows + row) * s.n + j] = place < given ? x(row, place) : 0.f;
    });
}
inline void store_real(monarch_stage const& s, float const* from, tensor_view<float, 2> const& x) noexcept {
  index const rows = x.extent(0), wanted = x.extent(1);
  for (index row = 0; row < rows; ++row)
    each_turned(s.n, s.inner, [&](index j, index r) TERN_LAMBDA {
      if (index const place = j * s.inner + r; place < wanted) x(row, place) = from[(r * rows + row) * s.n + j];
    });
}
/// Calls body(row, place, pair) for the complex numbers of some rows as the last factor leaves them, (outer, rows, n).
template <class Body>
TERN_INLINE void each_complex(monarch_stage const& s, index rows, float* z, Body&& body) {
  for (index o = 0; o < s.outer; ++o)
    for (index row = 0; row < rows; ++row)
      for (index k = 0; k < s.n; ++k, z += 2) body(row, o * s.n + k, z);
}
/// Fails unless z, with pairs of floats (rows, 2 N), has a plan's numbers for each of `rows`, which `wanted` are.
TERN_INLINE void expect_complex(char const* op, char const* z_rows, char const* z_n, char const* z_stride, float_rows_view const& z,
                                char const* wanted, index rows, index n) {
  expect_equal(op, z_rows, z.rows, wanted, rows);
  expect_equal(op, z_n, z.n, "the plan's size()", n);
  expect(n <= 1 || z.stride == 2, op, z_stride, z.stride / 2, "1 (contiguous)");
}

/// Calls body(policy of one thread, first row, end, a, b) for pieces of rows, a and b being buffers of the plan's. other: a second plan's
/// scratch, or 0.
template <class Body>
inline void each_monarch_rows(cpu_policy const& policy, monarch_plan const& plan, compute mode, std::size_t other, index rows,
                              Body&& body) {
  std::size_t const buffer = plan.buffer_bytes(), own = plan.matmul_bytes(mode), scratch = own > other ? own : other;
  std::size_t const each = 2 * buffer + scratch;
  index const pieces = divide_up(rows, monarch_rows);
  workspace::lease const memory(policy.scratch(), static_cast<std::size_t>(slots_for(policy, pieces)) * each);
  parallel_for(policy, pieces, [&](index piece, index slot) TERN_LAMBDA {
    std::byte* const mine = memory.data() + static_cast<std::size_t>(slot) * each;
    workspace for_products(mine + 2 * buffer, scratch);
    body(cpu_policy{}.on(serial).with(for_products), piece * monarch_rows, least(rows, (piece + 1) * monarch_rows),
         reinterpret_cast<float*>(mine), reinterpret_cast<float*>(mine + buffer));
  });
}
TERN_INLINE void expect_direction(char const* op, monarch_plan const& plan, fft_direction wanted) {
  if (plan.direction() != wanted) [[unlikely]]
    (message() << op << ": the plan is "
               << (wanted == fft_direction::forward ? "an inverse one, expected a forward one" : "a forward one, expected an inverse one"))
        .fail();
}
/// The rows of z, which the plan makes of x, or x of them.
template <class X, class Z>
TERN_INLINE auto transformed_rows(char const* op, monarch_plan const& plan, fft_direction wanted, tensor_view<X, 2> const& x, Z const& z) {
  expect_direction(op, plan, wanted);
  expect_equal(op, "x.extent(1)", x.extent(1), "plan.size()", plan.size());
  auto const rows = rows_of(op, "z", z, 2);
  expect_complex(op, "z.extent(0)", "z.extent(1)", "z.stride(1)", rows, "x.extent(0)", x.extent(0), plan.size());
  return rows;
}

}  // namespace TERN_ABI
}  // namespace detail

inline namespace TERN_ABI {

/// `tern::monarch(policy, plan, x, z, mode = compute::f32)`: see the top of conv/monarch.hpp.
inline constexpr struct monarch_fn {
  template <tensor_like Z>
  void operator()(cpu_policy const& policy, monarch_plan const& plan, tensor_view<float const, 2> const& x, Z&& z,
                  compute mode = compute::f32) const {
    static_assert(detail::complex_storage<typename view_of<Z>::element_type>, "tern: monarch writes complex numbers");
    auto const to = detail::transformed_rows("monarch", plan, fft_direction::forward, x, tern::view(z));
    detail::monarch_stage const& last = plan.stage(plan.factors() - 1);
    detail::each_monarch_rows(policy, plan, mode, 0, x.extent(0),
                              [&](cpu_policy const& one, index first, index end, float* a, float* b) TERN_LAMBDA {
                                detail::load_real(plan.stage(0), x.slice(0, first, end), a);
                                float* const from = plan.run(one, end - first, mode, a, b);
                                detail::each_complex(last, end - first, from, [&](index row, index place, float const* pair) TERN_LAMBDA {
                                  float* const number = to.data + (first + row) * to.row_stride + 2 * place;
                                  number[0] = pair[0];
                                  number[1] = pair[1];
                                });
                              });
  }
} monarch{};

/// `tern::monarch_inverse(policy, plan, z, x, mode = compute::f32)`: see the top of conv/monarch.hpp.
inline constexpr struct monarch_inverse_fn {
  template <tensor_like Z>
  void operator()(cpu_policy const& policy, monarch_plan const& plan, Z const& z, tensor_view<float, 2> const& x,
                  compute mode = compute::f32) const {
    static_assert(detail::complex_storage<typename view_of<Z const>::element_type>, "tern: monarch_inverse reads complex numbers");
    auto const from = detail::transformed_rows("monarch_inverse", plan, fft_direction::inverse, x, tern::view(z));
    detail::monarch_stage const& last = plan.stage(plan.factors() - 1);
    detail::each_monarch_rows(policy, plan, mode, 0, x.extent(0),
                              [&](cpu_policy const& one, index first, index end, float* a, float* b) TERN_LAMBDA {
                                detail::each_complex(last, end - first, a, [&](index row, index place, float* pair) TERN_LAMBDA {
                                  float const* const number = from.data + (first + row) * from.row_stride + 2 * place;
                                  pair[0] = number[0];
                                  pair[1] = number[1];
                                });
                                detail::store_real(plan.stage(0), plan.run(one, end - first, mode, a, b), x.slice(0, first, end));
                              });
  }
} monarch_inverse{};

}  // namespace TERN_ABI
}  // namespace tern
