// SPDX-License-Identifier: Apache-2.0
// Registers, arithmetic, masks and reductions, lane by lane against plain loops.
#include "catch.hpp"
#include "lanes.hpp"

#include <tern/simd/pack.hpp>

#include <cmath>
#include <vector>

namespace {
using namespace tern::test;
using tern::bf16;
using tern::simd::lanes;
using tern::simd::pack;
namespace simd = tern::simd;
using std::int32_t;
using size = tern::index;

float const quiet_nan = std::numeric_limits<float>::quiet_NaN();
float const infinity = std::numeric_limits<float>::infinity();
/// Every pair of these meets in some lane of `each_pair`.
std::vector<float> const special_floats{0.f,     -0.f,      1.f,   -1.f,   0.5f,     2.5f,      -2.5f,     3.5f,       1e-40f,
                                        -1e-40f, 0x1p-126f, 3e38f, -3e38f, infinity, -infinity, quiet_nan, -quiet_nan, 1e9f};
std::vector<int32_t> const special_ints{0, 1, -1, 2, -2, 77, 0x7fffffff, -0x7fffffff - 1, 0x40000000, -0x40000000, 65535, -65536};

template <class T>
std::vector<T> const& specials() {
  if constexpr (std::is_same_v<T, float>)
    return special_floats;
  else
    return special_ints;
}
/// f(a, b) on packs and g(x, y) on lanes, for every pair; `same` says whether two results agree.
template <class T, class F, class G, class Same>
bool each_pair(F f, G g, Same same) {
  auto const& s = specials<T>();
  auto const count = static_cast<size>(s.size());
  bool good = true;
  for (size shift = 0; shift < count; ++shift)
    for (size start = 0; start < count; ++start) {
      auto const a = make_pack<T>([&](size i) { return s[static_cast<std::size_t>((start + i) % count)]; });
      auto const b = make_pack<T>([&](size i) { return s[static_cast<std::size_t>((start + i + shift) % count)]; });
      auto const x = lanes_of(a), y = lanes_of(b);
      auto const r = lanes_of(f(a, b));
      for (std::size_t i = 0; i < r.size(); ++i)
        if (!same(r[i], g(x[i], y[i]))) {
          UNSCOPED_INFO("of " << x[i] << " and " << y[i] << " got " << r[i] << ", want " << g(x[i], y[i]));
          good = false;
        }
    }
  return good;
}
/// Equal, and zeros with the same sign; any NaN is as good as another.
bool same_float(float a, float b) { return std::isnan(b) ? std::isnan(a) : a == b && std::signbit(a) == std::signbit(b); }
template <class T>
bool same_number(T a, T b) {
  if constexpr (std::is_same_v<T, float>)
    return same_float(a, b);
  else
    return a == b;
}
/// A mask as ones and zeros.
template <class T>
pack<T> ones(simd::mask<T> m) {
  return simd::select(m, pack<T>(T{1}), pack<T>(T{0}));
}
int32_t wrap(std::int64_t x) { return static_cast<int32_t>(static_cast<std::uint32_t>(x)); }
}  // namespace

TEST_CASE("pack: float arithmetic is that of each lane", "[simd]") {
  auto check = [](auto f, auto g) { return each_pair<float>(f, g, same_number<float>); };
  CHECK(check([](auto a, auto b) { return a + b; }, [](float a, float b) { return a + b; }));
  CHECK(check([](auto a, auto b) { return a - b; }, [](float a, float b) { return a - b; }));
  CHECK(check([](auto a, auto b) { return a * b; }, [](float a, float b) { return a * b; }));
  CHECK(check([](auto a, auto b) { return a / b; }, [](float a, float b) { return a / b; }));
  CHECK(check([](auto a, auto) { return -a; }, [](float a, float) { return -a; }));
  CHECK(check([](auto a, auto) { return simd::abs(a); }, [](float a, float) { return std::fabs(a); }));
  CHECK(check([](auto a, auto) { return simd::sqrt(a); }, [](float a, float) { return std::sqrt(a); }));
  CHECK(check([](auto a, auto) { return simd::round(a); }, [](float a, float) { return std::nearbyint(a); }));
  CHECK(check([](auto a, auto b) { return simd::copy_sign(a, b); }, [](float a, float b) { return std::copysign(a, b); }));
  CHECK(check([](auto a, auto b) { return a += b; }, [](float a, float b) { return a + b; }));
  CHECK(check([](auto a, auto b) { return a -= b; }, [](float a, float b) { return a - b; }));
  CHECK(check([](auto a, auto b) { return a *= b; }, [](float a, float b) { return a * b; }));
}

