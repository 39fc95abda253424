#!/usr/bin/env bash
# usage: verify.sh [OUTDIR]
#
# Shows on a machine with a GPU, in ten minutes, that the GPU code is right and how fast it is. docs/gpu.md says what each
# figure decides. What is not in OUTDIR when the machine is taken away is lost: every program writes there itself, without
# a pipe, and what matters most comes first. OUTDIR, or $OUT, or build/verify, gets
#
#   log.txt       all that was printed
#   parts.tsv     a line for each command when it has ended: part, command, seconds, exit code, remark
#   bench.jsonl   a line for each measurement of bench, when it is made
#   ncu.csv, stalls.csv   what the hardware counted in one step of 40x2, a line for each kernel
#   study.csv     the epochs of the study
#
# It builds the programs where there is Go. To a machine without, carry this source tree with igcsearch-gpu.gz and
# build/gpu/{gpu,trainer}.test.gz in it, made by `make gpu-tests` on a machine of the same kind. It changes no setting of
# the GPU, and needs no network.
#
#   PARTS="tests bench"   which parts to run, of those at the end of this file
#   LIMIT=585             seconds for all parts together; without a limit of your own, more is better
#   PEER="COMMAND"        the peer, which takes --ways; "python3 trainer/testdata/torch_step.py --device cuda" if python3
#                         has torch
#   IGCSEARCH_DATA=DIR    pictures of CIFAR-100 for the study; without them they are noise
#   STUDY="SETTINGS"      of fig3a-short; "--set epochs=2 --set seeds=1"
#   BUILD=no              use the .gz files also where there is Go
#   EMULATED=1            use the emulated GPU that IGC_CUDA_LIBRARY names, and tiny networks
set -um # -m: a job of this shell has a process group, and does not ignore an interrupt
trap '' PIPE
cd "$(dirname "$0")/../.." || exit 1
out=${1:-${OUT:-build/verify}}
work=$PWD/build/verify/scratch # programs, noise, the study's database
mkdir -p "$out" "$work" || exit 1
out=$(cd "$out" && pwd)
log=$out/log.txt parts=$out/parts.tsv rows=$out/bench.jsonl
exec 3>&1 >>"$log" 2>&1 </dev/null

LIMIT=${LIMIT:-585}
PEER=${PEER-python3 trainer/testdata/torch_step.py --device cuda}
STUDY=${STUDY:---set epochs=2 --set seeds=1}
pairs_first=40x2,5x10 pairs_peer=40x2,5x10,1x23 pairs_rest=64x1,28x3,12x6,6x9,3x13,2x16 pairs_one=40x2 pairs_tf32=40x2,64x1
bench=(--device cuda:0 --output "$rows")
size=real
export PYTHONUNBUFFERED=1 HOME=${HOME:-$work}
# What the driver compiles is kept for the next process, also where the home folder cannot be written.
export CUDA_CACHE_PATH=$work/cuda CUDA_CACHE_MAXSIZE=1073741824
export TRITON_CACHE_DIR=$work/triton TORCHINDUCTOR_CACHE_DIR=$work/inductor # of the compiled peer
if [ -n "${EMULATED:-}" ]; then
	pairs_first=3x2,1x3 pairs_peer=3x2 pairs_rest=2x3 pairs_one=3x2 pairs_tf32=
	bench+=(--batch 2 --steps 1)
	size=small
	export IGC_EMULATED_DEVICES=${IGC_EMULATED_DEVICES:-2} # tests use the second one too
	STUDY="--set epochs=1 --set seeds=1 --set pairs=[\"3x2\"] --set blocks=1 --set train_pictures=64 --set test_pictures=32"
	STUDY+=" --set validation=0 --set batch=32 --set workers=1"
else
	unset IGC_CUDA_LIBRARY
	export IGC_REQUIRE_GPU=1
fi

# While a program has it open, the driver keeps a GPU ready. Where it does not do so by itself, each of some sixty programs here
# would wait for it, for a second or more.
keepers=()
for device in /dev/nvidia[0-9]*; do
	[ -r "$device" ] || continue
	# shellcheck disable=SC2217 # it reads nothing
	sleep "$LIMIT" <"$device" 3>&- &
	keepers+=($!)
