# make demo | test | test-core | coverage | check | docs | reference | release | bench | bench-serving | bench-data | bench-images | soak.
# Each makes the virtual environment that it needs first.
PYTHON ?= python3
UV := $(shell command -v uv || echo $(CURDIR)/.uv/bin/uv)
BIN := $(CURDIR)/.venv/bin
# pip's own `config get` reads the files of one user only.
export UV_FIND_LINKS ?= $(shell $(PYTHON) -m pip config list 2>/dev/null | sed -nE "s/^(:env:|global)\.find-links='(.*)'/\2/p" | head -n 1)
export UV_PYTHON_DOWNLOADS ?= never

.PHONY: demo test test-core coverage check docs reference release bench bench-serving bench-data bench-images soak format clean

demo: .venv-demo/ready
	.venv-demo/bin/python scripts/demo.py

test: .venv/ready
	@# The tests share the cores: libraries that spin on all of them would wait for each other.
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE OPENBLAS_NUM_THREADS=1 LOKY_MAX_CPU_COUNT=1 $(BIN)/python -m pytest -n $${PYTEST_WORKERS:-3} --dist loadgroup --no-loadscope-reorder $(ARGS)

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/codespell README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md benchmarks/README.md docs mlapp scripts templates
	$(BIN)/python scripts/lint_prose.py README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs

# The unit tests with scikit-learn alone, on the lowest or the highest versions that pyproject.toml admits.
RESOLUTION ?= highest
test-core: | $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON) .venv-core
	$(UV) pip install --quiet --resolution $(RESOLUTION) --python .venv-core --editable ".[sklearn]" --group dev-core
	MLAPP_TEST_CORE=1 OMP_NUM_THREADS=1 .venv-core/bin/python -m pytest -n $${PYTEST_WORKERS:-2} --dist loadgroup tests/unit $(ARGS)

# The unit tests, with the share of the lines that they run. It may not fall.
coverage: .venv/ready
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE OPENBLAS_NUM_THREADS=1 LOKY_MAX_CPU_COUNT=1 $(BIN)/python -m pytest -n $${PYTEST_WORKERS:-2} --dist loadgroup --no-loadscope-reorder --cov --cov-report=term:skip-covered tests/unit $(ARGS)

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Write the generated pages again: the command line, the index of decisions, HTTP, and the settings.
reference: .venv/ready
	for script in document_cli document_decisions document_http configuration docker_settings kubernetes_settings platform_settings lambda_settings; do PYTHONPATH=. $(BIN)/python scripts/$$script.py; done

# The wheel, the source distribution and the SBOM of a tag, in dist/.
release: | $(UV)
	@# The name of a tag is data: the shell expands it, so that nothing in it is run.
	@test "$$TAG" = "v$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" || { echo "$$TAG is not the version in pyproject.toml"; exit 1; }
	rm -rf dist
	$(UV) build --quiet
	$(UV) venv --quiet --clear --python $(PYTHON) .venv-release
	$(UV) pip install --quiet --python .venv-release dist/*.whl
	$(UV) tool run --quiet --from cyclonedx-bom cyclonedx-py environment .venv-release --pyproject pyproject.toml --output-file "dist/$$TAG.cdx.json"

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv-demo/ready
	.venv-demo/bin/python -m benchmarks.core

bench-serving: .venv/ready
	$(BIN)/python -m benchmarks.serving

bench-data: .venv/ready
	$(BIN)/python -m benchmarks.data

soak: .venv/ready
	$(BIN)/python -m benchmarks.soak

bench-images: .venv/ready
	$(BIN)/python -m benchmarks.images

.venv/ready: pyproject.toml Makefile | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip install --quiet --compile-bytecode --python .venv --editable . --group dev
	touch $@

# The base install with scikit-learn, without the tests' packages.
.venv-demo/ready: pyproject.toml Makefile | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-demo
	$(UV) pip install --quiet --python .venv-demo --editable ".[sklearn]"
	touch $@

$(CURDIR)/.uv/bin/uv:
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv uv

clean:
	rm -rf .venv .venv-demo .venv-core .venv-release .uv .tools dist build
