# For the tests of packages, to be sourced: podman with a storage of its own below target/, and what both tests share.
# shellcheck shell=bash disable=SC2154  # $cache is the caller's

mkdir -p "$cache"

if ! type -P podman >/dev/null; then
    echo "installing podman on this system with apt-get"
    as_root=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    "${as_root[@]}" update
    "${as_root[@]}" install -y --no-install-recommends podman runc netavark aardvark-dns catatonit iptables
fi

# runc and not crun, which cannot work where both versions of cgroups are mounted; and no limit above those of this
# process, which podman would try to raise.
printf '[containers]\ndefault_ulimits = ["nofile=%s:%s", "nproc=4096:4096"]\n[engine]\nruntime = "runc"\n' \
    "$(ulimit -Hn)" "$(ulimit -Hn)" >"$cache/containers.conf"
export CONTAINERS_CONF=$cache/containers.conf

# A network namespace that the containers' network is made in: a command that enters it.
in_namespace=()

podman() {
    "${in_namespace[@]}" /usr/bin/podman --root "$cache/storage" --runroot "$cache/run" --log-level error --cgroup-manager cgroupfs \
        --events-backend file "$@"
}

# wait_for WHAT COMMAND...: the command has to succeed within 30 seconds.
wait_for() {
    local what=$1 deadline=$((SECONDS + 30))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "not within 30 s: $what"
        sleep 0.1
    done
}

equal() {
    [[ $2 == "$3" ]] || fail "$1: expected \`$3\`, found \`$2\`"
}

step() {
    echo "== $0: $1 ($SECONDS s)"
}

fail() {
    echo "error: $0: $1" >&2
    exit 1
}
