# make setup     the environment, in .venv, and the GL libraries
# make rollout   the shipped policy over the tabletop suite's skills
# make test      all tests
# make libero    the LIBERO benchmark and its meshes, for the suites libero_*
# make mikasa    the MIKASA-Robo benchmark, its simulator and a software Vulkan driver, for the suite mikasa
# make browser   Chromium, with which the tests look at reports
# make docs      the pages of docs/ as a site in build/site, which needs no network to be read
# make lint | typing | requirements | clean
.DEFAULT_GOAL := rollout
.PHONY: setup rollout test libero mikasa browser docs lint typing requirements clean
SHELL := /bin/bash
PYTHON ?= python3.12
PY := .venv/bin/python
OUT ?= runs/skills
# images of containers set it: every process would then compile torch and other libraries anew, for half a minute
unexport PYTHONDONTWRITEBYTECODE

setup:
	@bash requirements/gl.sh
	@PYTHON="$(PYTHON)" bash requirements/install.sh .venv requirements/dev.txt -e .

rollout: setup
	$(PY) -m vlamem rollout --suite tabletop --tasks skills --policy tiny --episodes 20 --workers 2 --video 2 --out "$(OUT)"

# one process a core, as far as memory goes, with one thread each; few malloc arenas give more of what was freed back
test: setup
	MALLOC_ARENA_MAX=2 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder

# without dependencies: hf-libero's others serve its training code
libero: setup
	$(PY) -m uv pip install --python $(PY) --no-deps --require-hashes -r requirements/libero.txt

# without dependencies: the benchmark pins a Python, NumPy and torch of its own
mikasa: setup
	$(PY) -m uv pip install --python $(PY) --no-deps --require-hashes -r requirements/mikasa.txt
	@bash requirements/vulkan.sh .venv

browser:
	@bash requirements/browser.sh

# in an environment of its own: the site needs nothing of the project's
docs:
	python=$(PYTHON) && $$python -m venv build/docs-env && build/docs-env/bin/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements/docs.txt
	NO_MKDOCS_2_WARNING=1 build/docs-env/bin/python -m mkdocs build --strict

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

typing: setup
	$(PY) -m mypy -p vlamem

# versions move here and nowhere else
requirements: setup
	$(PY) -m uv pip compile requirements/bootstrap.in --python-version 3.12 --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o requirements/bootstrap.txt
	$(PY) -m uv pip compile pyproject.toml --only-binary :all: --extra torch --extra sim --extra lerobot --extra export --extra view --extra success --extra serve --extra robot --extra ray --extra fleet --extra dev --overrides requirements/overrides.txt --python-version 3.12 --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o requirements/dev.txt
	$(PY) -m uv pip compile pyproject.toml --constraints requirements/dev.txt --python-version 3.12 --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o requirements/core.txt
	$(PY) -m uv pip compile requirements/libero.in --no-deps --python-version 3.12 --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o requirements/libero.txt
	$(PY) -m uv pip compile requirements/mikasa.in --no-deps --python-version 3.12 --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o requirements/mikasa.txt
	$(PY) -m uv pip compile requirements/docs.in --python-version 3.12 --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o requirements/docs.txt

clean:
	rm -rf .venv build dist *.egg-info
