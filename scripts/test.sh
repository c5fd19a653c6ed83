#!/usr/bin/env bash
# Create .venv if there is none, install amgen with its development tools, then check style, types and behaviour.
# Arguments go to pytest: ./scripts/test.sh tests/losses -k gaussian
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
install_amgen '.[dev]'
ruff format --check .
ruff check .
mypy
# A process for each core, at most four, with one thread each; the tests of a file stay together, since they share what they train.
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" python -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
