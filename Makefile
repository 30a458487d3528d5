# Two commands on a fresh machine: `make report` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REPORT ?= reports/quick

.PHONY: venv report test lint smoke peers optimizers repeatability kernels selftest predict-check other-tools gate-check \
	history-check page-check namespaces gpu example clean fleet fleet-overhead fleet-load

venv: $(VENV)/.ready  ## the environment alone

# torch comes first and alone: under its exact pin pip takes the CPU build where one is at hand
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt "torch==2.13.0"
	$(BIN)/pip install -q -c constraints.txt -e ".[all,dev]"
	touch $@

report: venv  ## quick sweep and its report
	rm -rf $(REPORT)
	$(BIN)/backprop-bench run --profile quick --out $(REPORT)

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: venv lint  ## checks, all tests, and the benchmarks in smoke size
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile
	$(BIN)/pytest --benchmark-only --profile smoke --passes 1 --budget 60 -q --benchmark-quiet

smoke: venv  ## the main job in its smallest size
	rm -rf reports/smoke
	$(BIN)/backprop-bench run --profile smoke --out reports/smoke

fleet: venv  ## the smoke sweep by two workers on loopback, one of them killed half-way: is anything lost?
	$(BIN)/python -m bench.fleet.check

fleet-overhead: venv  ## the smoke sweep plain and through one Dask worker, six runs in turn (about 8 minutes)
	rm -rf reports/fleet-overhead
	$(BIN)/python -m bench.fleet.overhead

fleet-load: venv  ## 500 simulated workers and 50,000 jobs: time, and memory of the client (about 10 minutes)
	$(BIN)/python -m bench.fleet.load

peers: venv  ## speed beside other libraries, ratios from one run
	$(BIN)/python -m bench.peers

optimizers: venv  ## an update beside the bytes it must move: ours, torch's forms, optax
	$(BIN)/python -m bench.optimizers_check --parameters 100000,1000000,4000000

repeatability: venv  ## how well cells repeat in 20 fresh processes each, and how precise a quick run is
	rm -rf reports/repeatability reports/repeatability-quick
	$(BIN)/backprop-bench run --profile smoke --phases step --passes 20 --cell-seconds 0.35 --budget 1200 \
		--out reports/repeatability
	$(BIN)/python -m analysis.repeatability reports/repeatability
	$(BIN)/backprop-bench run --profile quick --out reports/repeatability-quick
	$(BIN)/python -m analysis.repeatability reports/repeatability-quick --precision 0.03

kernels: venv  ## which reference kernel makes cells repeat best; refreshes the figure of docs/measuring.md
	rm -rf reports/kernels
	$(BIN)/pytest -q --benchmark-only --benchmark-quiet --profile smoke --phases step --passes 20 --budget 900 \
		--impls numpy,torch,jax,sklearn --kernels product,objects,interpreter,calls,elementwise,copy --run-dir reports/kernels
	$(BIN)/python -m analysis.repeatability reports/kernels --kernels docs/measuring.png

# One thread a process: the matrices are tiny, and trials run side by side.
selftest: venv  ## laws and verdicts on planted truth, 500 trials a setting (about 20 minutes)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.selftest

predict-check: venv  ## cells that were never measured, predicted, then measured
	rm -rf reports/predict reports/predict-new
	$(BIN)/backprop-bench run --profile quick --phases step --out reports/predict
	$(BIN)/backprop-bench run --profile check --phases step --seed 7 --out reports/predict-new
	$(BIN)/python -m analysis.predict_check reports/predict reports/predict-new

gate-check: venv  ## the gate on A/A pairs and on seeded slowdowns (more than an hour)
	rm -rf reports/gate-check
	$(BIN)/python -m tests.gate_check

history-check: venv  ## steps found in planted histories, beside naive rules, and how long a large history takes
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.history_check

# Needs Debian's chromium and chromium-driver; axe-core comes from npm, and its checks are skipped where that is missing.
page-check: venv  ## the pages in Chromium: tests, screenshots in .page-check, and how fast the page of 2,000 cells is
	npm install --silent --no-fund --no-audit --prefix .page-check axe-core || echo "no npm: the accessibility checks are skipped"
	$(BIN)/pytest -q -rs tests/test_page.py tests/test_page_others.py tests/test_charts.py
	$(BIN)/python -m tests.page_check

namespaces: venv  ## steps over 2 and 4 hosts in network namespaces beside what the law says (Linux, root; 6 minutes)
	$(BIN)/python -m tests.namespaces_check

# Extra-P 4.2.5 is not ready for NumPy 2, so it lives apart
EXTRAP_VENV := .venv-extrap
$(EXTRAP_VENV)/.ready:
	$(PYTHON) -m venv $(EXTRAP_VENV)
	$(EXTRAP_VENV)/bin/pip install -q "extrap==4.2.5" "numpy<2"
	touch $@

other-tools: venv $(EXTRAP_VENV)/.ready  ## what google/benchmark's rule, big_O and Extra-P say of planted laws, next to ours
	$(BIN)/python -m tests.other_tools --extrap-python $(EXTRAP_VENV)/bin/python

# For a machine with a GPU and no network: needs numpy, scipy, torch, jax, pytest, pytest-benchmark, typer, rich and
# threadpoolctl in $(GPU_PYTHON), nvidia-ml-py to see clock and temperature; drawing happens elsewhere, from the files.
# torch-compile takes minutes to compile and is held to the reference by `pytest tests/test_devices.py -k torch-compile`.
GPU_PYTHON ?= python3
GPU_DEVICE ?= cuda
GPU_SECONDS ?= 420
gpu:  ## on a GPU: conformance there, then its quick sweep, into reports/<its name>/ (about 8 minutes)
	$(GPU_PYTHON) -m bench.gpu --device $(GPU_DEVICE) --seconds $(GPU_SECONDS)

example: report  ## refresh the runs that are kept in git (twenty minutes on a quiet machine)
	rm -rf reports/example reports/architectures reports/parallel
	$(BIN)/backprop-bench experiment parallel --out reports/parallel
	$(BIN)/backprop-bench experiment architectures --out reports/architectures
	$(BIN)/backprop-bench report $(REPORT) reports/parallel --out reports/example
	$(BIN)/backprop-bench report reports/architectures --out reports/example/architectures

clean:
	rm -rf $(VENV) $(EXTRAP_VENV) .page-check build *.egg-info .mypy_cache .ruff_cache .pytest_cache
