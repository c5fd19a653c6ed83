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
# On small machines several threads a process gain nothing and slow down tests that start processes of their own.
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" python -m pytest "$@"