TEST_CASE("pack: min and max take their second argument when a NaN is about", "[simd]") {
  auto number = [](float a, float b) { return std::isnan(b) ? std::isnan(a) : a == b; };  // either zero will do
  CHECK(each_pair<float>([](auto a, auto b) { return simd::min(a, b); }, [](float a, float b) { return a < b ? a : b; }, number));
  CHECK(each_pair<float>([](auto a, auto b) { return simd::max(a, b); }, [](float a, float b) { return a > b ? a : b; }, number));
  pack<float> const one(1.f), missing(quiet_nan);
  CHECK(lanes_of(simd::max(missing, one))[0] == 1.f);
  CHECK(std::isnan(lanes_of(simd::max(one, missing))[0]));
}

TEST_CASE("pack: integers wrap, compare and shift", "[simd]") {
  auto check = [](auto f, auto g) { return each_pair<int32_t>(f, g, same_number<int32_t>); };
  CHECK(check([](auto a, auto b) { return a + b; }, [](int32_t a, int32_t b) { return wrap(std::int64_t{a} + b); }));
  CHECK(check([](auto a, auto b) { return a & b; }, [](int32_t a, int32_t b) { return a & b; }));
  CHECK(check([](auto a, auto b) { return a | b; }, [](int32_t a, int32_t b) { return a | b; }));
  CHECK(check([](auto a, auto b) { return a ^ b; }, [](int32_t a, int32_t b) { return a ^ b; }));
  CHECK(check([](auto a, auto b) { return simd::min(a, b); }, [](int32_t a, int32_t b) { return a < b ? a : b; }));
  CHECK(check([](auto a, auto b) { return simd::max(a, b); }, [](int32_t a, int32_t b) { return a > b ? a : b; }));
  CHECK(check([](auto a, auto b) { return ones(a < b); }, [](int32_t a, int32_t b) { return int32_t{a < b}; }));
  CHECK(check([](auto a, auto b) { return ones(a == b); }, [](int32_t a, int32_t b) { return int32_t{a == b}; }));
  CHECK(check([](auto a, auto) { return simd::shift_left<5>(a); }, [](int32_t a, int32_t) { return wrap(std::int64_t{a} * 32); }));
  CHECK(check([](auto a, auto) { return simd::shift_left(a, 7); }, [](int32_t a, int32_t) { return wrap(std::int64_t{a} * 128); }));
  CHECK(check([](auto a, auto) { return simd::shift_right<5>(a); }, [](int32_t a, int32_t) { return a >> 5; }));
  CHECK(check([](auto a, auto b) { return simd::shift_right(a, b & pack<int32_t>(31)); },
              [](int32_t a, int32_t b) { return a >> (b & 31); }));
  CHECK(check([](auto a, auto b) { return simd::select_bits(pack<int32_t>(0x0ff0), a, b); },
              [](int32_t a, int32_t b) { return (a & 0x0ff0) | (b & ~0x0ff0); }));
  auto small = make_pack<int32_t>([](size i) { return 3 * i - 7; });
  auto product = lanes_of(small * small);
  auto negative = lanes_of(-small);
  for (size i = 0; i < lanes; ++i) {
    CHECK(product[static_cast<std::size_t>(i)] == (3 * i - 7) * (3 * i - 7));
    CHECK(negative[static_cast<std::size_t>(i)] == 7 - 3 * i);
  }
}

