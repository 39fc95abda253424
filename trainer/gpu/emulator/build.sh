#!/bin/sh
# usage: build.sh OUTDIR [KERNELS]
#
# Makes OUTDIR/libigc_emulated.so: the emulated driver with every .cu of the folder KERNELS (../kernels) in it. With
# IGC_EMULATED_CHECKED=1 it sees races and undefined behaviour too, as checks.cpp says, and is slower.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { echo "usage: $0 OUTDIR [KERNELS]" >&2; exit 2; }
kernels=$(cd "${2:-$here/../kernels}" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
work=$out/build.$$ # beside the library, so that it is moved and not copied
mkdir "$work"
trap 'rm -rf "$work"' EXIT
cxx=${CXX:-g++}

# No contraction: an fma is where a kernel says fmaf, so that results can be compared with the processor's kernels.
flags="-std=c++17 -O2 -march=native -ffp-contract=off -fno-strict-aliasing -fPIC -fvisibility=hidden -Wall
	-Wno-unknown-pragmas -Wno-unused-function -Wno-psabi"
checks=
if [ "${IGC_EMULATED_CHECKED-}" = 1 ]; then # for the kernels; the driver's own code is not checked
	# Without what is wrong with a pointer that no access shows: it triples the time.
	checks="-g1 -fsanitize=thread,undefined -fno-sanitize=pointer-overflow,null,object-size
		--param tsan-instrument-func-entry-exit=0 --param tsan-distinguish-volatile=1"
	flags="$flags -DIGC_CHECKED"
fi
grep -oE '\bCUDA_(SUCCESS|ERROR_[A-Z0-9_]+) = ' "$here/../driver/include/cuda.h" |
	sed 's/ = //; s/.*/NAME(&)/' > "$work/errors.h"
# The largest number of registers of each kernel: for each device, after a |, it is the first column.
awk '!/^#/ { most = 0; for (i = 2; i <= NF; i++) if ((i == 2 || $(i - 1) == "|") && $i + 0 > most) most = $i + 0
	printf "{\"%s\", %d},\n", $1, most }' "$kernels/resources.txt" > "$work/registers.h"

# In parallel; xargs fails if one of them does.
WORK=$work CXX_RUN="$cxx $flags -I$here/../driver/include -I$work -I$here/../kernels -include $here/emulator.h -x c++ -c"
CHECKS=$checks
export WORK CXX_RUN CHECKS
{
	ls "$here"/*.cpp
	find "$kernels" -maxdepth 1 -name '*.cu' | sort
} | xargs -P "$(getconf _NPROCESSORS_ONLN)" -I FILE sh -c '
	case $1 in *.cu) ;; *) CHECKS= ;; esac
	$CXX_RUN $CHECKS "$1" -o "$WORK/$(basename "$1").o"' sh FILE
$cxx -shared -Wl,-z,defs -o "$work/libigc_emulated.so" "$work"/*.o -lpthread -ldl
mv "$work/libigc_emulated.so" "$out/" # at once, for others may be loading the one before
