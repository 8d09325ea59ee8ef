# Each target works as the only command on a fresh machine with Python >= 3.10, make and (for test) root.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find imds_proxy -name '*.py') pyproject.toml README.md

.PHONY: demo test lint unit bench packages deb rpm image clean

demo: $(VENV)/wheel-installed
	packaging/system-packages.sh curl unshare
	$(BIN)/imds-proxy demo

test: lint unit

# Lint reads the checkout; the tests meet the wheel as built.
lint: $(VENV)/tools-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/wheel-installed $(VENV)/tools-installed $(VENV)/packaging-tools-installed $(VENV)/system-packages
	$(BIN)/pytest

# Debian and RPM packages for x86_64 and aarch64, in dist/.
packages: deb rpm

deb rpm: $(VENV)/packaging-tools-installed
	packaging/packages/build.sh --format $@

# The container image imds-proxy:latest, for this machine's architecture.
image: deb
	build=$$(command -v podman || command -v docker || command -v buildah) \
		|| { echo "needs podman, docker or buildah" >&2; exit 1; }; \
	$$build build --file packaging/container/Containerfile --tag imds-proxy .

# One report: build/bench.md, with its rows and a plot beside it. The peers from PyPI have a venv of their own.
bench: $(VENV)/wheel-installed $(VENV)/bench-peers-installed
	packaging/system-packages.sh nginx haproxy gcc
	mkdir -p build
	set -o pipefail; $(BIN)/python bench/run.py --json build/bench.json --svg build/bench.svg | tee build/bench.md
	$(BIN)/python bench/memory.py
	$(BIN)/python bench/model.py build/bench.json | tee build/model.md

$(VENV)/bench-peers-installed: | $(VENV)/created
	$(PYTHON) -m venv $(VENV)/bench-peers
	$(VENV)/bench-peers/bin/pip install --quiet --disable-pip-version-check mitmproxy aiohttp
	@touch $@

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "imds-proxy needs Python 3.10 or newer: make PYTHON=python3.11 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "Python's venv module is missing: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/wheel-installed: $(VENV)/created $(SOURCES)
	rm -rf build/wheel
	$(BIN)/pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build --wheel --outdir build/wheel .
	$(BIN)/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps build/wheel/*.whl
	$(BIN)/pip install --quiet --disable-pip-version-check build/wheel/*.whl
	@touch $@

$(VENV)/tools-installed: $(VENV)/wheel-installed
	wheel=$$(ls build/wheel/*.whl); $(BIN)/pip install --quiet --disable-pip-version-check "$$wheel[test,lint]"
	@touch $@

$(VENV)/packaging-tools-installed: $(VENV)/wheel-installed
	packaging/system-packages.sh eu-strip
	wheel=$$(ls build/wheel/*.whl); $(BIN)/pip install --quiet --disable-pip-version-check "$$wheel[packages]"
	@touch $@

$(VENV)/system-packages: packaging/system-packages.sh | $(VENV)/created
	packaging/system-packages.sh
	@touch $@

clean:
	rm -rf $(VENV) build dist .cache
