# make run             serve on port 8002, with the built-in simulator if OPENAI_API_KEY is not set
# make test            all tests; needs only Python
# make coverage        unit tests with the coverage of app/
# make test-container  build and test the image; needs a Docker engine
# make check           format, lint, types, imports, locks
# make format          fix formatting and regenerate the documents
# make soak            ten minutes of mixed load; fails if memory, descriptors or tasks grow
# make fuzz            schemathesis over /openapi.json, and arbitrary bytes
# make lock            regenerate the locks from the pins; needs the package index
# make audit           check the locked packages for known vulnerabilities; needs pypi.org
# make sbom            write sbom.json in CycloneDX format
# make boot            time to the first response, and memory after it
# make bench           compare with a plain sketch and, after `make bench-peers`, with other gateways

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := $(VENV)/peers
TOOLS := .venv-tools
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run announce test coverage test-container image check format boot bench bench-peers soak fuzz lock audit sbom

# Exit status of the announcement: 0 with a key, 3 without one, 2 for an invalid setting.
ANNOUNCE = $(BIN)/python -m app.announcement

run: $(VENV)/run
	@$(ANNOUNCE); case $$? in \
	0) exec $(BIN)/python -m app;; \
	3) exec $(BIN)/python -m app.simulator --port 0 -- $(BIN)/python -m app;; \
	*) exit 2;; esac

announce: $(VENV)/run
	@$(ANNOUNCE) || [ $$? = 3 ]

# Two processes for two cores. Bytecode is written, so that each module is compiled only once.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# Coverage doubles the CPU time, so only CI and `make coverage` measure it.
COVERAGE = $(if $(CI),--cov=app)

test: $(VENV)/test
	$(PYTEST) tests/unit $(COVERAGE)
	$(PYTEST) tests/integration
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m tests.live

coverage: $(VENV)/test
	$(PYTEST) tests/unit --cov=app

image:
	@docker info >/dev/null 2>&1 || { echo 'No Docker engine is reachable: start one, or set DOCKER_HOST.' >&2; exit 1; }
	docker build --quiet --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" --tag llm-server .

test-container: image $(VENV)/test
	$(BIN)/python -m pytest -v tests/container/test_container.py

check: $(VENV)/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.lock

format: $(VENV)/test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m tests.parameter_table
	$(BIN)/python -m tests.settings_documents
	$(BIN)/python -m tests.models_page

boot: $(VENV)/run
	$(BIN)/python -m benchmarks.boot

bench: $(VENV)/bench
	$(BIN)/python -m benchmarks $(BENCH)

bench-peers: $(VENV)/run
	$(PYTHON) -m venv $(PEERS)/litellm
	$(PEERS)/litellm/bin/python -m pip install --quiet -r benchmarks/peers/uv.txt
	$(PEERS)/litellm/bin/uv pip install --quiet --python $(PEERS)/litellm/bin/python \
	  --overrides benchmarks/peers/litellm-overrides.txt -r benchmarks/peers/litellm.txt
	$(PYTHON) -m venv $(PEERS)/routers
	$(PEERS)/routers/bin/python -m pip install --quiet -r benchmarks/peers/routers.txt
	mkdir -p $(PEERS)/portkey && cp benchmarks/peers/package.json $(PEERS)/portkey
	cd $(PEERS)/portkey && npm install --no-audit --no-fund --silent

soak: $(VENV)/test
	$(BIN)/python -m tests.soak 600

fuzz: $(VENV)/test $(TOOLS)/installed
	$(BIN)/python -m tests.fuzz $(TOOLS)/bin/schemathesis
	RAW_REQUESTS=3000 $(BIN)/python -m pytest tests/integration/test_raw_requests.py
	MORE_EXAMPLES=20 $(BIN)/python -m pytest tests/integration/test_any_input.py tests/integration/test_any_upstream.py

LOCK = $(TOOLS)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --custom-compile-command 'make lock'

lock: $(TOOLS)/installed
	$(LOCK) --output-file requirements-run.lock requirements-run.txt
	$(LOCK) --constraint requirements-run.lock --output-file requirements.lock requirements.txt

# Strict: a package without vulnerability data is a failure.
audit: $(TOOLS)/installed
	@$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r requirements-run.lock \
	|| { echo 'A package above is vulnerable, or pypi.org could not be reached.' >&2; exit 1; }

sbom: $(TOOLS)/installed
	$(TOOLS)/bin/cyclonedx-py requirements --output-reproducible --of JSON -o sbom.json requirements-run.lock

$(VENV)/run: requirements-run.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --no-deps --require-hashes -r requirements-run.lock
	@touch $@

$(VENV)/test: requirements.lock $(VENV)/run
	@$(PIP) install --no-deps --require-hashes -r requirements.lock
	@touch $@

$(TOOLS)/installed: requirements-tools.txt
	@test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip --disable-pip-version-check --quiet install -r requirements-tools.txt
	@touch $@

$(VENV)/bench: benchmarks/requirements.txt $(VENV)/run
	@$(PIP) install -r benchmarks/requirements.txt
	@touch $@
