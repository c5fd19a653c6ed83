# Sourced by the scripts beside it: make and enter .venv in the current folder, and install amgen into it.

PYTHON="${PYTHON:-python3}"

install_amgen() { # install_amgen REQUIREMENT, such as . or '.[dev]'
    local requirement=$1 stamp
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "amgen needs Python 3.10 or newer; $PYTHON is $("$PYTHON" --version 2>&1). Set PYTHON=python3.x" >&2
        exit 2
    }
    [ -d .venv ] || "$PYTHON" -m venv .venv
    # shellcheck disable=SC1091
    source .venv/bin/activate
    # Installed already for this very pyproject.toml? Then there is nothing to do, and no network is needed.
    stamp=".venv/installed-$(printf '%s' "$requirement" | tr -c 'a-z' '-')"
    if ! cmp -s pyproject.toml "$stamp"; then
        python -m pip install --quiet --editable "$requirement"
        cp pyproject.toml "$stamp"
    fi
}
