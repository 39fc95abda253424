#!/bin/sh
# usage: build.sh OUTDIR
#
# Makes OUTDIR/libcuda.a, the library of shim.c, with a trampoline for every function of include/cuda.h.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# = 1 ] || { echo "usage: $0 OUTDIR" >&2; exit 2; }
mkdir -p "$1"
cd "$1"
cc=${CC:-cc}
# After the preprocessor the names are those of the symbols.
echo "#include <cuda.h>" | $cc -E -P -I"$here/include" - | grep -oE 'CUresult cu\w+\(' | tr -d '(' |
	awk '$2 != "cuInit" && $2 != "cuDeviceGetCount" { printf "SYMBOL(%d, %s)\n", n++, $2 }' > symbols.h
$cc -O2 -Wall -Werror -fPIC -I. -I"$here/include" -c "$here/shim.c" -o shim.o
rm -f libcuda.a
${AR:-ar} rc libcuda.a shim.o