done
[ ${#keepers[@]} = 0 ] || trap 'kill "${keepers[@]}" 2>/dev/null' EXIT

failed=0 skipped=0 child=
SECONDS=0 part='' part_end=0

# say prints to the log and to whoever watches.
say() {
	printf '%s\n' "$*"
	printf '%s\n' "$*" >&3
}

# record WHAT SECONDS CODE [REMARK] is a line of parts.tsv.
record() {
	printf '%s\t%s\t%s\t%s\t%s\n' "$part" "$1" "$2" "$3" "${4:-}" >>"$parts"
	say "-- $part: $1: ${4:-exit code $3 after $2 s}"
}

# begin PART SECONDS reports whether the part is wanted. Its commands end together after so many seconds.
begin() {
	part=$1 part_end=$((SECONDS + $2))
	case " ${PARTS:-$1} " in *" $1 "*) ;; *) return 1 ;; esac
	[ $part_end -le "$LIMIT" ] || part_end=$LIMIT
	say ""
	say "== $part (at $SECONDS s, $((part_end - SECONDS)) s)"
}

# run WHAT SECONDS FOLDER COMMAND... runs a command, which ends at the end of its part at the latest.
run() {
	local what=$1 limit=$2 folder=$3 begun=$SECONDS before code
	shift 3
	if [ $((part_end - SECONDS)) -lt "$limit" ]; then limit=$((part_end - SECONDS)); fi
	if [ "$limit" -lt 1 ]; then
		skip "$what" "no time is left"
		return 1
	fi
	if ! command -v "$1" >/dev/null; then
		missing "$what" "$1"
		return 1
	fi
	printf '\n-- %s: %s (at %d s, at most %d s): %s\n' "$part" "$what" "$SECONDS" "$limit" "$*"
	before=$(wc -c <"$log")
	(cd "$folder" && exec "${timeout[@]}" ${timeout:+"$limit"} "$@") 3>&- &
	child=$!
	wait $child
	code=$?
	child=
	tail -c "+$((before + 1))" "$log" | tail -n 20 >&3
	case $code in
	0) record "$what" $((SECONDS - begun)) 0 ;;
	124 | 137) record "$what" $((SECONDS - begun)) $code "stopped after $limit s" ;;
	*) record "$what" $((SECONDS - begun)) $code ;;
	esac
	[ $code = 0 ] || failed=1
	return $code
}

# skip WHAT WHY
skip() {
	skipped=$((skipped + 1))
	record "$1" 0 - "skipped: $2"
}

