# Every target sets up its own virtual environment when there is none, with exactly the versions in requirements-dev.lock.
.DEFAULT_GOAL := help
.PHONY: help demo test e2e faults lint contract bench soak docs format lock clean image sbom bundle audit
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
WORKERS ?= 4
PYTEST := $(VENV)/bin/pytest

# Faults take minutes and some quiet: they have a target of their own.
FAULTS := e2e/scenarios/faults

# Where end-to-end tests run; an existing cluster knows the registries of one process only.
where = $(if $(CLUSTER),--kubeconfig $(CLUSTER),-n $(WORKERS) $(if $(OPENSHIFT_BIN),--openshift-bin $(OPENSHIFT_BIN),--backend $(or $(BACKEND),$(1))))

help: ## what each target does
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mirrorstream needs Python 3.11 or later; set PYTHON=…")'
	@echo "Setting up $(VENV) with the versions in requirements-dev.lock (once, about half a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## watch ImageStreams heal on a simulated cluster; KEEP=1 leaves the cluster up for kubectl
	@$(VENV)/bin/python -m e2e.demo $(if $(KEEP),--keep)

test: $(READY) ## all tests: rules, controller, contract with the real API's recordings, scenarios on a simulated cluster
	$(PYTEST) -n $(WORKERS) tests e2e --ignore $(FAULTS)

e2e: $(READY) ## everything on a real control plane, built with Go; OPENSHIFT_BIN=DIR or CLUSTER=KUBECONFIG for a real OpenShift API
	$(PYTEST) $(call where,controlplane) e2e --ignore $(FAULTS)

faults: $(READY) ## programs killed, frozen, cut off; API servers and mirrors that fail in every way; AGAIN=1 repeats what failed
	$(PYTEST) $(if $(AGAIN),--last-failed) $(call where,controlplane) $(FAULTS)

contract: $(READY) ## does the simulator answer what the real API answered? BACKEND=controlplane, OPENSHIFT_BIN= and CLUSTER= ask others
	$(PYTEST) $(filter-out -n $(WORKERS),$(call where,simulator)) e2e/contract

lint: $(READY) ## ruff, mypy --strict, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

bench: $(READY) ## how fast it is, measured here; ONLY="scale healing" for some groups, JSON=FILE, RECORD=1 for docs/benchmarks.md
	$(VENV)/bin/python -m e2e.bench $(ONLY) $(if $(JSON),--json $(JSON)) $(if $(RECORD),--record)

soak: $(READY) ## what takes long: all faults in full numbers, into docs/reliability.md; all states of the models; random histories and inputs
	rm -f $(SOAKED)
	$(SOAK) $(PYTEST) -n $(WORKERS) tests/model
	$(SOAK) $(PYTEST) -n 0 tests/day e2e/scenarios/test_endurance.py
	$(SOAK) $(PYTEST) -n $(WORKERS) --timeout 1800 tests/fuzz
	TENANT_STREAMS=1000 TENANT_TAGS=300 TENANT_SECONDS=30 $(PYTEST) e2e/scenarios/test_denial.py
	-$(SOAK) $(PYTEST) $(call where,controlplane) $(FAULTS) --ignore $(STORMS) --reliability .faults-1.json
	-$(SOAK) $(PYTEST) $(filter-out -n $(WORKERS),$(call where,controlplane)) $(STORMS) --reliability .faults-2.json
	-$(SOAK) $(PYTEST) -n $(WORKERS) $(FAULTS) --ignore $(STORMS) --reliability .faults-3.json
	-$(SOAK) $(PYTEST) $(STORMS) --reliability .faults-4.json
	$(VENV)/bin/python -m e2e.reliability $(SOAKED)

SOAK := MIRRORSTREAM_SOAK=1
# Beside thousands of failing streams nothing else is in time.
STORMS := $(FAULTS)/test_storms.py
# The last line of the recipe fails for what failed in these.
SOAKED := .faults-1.json .faults-2.json .faults-3.json .faults-4.json
faults soak: WORKERS = 2

docs: $(READY) ## the users' guide as pages, in site/; every link of its own is checked
	$(VENV)/bin/python docs/generate_configuration.py
	$(VENV)/bin/python -m docs.generate_dependencies
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo "site/index.html"

format: $(READY) ## let ruff format everything
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

image: ## build the image with podman or docker; IMAGE=NAME, PLATFORMS=linux/amd64,linux/arm64; docs/image.md has more
	@config/image/build.sh

sbom: $(READY) ## write dist/mirrorstream.cdx.json, the CycloneDX bill of materials of requirements.lock
	@$(VENV)/bin/python config/image/sbom.py

audit: $(READY) ## ask OSV for known vulnerabilities of what is locked; OSV_URL= asks another server; says so when it cannot be reached
	@$(VENV)/bin/python config/image/audit.py

bundle: $(READY) ## make the OLM bundle of config/ (needs kubectl, oc or kustomize)
	@$(VENV)/bin/python config/bundle/generate.py

lock: ## choose new exact versions (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml --group dev -o requirements-dev.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --group build -c requirements-dev.lock -o requirements-build.lock

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
