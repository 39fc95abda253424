package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// folder has the disassembly of testdata and the given limits.
func folder(t *testing.T, limits string) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	files := map[string]string{
		"limits.txt":            limits,
		"scale.sm_90.resources": "scale sm_90 129 8\nstraight sm_90 33 0\nstraight sm_80 32 0\n",
		"scale.sm_80.resources": "scale sm_80 24 0\n",
	}
	for _, name := range []string{"scale.sm_80.sass", "scale.sm_90.sass"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir, filepath.Join(dir, "limits.txt")
}

// TestRoundsOfLoads: a round ends at the first instruction that needs a register of
// it, also the second one of a wide load; the hot loop has most multiply–adds and no
// loop in it. On sm_90 it begins with an instruction that nvdisasm does not know.
func TestRoundsOfLoads(t *testing.T) {
	dir, _ := folder(t, "")
	all, err := readFigures(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := figures{registers: 129, spilled: 8,
		loop: part{instructions: 9, fma: 2, loads: 4, rounds: 2},
		all:  part{instructions: 24, fma: 2, loads: 7, rounds: 5}}
	got := all[build{"scale", "sm_90"}]
	if got != want {
		t.Errorf("scale on sm_90: %+v, want %+v", got, want)
	}
	want.registers, want.spilled = 24, 0
	if got = all[build{"scale", "sm_80"}]; got != want {
		t.Errorf("scale on sm_80: %+v, want %+v", got, want)
	}
	// An address that was loaded is waited for.
	got = all[build{"straight", "sm_80"}]
	if want := (figures{registers: 32, all: part{instructions: 4, loads: 2, rounds: 2}}); got != want {
		t.Errorf("straight: %+v, want %+v", got, want)
	}
}

func TestTableHasALineForEachKernel(t *testing.T) {
	dir, limits := folder(t, "* - - - -")
	var out bytes.Buffer
	if beyond, err := run(&out, limits, dir); err != nil || len(beyond) > 0 {
		t.Fatal(beyond, err)
	}
	_, table, _ := strings.Cut(out.String(), "# kernel")
	lines := strings.Split(strings.TrimSpace(table), "\n")[1:]
	want := []string{
		"scale                        24     0    64    9  22    4/2     7/5 |  129     8    12    9  22    4/2     7/5",
		"straight                     32     0    64    -   -      -     2/2 |   33     0    48    -   -      -     2/2",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// TestWarpsOfAnSM: by NVIDIA's table of occupancy.
func TestWarpsOfAnSM(t *testing.T) {
	for registers, want := range map[int]int{16: 64, 32: 64, 33: 48, 40: 48, 41: 40, 48: 40, 64: 32, 65: 28, 80: 24, 81: 20,
		96: 20, 97: 16, 128: 16, 129: 12, 255: 8} {
		if got := (figures{registers: registers}).warps(); got != want {
			t.Errorf("%d registers: %d warps, want %d", registers, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		limits string
		beyond []string // words of each line
		err    string
	}{
		{"* 2 5 129 8", nil, ""},
		{"sca* 1 5 129 8 # and a comment\n\n* - 1 - -", []string{
			"scale on sm_80 has 2 rounds of loads in the hot loop, its limit is 1 (sca*)",
			"scale on sm_90 has 2 rounds of loads in the hot loop, its limit is 1 (sca*)",
			"straight on sm_80 has 2 rounds of loads in all, its limit is 1 (*)",
			"straight on sm_90 has 2 rounds of loads in all, its limit is 1 (*)"}, ""},
		{"* - - 128 0", []string{
			"scale on sm_90 has 129 registers, its limit is 128 (*)",
			"scale on sm_90 has 8 spilled bytes, its limit is 0 (*)"}, ""},
		{"scale - - - -", nil, "no line of the limits is for straight: add one"},
		{"* - - - -\nother - - - -", nil, "the limits of other are for no kernel: remove the line"},
		{"* 1 2 3", nil, "a line has a pattern and four limits"},
		{"* 1 2 3 many", nil, `"many" is neither a number nor -`},
	} {
		dir, limits := folder(t, c.limits)
		beyond, err := run(&bytes.Buffer{}, limits, dir)
		if !slices.Equal(beyond, c.beyond) {
			t.Errorf("%q: %q, want %q", c.limits, beyond, c.beyond)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: error %v, want %q", c.limits, err, c.err)
		}
	}
}

func TestMissingFilesAreErrors(t *testing.T) {
	for name, want := range map[string]string{
		"scale.sm_90.sass":      "no disassembly of",
		"scale.sm_90.resources": "no registers of",
		"scale.sm_80.resources": "no registers of scale on sm_80",
	} {
		dir, limits := folder(t, "* - - - -")
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := run(&bytes.Buffer{}, limits, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: %v, want %q", name, err, want)
		}
	}
}

// TestBranchesAreReadAsLabelled: code of a device whose encoding is another is an error.
func TestBranchesAreReadAsLabelled(t *testing.T) {
	text, err := os.ReadFile("testdata/scale.sm_80.sass")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(bytes.NewReader(text)); err != nil {
		t.Error(err)
	}
	other := strings.Replace(string(text), "SM80", "SM90", 1)
	if _, err := parse(strings.NewReader(other)); err == nil || !strings.Contains(err.Error(), "by its encoding") {
		t.Errorf("the encoding of sm_80 as sm_90: %v", err)
	}
}
