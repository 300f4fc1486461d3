#!/usr/bin/env bash
# Set this machine up: Debian packages, .venv with locked Python packages, Open vSwitch running.
#
#   scripts/provision.sh           all that `make demo` and `make test` need
#   scripts/provision.sh --demo    without what only tests need (Chromium, pytest, mypy ...)
#   scripts/provision.sh --unit    only Python, for `make test-unit`, lint and types; no root once python3-venv is there
#
# Safe to call again at any time: what is there is not touched, and a second call takes well under 2 s. What an interrupted
# call left half-done is done anew.  Environment:
#   DAITN_TORCH_INDEX   address of a Python package index that serves PyTorch's CPU builds (used for PyTorch alone)
#   DAITN_TORCH=any     take whatever build of PyTorch pip offers, also the CUDA build of several GB
#   wheels/             (a folder in the checkout, optional) wheel files to prefer over any index, e.g. PyTorch's CPU build
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
ROOT=$PWD VENV=$PWD/.venv
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
export LC_ALL=C.UTF-8
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

PIP=26.3
TORCH=$(sed -n 's/^# torch==//p' requirements.lock)
TORCH_SIZE="CPU build, about 190 MB to download, 750 MB on disk"
APT_PYTHON=(python3 python3-venv python3-distutils ca-certificates)
APT_RUN=(make git procps mininet openvswitch-switch iproute2 nftables ethtool iputils-ping iperf3 tcpdump tshark vde2 kmod libtcmalloc-minimal4)
APT_TEST=(chromium chromium-driver fonts-dejavu-core openssh-server)

MODE=all
case "${1:-}" in
  "") ;;
  --demo) MODE=demo ;;
  --unit) MODE=unit ;;
  *) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

LOG=
die() {
  printf 'provision: %s\n' "$*" >&2
  exit 2
}
say() { printf '== %s\n' "$*"; }
finish() { [ -z "$LOG" ] || rm -f "$LOG"; }
trap finish EXIT
trap 'die "interrupted; call it again, what is half-done is done anew"' INT TERM

# run TITLE COMMAND...: run it with its output in the log and the last line of it on the screen; on failure leave the log.
run() {
  local title=$1 start=$SECONDS rc=0
  shift
  say "$title"
  [ -n "$LOG" ] || LOG=$(mktemp /tmp/daitn-provision.XXXXXX.log)
  "$@" </dev/null 2>&1 9>&- | tee -a "$LOG" | progress || rc=$?
  [ "$rc" = 0 ] && { printf '   done in %d s\n' $((SECONDS - start)); return 0; }
  local kept=$LOG
  LOG=
  explain "$title" "$kept"
}

# Show that something happens: on a terminal the last line, rewritten; elsewhere one line every 15 s.
progress() {
  local line next=$((SECONDS + 15)) width=${COLUMNS:-100}
  while IFS= read -r line; do
    if [ -t 1 ]; then
      printf '\r\033[K   %s' "${line:0:$((width - 4))}"
    elif [ "$SECONDS" -ge "$next" ]; then
      printf '   %s\n' "${line:0:110}"
      next=$((SECONDS + 15))
    fi
  done
  [ ! -t 1 ] || printf '\r\033[K'
}

# apt-get update ends with 0 even when nothing answers: what it could not fetch then fails in apt-get install.
# explain TITLE LOG: end with one line that says why a step failed, as far as its log tells.
explain() {
  local why="see the log"
  if grep -qiE 'no space left|not enough free space' "$2"; then why="the disk is full ($(df -h --output=avail "$ROOT" | tail -n 1 | tr -d ' ') free in $ROOT)"
  elif grep -qiE 'temporary failure (in name resolution|resolving)|could not resolve|network is unreachable|connection (refused|timed out)|failed to establish a new connection|no route to host' "$2"; then why="no network (or a mirror or proxy that does not answer)"
  elif grep -qi 'unable to locate package\|has no installation candidate' "$2"; then why="$(grep -i 'unable to locate package\|has no installation candidate' "$2" | head -n 1)"
  elif grep -qi 'could not get lock\|is another process using it' "$2"; then why="another apt or dpkg is running; try again when it has ended"
  elif grep -q '^ERROR: ' "$2"; then why=$(grep '^ERROR: ' "$2" | head -n 1)
  elif grep -q '^E: ' "$2"; then why=$(grep '^E: ' "$2" | head -n 1)
  fi
  die "failed: $1: $why [log: $2]"
}

free_mb() { df -Pm "$1" | awk 'NR == 2 {print $4}'; }
need_space() { # DIRECTORY MEGABYTES WHAT-FOR
  [ "$(free_mb "$1")" -ge "$2" ] || die "disk full: $3 needs $2 MB in $1, $(free_mb "$1") MB are free"
}

