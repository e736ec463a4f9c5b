# Everything needs only Python 3.11 or newer, git and make; it is installed into .venv.
PYTHON ?= python3
VENV := .venv
VLLM := .venv-vllm
BIN := $(VENV)/bin
export OMP_WAIT_POLICY := passive

.PHONY: demo test test-fast test-vllm lint browser clean

demo: $(VENV)/.train
	@if [ -d runs/demo ] && [ ! -f runs/demo/summary.json ]; then \
	  $(BIN)/optpo resume runs/demo; \
	else \
	  rm -rf runs/demo && $(BIN)/optpo adapt --out runs/demo; \
	fi

# No test needs a network, and none should wait for one.
test test-fast test-vllm: export HF_HUB_OFFLINE := 1

test: $(VENV)/.dev browser
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m "not slow" --hypothesis-profile fast

# vLLM pins what optpo does not, so it has an environment of its own. It is kept from binding itself to
# cores that others use, and from compiling: models this small are no faster for it.
test-vllm: export OMP_NUM_THREADS := 1
test-vllm: export VLLM_CPU_OMP_THREADS_BIND := nobind
test-vllm: export TORCHDYNAMO_DISABLE := 1
test-vllm: $(VLLM)/.ready
	$(VLLM)/bin/python -m pytest -m vllm tests/sampling/test_vllm_*.py

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

# verl wants an older transformers; its formulas, which ours are tested against, do without.
$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.train
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps verl==0.9.1
	touch $@

$(VLLM)/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints-vllm.txt -e .
	touch $@

clean:
	rm -rf $(VENV) $(VLLM) runs build dist
