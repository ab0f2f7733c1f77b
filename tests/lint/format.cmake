# SPDX-License-Identifier: Apache-2.0
# cmake -DCLANG_FORMAT=... -DROOT=... -P format.cmake: fails when a source is not formatted.
if(CLANG_FORMAT)
  execute_process(COMMAND "${CLANG_FORMAT}" --version OUTPUT_VARIABLE version)
endif()
if(NOT version MATCHES "version 18\\.")
  message("clang-format 18 was not found: skipped")
  return()
endif()
file(GLOB_RECURSE sources "${ROOT}/include/*.hpp" "${ROOT}/tests/*.hpp" "${ROOT}/tests/*.cpp" "${ROOT}/bench/*.hpp" "${ROOT}/bench/*.cpp"
     "${ROOT}/examples/*.hpp" "${ROOT}/examples/*.cpp")
execute_process(COMMAND "${CLANG_FORMAT}" --dry-run --Werror ${sources} RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "run: clang-format -i on the files above")
endif()
