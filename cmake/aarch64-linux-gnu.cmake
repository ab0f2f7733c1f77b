# SPDX-License-Identifier: Apache-2.0
# Cross-compiles with Debian's g++-aarch64-linux-gnu and runs programs in qemu-aarch64.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)

# The libraries that are headers alone serve every architecture, but the rest of /usr/include does not: links to just those.
set(tern_cross_include "${CMAKE_BINARY_DIR}/cross-include")
file(MAKE_DIRECTORY "${tern_cross_include}")
foreach(headers IN ITEMS xsimd eigen3 catch2)
  if(EXISTS "/usr/include/${headers}" AND NOT EXISTS "${tern_cross_include}/${headers}")
    file(CREATE_LINK "/usr/include/${headers}" "${tern_cross_include}/${headers}" SYMBOLIC)
  endif()
endforeach()
set(TERN_XSIMD_INCLUDE_DIR "${tern_cross_include}" CACHE PATH "")
set(TERN_EIGEN_INCLUDE_DIR "${tern_cross_include}/eigen3" CACHE PATH "")
set(TERN_CATCH2_INCLUDE_DIR "${tern_cross_include}" CACHE PATH "")
