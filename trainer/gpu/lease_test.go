package gpu

import (
	"compress/gzip"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The programs that verify.sh runs, as scripts. Each line that they print is counted in
// $TRUTH; after line $KILL_AT they kill verify.sh, by $SIGNAL if that is set.
const verifyPrograms = `#!/bin/bash
name=${0##*/}
measured() { # a line, and the file that it is for; without one it is printed
	if [ -n "${2:-}" ]; then echo "$1" >>"$2"; else echo "$1"; fi
	echo "$1" >>"$TRUTH"
	[ "$(wc -l <"$TRUTH")" = "${KILL_AT:-}" ] || return 0
	trap 'echo interrupted >"$TRUTH.interrupted"; exit' INT
	kill "-${SIGNAL:-KILL}" "$SCRIPT"
	[ "${SIGNAL:-KILL}" = KILL ] || while :; do sleep 1; done
	exit
}
file= test=
arguments=("$@")
while [ $# -gt 0 ]; do
	case $1 in --output | --log-file) file=$2 ;; -test.run) test=$2 ;; esac
	shift
done
set -- "${arguments[@]}"
case "$name $1" in
*.test\ -test.list)
	[ "$name $2" = "trainer.test GPU" ] && echo TestGPUTrace && exit
	for test in TestFaults TestSameBits TestBitsAtRealSizes; do [[ $test =~ $2 ]] && echo $test; done
	;;
*.test\ *)
	measured "=== RUN $test"
	[ "$test" != '^TestFaults$' ] || exit 2
	measured "--- PASS $test"
	;;
igcsearch-gpu\ bench)
	for pair in first second; do
		measured "{\"step_s\":1,\"row\":\"$pair $*\"}" "$file"
		measured "row $pair $*"
	done
	;;
ncu\ *)
	measured "\"1\",\"kernel\",\"$*\"" "$file"
	;;
compute-sanitizer\ *)
	measured "$name $2"
	;;
igcsearch-gpu\ export)
	measured "epoch 1" "$file"
	;;
*)
	measured "$name $*"
	;;
esac
`

// lease is a machine without Go to which the script and the programs were carried.
type lease struct {
	tree, out, truth string
	env              []string
}

func newLease(t *testing.T) lease {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	l := lease{tree: filepath.Join(dir, "tree"), out: filepath.Join(dir, "out"), truth: filepath.Join(dir, "truth")}
	write := func(path string, content []byte) {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	script, err := os.ReadFile("verify.sh")
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(l.tree, "trainer/gpu/verify.sh"), script)
	for _, name := range []string{"igcsearch-gpu", "build/gpu/gpu.test", "build/gpu/trainer.test"} {
		l.carry(t, name, []byte(verifyPrograms))
	}
	tools := filepath.Join(dir, "tools")
	for _, name := range []string{"ncu", "compute-sanitizer", "nvidia-smi"} {
		write(filepath.Join(tools, name), []byte(verifyPrograms))
	}
	write(l.truth, nil)
	l.env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"), "OUT="+l.out, "TRUTH="+l.truth, "BUILD=no",
		"PEER=nothing", "IGCSEARCH_DATA="+dir, "PARTS=")
	return l
}

// carry puts a program into the tree as .gz.
func (l lease) carry(t *testing.T, name string, program []byte) {
	t.Helper()
	path := filepath.Join(l.tree, name+".gz")
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err == nil {
		_, err = z.Write(program)
	}
	if err = errors.Join(err, z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// verify runs the script and returns its exit code, -1 if it was killed, and what it printed.
func (l lease) verify(t *testing.T, env ...string) (code int, printed string) {
	t.Helper()
	// The script keeps the process of this shell.
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "SCRIPT=$$ exec bash trainer/gpu/verify.sh")
	cmd.Dir, cmd.Env = l.tree, append(slices.Clone(l.env), env...)
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// results are the lines of all files in OUT.
func (l lease) results(t *testing.T) (lines []string, files int) {
	t.Helper()
	list, err := os.ReadDir(l.out)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		content, err := os.ReadFile(filepath.Join(l.out, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(string(content), "\n")...)
	}
	return lines, len(list)
}

func (l lease) measured(t *testing.T) []string {
	t.Helper()
	content, err := os.ReadFile(l.truth)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(content)), "\n")
}

func wantLines(t *testing.T, text string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)^` + p + `$`).MatchString(text) {
			t.Errorf("no line %s in\n%s", p, text)
		}
	}
}
