# `make demo` shows the result on real data; `make test` proves the package. Both share the environment of `make env`.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
APP ?= 1
DATA ?= fashion-mnist
# Threads that wait sleep instead of spinning: on a busy machine training is several times faster.
export OMP_WAIT_POLICY ?= PASSIVE

# benchmarks/README.md says what each measures. `make bench-NAME ARGS="…" JSON=FILE` passes options on and keeps the result.
MODULE_fidelity := benchmarks.fidelity
MODULE_retraining := benchmarks.retraining
MODULE_sensitivity := benchmarks.fidelity.sensitivity
MODULE_detection := benchmarks.detection.grid
MODULE_repair := benchmarks.detection.repair
MODULE_natural-noise := benchmarks.detection.natural_noise summary docs/natural_noise.csv
MODULE_empty-captions := benchmarks.detection.natural_noise scores docs/natural_noise.csv
MODULE_wrong-words := benchmarks.detection.wrong_words
MODULE_slices := benchmarks.detection.slices
MODULE_tracing := benchmarks.tracing
MODULE_shift := benchmarks.shift
MODULE_shift-timing := benchmarks.shift.timing
MODULE_throughput := benchmarks.speed.throughput
MODULE_memory := benchmarks.speed.memory
MODULE_growth := benchmarks.speed.growth
MODULE_peers := benchmarks.speed.peers
MODULE_app := benchmarks.speed.app
MODULE_cost-model := benchmarks.speed.cost_model
MODULE_act := benchmarks.act
BENCHMARKS := fidelity retraining sensitivity act repair natural-noise empty-captions wrong-words slices tracing shift shift-timing throughput memory growth peers app cost-model
GRID := benchmarks/results/detection/grid.json

.PHONY: env demo test lint tables bench-detection $(BENCHMARKS:%=bench-%)

env: $(READY)

$(READY): pyproject.toml scripts/make_env.sh
	bash scripts/make_env.sh "$(PYTHON)" "$(VENV)"
	@touch $(READY)

demo: env
	$(VENV)/bin/python -m examples.demo --data $(DATA) $(if $(filter 0,$(APP)),--no-app) $(if $(JSON),--json "$(JSON)")

# Tests compute on small tensors, for which a second thread costs more than it spares.
test: export OMP_NUM_THREADS ?= 1
test: env
	bash scripts/find_chromium.sh
	$(VENV)/bin/python -m pytest $(ARGS)

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The tables of README.md and docs/ are generated from benchmarks/results/.
tables: env
	$(VENV)/bin/python -m benchmarks.report

$(BENCHMARKS:%=bench-%): bench-%: env
	$(VENV)/bin/python -m $(MODULE_$*) $(if $(JSON),--json "$(JSON)") $(ARGS)

# One file per cell in a folder of the cache: run it again to go on. The whole grid ends in docs/detection.md; with
# options, such as ARGS=--quick, it is printed alone.
bench-detection: env
	$(VENV)/bin/python -m $(MODULE_detection) $(if $(JSON),--json "$(JSON)",$(if $(ARGS),,--json $(GRID))) $(ARGS)
	$(if $(ARGS)$(JSON),,$(VENV)/bin/python -m benchmarks.report)

# The suite's core with the lowest releases that pyproject.toml admits, in an environment of its own.
LOWEST := .venv-lowest
CORE := tests/core tests/models tests/dataset tests/plugin

.PHONY: test-lowest audit
test-lowest: export OMP_NUM_THREADS ?= 1
test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest $(CORE) $(ARGS)

$(LOWEST)/.ready: pyproject.toml scripts/make_lowest_env.sh
	bash scripts/make_lowest_env.sh "$(PYTHON)" "$(LOWEST)"
	@touch $@

# Known vulnerabilities of what is installed; it asks PyPI, so it needs a network.
audit: env
	$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet pip-audit
	$(VENV)/bin/python -m pip_audit --local --skip-editable

.PHONY: test-faults
# A kill before every command of the database, of the process and of the database itself, and before every progress
# call; `make test` tries a few of each. Some 20 minutes.
test-faults: env
	FAULTS=all $(VENV)/bin/python -m pytest tests/faults -rP $(ARGS)

.PHONY: test-inputs
# A thousand odd inputs and more of every kind; `make test` tries a few of each. Prints how many were tried.
test-inputs: env
	INPUTS=all $(VENV)/bin/python -m pytest tests/fuzz $(ARGS)