TEST_CASE("pack: comparisons are false for NaN", "[simd]") {
  auto check = [](auto f, auto g) { return each_pair<float>(f, g, same_number<float>); };
  CHECK(check([](auto a, auto b) { return ones(a < b); }, [](float a, float b) { return float(a < b); }));
  CHECK(check([](auto a, auto b) { return ones(a <= b); }, [](float a, float b) { return float(a <= b); }));
  CHECK(check([](auto a, auto b) { return ones(a > b); }, [](float a, float b) { return float(a > b); }));
  CHECK(check([](auto a, auto b) { return ones(a >= b); }, [](float a, float b) { return float(a >= b); }));
  CHECK(check([](auto a, auto b) { return ones(a == b); }, [](float a, float b) { return float(a == b); }));
  pack<float> const zero(0.f);
  CHECK(check([&](auto a, auto b) { return ones((a < b) & (a < zero)); }, [](float a, float b) { return float(a < b && a < 0); }));
  CHECK(check([&](auto a, auto b) { return ones((a < b) | (a < zero)); }, [](float a, float b) { return float(a < b || a < 0); }));
}

TEST_CASE("pack: fma rounds once wherever the machine can", "[simd]") {
  float const a = 1.f + 0x1p-12f, c = -1.f - 0x1p-11f;  // a * a = 1 + 2^-11 + 2^-24, whose last term a product in f32 loses
  float const fused = lanes_of(simd::fma(pack<float>(a), pack<float>(a), pack<float>(c)))[0];
  float const negated = lanes_of(simd::fnma(pack<float>(a), pack<float>(a), pack<float>(-c)))[0];
  float const less_c = lanes_of(simd::fms(pack<float>(a), pack<float>(a), pack<float>(-c)))[0];
#if defined(TERN_SIMD_SSE) && !defined(__FMA__)
  CHECK((fused == 0.f || fused == 0x1p-24f));
  CHECK((negated == 0.f || negated == -0x1p-24f));
  CHECK((less_c == 0.f || less_c == 0x1p-24f));
#else
  CHECK(fused == 0x1p-24f);
  CHECK(negated == -0x1p-24f);
  CHECK(less_c == 0x1p-24f);
#endif
  auto three = lanes_of(simd::fma(simd::iota<float>(), pack<float>(2.f), pack<float>(1.f)));
  auto minus = lanes_of(simd::fnma(simd::iota<float>(), pack<float>(2.f), pack<float>(1.f)));
  auto less = lanes_of(simd::fms(simd::iota<float>(), pack<float>(2.f), pack<float>(1.f)));
  for (std::size_t i = 0; i < three.size(); ++i) {
    CHECK(three[i] == 2.f * static_cast<float>(i) + 1.f);
    CHECK(minus[i] == 1.f - 2.f * static_cast<float>(i));
    CHECK(less[i] == 2.f * static_cast<float>(i) - 1.f);
  }
}

TEST_CASE("pack: conversions between float and int", "[simd]") {
  float const values[] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 0.49999997f, 8388607.5f, -2147483648.f, 2147483520.f, -0.f, 16777216.f, -123.25f};
  for (float x : values) {
    INFO(x);
    CHECK(lanes_of(simd::to_int(pack<float>(x)))[0] == static_cast<int32_t>(std::nearbyint(double{x})));
    CHECK(lanes_of(simd::round(pack<float>(x)))[0] == std::nearbyint(x));
  }
  for (int32_t x : special_ints) CHECK(lanes_of(simd::to_float(pack<int32_t>(x)))[0] == static_cast<float>(x));
  auto const bits = make_pack<int32_t>([](size i) { return 0x3f800000 + i; });
  CHECK(lanes_of(simd::bit_cast<int32_t>(simd::bit_cast<float>(bits))) == lanes_of(bits));
  CHECK(lanes_of(simd::bit_cast<float>(bits))[1] == 1.f + 0x1p-23f);
}

