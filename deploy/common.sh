# For the tests of packages and images, to be sourced: what they share.
# shellcheck shell=bash

# install_missing COMMAND:PACKAGE...: Debian's package of each command that is missing, on this system. A runc that Docker has
# brought along stays: Debian's package would replace it, and Docker with it.
install_missing() {
    local pair packages=()
    for pair; do
        type -P "${pair%%:*}" >/dev/null || read -ra packages <<<"${packages[*]} ${pair#*:}"
    done
    ((${#packages[@]})) || return 0
    echo "installing on this system with apt-get: ${packages[*]}"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    "${apt[@]}" update
    "${apt[@]}" install -y --no-install-recommends "${packages[@]}" >/dev/null
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
