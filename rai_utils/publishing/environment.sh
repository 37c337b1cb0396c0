#!/usr/bin/env bash
# What the Makefile runs Python in. `venv` brings .venv up to date with requirements.txt, `active`
# looks at the python on PATH, `lock` makes requirements.txt anew. PYTHON names the Python to start
# from, PYTHONS those that are tried where it is empty. Works with the bash 3.2 of macOS.
set -eu -o pipefail

NEW_ENOUGH='import sys; sys.exit(sys.version_info < (3, 11))'
ORIGIN='import sys; print(sys.base_prefix, sys.version)'

refuse() {
	echo "$*" >&2
	exit 1
}

find_python() { # sets $found
	local candidate
	if [ -n "$PYTHON" ]; then set -- "$PYTHON"; else set -- $PYTHONS; fi
	for candidate; do
		"$candidate" -c "$NEW_ENOUGH" 2>/dev/null || continue
		found=$candidate
		"$found" -c 'import ensurepip, venv' 2>/dev/null || refuse "$found cannot make an" \
			"environment: its venv module is missing (on Debian and Ubuntu: apt install python3-venv)."
		return
	done
	refuse "Python 3.11 or later is needed, and none was found among: $*." \
		"Install it, or name it with PYTHON=/path/to/python."
}

install() { # folder of the environment, what to install …
	local folder=$1 log=$1/install.log problem="The packages could not be installed."
	shift
	"$folder/bin/python" -m pip install --progress-bar off "$@" >"$log" 2>&1 && return
	tail -n 5 "$log" >&2
	if grep -q -E 'from versions: none|[Cc]onnection|Name or service|name resolution|timed out|ProxyError' "$log"; then
		problem="The packages could not be downloaded: is there a network, and is pip's index reachable?"
	fi
	refuse "$problem All of pip's answer is in $log."
}

venv() {
	local stamp=.venv/.stamp found=
	if ! .venv/bin/python -c "import pip; $NEW_ENOUGH" 2>/dev/null; then
		find_python
	elif [ -n "$PYTHON" ]; then
		find_python
		[ "$("$found" -c "$ORIGIN")" != "$(.venv/bin/python -c "$ORIGIN")" ] || found=
	fi
	[ -n "$found" ] || [ ! $stamp -nt requirements.txt ] || [ ! $stamp -nt pyproject.toml ] || return 0
	if [ -n "$found" ]; then
		echo "environment  making .venv with $found"
		"$found" -m venv --clear .venv
	fi
	echo "environment  installing the packages of requirements.txt (minutes on first use)"
	install .venv -r requirements.txt
	install .venv --no-deps --editable .
	touch $stamp
}

active() {
	python -c "$NEW_ENOUGH" || refuse "ENV=active needs Python 3.11 or later as python on PATH."
	python -c 'import torch, papermill, nbval, jupyterlab, ruff, ty, pypandoc' 2>/dev/null ||
		refuse "ENV=active needs what requirements.txt lists in the active environment:" \
			"python -m pip install -r requirements.txt"
}

lock() {
	find_python
	rm -rf build/lock
	mkdir -p build
	"$found" -m venv build/lock
	install build/lock '.[study]'
	{
		echo "# Exact versions of everything that is installed, made by \`make lock\`: a new"
		echo "# environment with what pyproject.toml asks for, frozen."
		echo "# Build tags (+cpu) and the CUDA packages of one platform are left out, so that"
		echo "# each platform's own build of torch fits. Install it with dependencies."
		build/lock/bin/python -m pip freeze --exclude rai-study |
			sed 's/+.*//' | grep -v -E '^(nvidia|cuda|triton)'
	} >build/requirements.txt
	mv build/requirements.txt requirements.txt
	rm -rf build/lock
	echo "environment  wrote requirements.txt"
}

"$1"
