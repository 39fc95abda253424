#!/usr/bin/env bash
# usage: build.sh TOOLKIT [--check]
#
# Makes ptx/*.ptx.gz, the kernels' machine code for compute capability 7.0 and later, and resources.txt, what ptxas says of
# it for three devices: registers of a thread, bytes spilled to memory. TOOLKIT is where toolkit.sh put the compiler. With
# --check nothing is written, and it fails if something would change.
set -euo pipefail
cd "$(dirname "$0")"
[ $# -ge 1 ] || { sed -n 2,6p "$0" >&2; exit 2; }
nvcc=$1/nvcc-run ptxas=$1/ptxas-run
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
mkdir "$out/ptx"

compile() { # NAME SOURCE FLAGS…
	local name=$1 source=$2
	shift 2
	"$nvcc" -std=c++17 -ptx -arch=compute_70 "$@" "$source" -o "$out/$name.ptx"
	# Without the line that names the compiler's build, and comments.
	sed -i -e '/^\/\//d' "$out/$name.ptx"
	gzip -9n <"$out/$name.ptx" >"$out/ptx/$name.ptx.gz"
	for arch in 70 80 90; do
		"$ptxas" -v -arch=sm_$arch "$out/$name.ptx" -o "$out/$name.cubin" 2>&1 |
			awk -v arch=$arch '/entry function/ { split($0, quoted, "\047"); kernel = quoted[2] }
				/spill stores/ { spill = $5 }
				/Used/ { print kernel, "sm_" arch, $5, spill }'
	done >"$out/$name.resources"
}
export -f compile
export nvcc ptxas out
{
	for co in 1 2 3 4 5 6 7 8; do echo conv_co$co conv.cu -DIGC_CO=$co; done
	for source in *.cu; do [ $source = conv.cu ] || echo "${source%.cu} $source"; done
} | xargs -P "$(nproc)" -L 1 bash -c 'set -euo pipefail; compile "$@"' _

{
	printf '%-28s %s\n' "# kernel" "registers and bytes spilled on sm_70, sm_80, sm_90"
	cat "$out"/*.resources | LC_ALL=C sort -k1,1 -k2,2 |
		awk '{ if ($1 != last) { if (last) print line; line = sprintf("%-28s", $1); last = $1 } line = line sprintf(" %4d %3d", $3, $4) } END { print line }'
} >"$out/resources.txt"
# What the code was made from: a test compares it with the sources as they are.
cat *.cu *.h | sha256sum | cut -d' ' -f1 >"$out/ptx/SOURCES"

if [ "${2-}" = --check ]; then
	diff -q "$out/resources.txt" resources.txt && diff -qr "$out/ptx" ptx
	exit
fi
rm -rf ptx
cp -r "$out/ptx" ptx
cp "$out/resources.txt" resources.txt
