#!/bin/bash
# Installs what the other scripts here need; with --check it only says what is missing.
set -euo pipefail

mapfile -t packages <"$(dirname "$0")/packages.list"

missing=()
for package in "${packages[@]}"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
        missing+=("$package")
done
((${#missing[@]})) || exit 0

install=(apt-get install -y --no-install-recommends "${missing[@]}")
if [[ ${1-} == --check ]]; then
    echo "packages are missing; run: ${install[*]}" >&2
    exit 1
fi
apt-get update -qq
exec "${install[@]}"