# --- Debian packages -----------------------------------------------------------------------------------------------------
check_system() {
  command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
    die "this is not Debian or Ubuntu (no apt-get); use the Vagrantfile, or install the packages named in scripts/provision.sh yourself"
  grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release || [ -x "$VENV/bin/daitn" ] ||
    say "note: this is tested on Debian 12; $(sed -n 's/^PRETTY_NAME=//p' /etc/os-release) may lack or rename packages"
}

missing_packages() { # those of "$@" that dpkg does not know as installed
  comm -23 <(printf '%s\n' "$@" | sort) <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' | sort -u)
}

UPDATED=
install_packages() { # PACKAGE...: install what is missing of them
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || die "not root, and Debian packages are missing (${missing[*]}); run once: sudo scripts/provision.sh"
  need_space /var 1500 "installing Debian packages"
  [ -z "$(dpkg --audit 2>/dev/null)" ] || run "finishing an interrupted installation of Debian packages" dpkg --configure -a
  [ -n "$UPDATED" ] || run "updating the lists of Debian packages" apt-get update -o DPkg::Lock::Timeout=300
  UPDATED=yes
  # Tests run their own SSH servers; Debian's, where it was not wanted before, stays off (its service heeds this file).
  case " ${missing[*]} " in *" openssh-server "*) mkdir -p /etc/ssh && touch /etc/ssh/sshd_not_to_be_run ;; esac
  run "installing Debian packages: ${missing[*]}" \
    apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "${missing[@]}"
}

# --- Python --------------------------------------------------------------------------------------------------------------
# What stamps hold: a hash of everything that decides what .venv contains.  .venv/.daitn-busy stands while .venv is being changed.
fingerprint() { { printf '%s\n' "$ROOT" "$PIP" "$TORCH" "$(/usr/bin/python3 -V)"; cat "$@"; } | sha256sum | cut -c1-64; }
stamped() { [ "$(cat "$VENV/.daitn-$1" 2>/dev/null)" = "$2" ]; }

venv_sound() {
  [ -x "$VENV/bin/python" ] && [ ! -e "$VENV/.daitn-busy" ] && grep -qs '^include-system-site-packages = true' "$VENV/pyvenv.cfg" &&
    grep -qs "^command = .* $VENV\$" "$VENV/pyvenv.cfg" && "$VENV/bin/python" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null
}

pip_install() {
  local links=()
  [ ! -d "$ROOT/wheels" ] || links=(--find-links "$ROOT/wheels")
  "$VENV/bin/python" -m pip install --progress-bar off --retries 3 "${links[@]}" "$@"
}

make_venv() {
  rm -rf "$VENV"
  mkdir "$VENV" && touch "$VENV/.daitn-busy"
  /usr/bin/python3 -m venv --system-site-packages "$VENV"
}

# What would pip take for torch? Ends the program before a build is taken that drags CUDA along.
check_torch() {
  local report=$VENV/.daitn-torch.json
  pip_install -q --dry-run --report "$report" -c requirements.lock "$@"
  "$VENV/bin/python" - "$report" <<'P'
import json, re, sys
with open(sys.argv[1], encoding="utf-8") as file:
    names = [item["metadata"]["name"] for item in json.load(file)["install"]]
cuda = [name for name in names if re.match(r"(nvidia|cuda|triton)", name)]
if cuda:
    print(f"CUDA-BUILD {len(cuda)} more packages: {', '.join(sorted(cuda)[:3])} ...")
P
}

install_torch() {
  local source=("torch==$TORCH")
  [ -z "${DAITN_TORCH_INDEX:-}" ] || source+=(--index-url "$DAITN_TORCH_INDEX")
  "$VENV/bin/python" - "$TORCH" <<'P' && return 0
import importlib.metadata, sys
try:
    sys.exit(importlib.metadata.version("torch").split("+")[0] != sys.argv[1])
except importlib.metadata.PackageNotFoundError:
    sys.exit(1)
P
  if [ "${DAITN_TORCH:-}" = any ]; then
    need_space "$ROOT" 12000 "a CUDA build of PyTorch, which DAITN_TORCH=any allows,"
    run "installing PyTorch $TORCH, whatever build pip offers (DAITN_TORCH=any: up to several GB)" pip_install -c requirements.lock "${source[@]}"
    return
  fi
  run "looking which build of PyTorch $TORCH pip would take" check_torch "${source[@]}"
  ! grep -q '^CUDA-BUILD' "$LOG" || die "pip offers only the CUDA build of PyTorch $TORCH (several GB; nothing was downloaded)." \
    "Set DAITN_TORCH_INDEX to the address of PyTorch's CPU wheel index (on its 'Get Started' page: Pip, Linux, CPU)," \
    "or put the CPU wheel into wheels/, or accept the CUDA build with DAITN_TORCH=any"
  run "installing PyTorch $TORCH ($TORCH_SIZE)" pip_install --no-deps "${source[@]}"
}

