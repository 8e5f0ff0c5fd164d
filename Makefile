# Everything a person does with this repository. `make` alone lists it.
#
# make PYTHON=python3.12 ...  chooses the interpreter (when .venv is made)

# make PREFIX=/usr/local install  puts the C library there (DESTDIR in front of it, if given)

PYTHON ?= python3
PORT ?= 8000
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
# The virtualenv's tools come first: the system's meson may be too old.
IN_VENV := PATH="$(BIN):$$PATH"
# Some machines keep Python from caching what it compiles; pytest then compiles every test anew in
# each of its processes.
PYTEST := $(IN_VENV) env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
# Many tests wait for servers and processes: more of them than there are CPUs.
PROCESSES := $(shell expr 2 \* $$(nproc) + 1)
PARALLEL := -n $(PROCESSES) --dist worksteal
MESON_TEST := meson test --no-rebuild --print-errorlogs --num-processes $(PROCESSES)
WHEEL := --no-build-isolation --no-deps --no-index --quiet --config-settings=setup-args=--werror

# Directories are in the list so that a removed file counts as a change.
SOURCES := pyproject.toml meson.build meson_options.txt README.md LICENSE \
	$(shell find include src ext python \( -name __pycache__ -prune \) -o -print)
C_FILES := $(shell find include src ext tests bench -name '*.[ch]')
REQUIREMENTS := $(addprefix requirements/,build.txt flask.txt clients.txt test.txt dev.txt)

SANITIZE := address,undefined
ASAN_C := ASAN_OPTIONS=detect_leaks=1:halt_on_error=1:abort_on_error=1 \
	UBSAN_OPTIONS=halt_on_error=1:abort_on_error=1:print_stacktrace=1
# The interpreter itself leaks at exit by design, so leaks are looked for in the C tests only.
ASAN_PY = CESSION_FEW=1 LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:abort_on_error=1 \
	UBSAN_OPTIONS=halt_on_error=1:abort_on_error=1:print_stacktrace=1 \
	PYTHONPATH="$(CURDIR)/build/asan-site"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help deps demo run install test test-long check asan coverage bench bench-check fmt fuzz clean \
	check-floors check-format check-lint check-types collect check-c check-python asan-c asan-python

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)$$/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

# ---- what is needed ---------------------------------------------------------------------------

deps: $(VENV)/.stamp-package ## install what is missing, build the package into .venv

build/.stamp-system: tools/deps.sh
	@PYTHON="$(PYTHON)" tools/deps.sh
	@mkdir -p build && touch $@

$(VENV)/.stamp-build: build/.stamp-system requirements/build.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned build tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/build.txt
	@touch $@

$(VENV)/.stamp-requirements: $(VENV)/.stamp-build $(REQUIREMENTS)
	@echo "Installing the pinned tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet -r requirements/dev.txt
	@touch $@

