#!/usr/bin/env bash
# Put the AI packet's dissector into your Wireshark's plugin folder, or take it out again.
#
#   scripts/dissector.sh install      (make install-dissector)
#   scripts/dissector.sh uninstall    (make uninstall-dissector)
#
# The folder is the one that `tshark -G folders` names for the user who calls; no root needed. Wireshark that is running
# takes a new dissector with Analyze > Reload Lua Plugins.
set -euo pipefail

SOURCE=$(cd "$(dirname "$0")/.." && pwd)/packets/ai.lua
NAME=daitn-ai.lua

fail() { echo "$0: $*" >&2; exit 2; }

folder() {
  command -v tshark >/dev/null || fail "tshark is not installed: it knows where Wireshark looks for plugins"
  local folders
  folders=$(tshark -G folders 2>/dev/null) || fail "tshark -G folders failed: is Wireshark installed properly?"
  sed -n 's/^Personal Lua Plugins:[[:space:]]*//p' <<<"$folders" | grep . \
    || sed -n 's/^Personal Plugins:[[:space:]]*//p' <<<"$folders" | grep . \
    || fail "tshark -G folders names no folder for personal plugins: is this Wireshark built with Lua?"
}

case "${1:-}" in
  install)
    FOLDER=$(folder)
    mkdir -p "$FOLDER"
    install -m 644 "$SOURCE" "$FOLDER/$NAME"
    echo "installed: $FOLDER/$NAME"
    ;;
  uninstall)
    FOLDER=$(folder)
    if [ -e "$FOLDER/$NAME" ]; then
      rm -- "$FOLDER/$NAME"
      echo "removed: $FOLDER/$NAME"
    else
      echo "not installed: $FOLDER/$NAME"
    fi
    ;;
  *)
    fail "say install or uninstall"
    ;;
esac
