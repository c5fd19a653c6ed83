#!/usr/bin/env bash
# The documentation: create .venv if there is none, install amgen with the tools of the site, then build and serve it.
#   ./scripts/docs.sh                serve at http://127.0.0.1:8000, and rebuild when files change (other arguments go to mkdocs serve)
#   ./scripts/docs.sh --check        build into site/ and end; broken links, references and formulas are errors
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
install_amgen '.[docs]'
export NO_MKDOCS_2_WARNING=1
if [ "${1:-}" = --check ]; then
    exec python -m mkdocs build --strict
fi
exec python -m mkdocs serve --no-strict "$@"
