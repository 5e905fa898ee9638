# Shared by the scripts that start small servers for tests: source it behind lib.sh, and end with `serve`.
# shellcheck shell=bash

# Longest wait for a server to answer, s.
patience=60

taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
    local tried
    for _ in {1..100}; do
        tried=$((20000 + RANDOM % 10000))
        taken "$tried" || { echo "$tried" && return 0; }
    done
    die "no free port found from 20000 to 30000; choose one with --port"
}

# fetched HOME COMMAND...: runs what fetches a server into HOME, once, whoever else starts one at the same time.
fetched() {
    local into="$1"
    shift
    [[ -f "$into/complete" ]] && return 0
    mkdir -p "$(dirname "$into")"
    exec 9>"$into.lock"
    flock 9
    if [[ ! -f "$into/complete" ]]; then
        rm -rf "$into"
        mkdir -p "$into"
        "$@" >"$into.log" 2>&1 || {
            tail -n 20 "$into.log" >&2
            die "it could not be fetched; the whole log is in $into.log"
        }
        touch "$into/complete"
    fi
    flock -u 9
    exec 9>&-
}

# serve NAME WORD ARGS...: does what ARGS of the script say. NAME is that of the server's data folder, WORD stands in the
# command line of its process. The script has need_server, which makes it ready in the folder $home, and run_server PORT, which
# becomes it.
serve() {
    local name="$1" word="$2" action="${3:-}" port='' pid since
    local data="$cache/$name-data"
    case "$action" in
    start | stop | fetch | ready) shift 3 ;;
    -h | --help | '') show_help "$0" ;;
    *) die "unknown action '$action'; try scripts/$name --help" ;;
    esac
    while (($#)); do
        case "$1" in
        --data | --port)
            (($# > 1)) || die "$1 needs a value"
            [[ "$1" == --data ]] && data="$2" || port="$2"
            shift 2
            ;;
        -h | --help) show_help "$0" ;;
        *) die "unknown option '$1'; try scripts/$name --help" ;;
        esac
    done
    [[ -z "$port" || ("$port" =~ ^[0-9]+$ && "$port" -gt 1023 && "$port" -lt 65536) ]] ||
        die "--port is '$port'; it must be from 1024 to 65535"
    case "$action" in
    ready) [[ -f "$home/complete" ]] && return 0 || exit 1 ;;
    fetch) need_server && return 0 ;;
    esac
    mkdir -p "$data"
    data="$(cd "$data" && pwd)"
    # The process that was started here, where it still is that one.
    pid="$(cat "$data/pid" 2>/dev/null || true)"
    if [[ -z "$pid" || ! -d "/proc/$pid" ]] || ! tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$word"; then
        pid=''
    fi
    if [[ "$action" == stop ]]; then
        [[ -n "$pid" ]] || return 0
        kill "$pid"
        while [[ -d "/proc/$pid" ]]; do sleep 0.1; done
        rm -f "$data/pid"
        return 0
    fi
    if [[ -z "$pid" ]]; then
        need_server
        port="${port:-$(free_port)}"
        taken "$port" && die "port $port is taken; choose another with --port"
        echo "$port" >"$data/port"
        # A session of its own: it lives on when the terminal closes.
        (run_server "$port" >"$data/log" 2>&1 </dev/null) &
        pid=$!
        echo "$pid" >"$data/pid"
    fi
    port="$(cat "$data/port")"
    since=$SECONDS
    until taken "$port"; do
        [[ -d "/proc/$pid" ]] || die "the server ended; see $data/log"
        ((SECONDS - since < patience)) || die "the server does not answer; see $data/log"
        sleep 0.2
    done
    echo "http://127.0.0.1:$port"
}
