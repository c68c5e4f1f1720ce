#!/usr/bin/env bash
# Software GL for headless rendering: installs the Debian packages when root, otherwise says how and stops.
set -euo pipefail
packages="libosmesa6 libegl1 libgl1 libegl-mesa0 libglx-mesa0 libgl1-mesa-dri libgles2"

have() { ldconfig -p 2>/dev/null | grep -q "$1"; }

if [ "$(uname -s)" != Linux ] || { have 'libEGL\.so\.1' && have 'libOSMesa\.so' && have 'libGL\.so\.1'; }; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "set-up: no GL libraries and no apt-get: install Mesa's EGL or OSMesa, then run this again" >&2
  exit 1
fi
if [ "$(id -u)" != 0 ]; then
  echo "set-up: rendering needs GL libraries; run this, then the same make again:" >&2
  echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends $packages" >&2
  exit 1
fi
echo "set-up: installing GL libraries with apt-get"
apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
