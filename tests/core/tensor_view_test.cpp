// SPDX-License-Identifier: Apache-2.0
#include <tern/core/float16.hpp>
#include <tern/core/tensor_view.hpp>

#include <unsupported/Eigen/CXX11/Tensor>

#include <array>
#include <numeric>
#include <span>
#include <vector>

#include "catch.hpp"

namespace tern::test {
namespace {

// Shaped like std::mdspan<T, dextents<int, 2>, layout_stride>.
template <class T>
struct small_mdspan {
  using element_type = T;
  T* pointer;
  int extents[2];
  int strides[2];
  static constexpr std::size_t rank() { return 2; }
  T* data_handle() const { return pointer; }
  int extent(std::size_t d) const { return extents[d]; }
  int stride(std::size_t d) const { return strides[d]; }
};

struct not_a_tensor {
  int x;
};

// Whether v(i, j) is the very element m(i, j), for all of them.
template <class View, class Matrix>
bool same_elements(View const& v, Matrix& m) {
  if (v.extent(0) != m.rows() || v.extent(1) != m.cols()) return false;
  for (index i = 0; i < v.extent(0); ++i)
    for (index j = 0; j < v.extent(1); ++j)
      if (&v(i, j) != &m.coeffRef(i, j)) return false;
  return true;
}

}  // namespace

TEST_CASE("a view of a pointer is row-major") {
  std::vector<float> data(24);
  std::iota(data.begin(), data.end(), 0.f);
  auto const v = view(data.data(), 2, 3, 4);
  STATIC_REQUIRE(std::is_same_v<decltype(v), tensor_view<float, 3> const>);
  CHECK(v.size() == 24);
  CHECK(v.is_contiguous());
  CHECK(v(1, 2, 3) == 23.f);
  CHECK(v(1, 0, 2) == 14.f);
  CHECK(v[1][2][3] == 23.f);
  CHECK(v.stride(0) == 12);
  CHECK(v.stride(2) == 1);
}

TEST_CASE("slices, transposes and expansions share the elements") {
  std::vector<float> data(24);
  std::iota(data.begin(), data.end(), 0.f);
  auto const v = view(data.data(), 2, 3, 4);
  auto const s = v.slice(2, 1, 3);
  CHECK(s.extent(2) == 2);
  CHECK(&s(1, 2, 0) == &v(1, 2, 1));
  CHECK_FALSE(s.is_contiguous());
  auto const t = v.transposed(0, 2);
  CHECK(t.extent(0) == 4);
  CHECK(&t(3, 1, 0) == &v(0, 1, 3));
  CHECK_FALSE(t.is_contiguous());
  CHECK(t.transposed(2, 0).is_contiguous());
  auto const e = v.expanded();
  CHECK(e.extent(0) == 1);
  CHECK(&e(0, 1, 2, 3) == &v(1, 2, 3));
  CHECK(e.is_contiguous());
  CHECK(v.slice(0, 1, 1).size() == 0);
}

TEST_CASE("strides may repeat and run backwards") {
  float data[] = {1, 2, 3};
  auto const reversed = tensor_view<float, 1>(data + 2, shape{3}, shape{-1});
  CHECK(reversed[0] == 3);
  CHECK(reversed[2] == 1);
  auto const repeated = tensor_view<float, 2>(data, shape{5, 3}, shape{0, 1});
  CHECK(&repeated(4, 1) == &data[1]);
  CHECK_FALSE(repeated.is_contiguous());
}

TEST_CASE("mutable views read as const ones, and not the other way round") {
  float data[4] = {};
  tensor_view<float const, 2> const v = view(data, 2, 2);
  CHECK(v.data() == data);
  STATIC_REQUIRE(std::is_convertible_v<tensor_view<float, 2>, tensor_view<float const, 2>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<tensor_view<float const, 2>, tensor_view<float, 2>>);
  STATIC_REQUIRE(std::is_trivially_copyable_v<tensor_view<float, 3>>);
}

TEST_CASE("contiguous ranges are views of rank 1") {
  std::vector<float> vector = {1, 2, 3};
  std::array<f16, 2> array = {};
  int const plain[] = {1, 2, 3, 4};
  std::span<float const> const span = vector;
  STATIC_REQUIRE(std::is_same_v<view_of<std::vector<float>&>, tensor_view<float, 1>>);
  STATIC_REQUIRE(std::is_same_v<view_of<std::vector<float> const&>, tensor_view<float const, 1>>);
  STATIC_REQUIRE(std::is_same_v<view_of<std::span<float const> const&>, tensor_view<float const, 1>>);
  CHECK(view(vector).data() == vector.data());
  CHECK(view(span).extent(0) == 3);
  CHECK(view(array).extent(0) == 2);
  CHECK(view(plain)[3] == 4);
}

TEST_CASE("contiguous ranges take a shape that holds all of their elements") {
  std::vector<float> vector(24);
  std::iota(vector.begin(), vector.end(), 0.f);
  auto const v = view(vector, 2, 3, 4);
  STATIC_REQUIRE(std::is_same_v<decltype(v), tensor_view<float, 3> const>);
  CHECK(&v(1, 2, 3) == &vector[23]);
  std::vector<float> const& constant = vector;
  STATIC_REQUIRE(std::is_same_v<decltype(view(constant, 24)), tensor_view<float const, 1>>);
  CHECK(view(std::span<float const>(vector).first(6), 3, 2).stride(0) == 2);
  CHECK(view(std::vector<float>(), 0, 7).extent(1) == 7);
  CHECK_THROWS_WITH(view(vector, 5, 5), "view: size() is 24, expected the product of the extents = 25");
  CHECK_THROWS_WITH(view(vector, -4, -6), "view: an extent is -4, expected at least 0");
  CHECK_THROWS_WITH(view(vector, 2, 3), "view: size() is 24, expected the product of the extents = 6");
}

TEST_CASE("Eigen's matrices are (rows, columns) in either order") {
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor> col(3, 5);
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row(3, 5);
  Eigen::Matrix<double, 2, 3> fixed;
  CHECK(same_elements(view(col), col));
  CHECK(same_elements(view(row), row));
  CHECK(same_elements(view(fixed), fixed));
  auto const& constant = col;
  STATIC_REQUIRE(std::is_same_v<decltype(view(constant)), tensor_view<float const, 2>>);
  CHECK(view(constant).data() == col.data());
}

TEST_CASE("Eigen's maps, references and vectors keep their strides") {
  std::vector<float> data(64);
  Eigen::Map<Eigen::MatrixXf, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>> map(data.data(), 3, 4,
                                                                                    Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(10, 2));
  CHECK(same_elements(view(map), map));
  Eigen::Map<Eigen::MatrixXf const> const read_only(data.data(), 3, 4);
  STATIC_REQUIRE(std::is_same_v<decltype(view(read_only)), tensor_view<float const, 2>>);
  CHECK(&view(read_only)(1, 2) == &data[7]);
  Eigen::MatrixXf matrix(6, 6);
  Eigen::Ref<Eigen::MatrixXf, 0, Eigen::OuterStride<>> ref(matrix.block(1, 2, 3, 4));
  CHECK(same_elements(view(ref), ref));
  Eigen::VectorXf vector(7);
  Eigen::RowVectorXf row_vector(7);
  STATIC_REQUIRE(std::is_same_v<decltype(view(vector)), tensor_view<float, 1>>);
  CHECK(view(vector).extent(0) == 7);
  CHECK(&view(row_vector)[6] == &row_vector(6));
  Eigen::Map<Eigen::VectorXf, 0, Eigen::InnerStride<3>> strided(data.data(), 5);
  CHECK(&view(strided)[4] == &data[12]);
}

TEST_CASE("Eigen's tensors keep the order of their indices") {
  Eigen::Tensor<float, 3> col(2, 3, 4);
  Eigen::Tensor<float, 3, Eigen::RowMajor> row(2, 3, 4);
  for (index i = 0; i < 2; ++i)
    for (index j = 0; j < 3; ++j)
      for (index k = 0; k < 4; ++k) {
        CHECK(&view(col)(i, j, k) == &col(i, j, k));
        CHECK(&view(row)(i, j, k) == &row(i, j, k));
      }
  CHECK(view(row).is_contiguous());
  Eigen::TensorMap<Eigen::Tensor<float, 2>> const map(col.data(), 4, 6);
  CHECK(view(map).extent(1) == 6);
  CHECK(view(map).data() == col.data());
}

TEST_CASE("what is shaped like std::mdspan is a view") {
  float data[20] = {};
  small_mdspan<float> const m{data, {3, 2}, {6, 2}};
  auto const v = view(m);
  STATIC_REQUIRE(std::is_same_v<decltype(v), tensor_view<float, 2> const>);
  CHECK(v.extent(0) == 3);
  CHECK(&v(2, 1) == &data[14]);
}

TEST_CASE("what is not a tensor is not taken for one") {
  STATIC_REQUIRE_FALSE(tensor_like<not_a_tensor&>);
  STATIC_REQUIRE_FALSE(tensor_like<int>);
  STATIC_REQUIRE(tensor_like<std::vector<float>&>);
  STATIC_REQUIRE(tensor_like<tensor_view<float, 4>>);
}

}  // namespace tern::test