$(VENV)/.stamp-package: $(VENV)/.stamp-requirements $(SOURCES)
	@echo "Building the package"
	@rm -rf build/wheel && mkdir -p build/wheel
	@$(IN_VENV) $(BIN)/python -m pip wheel $(WHEEL) --wheel-dir build/wheel \
		--config-settings=build-dir=build/package .
	@$(BIN)/python -m pip install --quiet --no-deps --no-index --force-reinstall build/wheel/*.whl
	@touch $@

# ---- the demonstration ------------------------------------------------------------------------

demo: deps ## serve the example with two workers, visit it, show what was stored
	@$(IN_VENV) $(BIN)/python examples/demo/visit.py

run: deps ## leave the example serving on PORT (8000) for a browser
	@echo "Serving on http://127.0.0.1:$(PORT)/ (Ctrl-C ends it)"
	@cd examples/demo && $(IN_VENV) $(BIN)/gunicorn --workers 2 --bind 127.0.0.1:$(PORT) app:app

# ---- the C library ----------------------------------------------------------------------------

# BUILD is the folder, MESON_SETUP further options of `meson setup`.
install: BUILD ?= build/install
install: $(VENV)/.stamp-build ## headers, library and cession.pc into PREFIX (/usr/local)
	@mkdir -p build
	@$(IN_VENV) meson setup $$(test -e $(BUILD)/build.ninja && echo --reconfigure) $(BUILD) \
		-Dpython=false --prefix="$(abspath $(PREFIX))" --libdir=lib $(MESON_SETUP) >$(BUILD).log 2>&1 && \
		$(IN_VENV) meson compile -C $(BUILD) >>$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@$(IN_VENV) meson install -C $(BUILD) --no-rebuild --quiet $(if $(DESTDIR),--destdir "$(abspath $(DESTDIR))")

# ---- tests ------------------------------------------------------------------------------------

# In make test each Python test runs once: those within one process under sanitizers, the others on
# the package as it is installed. make test-long runs everything on both.
SANITIZED := not slow and not client and not process

test: deps ## everything: checks, C and Python tests, sanitizers, real servers
	@$(MAKE) --no-print-directory check-floors check-format check-lint check-types collect check-c asan
	@echo "== Python tests, with servers and processes"
	@$(PYTEST) $(PARALLEL) -m "not ($(SANITIZED))"

test-long: test ## full counts, every CPython, every Flask, 15 minutes of fuzzing
	@$(MAKE) --no-print-directory asan-python SANITIZED="not slow"
	@echo "== Python tests, full counts"
	@CESSION_LONG=1 $(PYTEST) $(PARALLEL) --timeout 3600
	@echo "== instructions a request"
	@$(MAKE) --no-print-directory bench-check
	@echo "== CPython and Flask versions"
	@PYTHON="$(PYTHON)" tools/deps.sh matrix
	@$(IN_VENV) $(BIN)/python tools/matrix.py
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=900

# Pytest compiles every test once here, not in each of its processes.
collect: deps
	@$(PYTEST) --collect-only -q >build/collected.txt || { cat build/collected.txt; exit 1; }

check: deps check-floors check-format check-lint check-types check-c check-python ## the fast loop: no servers, under a minute

check-floors: deps
	@echo "== floors"
	@$(BIN)/python tools/check_floors.py

check-format: deps
	@echo "== format"
	@$(BIN)/clang-format --dry-run -Werror $(C_FILES) || { echo "make fmt puts it right"; exit 1; }
	@$(BIN)/ruff format --check --quiet .

check-lint: deps
	@echo "== lint"
	@$(BIN)/ruff check --quiet .

check-types: deps
	@echo "== types"
	@$(BIN)/mypy --cache-dir build/mypy

# $(call setup,FOLDER,OPTIONS): configure a folder for the C tests, anew when the tools changed.
define setup
@mkdir -p build
@$(IN_VENV) meson setup $$(test -e $(1)/build.ninja && echo --reconfigure) $(1) -Dpython=false \
	-Dtests=true -Dbuildtype=debugoptimized --werror $(2) >$(1).log 2>&1 || { cat $(1).log; exit 1; }
@touch $@
endef

# $(call compile,FOLDER): what the compiler says is shown when it fails.
define compile
@$(IN_VENV) meson compile -C $(1) >$(1).log 2>&1 || { cat $(1).log; exit 1; }
endef

build/c/build.ninja: $(VENV)/.stamp-requirements
	$(call setup,build/c)

check-c: deps build/c/build.ninja
	@echo "== C tests"
	$(call compile,build/c)
	@$(IN_VENV) $(MESON_TEST) -C build/c

check-python: deps
	@echo "== Python tests without servers"
	@CESSION_FEW=1 $(PYTEST) $(PARALLEL) -q -m "not server and not process and not slow and not client"

# ---- sanitizers -------------------------------------------------------------------------------

asan: asan-c asan-python ## AddressSanitizer and UBSan over the C and the Python tests

build/asan/build.ninja: $(VENV)/.stamp-requirements
	$(call setup,build/asan,-Db_sanitize=$(SANITIZE) -Db_lundef=false)

asan-c: deps build/asan/build.ninja
	@echo "== C tests under $(SANITIZE)"
	$(call compile,build/asan)
	@$(ASAN_C) $(IN_VENV) $(BIN)/python -m tests.services run redis_tls,redis_sentinel,redis_cluster \
		$(MESON_TEST) -C build/asan

build/asan-site/.stamp: $(VENV)/.stamp-requirements $(SOURCES)
	@echo "Building the package with $(SANITIZE)"
	@rm -rf build/asan-wheel build/asan-site && mkdir -p build/asan-wheel
	@$(IN_VENV) $(BIN)/python -m pip wheel $(WHEEL) --wheel-dir build/asan-wheel \
		--config-settings=build-dir=build/asan-package --config-settings=setup-args=-Db_sanitize=$(SANITIZE) \
		--config-settings=setup-args=-Db_lundef=false --config-settings=setup-args=-Dbuildtype=debugoptimized .
	@$(BIN)/python -m pip install --quiet --no-deps --no-index --target build/asan-site build/asan-wheel/*.whl
	@touch $@

asan-python: deps build/asan-site/.stamp
	@echo "== Python tests under $(SANITIZE)"
	@$(ASAN_PY) $(BIN)/python -c 'import flask_session as f; assert "/build/asan-site/" in f.__file__'
	@$(ASAN_PY) $(PYTEST) -n $(shell expr $$(nproc) + 1) --dist worksteal -q -p no:cacheprovider -m "$(SANITIZED)"

# ---- coverage ---------------------------------------------------------------------------------

build/coverage/c/build.ninja: $(VENV)/.stamp-requirements
	@mkdir -p build/coverage
	$(call setup,build/coverage/c,-Db_coverage=true -Doptimization=0)

build/coverage/site/.stamp: $(VENV)/.stamp-requirements $(SOURCES)
	@echo "Building the package to measure coverage"
	@rm -rf build/coverage/site build/coverage/py
	@$(IN_VENV) $(BIN)/python -m pip install --no-build-isolation --no-deps --no-index --quiet \
		--target build/coverage/site --config-settings=build-dir=build/coverage/py \
		--config-settings=setup-args=-Db_coverage=true \
		--config-settings=setup-args=-Dbuildtype=debug .
	@touch $@

coverage: deps build/coverage/c/build.ninja build/coverage/site/.stamp ## the lines of C that the tests reach; the others are named
	@find build/coverage -name '*.gcda' -delete
	$(call compile,build/coverage/c)
	@echo "== C tests, measured"
	@$(IN_VENV) $(MESON_TEST) -C build/coverage/c
	@echo "== Python tests, measured"
	@PYTHONPATH="$(CURDIR)/build/coverage/site" $(BIN)/python -c \
		'import flask_session as f; assert "/build/coverage/site/" in f.__file__'
	@PYTHONPATH="$(CURDIR)/build/coverage/site" $(PYTEST) $(PARALLEL) -q -p no:cacheprovider -m "not slow"
	@$(BIN)/python tools/coverage.py . build/coverage/c build/coverage/py

# ---- the rest ---------------------------------------------------------------------------------

$(VENV)/.stamp-bench: $(VENV)/.stamp-requirements requirements/bench.txt
	@PYTHON="$(PYTHON)" tools/deps.sh bench
	@$(BIN)/python -m pip install --quiet -r requirements/bench.txt
	@touch $@

bench: deps $(VENV)/.stamp-bench ## measure everything, into docs/performance.md; BENCH="request sizes" only these
	@$(IN_VENV) $(BIN)/python -m tests.services run redis,postgres sh -c \
		'BENCH_REDIS_URL="$$REDIS_URL" BENCH_POSTGRES_URL="$$POSTGRES_URL" $(BIN)/python bench $(BENCH)'

bench-check: deps $(VENV)/.stamp-bench ## fail where a request takes over 3 % more instructions than before the last commit
	@$(IN_VENV) $(BIN)/python bench/instructions.py --against HEAD^

fmt: deps ## format C and Python
	@$(BIN)/clang-format -i $(C_FILES)
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format --quiet .

fuzz: deps ## fuzz every parser, FUZZ_SECONDS (60) in all
	@PYTHON="$(PYTHON)" tools/deps.sh fuzz
	@$(IN_VENV) tools/fuzz.sh $(FUZZ_SECONDS)

clean: ## remove what was built, and .venv
	rm -rf build $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
