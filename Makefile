# make run    serve on port 8002 (over the built-in simulator when no OPENAI_API_KEY is set)
# make test   every test; needs Python only
# make coverage   the unit tests, with what they cover of app/
# make test-container   builds the image and tests it; needs a Docker engine
# make check  format, lint, types, imports, locks
# make soak   ten minutes of mixed load, and whether the server grows under it
# make fuzz   requests made from the described interface, and from anything at all
# make lock   makes the locks anew from the pins (needs the package index)
# make audit  looks the locked packages up among the known vulnerabilities (needs pypi.org)
# make sbom   writes sbom.json, what the server consists of, in CycloneDX's form
# make bench  compares with a plain sketch and, once `make bench-peers` has installed them, with other gateways

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := $(VENV)/peers
TOOLS := .venv-tools
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run announce test coverage test-container image check format boot bench bench-peers soak fuzz lock audit sbom

# Statuses of the announcement: 0 there is a key, 3 there is none, 2 a setting is wrong.
ANNOUNCE = $(BIN)/python -m app.announcement

run: $(VENV)/run
	@$(ANNOUNCE); case $$? in \
	0) exec $(BIN)/python -m app;; \
	3) exec $(BIN)/python -m app.simulator --port 0 -- $(BIN)/python -m app;; \
	*) exit 2;; esac

announce: $(VENV)/run
	@$(ANNOUNCE) || [ $$? = 3 ]

# Two processes suit two cores. Each import is compiled once, not in every process.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# Tracing doubles the CPU time, so that only CI and `make coverage` measure.
COVERAGE = $(if $(CI),--cov=app)

test: $(VENV)/test
	$(PYTEST) tests/unit $(COVERAGE)
	$(PYTEST) tests/integration
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m tests.live

coverage: $(VENV)/test
	$(PYTEST) tests/unit --cov=app

image:
	@docker info >/dev/null 2>&1 || { echo 'No Docker engine answers: start one, or set DOCKER_HOST.' >&2; exit 1; }
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

# Strict: a package whose data cannot be had is a failure, not a pass.
audit: $(TOOLS)/installed
	@$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r requirements-run.lock \
	|| { echo 'Something above is vulnerable, or the data of pypi.org could not be reached and nothing is known.' >&2; exit 1; }

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
