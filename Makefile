# `make demo` and `make test` do all set-up themselves. Each target's first line says what it is for.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find src native -type f -not -path '*/_native/*' -not -name '*.pyc') pyproject.toml constraints.txt CMakeLists.txt

MINUTES ?= 30

.PHONY: demo test test-clip lint bench fuzz native clean

demo: $(VENV)/installed  ## build a library from the bundled splats, search it, draw the results
	$(BIN)/splatsense demo --page no

test: $(VENV)/installed-dev  ## the default test suite
	$(BIN)/python -m pytest

test-clip: $(VENV)-clip/installed  ## the teachers of open_clip, in an environment of its own: the base install needs no torchvision
	$(VENV)-clip/bin/python -m pytest tests/teachers

lint: $(VENV)/installed-dev  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/installed-dev  ## every benchmark, one after the other
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; echo; done

fuzz: $(VENV)/installed-dev  ## damage files of every format for MINUTES minutes and see that the readers hold
	$(BIN)/python tools/fuzz.py --minutes $(MINUTES)

native:  ## build the native library into src/ for working on it with PYTHONPATH=src
	cmake -S . -B build/native -DCMAKE_INSTALL_PREFIX=$(CURDIR)/src
	cmake --build build/native -j2
	cmake --install build/native

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt .
	touch $@

$(VENV)/installed-dev: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt '.[dev,faiss,postgres,ray,watch]'
	touch $@ $(VENV)/installed

$(VENV)-clip/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)-clip
	$(VENV)-clip/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt '.[clip,dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-clip build dist
