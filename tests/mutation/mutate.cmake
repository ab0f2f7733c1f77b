# SPDX-License-Identifier: Apache-2.0
# Writes the mutant of a header.
file(READ "${ORIGINAL}" text)
string(FIND "${text}" "${PATTERN}" first)
string(FIND "${text}" "${PATTERN}" last REVERSE)
if(first EQUAL -1 OR NOT first EQUAL last)
  message(FATAL_ERROR "the pattern must occur once in ${ORIGINAL}: ${PATTERN}")
endif()
string(REPLACE "${PATTERN}" "${REPLACEMENT}" text "${text}")
file(WRITE "${MUTATED}" "${text}")
