# SPDX-License-Identifier: Apache-2.0
# tern_add_dispatched(target SOURCES kernels.cpp... [ARCHITECTURES baseline avx2...] [NO_ISOLATION])
#
# Compiles the sources once for each architecture and links all of them into the target, which picks one at run time
# (include/tern/dispatch.hpp shows how). The default architectures are those that matter on the target's processor; names that
# belong to another processor are left out, so that one list serves all machines.
#
# Architectures: baseline (the project's own flags, always included), x86: sse42 avx2 avxvnni avx512 avx512vnni avx512bf16,
# AArch64: dotprod.
#
# The flags stay on the objects: neither the target nor its users see them. Where the linker and objcopy can (GNU binutils), each
# architecture becomes one object whose functions nobody else can be given (TernDispatchIsolate.cmake); then the sources may use
# the standard library, Eigen and anything else. NO_ISOLATION turns that off: then only tern's own names keep architectures apart.
include_guard()

set(TERN_DISPATCH_DIR "${CMAKE_CURRENT_LIST_DIR}" CACHE INTERNAL "")

# One line for each architecture: processor, bit of TERN_DISPATCH_COMPILED, flags.
set(TERN_DISPATCH_baseline   any   1 CACHE INTERNAL "")
set(TERN_DISPATCH_sse42      x86   2 -march=x86-64-v2 CACHE INTERNAL "")
set(TERN_DISPATCH_avx2       x86   3 -march=x86-64-v3 CACHE INTERNAL "")
set(TERN_DISPATCH_avxvnni    x86   4 -march=x86-64-v3 -mavxvnni CACHE INTERNAL "")
set(TERN_DISPATCH_avx512     x86   5 -march=x86-64-v4 CACHE INTERNAL "")
set(TERN_DISPATCH_avx512vnni x86   6 -march=x86-64-v4 -mavx512vnni CACHE INTERNAL "")
# Matrix registers are asked for at run time (simd/tiles.hpp), and no compiler uses them on its own.
set(TERN_DISPATCH_avx512bf16 x86   7 -march=x86-64-v4 -mavx512vnni -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16 CACHE INTERNAL "")
set(TERN_DISPATCH_dotprod    arm64 8 -march=armv8.2-a+dotprod CACHE INTERNAL "")

function(tern_dispatch_processor result)
  set(processor other)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
    set(processor x86)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
    set(processor arm64)
  endif()
  set(${result} ${processor} PARENT_SCOPE)
endfunction()

# Whether ld and objcopy can make an object's functions its own.
function(tern_dispatch_can_isolate result)
  if(NOT DEFINED TERN_DISPATCH_CAN_ISOLATE)
    set(can FALSE)
    if(CMAKE_EXECUTABLE_FORMAT STREQUAL "ELF" AND CMAKE_LINKER AND CMAKE_OBJCOPY AND CMAKE_NM)
      execute_process(COMMAND "${CMAKE_LINKER}" --help OUTPUT_VARIABLE linker ERROR_QUIET)
      execute_process(COMMAND "${CMAKE_OBJCOPY}" --help OUTPUT_VARIABLE objcopy ERROR_QUIET)
      if(linker MATCHES "--force-group-allocation" AND objcopy MATCHES "--localize-symbols")
        set(can TRUE)
      endif()
    endif()
    set(TERN_DISPATCH_CAN_ISOLATE ${can} CACHE INTERNAL "")
  endif()
  set(${result} ${TERN_DISPATCH_CAN_ISOLATE} PARENT_SCOPE)
endfunction()

# The architectures of the list that this processor and this compiler have, baseline first, in `result`.
function(tern_dispatch_architectures result asked)
  include(CheckCXXCompilerFlag)
  tern_dispatch_processor(processor)
  set(known baseline sse42 avx2 avxvnni avx512 avx512vnni avx512bf16 dotprod)
  set(chosen baseline)
  set(wanted ${asked})
  if(NOT asked)
    set(wanted baseline avx2 avx512 avx512bf16 dotprod)
  endif()
  foreach(architecture IN LISTS wanted)
    if(NOT architecture IN_LIST known)
      message(FATAL_ERROR "tern_add_dispatched: the architecture ${architecture} is unknown, expected one of: ${known}")
    endif()
    list(GET TERN_DISPATCH_${architecture} 0 belongs)
    if(NOT belongs STREQUAL processor)
      continue()
    endif()
    if(architecture STREQUAL "baseline")
      continue()
    endif()
    list(SUBLIST TERN_DISPATCH_${architecture} 2 -1 flags)
    list(JOIN flags " " flags)
    check_cxx_compiler_flag("${flags}" TERN_HAVE_FLAGS_${architecture})
    if(TERN_HAVE_FLAGS_${architecture})
      list(APPEND chosen ${architecture})
    elseif(asked)
      message(FATAL_ERROR "tern_add_dispatched: this compiler does not know ${flags}, which ${architecture} needs")
    endif()
  endforeach()
  list(REMOVE_DUPLICATES chosen)
  set(${result} ${chosen} PARENT_SCOPE)
