# SPDX-License-Identifier: Apache-2.0
# Expects that a mutant was built, runs it, and expects that a test fails.
if(NOT EXISTS "${PROGRAM}")
  execute_process(COMMAND "${CMAKE_COMMAND}" --build "${BUILD}" --target mutant_${NAME})  # says why
  message(FATAL_ERROR "the mutant has to compile")
endif()
execute_process(COMMAND "${PROGRAM}" --abort RESULT_VARIABLE result OUTPUT_VARIABLE output TIMEOUT 250)
if(result EQUAL 0)
  message(FATAL_ERROR "the mutant ${NAME} lives: no test noticed it")
endif()
string(REGEX MATCH "test cases:[^\n]* failed[^\n]*" summary "${output}")
if(NOT summary)
  message(FATAL_ERROR "the mutant ${NAME} ended with ${result}, and not by a test that failed")
endif()
message("killed: ${summary}")
