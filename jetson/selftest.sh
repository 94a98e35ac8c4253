#!/usr/bin/env bash
# Tries everything on a Jetson, and writes one report to send back. A step that fails does not stop
# the others; the exit code is 1 if one failed.
#
#     ./jetson/selftest.sh                        an hour or more the first time: pycuda is compiled
#     ./jetson/selftest.sh --skip setup-pycuda    without one of the steps
#     ./jetson/selftest.sh --only tests-gpu       with one of them only
#     ./jetson/selftest.sh --device cpu           on any machine, in .venv as it is: no GPU
#     ./jetson/selftest.sh --help                 the steps, and the other options
#
# Needs Python 3.10, the network and 3 GB; no root. PYTHON chooses the interpreter that writes the
# report; tests run in .venv.
set -euo pipefail
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "jetson/selftest.sh: $python is not Python 3.10 or newer; name one in PYTHON." >&2
    exit 2
}
exec "$python" "$(dirname "${BASH_SOURCE[0]}")/selftest" "$@"
