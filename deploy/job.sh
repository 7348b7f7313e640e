#!/usr/bin/env bash
# deploy/job.sh ARGUMENTS: `propose ARGUMENTS`, and again while it ends with exit code 75 (infrastructure failed; the same
# command goes on from what is on disk). Every other exit code is that of the job, the last 75 too. It is the entrypoint of
# jobs on a cluster, for neither Ray nor KubeRay can tell one exit code from another.
#
#   PROPOSE_TRIES=5      how often it is begun at most
#   PROPOSE_PAUSE_S=60   between two tries
set -uo pipefail

stopped=
trap 'stopped=1' TERM INT  # `ray job stop` tells every process of the job; this one waits for what it has begun
for ((try = 1; ; try++)); do
  propose "$@"
  code=$?
  if [ $code != 75 ] || [ -n "$stopped" ] || ((try >= ${PROPOSE_TRIES:-5})); then exit $code; fi
  echo "job: exit code 75 in try $try of ${PROPOSE_TRIES:-5}; the next one in ${PROPOSE_PAUSE_S:-60} s" >&2
  for ((waited = 0; waited < ${PROPOSE_PAUSE_S:-60}; waited++)); do
    sleep 1
    if [ -n "$stopped" ]; then exit 130; fi
  done
done
