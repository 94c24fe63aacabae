# SPDX-License-Identifier: Apache-2.0
PYTHON ?= python

.PHONY: check test native generated

# Lint, types, layering and the fast tests: under a minute.
check:
	$(PYTHON) -m ruff check .
	cd src && $(PYTHON) -m mypy -p gadl
	$(PYTHON) -m pytest -q -x tests/compiler tests/passes tests/targets tests/test_layering.py -m "not suite and not slow"

# Everything.
test:
	$(PYTHON) -m pytest -q

# The C library, its tests and fuzzers, with sanitizers.
native:
	cmake -S . -B build/asan -G Ninja -DGADL_TESTS=ON -DGADL_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo
	cmake --build build/asan
	cd build/asan && ctest --output-on-failure

# Files that are written from declarations.
generated:
	$(PYTHON) -m gadl.targets.npu.header
	$(PYTHON) -m gadl.compiler.artifact.header
	$(PYTHON) -m gadl.targets.npu.reference_page
	$(PYTHON) -m gadl.compiler.ir.docs
