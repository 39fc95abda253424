#!/usr/bin/env bash
# usage: build.sh TOOLKIT [--check]
#
# Makes ptx/*.ptx.gz, the kernels' machine code for compute capability 7.0 and later, and resources.txt, which says of each
# kernel on two devices what a thread takes and in how many rounds it waits for memory (sass/ makes it of what ptxas and
# nvdisasm say). TOOLKIT is where toolkit.sh put the compiler. Needs Go. With --check nothing is written, and it fails if
# something would change. Either way it fails, at the end, if a kernel is beyond its limit in limits.txt.
set -euo pipefail
cd "$(dirname "$0")"
[ $# -ge 1 ] || { sed -n 2,8p "$0" >&2; exit 2; }
nvcc=$1/nvcc-run ptxas=$1/ptxas-run nvdisasm=$1/nvdisasm-run
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
	for arch in 80 90; do
		"$ptxas" -v -arch=sm_$arch "$out/$name.ptx" -o "$out/$name.$arch.cubin" 2>&1 |
			awk -v arch=$arch '/entry function/ { split($0, quoted, "\047"); kernel = quoted[2] }
				/spill stores/ { spill = $5 }
				/Used/ { print kernel, "sm_" arch, $5, spill }'
		"$nvdisasm" -c "$out/$name.$arch.cubin" >"$out/$name.$arch.sass"
	done >"$out/$name.resources"
}
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

if [ "${2-}" = --check ]; then
	diff "$out/resources.txt" resources.txt || status=1
	diff -qr "$out/ptx" ptx || status=1
	exit $status
fi
rm -rf ptx
cp -r "$out/ptx" ptx
cp "$out/resources.txt" resources.txt
exit $status
