#!/usr/bin/env bash
# hardened.sh COMMAND...: run a command as a restricted pod has it: not root, no capabilities, no new privileges, and
# every file read-only but /tmp and /dev/shm. Wants to be started by root, and util-linux.
#
#     tests/robustness/hardened.sh .venv/bin/python -m pytest -p no:cacheprovider --no-cov tests/test_process.py
set -euo pipefail

python_home=$(python=$(command -v "$1") && "$python" -c 'import sys; print(sys.base_prefix)')
export python_home
exec unshare --mount --propagation private bash -c '
    # A Python in a home that nobody else may look into is put where it is seen, and nothing else of that home.
    if [[ $python_home == "$HOME"/* ]]; then
        mount --bind "$python_home" /mnt
        mount -t tmpfs -o mode=755 tmpfs "$HOME"
        mkdir -p "$python_home"
        mount --bind /mnt "$python_home"
        umount /mnt
        mount -o remount,bind,ro "$python_home"
    fi
    mount -o remount,bind,ro /
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --reuid 65532 --regid 65532 --clear-groups \
        env HOME=/tmp PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis "$@"
' hardened "$@"
