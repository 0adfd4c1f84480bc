# For the tests of packages, to be sourced: podman with a storage of its own below target/.
# shellcheck shell=bash disable=SC2154  # $cache is the caller's

# shellcheck source=deploy/common.sh
source deploy/common.sh
mkdir -p "$cache"
install_missing podman:"podman netavark aardvark-dns catatonit" runc:runc iptables:iptables

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
