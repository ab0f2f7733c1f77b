# SPDX-License-Identifier: Apache-2.0
# Builds the mutants. Programs of an earlier build are removed: the test of a mutant that no longer compiles must find none.
if(DEFINED ENV{TERN_JOBS})
  set(CORES $ENV{TERN_JOBS})
endif()
file(GLOB programs "${PROGRAMS}/mutant_*")
if(programs)
  file(REMOVE ${programs})
endif()
execute_process(COMMAND "${CMAKE_COMMAND}" --build "${BUILD}" --target mutants -j ${CORES} -- -k 0)
