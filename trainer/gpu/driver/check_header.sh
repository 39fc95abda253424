#!/bin/sh
# usage: check_header.sh TOOLKIT_INCLUDE [LIBCUDA]
#
# Compares include/cuda.h with NVIDIA's in the folder TOOLKIT_INCLUDE: every constant, every structure's size, offsets
# and sizes of fields, the symbol and the signature of every function; and, where LIBCUDA (a driver or the toolkit's
# stub of one) is given, that it has all the symbols. kernels/toolkit.sh fetches 11.8, for which this holds to the
# letter. Silent but for a count if all is well.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] && [ -e "$1/cuda.h" ] || { echo "usage: $0 TOOLKIT_INCLUDE [LIBCUDA]" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ours=$here/include/cuda.h
sed 's|/\*.*\*/||' "$ours" > "$work/plain"
{ # the facts are printed by the same program built with either header
	echo '#include <cuda.h>'
	echo '#include <stdio.h>'
	echo '#define TEXT(x) TEXT_(x)'
	echo '#define TEXT_(x) #x'
	echo 'int main(void) {'
	grep -oE '\bCU[A-Z0-9a-z_]+ = [0-9]+|^#define CU[A-Z_]+ [0-9]+' "$work/plain" | sed 's/#define //' | awk '{
		print "printf(\"" $1 " %lld\\n\", (long long)" $1 ");" }'
	tr '\n\t' '  ' < "$work/plain" | grep -oE 'typedef (struct [A-Za-z0-9_]+ \{[^}]*\}|[a-z ]+) [A-Za-z0-9_]+;' | awk '{
		name = $NF; sub(/;/, "", name)
		print "printf(\"" name " %zu\\n\", sizeof(" name "));"
		if ($2 != "struct") next
		sub(/^[^{]*\{/, ""); sub(/\}.*/, "")
		n = split($0, fields, /[;,]/)
		for (i = 1; i <= n; i++) {
			sub(/\[.*/, "", fields[i])
			k = split(fields[i], words, /[ *]+/)
			f = words[k]; if (f == "") continue
			of = name "." f
			print "printf(\"" of " %zu %zu\\n\", offsetof(" name ", " f "), sizeof(((" name " *)0)->" f "));" } }'
	grep -oE '^CUresult \w+\(' "$work/plain" | tr -d '(' | awk '{ print "puts(\"" $2 " \" TEXT(" $2 "));" }'
	echo '}'
} > "$work/facts.c"
for header in ours theirs; do
	if [ $header = ours ]; then folder=$here/include; else folder=$1; fi
	cc -w -I"$folder" -include stddef.h "$work/facts.c" -o "$work/$header.bin"
	"$work/$header.bin" > "$work/$header"
done
diff "$work/ours" "$work/theirs" || { echo "cuda.h: differs from $1/cuda.h (>)"; exit 1; }

# A second declaration must agree with the first; theirs is seen first and does the renaming of both.
{ echo '#include <cuda.h>'; sed -n '/^CUresult/,/;/p' "$work/plain"; } > "$work/signatures.c"
cc -fsyntax-only -I"$1" "$work/signatures.c"

if [ $# -ge 2 ]; then
	nm -D --defined-only "$2" | awk '{ print $NF }' | sed 's/@.*//' | sort > "$work/has"
	awk '/^cu/ { print $2 }' "$work/ours" | sort | comm -23 - "$work/has" > "$work/lacks"
	[ ! -s "$work/lacks" ] || { echo "$2 lacks: $(tr '\n' ' ' < "$work/lacks")"; exit 1; }
fi
echo "cuda.h: $(wc -l < "$work/ours") facts agree"
