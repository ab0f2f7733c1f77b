# SPDX-License-Identifier: Apache-2.0
# Configures, builds and runs the consumer project in the folder ${WAY}.
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    list(JOIN ARGV " " command)
    message(FATAL_ERROR "failed: ${command}")
  endif()
endfunction()

file(REMOVE_RECURSE "${WORK}")
if(WAY MATCHES "^(find_package|dispatch)$")
  run("${CMAKE_COMMAND}" --install "${TERN_BINARY}" --prefix "${WORK}/prefix")
endif()
run("${CMAKE_COMMAND}" -S "${CMAKE_CURRENT_LIST_DIR}/${WAY}" -B "${WORK}/build" -G "${GENERATOR}" "-DCMAKE_CXX_COMPILER=${CXX}"
    "-DCMAKE_CXX_FLAGS=${CXX_FLAGS}" "-DTERN_SOURCE=${TERN_SOURCE}" "-DTERN_XSIMD_INCLUDE_DIR=${XSIMD}"
    "-DCMAKE_PREFIX_PATH=${WORK}/prefix" -DCMAKE_BUILD_TYPE=Release)
run("${CMAKE_COMMAND}" --build "${WORK}/build")
run("${WORK}/build/consumer")
