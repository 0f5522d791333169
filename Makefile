# `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help release
help:
	@echo "make release   configure and build"
release:
	cmake --preset release
	cmake --build --preset release
