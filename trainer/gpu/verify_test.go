//go:build !gpu

package gpu

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"igcsearch/space"
	"igcsearch/trainer/dataset"
)

func TestVerifyRunsItsPartsInOrderAndGoesOnAfterAFault(t *testing.T) {
	l := newLease(t)
	code, printed := l.verify(t)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	lines, files := l.results(t)
	if files > 8 {
		t.Errorf("%d files in OUT, want a handful", files)
	}
	var order []string
	for _, line := range lines {
		if cells := strings.Split(line, "\t"); len(cells) == 5 {
			order = append(order, cells[0]+" "+cells[1]+" "+cells[3])
			if !strings.Contains(printed, line) {
				t.Errorf("%q was not printed", line)
			}
		}
	}
	want := []string{"devices devices 0", "devices version 0", "devices clocks 0", "tests TestFaults 2",
		"tests TestSameBits 0", "tests TestGPUTrace 0", "bench 40x2,5x10 0", "bench clocks 0", "ncu time, issue rate, DRAM bytes, L2 hits 0",
		"ncu why warps wait 0", "sanitizer memcheck 0", "sanitizer racecheck 0", "sanitizer initcheck 0",
		"sizes TestBitsAtRealSizes 0", "peer 40x2,5x10,1x23 0", "fig3a 64x1,28x3,12x6,6x9,3x13,2x16 0", "tf32 40x2,64x1 0",
		"compiled 40x2 0", "study training 0", "study export 0", "more fig3b 0", "more networks 0", "end something failed 1"}
	if !slices.Equal(order, want) {
		t.Errorf("parts.tsv has\n%s\nwant\n%s", strings.Join(order, "\n"), strings.Join(want, "\n"))
	}
	for _, line := range l.measured(t) {
		if !slices.Contains(lines, line) {
			t.Errorf("%q is lost", line)
		}
	}
}

// TestVerifyLosesNothingWhenItIsKilled: after each line in turn that a program prints.
func TestVerifyLosesNothingWhenItIsKilled(t *testing.T) {
	whole := newLease(t)
	whole.verify(t)
	all := whole.measured(t)
	for at := 1; at <= len(all); at++ {
		if testing.Short() && at%7 != 0 {
			continue
		}
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			l := newLease(t)
			if code, printed := l.verify(t, fmt.Sprint("KILL_AT=", at)); code != -1 {
				t.Fatalf("it was not killed: exit code %d\n%s", code, printed)
			}
			measured := l.measured(t)
			if len(measured) != at {
				t.Errorf("%d lines, want %d", len(measured), at)
			}
			lines, _ := l.results(t)
			for _, line := range measured {
				if !slices.Contains(lines, line) {
					t.Errorf("%q is lost", line)
				}
			}
		})
	}
}

func TestVerifyGoesOnAfterWhatHangs(t *testing.T) {
	l := newLease(t)
	// This one ends what hangs at once.
	timeout := filepath.Join(filepath.Dir(l.truth), "tools", "timeout")
	script := `#!/bin/sh
[ "$1 $2 $3 $4" = "-s INT -k 5" ] || exit 99
limit=$5
shift 5
case "$*" in *40x2,5x10*) exit 124 ;; esac
exec "$@"
`
	if err := os.WriteFile(timeout, []byte(script), 0o777); err != nil {
		t.Fatal(err)
	}
	if code, _ := l.verify(t, "PARTS=bench fig3a peer"); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	lines, _ := l.results(t)
	wantLines(t, strings.Join(lines, "\n"), `bench\t40x2,5x10\t\d+\t124\tstopped after (19|20) s`,
		`peer\t40x2,5x10,1x23\t\d+\t124\tstopped after [89]\d s`, `fig3a\t64x1,28x3,12x6,6x9,3x13,2x16\t\d+\t0\t`)
}

// TestVerifyLeavesTimeToExportTheStudy: a training that is stopped has its epochs in a database
// that is not in OUT.
func TestVerifyLeavesTimeToExportTheStudy(t *testing.T) {
	l := newLease(t)
	l.verify(t, "PARTS=study", "LIMIT=40")
	lines, _ := l.results(t)
	wantLines(t, strings.Join(lines, "\n"), `-- study: training \(at \d+ s, at most (2\d|3[0-2]) s\): .*`,
		`-- study: export \(at \d+ s, at most (9|10) s\): .*`)
}

func TestVerifyEndsWhatRunsWhenItIsTerminated(t *testing.T) {
	l := newLease(t)
	code, printed := l.verify(t, "PARTS=bench", "KILL_AT=3", "SIGNAL=TERM")
	if code != 143 {
		t.Errorf("exit code %d, want 143\n%s", code, printed)
	}
	wantLines(t, printed, `-- bench: all: stopped by a signal`)
	if _, err := os.Stat(l.truth + ".interrupted"); err != nil {
		t.Errorf("the program that ran was not interrupted: %v", err)
	}
}

func TestVerifyGoesOnWithoutWhatIsMissing(t *testing.T) {
	l := newLease(t)
	if err := os.Remove(filepath.Join(l.tree, "build/gpu/gpu.test.gz")); err != nil {
		t.Fatal(err)
	}
	code, printed := l.verify(t, "PARTS=devices tests sizes peer", "PEER=")
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	wantLines(t, printed, "tests\t.\t0\t-\tskipped: there is no gpu.test: run `make gpu-tests` .*", `tests\tTestGPUTrace\t\d+\t0\t`,
		`peer\t40x2,5x10,1x23\t0\t-\tskipped: PEER is empty`)
	code, printed = l.verify(t, "PARTS=bench study", "LIMIT=0")
	if code != 0 {
		t.Errorf("exit code %d without time, want 0", code)
	}
	wantLines(t, printed, `bench\t40x2,5x10\t0\t-\tskipped: no time is left`,
		`study\ttraining\t0\t-\tskipped: no time is left`,
		`end\tnothing failed\t\d+\t0\tnothing failed, and 4 commands were skipped`)
}

func TestVerifyNamesNetworksThatThereAre(t *testing.T) {
	found := regexp.MustCompile(`--systems (\S+)`).FindStringSubmatch(read(t, "verify.sh"))
	if found == nil {
		t.Fatal("verify.sh has no --systems")
	}
	for _, name := range strings.Split(found[1], ",") {
		if _, err := space.ParseSystem(name); err != nil {
			t.Error(err)
		}
	}
}

// TestVerifysNoiseIsReadAsCIFAR: where there are no pictures, the study has others to read.
func TestVerifysNoiseIsReadAsCIFAR(t *testing.T) {
	l := newLease(t)
	if code, printed := l.verify(t, "PARTS=study", "IGCSEARCH_DATA="); code != 0 {
		t.Fatalf("exit code %d\n%s", code, printed)
	}
	set, err := dataset.Open(t.Context(), dataset.Options{Name: "cifar100",
		Dir: filepath.Join(l.tree, "build/verify/scratch/noise")})
	if err != nil {
		t.Fatal(err)
	}
	if set.Train.Len() != 50000 || set.Test.Len() != 10000 || slices.Max(set.Train.Labels) != 99 {
		t.Errorf("%d and %d pictures", set.Train.Len(), set.Test.Len())
	}
	distinct := map[string]bool{}
	for i := range 400 {
		distinct[string(set.Train.Pixels[i*3072:][:3072])] = true
	}
	if len(distinct) != 200 {
		t.Errorf("%d different pictures, want 200", len(distinct))
	}
}