# The `daitn` command, and our packages importable from anywhere with this Python; both by relative paths, with no build step.
install_ourselves() {
  local site
  site=$(echo "$VENV"/lib/python3.*/site-packages)
  printf '../../../..\n' >"$site/daitn.pth"
  cat >"$VENV/bin/daitn.new" <<'P'
#!/bin/sh
'''exec' "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"
' '''
import sys

from experiments.cli import main

sys.exit(main())
P
  chmod +x "$VENV/bin/daitn.new"
  mv -f "$VENV/bin/daitn.new" "$VENV/bin/daitn"
}

install_python() {
  local runtime dev locks=(-r requirements.lock) what="requirements.lock, about 100 MB to download, 400 MB on disk"
  /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$(/usr/bin/python3 -V) is too old, 3.11 or newer is needed (Debian 12)"
  runtime=$(fingerprint requirements.lock scripts/provision.sh)
  dev=$(fingerprint requirements.lock requirements-dev.lock scripts/provision.sh)
  if [ "$MODE" != demo ]; then
    locks+=(-r requirements-dev.lock)
    what="requirements.lock and requirements-dev.lock, about 130 MB to download, 500 MB on disk"
  fi
  if venv_sound; then
    [ "$MODE" != demo ] || ! stamped runtime "$runtime" || return 0
    [ "$MODE" = demo ] || ! stamped dev "$dev" || return 0
  else
    need_space "$ROOT" 2500 "the virtual environment"
    run "making .venv with /usr/bin/python3 ($(/usr/bin/python3 -V))" make_venv
  fi
  [ -w "$VENV" ] || die "not root: $VENV belongs to another user and has to be updated; run: sudo scripts/provision.sh"
  touch "$VENV/.daitn-busy"
  rm -f "$VENV/.daitn-runtime" "$VENV/.daitn-dev"
  mkdir -p "$VENV/.tmp"
  export TMPDIR=$VENV/.tmp  # pip unpacks here: /tmp is small on many machines
  run "installing pip $PIP" pip_install "pip==$PIP"
  install_torch
  run "installing Python packages ($what)" pip_install --no-deps "${locks[@]}"
  install_ourselves
  rm -rf "$VENV/.tmp" "$VENV/.daitn-torch.json"
  unset TMPDIR
  echo "$runtime" >"$VENV/.daitn-runtime"
  [ "$MODE" = demo ] || echo "$dev" >"$VENV/.daitn-dev"
  rm -f "$VENV/.daitn-busy"
}

# --- Open vSwitch --------------------------------------------------------------------------------------------------------
ovs_answers() { ovs-vsctl --timeout=5 --no-wait show >/dev/null 2>&1 && ovs-appctl --timeout=5 version >/dev/null 2>&1; }

start_ovs() {
  [ "$(id -u)" = 0 ] || return 0  # whoever runs a network needs root anyway, and is told then
  ovs_answers && return 0
  modprobe -qa openvswitch sch_netem 2>/dev/null || true  # not every kernel has them; the testbed probes for itself
  if [ -d /run/systemd/system ]; then
    run "starting Open vSwitch (systemd)" systemctl start openvswitch-switch
  else  # userspace datapath: each look at a port allocates 32 packets, for which glibc's malloc takes half of the switch's time
    run "starting Open vSwitch (ovs-ctl)" env LD_PRELOAD=libtcmalloc_minimal.so.4 \
      /usr/share/openvswitch/scripts/ovs-ctl start --system-id=random
    # Copying all counters into its database every 5 s holds up packets for 20 ms; ours are asked for by OpenFlow.
    ovs-vsctl --timeout=5 --no-wait set Open_vSwitch . other_config:stats-update-interval=60000
  fi
  local tries=100
  until ovs_answers; do
    [ $((tries -= 1)) -gt 0 ] || die "Open vSwitch was started but does not answer after 20 s; see /var/log/openvswitch/"
    sleep 0.2
  done
}

exec 9<"$ROOT"
flock -n 9 || { say "waiting for another provision.sh in this checkout"; flock 9; }
check_system
install_packages "${APT_PYTHON[@]}"
install_python  # before the rest, so that a machine that cannot get PyTorch says so early
[ "$MODE" = unit ] || install_packages "${APT_RUN[@]}"
[ "$MODE" != all ] || install_packages "${APT_TEST[@]}"
[ "$MODE" = unit ] || start_ovs
