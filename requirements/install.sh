#!/usr/bin/env bash
# Makes or updates a virtual environment: requirements/install.sh VENV REQUIREMENTS (PROJECT | WHEEL)
# Everything comes from hashed files; the last argument is '-e .' for the working tree or the path of a wheel.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 requirements=$2
shift 2
python=${PYTHON:-python3.12}

if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then
  echo "set-up: '$python' is not Python 3.12: install it (Debian: apt-get install python3.12 python3.12-venv) or name it: make setup PYTHON=/path/to/python3.12" >&2
  exit 1
fi
key=$(cat requirements/bootstrap.txt "$requirements" pyproject.toml | sha256sum | cut -c1-16)
stamp="$venv/.installed"
wanted="$key $(pwd) $*"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ "${1:-}" = -e ]; then
  exit 0
fi
rm -f "$stamp"
# A moved tree leaves an environment whose scripts point to the old place: made anew.
if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null ||
  ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  echo "set-up: making $venv"
  rm -rf "$venv"
  "$python" -m venv "$venv" || {
    echo "set-up: '$python -m venv' failed: Debian keeps it apart, apt-get install python3.12-venv" >&2
    exit 1
  }
fi
echo "set-up: installing $requirements into $venv"
"$venv/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r requirements/bootstrap.txt
"$venv/bin/python" -m uv pip sync --quiet --python "$venv/bin/python" --require-hashes "$requirements"
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --no-index --force-reinstall "$@"
printf '%s' "$wanted" >"$stamp"
