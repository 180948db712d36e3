# Cross-compiles for arm64 Linux with Debian's gcc-aarch64-linux-gnu (preset `arm64`). The libraries come from a folder with
# unpacked arm64 packages, which tests/arm64.sh makes: libpq-dev is not co-installable, so that apt would remove the amd64 one.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

set(JOBQ_ARM64_SYSROOT ${CMAKE_CURRENT_LIST_DIR}/../build-arm64-sysroot CACHE PATH "Unpacked arm64 packages")
# CMake reads this file again for each program that it compiles as a probe.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES JOBQ_ARM64_SYSROOT)
get_filename_component(CMAKE_SYSROOT ${JOBQ_ARM64_SYSROOT} ABSOLUTE)
if(NOT EXISTS ${CMAKE_SYSROOT}/usr/include)
  message(FATAL_ERROR "${CMAKE_SYSROOT} has no usr/include: `sh tests/arm64.sh --sysroot` makes it; "
    "JOBQ_ARM64_SYSROOT names another place")
endif()

# Headers and libraries only from there; programs, such as pkg-config, from this machine.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${CMAKE_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${CMAKE_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${CMAKE_SYSROOT}/usr/share/pkgconfig)

# With it ctest runs the unit tests.
find_program(JOBQ_QEMU_ARM64 NAMES qemu-aarch64 qemu-aarch64-static)
if(JOBQ_QEMU_ARM64)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${JOBQ_QEMU_ARM64} -L ${CMAKE_SYSROOT})
endif()
