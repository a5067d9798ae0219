# Every target sets up its own virtual environment when there is none, with exactly the versions in requirements-dev.lock.
.DEFAULT_GOAL := help
.PHONY: help demo test e2e node faults lint contract bench lowest soak docs pictures format lock clean image sbom bundle audit release
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
WORKERS ?= 4
# AGAIN=1 repeats only what failed in the run before.
PYTEST := $(VENV)/bin/pytest $(if $(AGAIN),--last-failed)

# Faults take minutes and some quiet: they have a target of their own.
FAULTS := e2e/scenarios/faults

# What needs a node has a run of its own in `make e2e`.
NODE := e2e/scenarios/node e2e/selftest/test_node.py
without_node = $(addprefix --ignore ,$(NODE))

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
	$(PYTEST) -n $(WORKERS) tests e2e --ignore $(FAULTS) $(without_node)

e2e: $(READY) ## everything on a real control plane, then pods on a real node; OPENSHIFT_BIN=DIR or CLUSTER=KUBECONFIG for a real OpenShift API
	$(PYTEST) $(call where,controlplane) e2e --ignore $(FAULTS) $(without_node)
	$(if $(CLUSTER)$(BACKEND),,$(MAKE) node)

node: $(READY) # the second half of `make e2e`
	$(PYTEST) -n $(WORKERS) --backend node $(if $(OPENSHIFT_BIN),--openshift-bin $(OPENSHIFT_BIN)) $(NODE)

faults: $(READY) ## programs killed, frozen, cut off; API servers and mirrors that fail in every way
	$(PYTEST) $(call where,controlplane) $(FAULTS)

contract: $(READY) ## does the simulator answer what the real API answered? BACKEND=controlplane, OPENSHIFT_BIN= and CLUSTER= ask others
	$(PYTEST) $(filter-out -n $(WORKERS),$(call where,simulator)) e2e/contract

lint: $(READY) ## ruff, mypy --strict, import contracts; actionlint and zizmor on the workflows
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/python -m config.lint.workflows

bench: $(READY) ## how fast it is, measured here; ONLY="scale healing" for some groups, JSON=FILE, RECORD=1 for docs/benchmarks.md
	$(VENV)/bin/python -m e2e.bench $(ONLY) $(if $(JSON),--json $(JSON)) $(if $(RECORD),--record)

lowest: ## the fast tests with the oldest libraries that pyproject.toml allows
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install $(QUIET) --require-hashes -r requirements-lowest.lock
	awk -F '[=; ]' '/^[a-z]/ && !seen[$$1]++ {print $$1 "==" $$3}' requirements-lowest.lock requirements-dev.lock > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install $(QUIET) -c $(LOWEST)/constraints.txt $(TEST_TOOLS)
	$(LOWEST)/bin/pip install $(QUIET) --no-deps --no-build-isolation --editable .
	$(LOWEST)/bin/pytest -p no:cacheprovider -n $(WORKERS) tests/kube tests/runtime tests/cli tests/controller tests/webhook

LOWEST := .venv-lowest
QUIET := --quiet --disable-pip-version-check
TEST_TOOLS := bcrypt editables hatchling hypothesis pytest pytest-timeout pytest-xdist rich trustme

soak: $(READY) lowest ## what takes long: all faults in full numbers, into docs/reliability.md; all states of the models; random histories and inputs
	rm -f $(SOAKED)
	$(SOAK) $(PYTEST) -n $(WORKERS) tests/model
	$(SOAK) $(PYTEST) -n 0 tests/day e2e/scenarios/test_endurance.py
	$(SOAK) $(PYTEST) -n $(WORKERS) --timeout 1800 tests/fuzz
	$(PYTEST) -n $(WORKERS) --backend node --hosted e2e/scenarios/node --ignore e2e/scenarios/node/test_documents.py
	$(SOAK) $(PYTEST) -n 0 --backend node e2e/scenarios/node/test_upgrade.py
	$(SOAK) $(PYTEST) -n 0 tests/packaging/test_debian.py tests/packaging/test_release.py tests/packaging/test_ubi.py
	TENANT_STREAMS=1000 TENANT_TAGS=300 $(PYTEST) e2e/scenarios/test_denial.py
	-$(SOAK) $(PYTEST) $(call where,controlplane) $(FAULTS) --ignore $(STORMS) --reliability .faults-1.json
	-$(SOAK) $(PYTEST) $(filter-out -n $(WORKERS),$(call where,controlplane)) $(STORMS) --reliability .faults-2.json
	-$(SOAK) $(PYTEST) -n $(WORKERS) $(FAULTS) --ignore $(STORMS) --reliability .faults-3.json
	-$(SOAK) $(PYTEST) $(STORMS) --reliability .faults-4.json
	$(VENV)/bin/python -m e2e.testbed.faults.reliability $(SOAKED)

SOAK := MIRRORSTREAM_SOAK=1
# Beside thousands of failing streams nothing else is in time.
STORMS := $(FAULTS)/test_storms.py
# The last line of the recipe fails for what failed in these.
SOAKED := .faults-1.json .faults-2.json .faults-3.json .faults-4.json
faults soak: WORKERS = 2

docs: $(READY) ## the users' guide as pages, in site/; every link of its own is checked
	$(VENV)/bin/python docs/generate_configuration.py
	$(VENV)/bin/python -m docs.generate_dependencies
	$(VENV)/bin/python -m docs.pictures
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "site/index.html"

pictures: $(READY) ## record the dashboard again (needs Prometheus, five minutes) and draw the pictures (needs Chromium)
	$(VENV)/bin/python -m e2e.testbed.prometheus.record docs/pictures/dashboard.json
	$(VENV)/bin/python -m docs.pictures

format: $(READY) ## let ruff format everything
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

image: ## build the image with podman or docker, or with buildah: BASE=debian; IMAGE=NAME, PLATFORMS=…; docs/image.md has more
	@config/image/build.sh

sbom: $(READY) ## write dist/mirrorstream.cdx.json, the CycloneDX bill of materials of requirements.lock
	@$(VENV)/bin/python config/image/sbom.py

audit: $(READY) ## ask OSV for known vulnerabilities of what is locked; OSV_URL= asks another server; says so when it cannot be reached
	@$(VENV)/bin/python config/image/audit.py

bundle: $(READY) ## write dist/bundle, the OLM bundle of config/ for the image DIGEST=sha256:… (needs kubectl, oc or kustomize)
	@$(VENV)/bin/python -m config.bundle.generate

release: $(READY) ## write dist/, all that a release consists of; BASE=debian needs no image registry; docs/install.md installs it
	@$(VENV)/bin/python -m config.release

lock: ## choose new exact versions (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --resolution lowest-direct pyproject.toml -o requirements-lowest.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml --group dev -o requirements-dev.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --group build -c requirements-dev.lock -o requirements-build.lock

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) $(LOWEST) .mypy_cache .ruff_cache .pytest_cache .hypothesis
