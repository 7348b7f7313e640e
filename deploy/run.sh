#!/usr/bin/env bash
# deploy/run.sh [propose arguments]: makes the environment if there is none (see setup.sh), then runs `propose`.
# Without arguments, the whole mini run; arguments that begin with an option are those of `propose run`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/setup.sh" run
case ${1:--} in -*) set -- run --config "$here/configs/mini.yaml" "$@" ;; esac
exec "$here/../.venv/bin/propose" "$@"
