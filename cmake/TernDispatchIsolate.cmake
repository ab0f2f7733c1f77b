# SPDX-License-Identifier: Apache-2.0
# Makes one object of an architecture's objects, whose functions nobody else can be given.
#
# A compiler emits inline functions and templates (std::max, a constructor, a lambda) into every object that uses them, and the
# linker keeps one copy for all. Were that the copy of an object for AVX-512, the program would die on a CPU without it. Here
# such functions, and constants that may point to them (vtables), become local. Shared variables stay shared: the program's error
# handler, inline variables, the statics of inline functions; so do type names, by which exceptions are caught.
#
# cmake -DOBJECTS=a.o;b.o -DOUTPUT=c.o -DARCHITECTURE=avx2 -DLINKER=ld -DNM=nm -DOBJCOPY=objcopy -P TernDispatchIsolate.cmake
cmake_policy(VERSION 3.25)

function(run what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(failed)
    message(FATAL_ERROR "tern: ${what} failed for ${ARCHITECTURE}:\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

get_filename_component(folder "${OUTPUT}" DIRECTORY)
file(MAKE_DIRECTORY "${folder}")
run("ld -r" "${LINKER}" -r --force-group-allocation -o "${OUTPUT}.whole" ${OBJECTS})
run("nm" "${NM}" --defined-only --format=sysv "${OUTPUT}.whole")

# Code that would run before anything is chosen.
if(output MATCHES "(_GLOBAL__sub_I_[^ |]*)")
  message(FATAL_ERROR "tern: the sources compiled for ${ARCHITECTURE} have a variable whose initializer runs at program start "
    "(${CMAKE_MATCH_1}), before it is known whether the CPU has ${ARCHITECTURE}. Make it constinit, or local to a function, and do "
    "not include <iostream> there.")
endif()

# name|value|class|type|size|line|section, where class W, V and u are what objects share.
string(REPLACE ";" "," output "${output}")
string(REGEX MATCHALL "[^\n]+" lines "${output}")
list(FILTER lines INCLUDE REGEX "\\| *[WwVvu] *\\|")
set(local "")
set(shared "")
foreach(line IN LISTS lines)
  if(line MATCHES "^([^|]*[^| ]) *\\|[^|]*\\| *[WwVvu] *\\|([^|]*)\\|[^|]*\\|[^|]*\\| *([^| ]*)")
    set(name "${CMAKE_MATCH_1}")
    set(type "${CMAKE_MATCH_2}")
    set(section "${CMAKE_MATCH_3}")
    if(name MATCHES "^_ZT[IS]" OR NOT (type MATCHES "FUNC" OR section MATCHES "^\\.(text|rodata|data\\.rel\\.ro)"))
      string(APPEND shared "${name}\n")
    else()
      string(APPEND local "${name}\n")
    endif()
  endif()
endforeach()
file(WRITE "${OUTPUT}.local" "${local}")
file(WRITE "${OUTPUT}.weak" "${local}${shared}")
# Outside its group a shared variable has to be weak for the linker to merge it, and a "unique" one to be made local.
run("objcopy" "${OBJCOPY}" "--weaken-symbols=${OUTPUT}.weak" "${OUTPUT}.whole")
run("objcopy" "${OBJCOPY}" "--localize-symbols=${OUTPUT}.local" "${OUTPUT}.whole" "${OUTPUT}")
file(REMOVE "${OUTPUT}.whole" "${OUTPUT}.local" "${OUTPUT}.weak")
