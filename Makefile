# Everything runs in .venv, which is made from requirements.lock when it is missing or older.
# Linux x86-64 with Python 3.11 is what CI tests.

PYTHON ?= python3
OUT ?= fewclip-demo
# Test processes, and threads in each: two cores are shared by two processes of one thread.
TEST_JOBS ?= 2
TEST_FLAGS ?= -n $(TEST_JOBS) --dist loadfile
TEST_THREADS ?= 1
# Photos that the project may not ship; beside it, where there are any.
BENCH_DATA ?= ../shared/data/cifar10-fewshot.tar

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_ENV := OMP_NUM_THREADS=$(TEST_THREADS) BENTOML_DO_NOT_TRACK=True GRADIO_ANALYTICS_ENABLED=False

.DEFAULT_GOAL := help
.PHONY: help install demo test test-quick coverage lint format bench app screenshots wheel docs lock audit clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

install: $(STAMP)  ## make .venv

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "fewclip needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "could not make $(VENV): on Debian and Ubuntu 'apt-get install python3-venv', then make again" >&2; exit 1; }
	@echo "Installing into $(VENV) (several minutes and about 6 GB the first time) ..."
	@# Without dependencies: the lock names all of them, and Gradio would refuse Pillow 13.
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP)  ## adapt CLIP to two small data sets, offline, in minutes
	$(BIN)/fewclip demo --out $(OUT)

test: $(STAMP)  ## every test
	$(TEST_ENV) $(BIN)/python -m pytest -q $(TEST_FLAGS)

test-quick: $(STAMP)  ## the tests that take less than five seconds each
	$(TEST_ENV) $(BIN)/python -m pytest -q $(TEST_FLAGS) -m "not slow"

coverage: $(STAMP)  ## the quick tests, with the share of lines they reach (not part of CI)
	$(TEST_ENV) $(BIN)/python -m pytest -q $(TEST_FLAGS) -m "not slow" --cov --cov-report=term

lint: $(STAMP)  ## ruff, mypy, import contracts, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

format: $(STAMP)  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## what methods reach, parity of exports, OOD detection: prints tables
	$(BIN)/fewclip bench base-to-new $(BENCH_DATA) --out out/bench
	$(BIN)/python -m benchmarks.parity
	$(BIN)/python -m benchmarks.unknown

app: $(STAMP)  ## the page, on http://127.0.0.1:7860
	$(BIN)/fewclip app

screenshots: $(STAMP)  ## pictures of the page for the documentation (needs Chromium)
	$(BIN)/python -m benchmarks.page.screenshots

wheel: $(STAMP)  ## dist/fewclip-VERSION-py3-none-any.whl and the source archive
	$(BIN)/python -m hatchling build -d dist

docs: $(STAMP)  ## the documentation into site/, offline; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# GPU packages exist for Linux x86-64 alone; elsewhere ONNX Runtime's plain wheel takes their place.
# Apart from the rest, because it asks for an older Pillow; see the extra `app` in pyproject.toml.
GRADIO := gradio>=6.31,<7
ON_LINUX := ; platform_system == "Linux" and platform_machine == "x86_64"
ELSEWHERE := ; platform_system != "Linux" or platform_machine != "x86_64"
lock:  ## resolve pyproject.toml afresh into requirements.lock
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install -qq --disable-pip-version-check -e '.[dev]'
	$(VENV)-lock/bin/python -m pip install -qq --disable-pip-version-check --no-deps '$(GRADIO)'
	@{ echo "# The exact versions that make installs and CI tests. Made by: make lock"; \
	  $(VENV)-lock/bin/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools \
	  | sed -E -e 's/^onnxruntime-gpu(==.*)$$/onnxruntime\1 $(ELSEWHERE)\nonnxruntime-gpu\1/' \
	  | sed -E -e '/^nvidia-ml-py/!s/^((nvidia-|cuda-|triton|onnxruntime-gpu).*)$$/\1 $(ON_LINUX)/'; \
	} > requirements.lock.new
	mv requirements.lock.new requirements.lock && rm -rf $(VENV)-lock

# What cannot be looked up from here is counted, and is no failure.
audit: $(STAMP)  ## known vulnerabilities of what requirements.lock names (needs the network)
	@found=$$($(BIN)/pip-audit -r requirements.lock --no-deps --disable-pip --progress-spinner off 2>&1); \
	status=$$?; echo "$$found" | grep -v "could not be audited"; \
	missing=$$(echo "$$found" | grep -c "could not be audited"); \
	if [ "$$missing" != 0 ]; then echo "audit incomplete: $$missing packages could not be looked up"; fi; \
	exit $$status

clean:  ## remove .venv and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
