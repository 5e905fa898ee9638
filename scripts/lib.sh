# Shared by all scripts: source it first. Messages go to standard error, so that standard output stays the program's.
# shellcheck shell=bash
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# The network that the ready-made screens use.
model=efficientnet-lite0
# Headers for the Kafka client (zlib, OpenSSL) and compilers for the C that some crates bring along.
# shellcheck disable=SC2034
build_packages=(build-essential pkg-config libssl-dev zlib1g-dev ca-certificates curl)

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 2
}

# The comment at the head of a script is its help.
show_help() {
    sed -n '2,/^[^#]/ { s/^# \{0,1\}//p }' "$1"
    exit 0
}

# Whether a Debian package is installed.
is_installed() {
    [[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# need_packages NAME...: installs Debian packages, touching apt only for those that are missing.
need_packages() {
    local missing=() name
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        say "note: no apt here; make sure of what these Debian packages hold: $*"
        return 0
    fi
    for name in "$@"; do
        is_installed "$name" || missing+=("$name")
    done
    ((${#missing[@]})) || return 0

    local as_root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "these packages are missing: ${missing[*]}
Run as root:  apt-get update && apt-get install -y ${missing[*]}"
        as_root=(sudo)
    fi
    say "      installing ${missing[*]}"
    local log
    log="$(mktemp)"
    if ! { "${as_root[@]}" apt-get update -qq &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        die "apt could not install ${missing[*]}; the whole log is in $log"
    fi
    rm -f "$log"
}

# need_rust: a cargo that can build this workspace, by rustup where there is none.
need_rust() {
    [[ -d "$HOME/.cargo/bin" ]] && PATH="$HOME/.cargo/bin:$PATH"
    if ! command -v rustup >/dev/null && ! cargo_is_new_enough; then
        say "      installing Rust with rustup, into $HOME/.cargo and $HOME/.rustup"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y -q --profile minimal --default-toolchain stable --no-modify-path >&2 ||
            die "rustup could not be installed; see https://rustup.rs"
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    if ! cargo_is_new_enough; then
        rustup toolchain install stable --profile minimal >&2 && export RUSTUP_TOOLCHAIN=stable
        cargo_is_new_enough || die "cargo is too old for this project; try: rustup update stable"
    fi
}

# Whether there is a cargo as new as the newest crate here asks for.
cargo_is_new_enough() {
    local have need
    have="$(cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p')"
    need="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root"/Cargo.toml "$root"/*/Cargo.toml "$root"/*/*/Cargo.toml \
        2>/dev/null | sort -V | tail -n 1)"
    [[ -n "$have" && "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n 1)" == "$need" ]]
}

# need_mesa: Mesa's Vulkan drivers, one of which runs on any CPU. Debian 12 has version 22; its backports have version 25, on
# which kernels take a third less time, so where no Mesa is installed yet that one is tried first. One that is there is left
# as it is, since a desktop may be built on it; apt's own lists and sources are not touched.
need_mesa() {
    local release='' as_root=() apt options
    [[ -r /etc/os-release ]] && release="$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")"
    if [[ "$release" != bookworm ]] || ! command -v apt-get >/dev/null || is_installed mesa-vulkan-drivers; then
        need_packages mesa-vulkan-drivers
        return 0
    fi
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "mesa-vulkan-drivers is missing.
Run as root:  apt-get update && apt-get install -y mesa-vulkan-drivers"
        as_root=(sudo)
    fi
    say "      installing mesa-vulkan-drivers from bookworm-backports"
    apt="$(mktemp -d)"
    chmod 755 "$apt"
    mkdir -p "$apt/lists/partial"
    {
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
            http://deb.debian.org/debian bookworm-backports
        cat /etc/apt/sources.list 2>/dev/null || true
    } >"$apt/sources.list"
    options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::State::lists=$apt/lists"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
    if "${as_root[@]}" apt-get "${options[@]}" update -qq >"$apt/log" 2>&1 </dev/null &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install -y -qq \
            --no-install-recommends -t bookworm-backports mesa-vulkan-drivers >>"$apt/log" 2>&1 </dev/null; then
        "${as_root[@]}" rm -rf "$apt"
        return 0
    fi
    say "      the backports could not be used ($(tail -n 1 "$apt/log")); installing Debian's own"
    "${as_root[@]}" rm -rf "$apt"
    need_packages mesa-vulkan-drivers
}

# need_vulkan: a loader and a driver. A machine with a GPU has a driver registered; Mesa's runs on any CPU.
need_vulkan() {
    local driver
    for driver in /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json /usr/local/share/vulkan/icd.d/*.json \
        "${VK_ICD_FILENAMES:-}" "${VK_DRIVER_FILES:-}"; do
        if [[ -e "$driver" ]]; then
            need_packages libvulkan1
            return 0
        fi
    done
    need_mesa
}

# need_model WELLSPRING: the network's weights, checked; fetched once.
need_model() {
    local wellspring="$1"
    "$wellspring" --quiet models verify "$model" >/dev/null 2>&1 && return 0
    python3 -m pip --version >/dev/null 2>&1 || need_packages python3 python3-pip
    say "      fetching $model"
    "$wellspring" models pull "$model" >&2
}

# Vulkan drivers want a private folder for their sockets.
need_runtime_dir() {
    [[ -n "${XDG_RUNTIME_DIR:-}" && -d "${XDG_RUNTIME_DIR:-}" ]] && return 0
    export XDG_RUNTIME_DIR="${TMPDIR:-/tmp}/wellspring-runtime-$EUID"
    mkdir -p "$XDG_RUNTIME_DIR"
    chmod 700 "$XDG_RUNTIME_DIR"
}

# Test builds live outside the clone, so that the next clone starts warm. Only other people's crates are shared: cargo
# tells ours apart by the time of their files, and would run one clone's tests for another's.
share_target_dir() {
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/wellspring/target}"
    mkdir -p "$CARGO_TARGET_DIR"
    local built_for="$CARGO_TARGET_DIR/built-for"
    [[ "$(cat "$built_for" 2>/dev/null)" == "$root" ]] && return 0
    (cd "$root" && cargo clean --locked --quiet -pwellspring{,-broker,-images,-kernels,-models,-workloads,-zarr})
    echo "$root" >"$built_for"
}

# Where cargo puts what it builds.
target_dir() {
    (cd "$root" && cargo metadata --no-deps --locked --format-version 1) |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# build_release: builds the binary, and sets `wellspring` to its path.
build_release() {
    (cd "$root" && cargo build --release --locked -p wellspring) >&2
    # Read by the scripts that source this file.
    # shellcheck disable=SC2034
    wellspring="$(target_dir)/release/wellspring"
}

# need_cargo_deny: built from source where missing, which takes some minutes, once.
need_cargo_deny() {
    command -v cargo-deny >/dev/null && return 0
    say "      installing cargo-deny"
    env -u CARGO_TARGET_DIR cargo install --locked cargo-deny
}
