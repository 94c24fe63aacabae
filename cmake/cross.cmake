# SPDX-License-Identifier: Apache-2.0
# Cross builds for Linux boards: -DCMAKE_TOOLCHAIN_FILE=cmake/cross.cmake -DGADL_CROSS=aarch64 with the compiler
# <GADL_CROSS>-linux-gnu-g++ on the path. GADL_SYSROOT names a board's root file system.
set(GADL_CROSS "" CACHE STRING "Processor: aarch64, riscv64, loongarch64")
set(GADL_SYSROOT "" CACHE PATH "Root file system of the board")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES GADL_CROSS GADL_SYSROOT)
if(NOT GADL_CROSS)
  message(FATAL_ERROR "GADL_CROSS names the processor: aarch64, riscv64 or loongarch64")
endif()

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${GADL_CROSS})
set(CMAKE_C_COMPILER ${GADL_CROSS}-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER ${GADL_CROSS}-linux-gnu-g++)
if(GADL_SYSROOT)
  set(CMAKE_SYSROOT ${GADL_SYSROOT})
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

# Tests run under qemu's user mode where it is installed.
find_program(GADL_QEMU NAMES qemu-${GADL_CROSS} qemu-${GADL_CROSS}-static)
if(GADL_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${GADL_QEMU} -L /usr/${GADL_CROSS}-linux-gnu)
endif()
