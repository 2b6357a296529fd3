# Every target works on a machine with Python 3.11 or newer, make and git. Nothing is installed outside .venv.
PYTHON ?= python3
BIN := .venv/bin
.PHONY: run demo test test-long check bench clean

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "zbroker needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo]'
	touch $@

.venv/installed-test: pyproject.toml .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

.venv/node/installed: .venv/installed-test examples/node/package.json   # for the peer in JavaScript; Node.js too where there is none
	$(BIN)/python -m tests.interop.node
	touch $@

run: .venv/installed            ## the broker in the foreground, journal in ./zbroker-data
	@exec $(BIN)/zbroker run

demo: .venv/installed           ## the tour, about 30 s
	@exec $(BIN)/zbroker demo

check: .venv/installed-test     ## format, lint, types, import arrows, fast tests: under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -rs tests/architecture tests/unit tests/property

# Two halves at once, for most of their time is waiting; each half has ports and folders of its own.
test: check .venv/node/installed         ## every kind of test, the slow kinds sampled
	@$(BIN)/python -m pytest -q -rs tests/sockets >.venv/tests-of-sockets 2>&1 & half=$$!; \
	$(BIN)/python -m pytest -q -rs tests $(foreach done,architecture unit property sockets,--ignore=tests/$(done)); rest=$$?; \
	wait $$half; half=$$?; cat .venv/tests-of-sockets; exit $$((half | rest))

test-long: check .venv/node/installed    ## every kind of test, whole; each decoder is fuzzed for ZBROKER_FUZZ_S seconds, 60 by default
	-$(BIN)/pip install --quiet --disable-pip-version-check -e '.[fuzz]'   # no wheel for this Python: those tests are skipped, and say so
	ZBROKER_TEST_LONG=1 $(BIN)/python -m pytest -q -rs tests --ignore=tests/architecture --ignore=tests/unit

bench: .venv/installed-test     ## peer to peer, brokered, durable, beside bare pyzmq
	$(BIN)/zbroker bench compare

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
