# Every target installs first what is missing, and says so. `make PYTHON=/path/to/python3 ...` chooses
# another Python than the python3 in PATH.
.DEFAULT_GOAL := help
.PHONY: help setup demo test chaos foreign check format bench lock clean

# Ansible refuses to start without a UTF-8 locale, and a fresh Debian sets none.
export LC_ALL := C.UTF-8
export PYTHON
BIN := .venv/bin
FOREIGN := build/foreign
CERTIFICATES := $(wildcard /etc/ssl/certs/ca-certificates.crt)

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup: ## install what is missing on this machine: Debian packages, .venv, a running Docker
	@bootstrap/setup dev engine

demo: ## provision and verify one lab on this machine, and say how to log in and tear down
	@bootstrap/setup runtime engine
	@bootstrap/as-docker bootstrap/demo

test: ## run every test
	@bootstrap/setup dev engine
	@bootstrap/as-docker $(BIN)/python -m pytest --numprocesses 3 --no-loadscope-reorder

chaos: ## kill every process, cut every connection: the long forms
	@bootstrap/setup dev engine
	@bootstrap/as-docker $(BIN)/python -m pytest tests/chaos -m chaos -s

foreign: ## run Ansible's collection for VMware against the simulator; it takes 550 MB in build/
	@bootstrap/setup dev
	@cmp -s requirements/foreign.lock $(FOREIGN)/.lock || { $(BIN)/python -m venv --clear $(FOREIGN) && \
		PIP_CERT="$${PIP_CERT:-$(CERTIFICATES)}" $(FOREIGN)/bin/python -m pip install --quiet \
		--disable-pip-version-check --require-hashes --requirement requirements/foreign.lock && \
		cp requirements/foreign.lock $(FOREIGN)/.lock; }
	@$(BIN)/python -m pytest tests/foreign -m foreign

check: ## ruff, mypy strict, import-linter, ansible-lint, yamllint
	@bootstrap/setup dev
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/yamllint --strict .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline

format: ## format the code and mend what ruff can mend
	@bootstrap/setup dev
	$(BIN)/ruff check --fix --quiet || true
	$(BIN)/ruff format

bench: ## run the benchmarks
	@bootstrap/setup dev engine
	@set -e; for script in benchmarks/*.py; do bootstrap/as-docker $(BIN)/python "$$script"; done

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links --upgrade
OURS := pyproject.toml --group build

lock: ## choose anew the versions in requirements/, with their hashes
	@bootstrap/setup dev
	$(COMPILE) $(OURS) --output-file requirements/runtime.lock
	$(COMPILE) $(OURS) --group dev --constraint requirements/runtime.lock \
		--output-file requirements/dev.lock
	$(COMPILE) --group pyproject.toml:foreign --output-file requirements/foreign.lock

clean: ## remove what the targets made in this folder; labs and the state folder stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .ansible build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
