#!/usr/bin/env bash
# Makes this clone's .venv on a Jetson: edge_runtime beside JetPack's own TensorRT, with what
# matrix.toml says that this JetPack needs.
#
#     ./jetson/setup.sh                 what runs and builds bundles
#     ./jetson/setup.sh --pycuda        pycuda too, compiled against the Jetson's CUDA
#     ./jetson/setup.sh --tests         pytest too, as selftest.sh wants it
#     ./jetson/setup.sh --venv FOLDER   another place for it
#     ./jetson/setup.sh --as 36.4.3     take this for Jetson Linux 36.4.3: in a container image, or
#                                       on a release that matrix.toml does not know
#     ./jetson/setup.sh --no-check      do not import TensorRT at the end: where there is no GPU, as
#                                       while an image is built
#     ./jetson/setup.sh --dry-run       show the commands, run none
#
# Needs the network, no root. May be run again at any time. With --dry-run, JETSON_ROOT is the folder
# in which to look for the Jetson's files.
set -euo pipefail

fail() {
    echo "jetson/setup.sh: $1" >&2
    exit 2
}

venv=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv
l4t=
pycuda=
tests=
check=yes
dry=
while (($#)); do
    case $1 in
        --venv | --as)
            [[ -n ${2-} ]] || fail "$1 wants a value; see --help."
            if [[ $1 == --venv ]]; then venv=$2; else l4t=$2; fi
            shift
            ;;
        --pycuda) pycuda=yes ;;
        --tests) tests=yes ;;
        --no-check) check= ;;
        --dry-run) dry=yes ;;
        -h | --help)
            sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit
            ;;
        *) fail "there is no option $1; see --help." ;;
    esac
    shift
done
root=${JETSON_ROOT-}
[[ -z $root || -n $dry ]] || fail "JETSON_ROOT is for --dry-run; unset it, or add that."
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

run() {
    if [[ -n $dry ]]; then
        printf '+'
        printf ' %q' "$@"
        echo
    else
        "$@"
    fi
}

# Which Jetson Linux is this, and what is known of it?

release=$root/etc/nv_tegra_release
if [[ -z $l4t ]]; then
    [[ -r $release ]] || fail "this is no Jetson: there is no $release. On a PC: ./scripts/venv"
    pattern='^# R\([0-9]*\) (release), REVISION: \([0-9.]*\).*'
    l4t=$(sed -n "s/$pattern/\1.\2/p" "$release" | head -n 1)
    [[ -n $l4t ]] || fail "$release does not say which Jetson Linux this is; say --as RELEASE."
fi
stack=$(awk -v RS= -v entry="\"$l4t\" = " 'index($0, entry)' jetson/matrix.toml)
if [[ -z $stack ]]; then
    known=$(sed -n 's/^"\([0-9.]*\)" = .*/\1/p' jetson/matrix.toml | paste -sd ' ')
    fail "Jetson Linux $l4t is not in jetson/matrix.toml; say --as with the nearest of: $known"
fi
value() { sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" <<<"$stack"; }
jetpack="JetPack $(value "\"$l4t\"")"
version=$(value python)
runs=$(value runs)
packages=("$(value numpy)")
echo "Jetson Linux $l4t: $jetpack, Python $version, CUDA $(value cuda), TensorRT $(value tensorrt)"
[[ $runs != nothing ]] || fail "$jetpack has Python $version; edge_runtime needs 3.10 or newer."
if [[ $runs == cpu ]]; then
    echo "edge_runtime needs TensorRT 10.3 or newer: with $jetpack it runs on the CPU only."
    [[ -z $pycuda ]] || fail "pycuda has no use with $jetpack; leave out --pycuda."
else
    packages+=("$(value cuda_bindings)")
fi

# Is there what JetPack brings?

python=/usr/bin/python$version
[[ -e $root$python ]] || fail "there is no $root$python, which $jetpack brings; is this its system?"
has_tensorrt() {
    compgen -G "$root/usr/lib/python3*/dist-packages/tensorrt" ||
        compgen -G "$root/usr/local/lib/python3*/dist-packages/tensorrt" # NVIDIA's container images
}
if [[ $runs == tensorrt ]] && ! has_tensorrt >/dev/null; then
    fail "TensorRT for Python is missing. To mend it: sudo apt-get install python3-libnvinfer"
fi
cuda=/usr/local/cuda
if [[ -n $pycuda && ! -e $root$cuda/include/cuda.h ]]; then
    fail "pycuda needs $cuda/include/cuda.h. To mend it: sudo apt-get install nvidia-jetpack"
fi

# A virtual environment sees JetPack's TensorRT only if it sees the system's packages.

if [[ -e $venv/pyvenv.cfg ]]; then
    grep -q '^include-system-site-packages = true' "$venv/pyvenv.cfg" ||
        fail "$venv does not see the system's packages, so not TensorRT; remove it, or say --venv."
fi
[[ -n $dry ]] || "$python" -c 'import ensurepip' 2>/dev/null ||
    fail "Python cannot make environments. To mend it: sudo apt-get install python$version-venv"
run "$python" -m venv --system-site-packages "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check install)
run "${pip[@]}" --upgrade 'pip>=25.1' # the first that knows dependency groups
[[ -z $tests ]] || packages+=(--group test)
run "${pip[@]}" '.[build,vision]' "${packages[@]}"
if [[ -n $pycuda ]]; then
    run export PATH="$cuda/bin:$PATH" # where pycuda's build looks for nvcc, and so for CUDA
    run "${pip[@]}" --no-binary pycuda pycuda "$(value numpy)"
fi
if [[ -n $check ]]; then
    if [[ $runs == tensorrt ]]; then
        run "$venv/bin/python" -c 'import tensorrt; print("TensorRT", tensorrt.__version__)' ||
            fail "JetPack's TensorRT cannot be imported; the line above says why."
    fi
    run "$venv/bin/edge-runtime" doctor
fi
