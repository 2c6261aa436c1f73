#!/usr/bin/env bash
# The unit tests with the oldest packages that pyproject.toml promises, and with the newest, on each CPython that is
# here or that uv can fetch. Some gigabytes and half an hour each: tests/versions.sh [PYTHON…]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=build/versions
failed=()
mkdir -p $folder
command -v uv > /dev/null || { python3 -m venv $folder/uv && $folder/uv/bin/python -m pip install --quiet uv; }
PATH="$PATH:$PWD/$folder/uv/bin"
[ $# -gt 0 ] || set -- 3.11 3.12 3.13 3.14
for python in "$@"; do
  uv python find --quiet "$python" > /dev/null 2>&1 || uv python install --quiet "$python" > /dev/null 2>&1 \
    || { echo "Python $python: not to be had here, left out"; continue; }
  for packages in lowest-direct highest; do
    # Nobody makes wheels of old packages for new Pythons: the oldest are promised for the oldest.
    [ $packages = highest ] || [ "$python" = 3.11 ] || continue
    echo "== Python $python, packages: $packages"
    environment=$folder/$python-$packages
    { uv venv --quiet --clear --python "$python" "$environment" \
      && uv pip install --quiet --python "$environment" --resolution $packages --editable '.[train,video,book,test]' \
      && OMP_NUM_THREADS=1 "$environment/bin/python" -m pytest tests -m 'not book' -p no:nbval -n 2 --dist worksteal -q
    } || failed+=("$python, $packages")
    rm -rf "$environment"
  done
done
[ ${#failed[@]} = 0 ] || { printf 'failed: Python %s\n' "${failed[@]}"; exit 1; }
