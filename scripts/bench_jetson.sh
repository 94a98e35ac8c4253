#!/usr/bin/env bash
# Benchmarks bundles on a Jetson: precision x batch x streams x power mode, with locked clocks, into
# one folder with a report for each power mode and an index of all.
#
#     ./scripts/bench_jetson.sh int8.edge fp16.edge                 in the power mode as it is
#     ./scripts/bench_jetson.sh --modes 0,2 --batch 1,8 --streams 1,2 int8.edge fp16.edge
#     ./scripts/bench_jetson.sh --protocol offline --duration 10 int8.edge
#     ./scripts/bench_jetson.sh --no-lock int8.edge                 leaves the clocks alone
#     ./scripts/bench_jetson.sh --output FOLDER int8.edge           another place than ./bench
#     ./scripts/bench_jetson.sh --dry-run --modes 0,2 int8.edge     shows the commands, runs none
#     ./scripts/bench_jetson.sh int8.edge -- --device tensorrt      what follows -- goes to bench
#
# A measurement takes 5 s, so the second example 1.5 min. Modes are the numbers of nvpmodel -m.
# Power modes and clocks need root, or sudo without a password; without them, or without NVIDIA's
# tools, it says what it leaves alone and measures as things are. Power mode and clocks are put back
# at the end, after an error and after Ctrl-C too. The exit code is 1 if a measurement failed, a mode
# could not be set, or something could not be put back. PYTHON chooses the interpreter.
set -euo pipefail

say() { echo "scripts/bench_jetson.sh: $1" >&2; }
fail() {
    say "$1"
    exit 2
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
output=bench
modes=()
lock=yes
dry=
bundles=()
sweep=()
rest=()
while (($#)); do
    case $1 in
        --modes | --batch | --streams | --protocol | --duration | --output)
            [[ -n ${2-} ]] || fail "$1 wants a value; see --help."
            case $1 in
                --modes)
                    [[ $2 =~ ^[0-9]+(,[0-9]+)*$ ]] || fail "--modes wants numbers such as 0,2."
                    IFS=, read -ra modes <<<"$2"
                    ;;
                --output) output=$2 ;;
                *) sweep+=("$1" "$2") ;;
            esac
            shift
            ;;
        --no-lock) lock= ;;
        --dry-run) dry=yes ;;
        -h | --help)
            sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit
            ;;
        --)
            shift
            rest=(-- "$@")
            break
            ;;
        -*) fail "there is no option $1; see --help." ;;
        *)
            [[ -e $1 ]] || fail "there is no $1; name bundles."
            bundles+=("$1")
            ;;
    esac
    shift
done
((${#bundles[@]})) || fail "name bundles to measure; see --help."
case $output in /*) ;; *) output=$PWD/$output ;; esac

run() {
    if [[ -n $dry ]]; then
        printf '+'
        printf ' %q' "$@"
        echo
    else
        "$@"
    fi
}

# What is there of NVIDIA's tools, and may they be used?

has() { command -v "$1" >/dev/null; }
as_root=()
may=yes
if [[ $(id -u) != 0 ]]; then
    as_root=(sudo -n)
    if ! has sudo || ! sudo -n true 2>/dev/null; then
        may=
        as_root=()
    fi
fi
if ! has nvpmodel; then
    say "nvpmodel is missing (this is no Jetson, or its tools are not on PATH): the power mode stays."
    if ((${#modes[@]})); then fail "--modes needs nvpmodel; leave it out."; fi
elif ((${#modes[@]})) && [[ -z $may ]]; then
    fail "--modes needs root, or sudo without a password; run it with sudo, or leave it out."
fi
if [[ -n $lock ]] && ! has jetson_clocks; then
    say "jetson_clocks is missing: clocks are not locked."
    lock=
elif [[ -n $lock && -z $may ]]; then
    say "locking clocks needs root, or sudo without a password: clocks are not locked."
    lock=
fi

# The last line of `nvpmodel -q` is the number of the mode, the one before it has its name.
power_mode() { ${as_root[@]+"${as_root[@]}"} nvpmodel -q 2>/dev/null | tail -n 1; }
first=
if has nvpmodel; then
    first=$(power_mode) || first=
    if ! [[ $first =~ ^[0-9]+$ ]]; then
        first=
        say "nvpmodel -q does not tell the power mode: it is not recorded."
        if ((${#modes[@]})); then fail "--modes needs it, to put it back; leave --modes out."; fi
    fi
fi

# Whatever happens, what was changed is put back: the mode first, since it moves the clocks' limits.

stored=
changed=
status=0
# shellcheck disable=SC2329 # The trap calls it.
put_back() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP
    local job
    for job in $(jobs -p); do
        kill "$job" 2>/dev/null || true
        wait "$job" 2>/dev/null || true
    done
    if [[ -n $changed ]] && ! run ${as_root[@]+"${as_root[@]}"} nvpmodel -m "$first" </dev/null; then
        say "the power mode could not be put back: sudo nvpmodel -m $first"
        code=1
    fi
    if [[ -n $stored ]]; then
        if run ${as_root[@]+"${as_root[@]}"} jetson_clocks --restore "$stored"; then
            [[ -n $dry ]] || ${as_root[@]+"${as_root[@]}"} rm -f "$stored"
        else
            say "the clocks could not be put back: sudo jetson_clocks --restore $stored"
            code=1
        fi
    fi
    exit "$code"
}
trap put_back EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

run mkdir -p "$output"
if [[ -n $lock ]]; then
    store=$output/clocks.stored
    [[ ! -e $store ]] ||
        fail "an earlier run was killed: sudo jetson_clocks --restore $store, then remove that file."
    run ${as_root[@]+"${as_root[@]}"} jetson_clocks --store "$store" </dev/null
    stored=$store
fi

measure() { # FOLDER
    if has nvpmodel; then
        if [[ -n $dry ]]; then
            run ${as_root[@]+"${as_root[@]}"} nvpmodel -q
        else
            mkdir -p "$1"
            {
                ${as_root[@]+"${as_root[@]}"} nvpmodel -q || echo "nvpmodel -q failed"
                if has jetson_clocks && [[ -n $may ]]; then
                    ${as_root[@]+"${as_root[@]}"} jetson_clocks --show || echo "jetson_clocks --show failed"
                fi
            } >"$1/power.txt" 2>&1
        fi
    fi
    local command=("$python" "$here/sweep.py" "${bundles[@]}" ${sweep[@]+"${sweep[@]}"})
    command+=(--output "$1" ${rest[@]+"${rest[@]}"})
    if [[ -n $dry ]]; then
        run "${command[@]}"
        return
    fi
    # In the background, since bash would answer no signal before it has ended.
    "${command[@]}" >/dev/null &
    wait "$!" || status=1
}

if ((${#modes[@]} == 0)); then
    [[ -z $lock ]] || run ${as_root[@]+"${as_root[@]}"} jetson_clocks
    measure "$output/mode-${first:-as-is}"
fi
for mode in ${modes[@]+"${modes[@]}"}; do
    changed=yes
    # Some modes want a reboot, which nvpmodel asks for: nobody answers, and it is looked up after.
    run ${as_root[@]+"${as_root[@]}"} nvpmodel -m "$mode" </dev/null || true
    if [[ -z $dry && $(power_mode) != "$mode" ]]; then
        say "power mode $mode was not taken (it may want a reboot, or not exist): it is left out."
        status=1
        continue
    fi
    [[ -z $lock ]] || run ${as_root[@]+"${as_root[@]}"} jetson_clocks
    measure "$output/mode-$mode"
done
run "$python" "$here/sweep.py" --index --output "$output" || status=1
exit "$status"
