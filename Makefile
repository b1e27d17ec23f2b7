# Everything starts from a bare machine with Python 3.11 or newer: each target makes what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGE := pyproject.toml constraints.txt
export BETAVI_DATA_DIR ?=

.PHONY: demo test test-fast lint docs tutorials figures bench clean

demo: $(VENV)/.test
	$(BIN)/python -m tutorials.demo

# a file to a worker, so that what its tests share is trained once, and a core to a worker: linear
# algebra that takes all cores in each of them is many times slower, and so are the notebooks once
# numba, which scanpy calls, has set PyTorch's number of threads to its own
test test-fast: export OMP_NUM_THREADS = 1
test test-fast: export NUMBA_NUM_THREADS = 1
test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --durations=10

# while you work: without the tests that are marked slow
test-fast: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs
	rm -rf docs/generated
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build

# execute the notebooks again, and draw the pictures of the documentation
tutorials: $(VENV)/.tutorials
	$(BIN)/python -m tutorials.execute

figures: $(VENV)/.demo
	$(BIN)/python -m docs.figures

bench: $(VENV)/.bench .venv-magic/.done
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.time_to_quality
	$(BIN)/python -m benchmarks.ablation
	$(BIN)/python -m benchmarks.small_data
	$(BIN)/python -m benchmarks.batch_size
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.costs
	$(BIN)/python -m benchmarks.held_out_elbo
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.multi_rate
	$(BIN)/python -m benchmarks.lenses
	$(BIN)/python -m benchmarks.disentanglement
	$(BIN)/python -m benchmarks.axes_of_beta
	$(BIN)/python -m benchmarks.decoder_time
	$(BIN)/python -m benchmarks.collapse
	$(BIN)/python -m benchmarks.collapse_real
	$(BIN)/python -m benchmarks.collapse_cost
	$(BIN)/python -m benchmarks.new_counts
	$(BIN)/python -m benchmarks.rescue
	$(BIN)/python -m benchmarks.joint
	$(BIN)/python -m benchmarks.mosaic
	$(BIN)/python -m benchmarks.chromatin
	$(BIN)/python -m benchmarks.chromatin 5000
	$(BIN)/python -m benchmarks.denoising
	$(BIN)/python -m benchmarks.denoise_memory
	$(BIN)/python -m benchmarks.false_signals
	$(BIN)/python -m benchmarks.differential
	$(BIN)/python -m benchmarks.query
	$(BIN)/python -m benchmarks.labels
	$(BIN)/python -m benchmarks.intervals
	$(BIN)/python -m benchmarks.missing_middle
	$(BIN)/python -m benchmarks.holes
	$(BIN)/python -m benchmarks.support
	$(BIN)/python -m benchmarks.realism
	$(BIN)/python -m benchmarks.perturbations
	$(BIN)/python -m benchmarks.synergy
	$(BIN)/python -m benchmarks.epochs
	$(BIN)/python -m benchmarks.deep_cells
	$(BIN)/python -m benchmarks.processes
	$(BIN)/python -m benchmarks.out_of_core
	$(BIN)/python -m benchmarks.step_parts
	$(BIN)/python -m benchmarks.images
	$(BIN)/python -m benchmarks.image_translation
	$(BIN)/python -m benchmarks.hops

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("betavi needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# one stamp per extra: a new dependency in pyproject.toml installs again
$(VENV)/.%: $(VENV)/bin/python $(PACKAGE)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

# a peer that needs older libraries than ours, in an environment of its own
.venv-magic/.done:
	$(PYTHON) -m venv .venv-magic
	.venv-magic/bin/python -m pip install --quiet 'magic-impute==3.0.0' 'numpy<2'
	touch $@

clean:
	rm -rf $(VENV) .venv-magic demo-output docs/_build docs/generated docs/tutorials docs/jupyter_execute
