# `make demo` and `make test` do all of their own set-up; they need python3 (3.11 or later) and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made

.PHONY: help demo test test-fast test-real test-long cloud cloud-down test-cloud test-cloud-long lint docs lock clean
help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cloudfsck needs Python 3.11 or later; say which with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) -s python3-venv
	@$(PYTHON) -m venv $(VENV)
	@echo "making the virtual environment $(VENV) ..."
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Debian keeps what makes virtual environments in a package of its own.
.PHONY: python3-venv
python3-venv:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing python3-venv, which makes virtual environments ..."; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; \
	else echo "python3 cannot make virtual environments here: install the package python3-venv"; exit 1; fi

demo: $(STAMP)   ## make a damaged cloud, check it, repair it, check it again
	@$(BIN)/cloudfsck demo

test: bed        ## every test that does not take long; as root it first installs the real servers that the tests start
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-fast test-real

.PHONY: bed
bed: $(STAMP)
	@status=0; tests/install-bed || status=$$?; \
	if [ $$status -ne 0 ] && [ -n "$$CI" ]; then echo "the real servers are missing, and CI leaves nothing out"; exit 1; fi

test-fast: $(STAMP)  ## the tests that need no server
	@$(BIN)/python -m pytest -m "not real and not long" -n auto --dist worksteal

test-real: $(STAMP)  ## the tests with real servers; most of the time they wait
	@$(BIN)/python -m pytest -m "real and not long" $(if $(CI),--left-out=fail,)

test-long: $(STAMP)  ## what takes long and needs no cloud: an NSX of 50,000 objects, zones of 100,000 records
	@$(BIN)/python -m pytest tests -m long

cloud: $(STAMP)  ## bring up a real OpenStack on this machine, to be proven against; as root
	@$(BIN)/python -m testbed up

cloud-down: $(STAMP)  ## end it, and leave nothing but what makes the next one faster
	@$(BIN)/python -m testbed down

test-cloud: $(STAMP)  ## the tests on it
	@$(BIN)/python -m pytest testbed/tests -m "not long"

test-cloud-long: $(STAMP)  ## all of them, with a quarter of an hour of innocent life
	@CLOUDFSCK_CHURN_MINUTES=15 $(BIN)/python -m pytest testbed/tests

lint: $(STAMP)   ## ruff, mypy --strict, and the generated pages are current
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m docs.pages --check

docs: $(STAMP)   ## write the generated pages anew
	@$(BIN)/python -m docs.pages

lock: $(STAMP)   ## pin the dependencies anew
	@$(BIN)/pip install -q pip-tools
	@cd requirements && for of in run dev; do ../$(BIN)/pip-compile -q --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade $$of.in -o $$of.txt; done

clean:           ## remove what make made
	@if [ -d .cloud/nodes ]; then $(PYTHON) -m testbed down; fi
	rm -rf $(VENV) .venv-nova .venv-nsx .cloud .cache build dist *.egg-info
