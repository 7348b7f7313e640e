#!/usr/bin/env bash
# deploy/run.sh [--quick] [propose arguments]: makes the environment if there is none (see setup.sh), then runs `propose`.
# Without arguments, the whole mini run; with --quick, the same loop with small counts; arguments that begin with an
# option are those of `propose run`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/setup.sh" run
config=$here/configs/mini.yaml
if [ "${1:-}" = --quick ]; then
  shift
  config=$here/configs/quick.yaml
  echo "run · quick: 200 of 1,000 teacher episodes, 2 of 12 MGPO steps, 24 of 240 problems, 3 of 30 solver steps;" \
    "./deploy/run.sh without --quick does all of them (17 minutes on two cores when last timed alone) and shows figures worth reading" >&2
fi
case ${1:--} in -*) set -- run --config "$config" "$@" ;; esac
exec "$here/../.venv/bin/propose" "$@"
