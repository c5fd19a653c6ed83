#!/usr/bin/env bash
# From a fresh checkout to generated digits and their score: create .venv if there is none, install amgen, train, sample, evaluate.
# Arguments go to the evaluation, which is the last command: ./scripts/quickstart.sh --solver rk4
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
install_amgen '.[plots]'
amgen train digits --run-dir runs/digits
amgen sample runs/digits --num 100 --grid runs/digits/grid.png
amgen eval-fid runs/digits --features digits "$@"
