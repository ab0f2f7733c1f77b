# SPDX-License-Identifier: Apache-2.0
# What tern includes: xsimd, for everybody; Eigen, Catch2 and Google Benchmark only for its own tests and benchmarks.
# Each is looked for on the machine and fetched at a pinned version only when it is not there.
#
# TERN_XSIMD_INCLUDE_DIR, TERN_EIGEN_INCLUDE_DIR and TERN_CATCH2_INCLUDE_DIR name a copy to use instead.
include_guard()

set(THREADS_PREFER_PTHREAD_FLAG TRUE)
find_package(Threads REQUIRED)

# Fetches headers alone: the fetched project's own CMake code does not run.
macro(tern_fetch_headers name url tag)
  include(FetchContent)
  message(STATUS "tern: ${name} was not found, fetching ${tag}")
  FetchContent_Declare(${name} GIT_REPOSITORY ${url} GIT_TAG ${tag} GIT_SHALLOW TRUE SOURCE_SUBDIR no-cmake)
  FetchContent_MakeAvailable(${name})
endmacro()

# Only the include directory is taken: Debian's exported xsimd target links a library that does not exist.
find_path(TERN_XSIMD_INCLUDE_DIR xsimd/xsimd.hpp HINTS "${xsimd_DIR}/../../../include")
mark_as_advanced(TERN_XSIMD_INCLUDE_DIR)
if(TERN_XSIMD_INCLUDE_DIR)
  file(STRINGS "${TERN_XSIMD_INCLUDE_DIR}/xsimd/config/xsimd_config.hpp" tern_xsimd_major REGEX "XSIMD_VERSION_MAJOR [0-9]+")
  if(NOT tern_xsimd_major MATCHES "MAJOR ([0-9]+)" OR CMAKE_MATCH_1 LESS 8)
    message(STATUS "tern: the xsimd in ${TERN_XSIMD_INCLUDE_DIR} is older than 8.1")
    set(TERN_XSIMD_INCLUDE_DIR "")
  endif()
endif()
if(NOT TERN_XSIMD_INCLUDE_DIR)
  tern_fetch_headers(tern_xsimd https://github.com/xtensor-stack/xsimd.git 13.2.0)
  set(TERN_XSIMD_INCLUDE_DIR "${tern_xsimd_SOURCE_DIR}/include")
endif()

# tern_find_eigen(): the target tern_eigen, which has Eigen's include directory.
macro(tern_find_eigen)
  if(NOT TARGET tern_eigen)
    find_path(TERN_EIGEN_INCLUDE_DIR Eigen/Core PATH_SUFFIXES eigen3 HINTS "${Eigen3_DIR}/../../../include")
    mark_as_advanced(TERN_EIGEN_INCLUDE_DIR)
    if(NOT TERN_EIGEN_INCLUDE_DIR)
      tern_fetch_headers(tern_eigen3 https://gitlab.com/libeigen/eigen.git 3.4.0)
      set(TERN_EIGEN_INCLUDE_DIR "${tern_eigen3_SOURCE_DIR}")
    endif()
    add_library(tern_eigen INTERFACE)
    target_include_directories(tern_eigen SYSTEM INTERFACE "${TERN_EIGEN_INCLUDE_DIR}")
  endif()
endmacro()

# tern_find_catch2(): the target tern_catch2, Catch2 2.13 (headers) or 3 (a library).
macro(tern_find_catch2)
  if(NOT TARGET tern_catch2)
    add_library(tern_catch2 INTERFACE)
    if(TERN_CATCH2_INCLUDE_DIR)
      target_include_directories(tern_catch2 SYSTEM INTERFACE "${TERN_CATCH2_INCLUDE_DIR}")
    else()
      find_package(Catch2 QUIET)
      if(NOT Catch2_FOUND)
        include(FetchContent)
        message(STATUS "tern: Catch2 was not found, fetching v3.5.4")
        FetchContent_Declare(Catch2 GIT_REPOSITORY https://github.com/catchorg/Catch2.git GIT_TAG v3.5.4 GIT_SHALLOW TRUE)
        FetchContent_MakeAvailable(Catch2)
      endif()
      target_link_libraries(tern_catch2 INTERFACE Catch2::Catch2)
    endif()
  endif()
endmacro()
