#!/usr/bin/env bash
# usage: verify.sh [OUTDIR]
#
# Shows on a machine with a GPU that the GPU code is right, and how fast it is: conformance tests, bench beside PyTorch,
# a short study. Everything printed goes to OUTDIR (build/verify) too; the tables are those of docs/gpu.md.
#
# It builds what it needs where there is Go. Where there is none, carry the source tree with build/gpu and igcsearch-gpu
# in it, or only their .gz, made by `make gpu-tests` on a machine of the same kind.
#
#   PEER="COMMAND"        the peer; "python3 trainer/testdata/torch_step.py --device cuda" if python3 has torch
#   IGCSEARCH_DATA=DIR    pictures of CIFAR for the study fig3a-short; without them the study is quickstart
#   PARTS="tests bench study"   which parts to run
#   PAIRS=fig3a           the pairs beside the peer, which takes about a minute for each
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/verify}
mkdir -p "$out"
out=$(cd "$out" && pwd)
parts=${PARTS:-tests bench study}
say() { printf '\n== %s (%ds)\n' "$*" "$SECONDS"; }
has() { case " $parts " in *" $1 "*) ;; *) return 1 ;; esac; }

if command -v go >/dev/null; then make -s gpu-tests; fi
for file in igcsearch-gpu build/gpu/gpu.test build/gpu/trainer.test; do
	[ -x $file ] || ! [ -e $file.gz ] || { gunzip -k $file.gz && chmod +x $file; }
	[ -x $file ] || { echo "verify: no $file: run \`make gpu-tests\` where there is Go, and carry it here"; exit 1; }
done
igcsearch=$PWD/igcsearch-gpu
if [ -z "${PEER+set}" ] && python3 -c 'import torch' 2>/dev/null; then
	PEER="python3 trainer/testdata/torch_step.py --device cuda"
fi
unset IGC_CUDA_LIBRARY
export IGC_REQUIRE_GPU=1
failed=0

{
	date -u
	"$igcsearch" version
	"$igcsearch" devices
	nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,memory.total --format=csv 2>/dev/null || true

	if has tests; then
		say "conformance: kernels against the oracle, networks against PyTorch's values"
		(cd trainer/gpu && ../../build/gpu/gpu.test -test.timeout 5m) || failed=1
		say "trainings against the processor's, alone, at once, resumed"
		(cd trainer && ../build/gpu/trainer.test -test.run GPU -test.timeout 5m) || failed=1
	fi
	if has bench; then
		say "one training alone, and as many at once as pay: the pairs of Table 1 (i)"
		"$igcsearch" bench --device cuda:0 --pairs "${PAIRS:-fig3a}" --steps 50 ${PEER:+--peer "$PEER"} || failed=1
		say "the pairs of Table 1 (ii)"
		"$igcsearch" bench --device cuda:0 --pairs fig3b --steps 50 || failed=1
		say "networks of the tables"
		"$igcsearch" bench --device cuda:0 --systems IGC-L24M2-D20,RegConv-W18-D20,IGC-L24M2-D20+Ident. --steps 20 || failed=1
	fi
	if has study; then
		say "a study"
		db=$out/verify.db
		rm -f "$db"*
		if [ -n "${IGCSEARCH_DATA:-}" ]; then
			study=(fig3a-short --set epochs=30 --set seeds=5)
		else
			study=(quickstart)
		fi
		begin=$SECONDS
		"$igcsearch" run "${study[@]}" --device cuda --db "$db" --figure "$out/figure.pdf" || failed=1
		echo "wall time $((SECONDS - begin)) s"
		"$igcsearch" plot "${study[0]}" --db "$db" -o "$out/figure.png" || failed=1
		"$igcsearch" export "${study[0]}" --db "$db" --format csv >"$out/results.csv" || failed=1
	fi
	if [ $failed = 0 ]; then say "all is well"; else say "something failed, see above"; fi
	exit $failed
} 2>&1 | tee "$out/log.txt"
