# Start with `make demo` and `make test`. Both create .venv if needed. The package is installed by its path (editable_mode=compat),
# so that a script beside a clone named `landscape` imports the package and not the folder of the clone.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat
TEST = $(BIN)/python -m pytest -m "not slow and not gpu" -n auto --dist worksteal

.PHONY: demo test test-slow test-extras test-portable test-gpu lint types readme docs experiments figures bench clean

demo: .venv/installed
	$(BIN)/landscape demo --out demo

test: .venv/installed
	$(TEST)

test-slow: .venv/installed
	$(BIN)/python -m pytest -m "slow"

# The tests that `make test` and `make test-slow` skip where an extra is not installed: callbacks, loggers, notebooks, the site,
# models of other libraries. Installs the extras first (some minutes). What is skipped all the same is listed at the end.
EXTRA_TESTS := tests/watching tests/test_notebooks.py tests/test_site.py tests/symmetry tests/cli/test_adapters_of_peft.py

test-extras: .venv/extras
	$(BIN)/python -m pytest -m "not gpu" -rs $(EXTRA_TESTS)

.venv/extras: .venv/installed
	$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[watch,notebooks,docs,architectures]'
	touch $@

# Numerical tests under other instruction sets, numbers of threads and orders of tests, one setting per line.
# FOLDERS=tests runs all tests.
FOLDERS ?= tests/linalg tests/network tests/values tests/curvature tests/objective tests/spectra tests/measures tests/comparison tests/reparam tests/results

test-portable: .venv/installed
	ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 $(TEST) $(FOLDERS)
	ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 $(TEST) $(FOLDERS)
	LANDSCAPE_TEST_THREADS=2 $(TEST) $(FOLDERS)
	LANDSCAPE_TEST_THREADS=4 $(TEST) $(FOLDERS)
	LANDSCAPE_TEST_ORDER=1 $(TEST) $(FOLDERS)
	LANDSCAPE_TEST_ORDER=2 $(TEST) $(FOLDERS)

test-gpu: .venv/installed
	$(BIN)/python -m pytest -m "gpu"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/installed
	$(BIN)/mypy

# Run every command in README.md and docs/*.md on the output of `make demo`, and compare their tables with the program's.
readme: .venv/installed
	$(BIN)/python tests/readme.py

# The documentation as a site in site/, for a browser or `python -m http.server -d site`: run the gallery (some minutes), then build
# the pages. A link that leads nowhere is an error.
docs: .venv/docs
	$(BIN)/python docs/make_gallery.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "wrote site/index.html"

.venv/docs: .venv/installed
	$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[docs]'
	touch $@

# Run the studies and draw their figures: the digits alone, or with DATA=cifar10.safetensors the images too (hours on two
# cores; SEEDS=2 takes less than half of it). Finished runs are kept in runs/.
DATA ?=
SEEDS ?=

experiments: .venv/installed
	$(BIN)/python -m experiments $(if $(DATA),--data $(DATA)) $(if $(SEEDS),--seeds $(SEEDS))
	$(BIN)/python tests/readme.py --write

# Make the other figures of README.md and docs/*.md: architecture, demo.
figures: .venv/installed demo
	$(BIN)/python docs/draw_architecture.py
	$(BIN)/python docs/draw_watching.py
	$(BIN)/landscape reparam demo/runs/small-batch.safetensors --measures all --sweep 3 --samples 512 --out build/reparam-all
	cp build/reparam-all/certificate.png figures/certificate.png
	cp demo/plane/surface-contour.png figures/demo-plane.png
	cp demo/trajectory/surface-contour.png figures/demo-trajectory.png
	cp demo/line/surface-line.png figures/demo-line.png
	cp demo/spectrum/spectrum.png figures/demo-spectrum.png
	cp demo/comparison/measures.png figures/demo-measures.png
	cp demo/reparam/certificate.png figures/demo-certificate.png

# Compare speed and memory with other toolkits; `.venv/bin/python -m benchmarks --help` lists sizes, networks and parts.
bench: .venv/peers .venv-landscaper/installed
	$(BIN)/python -m benchmarks

.venv/peers: .venv/installed
	$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[peers]'
	touch $@

# Landscaper needs numpy 1, hence a separate environment. If it cannot be installed, the benchmarks report it as missing.
.venv-landscaper/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-landscaper
	grep -v '^numpy' constraints.txt > .venv-landscaper/constraints.txt
	-.venv-landscaper/bin/python $(INSTALL) --constraint .venv-landscaper/constraints.txt --editable '.[landscaper]'
	touch $@

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "landscape needs Python 3.11 or newer, for example: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) --constraint constraints.txt --editable '.[dev,report]'
	touch $@

clean:
	rm -rf .venv .venv-landscaper build site *.egg-info
