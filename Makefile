PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP_TOOLS := 7.6.2
JOBS ?= 2

.PHONY: setup demo test check bench soak lock clean packages

setup: .venv/.stamp

# The venv is built again from nothing whenever the lock changes, so that nothing old stays in it.
.venv/.stamp: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

# Without its dependencies: psycopg2 would have to be compiled, and the lock has what stands in for it.
.barman/.stamp: .venv/.stamp tests/barman.lock
	rm -rf .barman
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --target .barman -r tests/barman.lock
	touch $@

demo: setup
	$(BIN)/python -m lab.demo $(CUTOVER)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup packages .barman/.stamp
	$(BIN)/python -m pytest -n $(JOBS) -m "not soak"

# Each time another chance, where `make test` draws the same for one commit.
soak: setup packages .barman/.stamp
	RECOVERY_TEST_SEED=$${RECOVERY_TEST_SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')} $(BIN)/python -m pytest -m soak

bench: setup
	$(BIN)/python -m bench

packages:
	scripts/debian-packages

lock:
	scripts/lock $(PYTHON) $(PIP_TOOLS)

clean:
	rm -rf .venv .barman .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
