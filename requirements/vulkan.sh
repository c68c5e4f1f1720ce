#!/usr/bin/env bash
# A software Vulkan driver for MIKASA-Robo's simulator: requirements/vulkan.sh VENV unpacks it into VENV/share/vlamem/vulkan.
# Debian 12's own is too old to draw with, and a newer one installed would bring another OSMesa for MuJoCo. So it is taken
# from the release's backports where that is newer, and only unpacked, where nothing else on the machine sees it.
set -euo pipefail
folder=$(cd "$1" && pwd)/share/vlamem/vulkan
package=mesa-vulkan-drivers oldest=23

if [ -f "$folder/lvp_icd.json" ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  echo "set-up: without apt-get no Vulkan driver is fetched: install your GPU's, or Mesa $oldest or newer; 'vlamem doctor' tries it" >&2
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/root"
if [ "$(id -u)" = 0 ]; then chown -R _apt "$work" && chmod 755 "$work"; fi

# the machine's own mirror and key, with the backports suite beside the release's
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
key=/usr/share/keyrings/debian-archive-keyring.gpg
option=""
if [ -f "$key" ]; then option="[signed-by=$key] "; fi
apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
  awk -v release="$release" -v option="$option" '$2 == release && $3 == "main" {
    print "deb " option $1 " " release " main"
    print "deb " option $1 " " release "-backports main" }' | sort -u >"$work/sources.list"
if [ ! -s "$work/sources.list" ]; then
  echo "set-up: apt has no list of packages of release '$release': run apt-get update, then this again" >&2
  exit 1
fi
apt() {
  "$@" -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$work/lists" -o Dir::Cache::archives="$work/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
}

echo "set-up: fetching $package for $folder"
apt apt-get update -qq 2>/dev/null || true # a release without backports has none to fetch
version=$(apt apt-cache madison "$package" | awk '{print $3}' | sort -V | tail -1)
major=${version#*:}
if [ -z "$version" ] || [ "${major%%.*}" -lt "$oldest" ]; then
  echo "set-up: the newest $package of '$release' is '${version:-none}', $oldest or newer is needed: install your GPU's Vulkan" >&2
  exit 1
fi
(cd "$work/archives" && apt apt-get download -qq "$package=$version")
dpkg-deb -x "$work"/archives/"$package"_*.deb "$work/root"
library=$(find "$work/root" -name libvulkan_lvp.so)
described=$(find "$work/root" -name 'lvp_icd*.json')
missing=$(ldd "$library" | awk '/not found/ {print $1}')
if [ -n "$missing" ]; then
  echo "set-up: the Vulkan driver needs libraries that are not here (" $missing "): apt-get install the dependencies of $package" >&2
  exit 1
fi
mkdir -p "$folder"
cp "$library" "$folder/libvulkan_lvp.so"
sed -E "s#(\"library_path\"[[:space:]]*:[[:space:]]*\")[^\"]*#\1$folder/libvulkan_lvp.so#" "$described" >"$folder/lvp_icd.json.part"
mv "$folder/lvp_icd.json.part" "$folder/lvp_icd.json" # last: what is there is whole