endfunction()

# The object library `object`: the sources as the target would compile them, for one architecture.
function(tern_dispatch_object object target architecture sources)
  add_library(${object} OBJECT ${sources})
  set(flags ${TERN_DISPATCH_${architecture}})
  list(REMOVE_AT flags 0 1)
  target_link_libraries(${object} PRIVATE tern::tern $<TARGET_PROPERTY:${target},LINK_LIBRARIES>)
  target_include_directories(${object} PRIVATE $<TARGET_PROPERTY:${target},INCLUDE_DIRECTORIES>)
  target_compile_definitions(${object} PRIVATE $<TARGET_PROPERTY:${target},COMPILE_DEFINITIONS>)
  target_compile_features(${object} PRIVATE cxx_std_20)
  target_compile_options(${object} PRIVATE $<TARGET_PROPERTY:${target},COMPILE_OPTIONS> ${flags} -fno-lto)
  set_target_properties(${object} PROPERTIES
    UNITY_BUILD OFF INTERPROCEDURAL_OPTIMIZATION OFF DISABLE_PRECOMPILE_HEADERS ON VISIBILITY_INLINES_HIDDEN ON)
  get_target_property(type ${target} TYPE)
  foreach(property IN ITEMS CXX_STANDARD CXX_EXTENSIONS CXX_VISIBILITY_PRESET POSITION_INDEPENDENT_CODE)
    get_target_property(value ${target} ${property})
    if(NOT value MATCHES "NOTFOUND$")
      set_target_properties(${object} PROPERTIES ${property} "${value}")
    endif()
  endforeach()
  if(type MATCHES "^(SHARED|MODULE)_LIBRARY$")
    set_target_properties(${object} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  endif()
endfunction()

function(tern_add_dispatched target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "NO_ISOLATION" "" "SOURCES;ARCHITECTURES")
  if(NOT TARGET ${target})
    message(FATAL_ERROR "tern_add_dispatched: ${target} is not a target: call it after add_executable or add_library")
  endif()
  if(NOT arg_SOURCES OR arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "tern_add_dispatched(${target}): expected SOURCES file... [ARCHITECTURES name...] [NO_ISOLATION], "
                        "got: ${ARGN}")
  endif()
  tern_dispatch_architectures(architectures "${arg_ARCHITECTURES}")
  tern_dispatch_can_isolate(isolate)
  if(arg_NO_ISOLATION)
    set(isolate FALSE)
  endif()
  set(compiled 0)
  foreach(architecture IN LISTS architectures)
    list(GET TERN_DISPATCH_${architecture} 1 bit)
    math(EXPR compiled "${compiled} | (1 << ${bit})")
  endforeach()

  foreach(architecture IN LISTS architectures)
    set(object "${target}-${architecture}")
    if(TARGET ${object})  # a second call for this target
      string(MD5 sources_hash "${arg_SOURCES}")
      set(object "${object}-${sources_hash}")
    endif()
    tern_dispatch_object(${object} ${target} ${architecture} "${arg_SOURCES}")
    if(architecture STREQUAL "baseline")
      target_compile_definitions(${object} PRIVATE TERN_DISPATCH_COMPILED=${compiled})
    else()
      target_compile_definitions(${object} PRIVATE TERN_DISPATCH_OBJECT=${architecture})
    endif()
    set(linked $<TARGET_OBJECTS:${object}>)
    if(isolate AND NOT architecture STREQUAL "baseline")
      set(linked "${CMAKE_CURRENT_BINARY_DIR}/tern-dispatch/$<CONFIG>/${object}.o")
      add_custom_command(OUTPUT "${linked}"
        COMMAND "${CMAKE_COMMAND}" "-DOBJECTS=$<TARGET_OBJECTS:${object}>" "-DOUTPUT=${linked}" "-DARCHITECTURE=${architecture}"
                "-DLINKER=${CMAKE_LINKER}" "-DNM=${CMAKE_NM}" "-DOBJCOPY=${CMAKE_OBJCOPY}"
                -P "${TERN_DISPATCH_DIR}/TernDispatchIsolate.cmake"
        DEPENDS ${object} $<TARGET_OBJECTS:${object}> "${TERN_DISPATCH_DIR}/TernDispatchIsolate.cmake"
        COMMENT "Isolating ${object}" VERBATIM)
      set_source_files_properties("${linked}" PROPERTIES GENERATED TRUE EXTERNAL_OBJECT TRUE)
    endif()
    target_sources(${target} PRIVATE ${linked})
  endforeach()
endfunction()
