# Everything needs only Python 3.11 or newer, git and make; it is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY := passive

.PHONY: demo test test-fast lint browser clean

demo: $(VENV)/.train
	@if [ -d runs/demo ] && [ ! -f runs/demo/summary.json ]; then \
	  $(BIN)/optpo resume runs/demo; \
	else \
	  rm -rf runs/demo && $(BIN)/optpo adapt --out runs/demo; \
	fi

# No test needs a network, and none should wait for one.
test test-fast: export HF_HUB_OFFLINE := 1

test: $(VENV)/.dev browser
	$(BIN)/python -m pytest

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m "not slow" --hypothesis-profile fast

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The report is tested in a real browser. Without one, and without the right to install it, those
# tests are skipped; in CI they fail.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  echo "no chromium: the report's browser tests will be skipped"

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.train
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist
