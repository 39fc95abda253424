#!/usr/bin/env bash
# usage: build.sh TOOLKIT [--check]
#
# Makes of the kernels
#   ptx/*.ptx.gz          PTX, which the driver of any device of compute capability 7.0 or later translates
#   cubin/sm_*/*.cubin.gz machine code of the devices that need no translation; cubin/PTXAS is the version that made it
#   resources.txt         what a thread takes on these devices and in how many rounds it waits for memory (sass/ makes it of
#                         what ptxas and nvdisasm say)
# TOOLKIT is where toolkit.sh put the compiler. Needs Go. With --check nothing is written, and it fails if something would
# change. Either way it fails, at the end, if a kernel is beyond its limit in limits.txt, or if PTX leaves it to the driver how
# sums are rounded.
set -euo pipefail
cd "$(dirname "$0")"
[ $# -ge 1 ] || { sed -n 2,12p "$0" >&2; exit 2; }
nvcc=$1/nvcc-run ptxas=$1/ptxas-run nvdisasm=$1/nvdisasm-run
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
mkdir "$out/ptx" "$out/cubin"

compile() { # NAME SOURCE FLAGS…
	local name=$1 source=$2
	shift 2
	# Without -fmad=false, a product and a sum would be written so that each compiler of PTX may fuse them or not.
	"$nvcc" -std=c++17 -ptx -arch=compute_70 -fmad=false "$@" "$source" -o "$out/$name.ptx"
	# Without the line that names the compiler's build, and comments.
	sed -i -e '/^\/\//d' "$out/$name.ptx"
	gzip -9n <"$out/$name.ptx" >"$out/ptx/$name.ptx.gz"
	for arch in 80 90; do
		"$ptxas" -v -arch=sm_$arch "$out/$name.ptx" -o "$out/$name.$arch.cubin" 2>&1 |
			awk -v arch=$arch '/entry function/ { split($0, quoted, "\047"); kernel = quoted[2] }
				/spill stores/ { spill = $5 }
				/Used/ { print kernel, "sm_" arch, $5, spill }'
		"$nvdisasm" -c -hex "$out/$name.$arch.cubin" >"$out/$name.$arch.sass"
	done >"$out/$name.resources"
	for arch in 80 90; do gzip -9n <"$out/$name.$arch.cubin" >"$out/cubin/sm_$arch/$name.cubin.gz"; done
}
mkdir "$out/cubin/sm_80" "$out/cubin/sm_90"
"$ptxas" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p' >"$out/cubin/PTXAS"
export -f compile
export nvcc ptxas nvdisasm out
{
	for co in 1 2 3 4 5 6 7 8; do echo conv_co$co conv.cu -DIGC_CO=$co; done
	for source in *.cu; do [ $source = conv.cu ] || echo "${source%.cu} $source"; done
} | xargs -P "$(nproc)" -L 1 bash -c 'set -euo pipefail; compile "$@"' _

status=0
go run ./sass -limits limits.txt "$out" >"$out/resources.txt" || status=$?
[ -s "$out/resources.txt" ] || exit $status
# What the code was made from: a test compares it with the sources as they are.
cat *.cu *.h | sha256sum | cut -d' ' -f1 >"$out/ptx/SOURCES"

# A product or sum without .rn may be fused; one with it may not.
if grep -HnE '^[^/]*\b(add|sub|mul|mad|fma)\.((ftz|sat)\.)*f(32|64)' "$out"/*.ptx >"$out/loose"; then
	echo "build: products and sums without explicit rounding, which a driver's compiler may fuse:" >&2
	head -n 5 "$out/loose" >&2
	status=1
fi

if [ "${2-}" = --check ]; then
	diff "$out/resources.txt" resources.txt || status=1
	diff -qr "$out/ptx" ptx || status=1
	diff -qr "$out/cubin" cubin || status=1
	exit $status
fi
rm -rf ptx cubin
cp -r "$out/ptx" "$out/cubin" .
cp "$out/resources.txt" resources.txt
exit $status