TEMPLATE_TEST_CASE("pack: load_n and store_n touch n elements", "[simd]", float, int32_t, std::uint8_t, std::int8_t) {
  using T = TestType;
  constexpr size n_lanes = pack<T>::size;
  for (size n = 0; n <= n_lanes; ++n) {
    INFO("n = " << n);
    at_page_end<T> memory(n);
    for (size i = 0; i < n; ++i) memory.data()[i] = static_cast<T>(i + 1);
    auto const x = lanes_of<T>(simd::load_n(static_cast<T const*>(memory.data()), n));
    bool good = true;
    for (size i = 0; i < n_lanes; ++i) good &= x[static_cast<std::size_t>(i)] == (i < n ? static_cast<T>(i + 1) : T{0});
    CHECK(good);
    auto const y = make_pack<T>([](size i) { return 100 - i; });
    simd::store_n(memory.data(), y, n);
    for (size i = 0; i < n; ++i) good &= memory.data()[i] == static_cast<T>(100 - i);
    CHECK(good);
    guarded<T> out(n, 1);
    simd::store_n(out.data(), y, n);
    CHECK(out.intact());
    // The other way round: nothing before the first element is read either.
    simd::store_n(memory.begin_of_page(), y, n);
    auto const back = lanes_of<T>(simd::load_n(static_cast<T const*>(memory.begin_of_page()), n));
    for (size i = 0; i < n; ++i) good &= back[static_cast<std::size_t>(i)] == static_cast<T>(100 - i);
    CHECK(good);
  }
}

TEMPLATE_TEST_CASE("pack: loads and stores at any alignment", "[simd]", float, int32_t, std::uint8_t, std::int8_t) {
  using T = TestType;
  for (size misalignment = 0; misalignment < 5; ++misalignment) {
    guarded<T> out(pack<T>::size, misalignment);
    auto const y = make_pack<T>([](size i) { return i; });
    simd::store(out.data(), y);
    CHECK(out.intact());
    CHECK(lanes_of<T>(simd::load(static_cast<T const*>(out.data()))) == lanes_of<T>(y));
  }
}

TEST_CASE("pack: iota and first", "[simd]") {
  for (size i = 0; i < lanes; ++i) {
    CHECK(lanes_of(simd::iota<float>())[static_cast<std::size_t>(i)] == static_cast<float>(i));
    CHECK(lanes_of(simd::iota<int32_t>())[static_cast<std::size_t>(i)] == i);
  }
  for (size n = 0; n <= lanes; ++n) {
    auto const f = lanes_of(ones(simd::first(n)));
    auto const k = lanes_of(ones(simd::first<int32_t>(n)));
    for (size i = 0; i < lanes; ++i) {
      CHECK(f[static_cast<std::size_t>(i)] == (i < n ? 1.f : 0.f));
      CHECK(k[static_cast<std::size_t>(i)] == (i < n ? 1 : 0));
    }
    CHECK(simd::any(simd::first(n)) == (n > 0));
    CHECK(simd::all(simd::first(n)) == (n == lanes));
    CHECK(simd::any(simd::first<int32_t>(n)) == (n > 0));
    CHECK(simd::all(simd::first<int32_t>(n)) == (n == lanes));
  }
}

TEST_CASE("reduce: every lane counts once, in a fixed order", "[simd]") {
  auto const powers = make_pack<float>([](size i) { return std::ldexp(1.f, static_cast<int>(i % 20)); });
  float sum = 0;
  for (float x : lanes_of(powers)) sum += x;  // exact
  CHECK(simd::reduce_add(powers) == sum);
  auto const ints = make_pack<int32_t>([](size i) { return (i + 1) * 1000003; });
  CHECK(simd::reduce_add(ints) == lanes * (lanes + 1) / 2 * 1000003);
  for (size at = 0; at < lanes; ++at) {
    auto const x = make_pack<float>([&](size i) { return i == at ? 5 : -i; });
    CHECK(simd::reduce_max(x) == 5.f);
    CHECK(simd::reduce_min(-x) == -5.f);
    CHECK(simd::reduce_max(make_pack<float>([&](size i) { return i == at ? -3.f : -infinity; })) == -3.f);
  }
  // The stated order: halves are added until one lane is left.
  rng r(5);
  for (int repeat = 0; repeat < 100; ++repeat) {
    auto x = make_pack<float>([&](size) { return static_cast<float>(r.uniform()) - 0.5f; });
    auto lane = lanes_of(x);
    for (std::size_t half = lane.size() / 2; half > 0; half /= 2)
      for (std::size_t i = 0; i < half; ++i) lane[i] = lane[i] + lane[i + half];
    CHECK(simd::reduce_add(x) == lane[0]);
  }
}

