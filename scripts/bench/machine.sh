# For scripts that keep measurements: source it after ../lib.sh.
# shellcheck shell=bash disable=SC2154

# The text of a JSON string, from one line of text.
json_text() { head -n 1 | sed 's/[\\"]/\\&/g' | tr -d '\000-\037' | tr -s ' '; }

# Facts of the machine as a line of JSON.
machine() {
    local commit cpu cores memory os rustc load
    commit="$(cd "$root" && git describe --always --dirty 2>/dev/null | json_text)"
    cpu="$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | json_text)"
    cores="$(nproc)"
    memory="$(awk '/^MemTotal:/ { printf "%.0f", $2 * 1024 }' /proc/meminfo)"
    os="$(. /etc/os-release && printf '%s, Linux %s' "$PRETTY_NAME" "$(uname -r)" | json_text)"
    rustc="$(cd "$root" && rustc --version | json_text)"
    load="$(cut -d ' ' -f 1 /proc/loadavg)"
    printf '{"machine":{"date":"%s","commit":"%s","cpu":"%s","cores":%s,"memory_bytes":%s,"os":"%s","rustc":"%s","load":%s}}\n' \
        "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$commit" "${cpu:-unknown}" "$cores" "$memory" "$os" "$rustc" "$load"
}

# keep_results FILE [NAME]: copies measurements to where they are kept, by date.
keep_results() {
    local results="$root/scripts/bench/results" name
    name="$(date -u +%Y-%m-%d-%H%M%S)${2:+-$2}.jsonl"
    mkdir -p "$results"
    cp "$1" "$results/$name"
    chmod 644 "$results/$name"
    say "results: $results/$name"
    local missed
    missed="$(grep -c '"met": *false' "$results/$name" || true)"
    ((missed == 0)) || say "$missed figures miss their bar"
}
