# `make demo` shows the result on real data; `make test` proves the package. Both share the environment of `make env`.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
APP ?= 1
DATA ?= fashion-mnist
# Threads that wait sleep instead of spinning: on a busy machine training is several times faster.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: env demo test lint bench-fidelity bench-detection

env: $(READY)

$(READY): pyproject.toml scripts/make_env.sh
	bash scripts/make_env.sh "$(PYTHON)" "$(VENV)"
	@touch $(READY)

demo: env
	$(VENV)/bin/python -m examples.demo --data $(DATA) $(if $(filter 0,$(APP)),--no-app) $(if $(JSON),--json "$(JSON)")

test: env
	bash scripts/find_chromium.sh
	$(VENV)/bin/python -m pytest $(ARGS)

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench-fidelity: env
	$(VENV)/bin/python -m benchmarks.fidelity $(if $(JSON),--json "$(JSON)") $(ARGS)

# One JSON file per cell in a folder: run it again to go on. `make bench-detection ARGS=--quick` measures a small part.
bench-detection: env
	$(VENV)/bin/python -m benchmarks.detection.grid $(ARGS)

.PHONY: test-faults
# A kill before every command of the database, of the process and of the database itself, and before every progress
# call; `make test` tries a few of each. Some 20 minutes.
test-faults: env
	FAULTS=all $(VENV)/bin/python -m pytest tests/faults -rP $(ARGS)