TEST_CASE("reduce: the largest of integers", "[simd]") {
  for (size at = 0; at < lanes; ++at) {
    CHECK(simd::reduce_max(make_pack<std::int32_t>([&](size i) { return static_cast<std::int32_t>(i == at ? 7 : -i); })) == 7);
    CHECK(simd::reduce_max(make_pack<std::int32_t>([&](size i) { return i == at ? -5 : std::numeric_limits<std::int32_t>::min(); })) == -5);
    CHECK(simd::reduce_or(make_pack<std::int32_t>([&](size i) { return i == at ? 6 : 8; })) == (lanes > 1 ? 14 : 6));
  }
}

TEST_CASE("pack: load_range touches the lanes of a range alone", "[simd]") {
  CHECK(lanes_of(simd::load_range(nullptr, simd::lane_range())) == lanes_of(pack<float>(0.f)));
  for (size begin = 0; begin <= lanes; ++begin)
    for (size end = begin; end <= lanes; ++end) {
      INFO("lanes " << begin << " to " << end);
      auto const want = lanes_of(make_pack<float>([&](size i) { return i >= begin && i < end ? i + 1 : 0; }));
      at_page_end<float> memory(end);  // what is behind the range faults
      for (size i = begin; i < end; ++i) memory.data()[i] = static_cast<float>(i + 1);
      CHECK(lanes_of(simd::load_range(memory.data(), {begin, end})) == want);
      float* const first = memory.begin_of_page();  // and so does what is before it
      for (size i = begin; i < end; ++i) first[i - begin] = static_cast<float>(i + 1);
      CHECK(lanes_of(simd::load_range(first - begin, {begin, end})) == want);
    }
}

TEST_CASE("in_register: the same lanes", "[simd]") {
  CHECK(lanes_of(simd::in_register(simd::iota<float>())) == lanes_of(simd::iota<float>()));
}

TEST_CASE("stepped: so many elements on, or back", "[simd]") {
  float const memory[8] = {};
  for (size step = -4; step < 4; ++step) CHECK(simd::stepped(memory + 4, step) == memory + 4 + step);
}

TEST_CASE("reduce: several packs at once", "[simd]") {
  rng r(6);
  constexpr int count = 2 * int(lanes) + 1;
  pack<float> x[count];
  for (auto& p : x) p = make_pack<float>([&](size) { return static_cast<float>(r.uniform()) - 0.5f; });
  guarded<float> sums(count, 1);
  simd::reduce_add_each(x, sums.data());
  CHECK(sums.intact());
  for (int i = 0; i < count; ++i) CHECK(sums[i] == Approx(simd::reduce_add(x[i])).margin(1e-5));
  pack<float> const first[3] = {x[0], x[1], x[2]};
  guarded<float> few(3, 1);
  simd::reduce_add_each(first, few.data());
  CHECK(few.intact());
  for (int i = 0; i < 3; ++i) CHECK(few[i] == sums[i]);
  float added[8 * lanes], largest[8 * lanes];
  simd::add_each(first, added);
  simd::max_each(first, largest);
  for (int i = 0; i < 3; ++i) {
    CHECK(added[i] == sums[i]);
    CHECK(largest[i] == simd::reduce_max(x[i]));
  }
  pack<float> whole[lanes];
  for (size i = 0; i < lanes; ++i) whole[i] = x[i];
  simd::max_each(whole, largest);
  for (size i = 0; i < lanes; ++i) CHECK(largest[i] == simd::reduce_max(x[i]));
}
