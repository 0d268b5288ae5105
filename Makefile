# `make run` shows the product, `make test` proves it. Both set up what they need.
SHELL := /bin/bash
PYTHON := .venv/bin/python
FUZZED := tests/protocols tests/config tests/drivers tests/messages tests/transport tests/bus tests/fuzz645
PATHS := headend protocols simulators tests benchmarks

.PHONY: run test install servers lint soak fuzz bench screenshot clean install-system uninstall-system

run: install
	@.venv/bin/headend demo $(ARGS)

test: install servers lint
	$(PYTHON) -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

# The virtual environment; instant when it is up to date.
install:
	@scripts/setup.sh

# For a machine: users, units, /opt/headend (docs/install.md). As root; DESTDIR= for a tree.
install-system:
	@scripts/install-system.sh

uninstall-system:
	@scripts/install-system.sh uninstall

# Servers that the tests start themselves (Debian packages).
servers:
	@scripts/servers.sh

lint: install
	$(PYTHON) -m ruff check $(PATHS)
	$(PYTHON) -m ruff format --check $(PATHS)
	$(PYTHON) -m mypy

# The long proofs.
soak: install servers
	$(PYTHON) -m tests.kill.soak --rounds 1000
	$(PYTHON) -m tests.kill.soak --servers --rounds 400
	$(PYTHON) -m tests.powercut.soak --rounds 6 --failures
	$(PYTHON) -m tests.soak.day --meters 1000 --hours 24
	$(PYTHON) -m tests.soak.silent --hours 6
	$(PYTHON) -m tests.nth_failure.soak
	$(PYTHON) -m tests.damage.late_modbus
	$(PYTHON) -m tests.soak.modbus_day --hours 24
	$(PYTHON) -m tests.district.soak
	$(PYTHON) -m tests.district.soak --meters 100 --buses 4 --days 7

fuzz: install
	$(PYTHON) -m tests.fuzz645 --inputs 2000000 --jobs 2
	$(PYTHON) -m pytest -q -p tests.support.fuzz_profile --timeout 0 $(FUZZED)

bench: install servers
	$(PYTHON) benchmarks/bus.py
	$(PYTHON) benchmarks/pipeline.py
	$(PYTHON) benchmarks/billing.py
	$(PYTHON) benchmarks/series.py
	$(PYTHON) benchmarks/dlt645.py
	$(PYTHON) benchmarks/modbus.py
	$(PYTHON) benchmarks/on_demand.py

# The pictures of the status page in docs/, taken anew.
screenshot: install servers
	$(PYTHON) -m tests.status.screenshot

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
