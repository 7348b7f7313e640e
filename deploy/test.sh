#!/usr/bin/env bash
# deploy/test.sh [pytest arguments]: makes the environment if there is none (see setup.sh), then runs the tests, two files
# at a time, because most of them wait for processes to start (`-n 0`: one after another).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
deploy/setup.sh test
exec .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
