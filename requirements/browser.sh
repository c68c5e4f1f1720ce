#!/usr/bin/env bash
# Chromium for the tests of the report, from Debian's packages when root; otherwise says how. Without it they are skipped.
set -euo pipefail

if command -v chromium >/dev/null; then
  exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "set-up: the tests of the report need Chromium: sudo apt-get install -y --no-install-recommends chromium" >&2
  exit 1
fi
echo "set-up: installing Chromium with apt-get"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
