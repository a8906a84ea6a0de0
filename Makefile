# The ways into this checkout. What each needs is set up by packaging/setup, once.

.DEFAULT_GOAL := help
.PHONY: help run test fuzz bench lint manual deb clean

help: ## Say what can be made
	@sed -n 's/^\([a-z]*\): .*## /\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r name text; do \
		printf '  make %-6s %s\n' "$$name" "$$text"; done

run: ## Start oqtod for yourself: no root, no systemd, no configuration file
	@packaging/setup run
	@exec .venv/bin/oqtod serve --personal

test: ## Run every test, those in a booted Debian 13 included (as root)
	@packaging/setup test
	.venv/bin/python -m pytest

fuzz: ## Try the HTTP API with requests that nobody thought of, for an hour or so
	@packaging/setup test
	OQTOD_FUZZ=$${OQTOD_FUZZ:-300} .venv/bin/python -m pytest tests/integration/test_contract.py

bench: ## Measure the gateway beside other proxies; a browser beside Chromium alone; sessions (as root)
	@packaging/setup bench
	.venv/bin/python -m tests.bench.bytes --json bench-results.json
	.venv/bin/python -m tests.bench.browser --json bench-browser.json
	.venv/bin/python -m tests.bench.sessions

lint: ## Check style and types
	@packaging/setup lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

manual: ## Write docs/commands.md, and pages for man(1) to dist/man
	@packaging/setup run
	.venv/bin/python packaging/manual.py markdown >docs/commands.md
	.venv/bin/python packaging/manual.py pages dist/man

deb: ## Build dist/oqtod_VERSION_all.deb
	@packaging/build-deb

clean: ## Remove what was made in this checkout; container roots stay in /var/cache/oqtod-tests
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
