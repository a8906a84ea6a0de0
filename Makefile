.PHONY: help run test lint deb clean

help:           ## Show this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

run:            ## Set up what is needed, and start oqtod for yourself (no root, no systemd)
	@packaging/setup run
	@exec .venv/bin/oqtod serve --personal

test:           ## Set up what is needed, and run every test
	@packaging/setup test
	.venv/bin/python -m pytest

lint:           ## Check style and types
	@packaging/setup test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:          ## Remove what was built
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

deb:            ## Build dist/oqtod_VERSION_all.deb for Debian 13
	@packaging/build-deb
