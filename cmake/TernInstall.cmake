# SPDX-License-Identifier: Apache-2.0
# Installs the headers and a package that find_package(tern) finds. Version 0.x: the minor version has to match.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(tern_package "${CMAKE_INSTALL_DATADIR}/cmake/tern")
install(TARGETS tern EXPORT ternTargets FILE_SET HEADERS FILE_SET adapters)
install(EXPORT ternTargets NAMESPACE tern:: DESTINATION ${tern_package})
configure_package_config_file("${CMAKE_CURRENT_SOURCE_DIR}/cmake/ternConfig.cmake.in" "${CMAKE_CURRENT_BINARY_DIR}/ternConfig.cmake"
                              INSTALL_DESTINATION ${tern_package})
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/ternConfigVersion.cmake" COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/ternConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/ternConfigVersion.cmake"
        DESTINATION ${tern_package})
# The dispatch helper and what it reads travel with the package.
file(GLOB tern_dispatch CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/cmake/TernDispatch*")
install(FILES ${tern_dispatch} DESTINATION ${tern_package})
