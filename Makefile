# Two commands do everything: `make demo` and `make test`. Both set up what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 3
# One thread each: the tests run side by side.
PYTEST = OMP_NUM_THREADS=1 $(1)/bin/pytest -n $(WORKERS)

.PHONY: setup lock demo test test-newest chaos check docs format clean

# Looks at every installed version each time (0.3 s) and mends what is not as requirements.lock says.
setup:
	@$(PYTHON) .ci/environment.py install $(VENV)

# Renews requirements.lock: the newest versions that the ranges in pyproject.toml admit.
lock:
	@$(PYTHON) .ci/environment.py renew .venv-lock

demo: setup
	$(BIN)/fleetfl demo

test: setup
	.ci/system-packages
	$(call PYTEST,$(VENV))

# Not what has to be green: the same tests on the newest versions of everything, in an environment of its own.
test-newest:
	.ci/system-packages
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager --editable ".[dev]"
	@echo "versions that differ from requirements.lock:"
	@.venv-newest/bin/python .ci/environment.py differs || true
	$(call PYTEST,.venv-newest) --deselect tests/unit/test_lock.py::test_every_installed_version_is_the_locks

chaos: setup
	.ci/system-packages
	$(BIN)/fleetfl chaos run configs/chaos.yaml --runs 200 --workers 2

# Puts docs/ and references written from the code together, and builds site/: open site/index.html.
docs: setup
	$(BIN)/python .ci/site.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venv-newest .venv-lock runs build dist site .cache *.egg-info
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
