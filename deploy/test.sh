#!/usr/bin/env bash
# deploy/test.sh [pytest arguments]: makes the environment if there is none (see setup.sh), then runs the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
deploy/setup.sh test
exec .venv/bin/python -m pytest "$@"