# missing WHAT PROGRAM skips what needs a program. Without one of ours, all is not well.
missing() {
	case $2 in
	"$PWD"/*)
		failed=1
		skip "$1" "there is no ${2##*/}: run \`make gpu-tests\` where there is Go, and carry the .gz here"
		;;
	*) skip "$1" "there is no $2" ;;
	esac
}

# shellcheck disable=SC2317 # trap calls it
# stop ends the command that runs, and this script.
stop() {
	record "all" "$SECONDS" - "stopped by a signal"
	[ -z "$child" ] || { kill -INT -- "-$child" && wait "$child"; }
	exit 143
}
trap stop TERM INT HUP

timeout=(timeout -s INT -k 5)
if ! command -v timeout >/dev/null; then
	timeout=()
	say "no command timeout: nothing here ends what hangs"
fi

# program FILE finds the program that was built, or unpacks FILE.gz; $found is its path.
program() {
	found=$PWD/$1
	if [ -z "$built" ] && [ -e "$1.gz" ]; then
		found=$work/bin/${1##*/}
		gzip -dc "$1.gz" >"$found.new" && chmod +x "$found.new" && mv -f "$found.new" "$found"
	fi
}

# tool NAME finds a program of CUDA's toolkit; $found is its path.
tool() {
	found=$(command -v "$1") && return
	for found in /usr/local/cuda/bin/"$1" /opt/nvidia/nsight-compute/*/"$1" /usr/local/cuda/compute-sanitizer/"$1"; do
		[ ! -x "$found" ] || return 0
	done
	missing "$1" "$1"
	return 1
}

# alone SECONDS FOLDER PROGRAM PATTERN [EXCEPT [SUBTEST]] runs each test in a process of its own: after a fault a process can
# use the GPU no more, and its later tests would fail too.
alone() {
	local limit=$1 folder=$2 program=$3 pattern=$4 except=${5:-} subtest=${6:+/$6} list name
	[ -x "$program" ] || { missing "$pattern" "$program" && return; }
	list=$(cd "$folder" && "${timeout[@]}" ${timeout:+20} "$program" -test.list "$pattern") || {
		record "the list of ${program##*/}" 0 1 "it could not be had: $list"
		failed=1
		return
	}
	for name in $list; do
		if [ $((part_end - SECONDS)) -lt "$limit" ]; then limit=$((part_end - SECONDS)); fi
		# shellcheck disable=SC2254 # EXCEPT is a pattern
		case $name in
		$except) ;;
		Test*) # which says where it hangs, a moment before it is ended
			run "$name" "$limit" "$folder" "$program" -test.v -test.timeout "$((limit - 1))s" -test.run "^$name\$$subtest"
			;;
		esac
	done
}

# peer WHAT skips what needs a peer, if there is none.
peer() {
	case $PEER in
	'') skip "$1" "PEER is empty" && return 1 ;;
	python3\ *)
		python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' && return
		skip "$1" "python3 has no torch" && return 1
		;;
	esac
}

# clocks are those of the GPU; nothing here changes them.
clocks() {
	run clocks 5 . nvidia-smi --format=csv \
		--query-gpu=name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,memory.total,temperature.gpu,power.draw
}

# noise DIR writes pictures in the layout of CIFAR-100: for each a byte of its coarse class, one of its class, 3072 of
# colours. There are 200 of them, over and over: a training has as much to do with them.
noise() {
	local folder=$1/cifar-100-binary i labels
	mkdir -p "$folder"
	for ((i = 0; i < 200; i++)); do
		printf -v labels '\\x%02x\\x%02x' $((i % 20)) $((i % 100))
		printf '%b' "$labels"
		head -c 3072 /dev/urandom
	done >"$folder/200"
	printf 'class %d\n' {0..99} >"$folder/fine_label_names.txt"
	(cd "$folder" && for ((i = 0; i < 50; i++)); do cat 200; done >test.bin && cat test.bin test.bin test.bin test.bin test.bin >train.bin)
}

built=
if [ "${BUILD:-}" != no ] && command -v go >/dev/null; then
	make -s gpu-tests >&3 2>&3 || exit 1
	built=yes
fi
SECONDS=0
part=programs
rm -rf "${work:?}/bin" && mkdir -p "$work/bin"
program igcsearch-gpu
igcsearch=$found
program build/gpu/gpu.test
gpu_test=$found
program build/gpu/trainer.test
trainer_test=$found

if begin devices 10; then
	date -u
	uname -a
	run devices 10 . "$igcsearch" devices # first, for the first program to use a GPU may wait for it for seconds
	run version 5 . "$igcsearch" version
	clocks
	for folder in /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib64 /usr/local/cuda/compat; do
		! grep -q '^ *cuda:0 ' "$log" || break
		[ -e $folder/libcuda.so.1 ] || continue
		# The driver lies where the system does not look for libraries.
		export LD_LIBRARY_PATH=$folder:${LD_LIBRARY_PATH:-}
		run "devices of $folder" 10 . "$igcsearch" devices
	done
fi

if begin tests 60; then
	alone 30 trainer/gpu "$gpu_test" . '*RealSizes*'
	alone 30 trainer "$trainer_test" GPU
fi

if begin bench 20; then
	run "$pairs_first" 20 . "$igcsearch" bench "${bench[@]}" --pairs "$pairs_first"
	clocks
fi

if begin ncu 60 && tool ncu; then
	ncu=$found well=$failed
	launches=$(sed -n 's/.*"L":40,"M":2,.*"launches":\([0-9]*\),.*/\1/p' "$rows" 2>/dev/null | tail -n 1)
	# The second step: all its kernels, each of them once. The first run leaves the caches as the kernel before left them,
	# and asks for little, so that few kernels are repeated for it; the second one empties them.
	step=(--clock-control none --launch-skip "${launches:-47}" --launch-count "${launches:-47}" --kill yes --csv --page raw
		--print-units base)
	training=("$igcsearch" bench --device cuda:0 --pairs 40x2 --steps 1)
	run "time, issue rate, DRAM bytes, L2 hits" 30 . "$ncu" "${step[@]}" --log-file "$out/ncu.csv" --cache-control none \
		--metrics gpu__time_duration.sum,smsp__issue_active.avg.pct_of_peak_sustained_active,dram__bytes_read.sum,dram__bytes_write.sum,lts__t_sector_hit_rate.pct,sm__warps_active.avg.pct_of_peak_sustained_active \
		"${training[@]}"
	tail -n 3 "$out/ncu.csv" | cut -c 1-400 >&3
	if grep -q ERR_NVGPUCTRPERM "$out/ncu.csv"; then
		skip "why warps wait" "the driver does not permit to count"
	else
		run "why warps wait" 30 . "$ncu" "${step[@]}" --log-file "$out/stalls.csv" --section SpeedOfLight --section WarpStateStats \
			--section SchedulerStats --section MemoryWorkloadAnalysis --section Occupancy --section LaunchStats "${training[@]}"
	fi
	failed=$well # ncu ends the program that it counts, and nothing is wrong where it may not count
fi

if begin sanitizer 60 && tool compute-sanitizer; then
	for check in memcheck racecheck initcheck; do
		run "$check" 20 trainer/gpu "$found" --tool $check --error-exitcode 9 --print-limit 20 \
			"$gpu_test" -test.v -test.run '^TestTenStepsAgreeWithPyTorch$'
	done
fi

if begin sizes 30; then
	alone 30 trainer/gpu "$gpu_test" RealSizes '' $size
fi

if begin peer 90 && peer "$pairs_peer"; then
	run "$pairs_peer" 90 . "$igcsearch" bench "${bench[@]}" --pairs "$pairs_peer" --peer "$PEER --ways graph,eager" --peer-limit 28s
fi

if begin fig3a 70; then
	run "$pairs_rest" 70 . "$igcsearch" bench "${bench[@]}" --pairs "$pairs_rest"
fi

if begin tf32 15; then
	if [ -n "$pairs_tf32" ]; then
		run "$pairs_tf32" 15 . "$igcsearch" bench "${bench[@]}" --pairs "$pairs_tf32" --precision tf32
	else
		skip tf32 "the emulated GPU is too slow for networks that use matrix units"
	fi
fi

if begin compiled 120 && peer "$pairs_one"; then
	run "$pairs_one" 120 . "$igcsearch" bench "${bench[@]}" --pairs "$pairs_one" --peer "$PEER --ways compile" --peer-limit 110s
fi

if begin study 90; then
	data=${IGCSEARCH_DATA:-}
	if [ -z "$data" ]; then
		data=$work/noise
		noise "$data"
	fi
	db=$work/verify.db
	rm -f "$db"*
	read -ra settings <<<"$STUDY"
	part_end=$((part_end - 8)) # for the export: the epochs of a training that is stopped are in the database, not in OUTDIR
	run training 80 . "$igcsearch" run fig3a-short "${settings[@]}" --data "$data" --device cuda --db "$db" --no-figure
	part_end=$((part_end + 8))
	run export 10 . "$igcsearch" export fig3a-short --db "$db" --format csv --epochs --output "$out/study.csv"
fi

if begin more 120; then
	run fig3b 60 . "$igcsearch" bench "${bench[@]}" --pairs fig3b
	run networks 60 . "$igcsearch" bench "${bench[@]}" --systems IGC-L24M2-D20,RegConv-W18-D20,IGC-L24M2+Ident.-D20,IGCV2-M1K5K6K6-D8,IGCV3-W32R6G2-D8,RegNetX-W48G4-D8 --steps 20
fi

part=end
if [ $failed != 0 ]; then
	record "something failed" $SECONDS 1 "something failed: $log says what"
else
	record "nothing failed" $SECONDS 0 "nothing failed, and $skipped commands were skipped"
fi
cat "$parts" >&3
exit $failed
