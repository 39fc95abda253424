package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const smallStudy = `name = "tiny"
dataset = "synthetic"
train_pictures = 64
validation = 20
test_pictures = 50
pairs = ["3x2", "2x3"]
blocks = 1
seeds = 2
epochs = 3
batch = 16
`

// trained trains a small study in process and returns the study file and the database.
func trained(t *testing.T) (study, db string) {
	t.Helper()
	dir := t.TempDir()
	study, db = filepath.Join(dir, "tiny.toml"), filepath.Join(dir, "tiny.db")
	if err := os.WriteFile(study, []byte(smallStudy), 0o666); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"run", study, "--db", db, "--no-figure"}, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	return study, db
}

// full is an output on a full disk.
type full struct{}

func (full) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}
}

func TestFullOutput(t *testing.T) {
	t.Parallel()
	study, db := trained(t)
	for _, args := range []string{
		"version", "--help", "help run", "completion bash", "studies", "space --budget 4672", "model IGC-L40M2",
		"devices", "run " + study + " --no-figure", "run " + study + " --dry-run", "status tiny", "analyze tiny",
		"export tiny", "export tiny --format json --epochs", "doctor", "replay tiny", "retry tiny",
		"verify tiny --pair 3x2", "paper table1",
	} {
		t.Run(args+" fails if its output cannot be written", func(t *testing.T) {
			t.Parallel()
			line := strings.Fields(args)
			if strings.Contains(args, "tiny") || args == "doctor" {
				line = append(line, "--db", db)
			}
			var stderr bytes.Buffer
			code := run(t.Context(), line, full{}, &stderr)
			last := stderr.String()[strings.LastIndexByte(strings.TrimSpace(stderr.String()), '\n')+1:]
			const want = "igcsearch: not all of the output could be written: write /dev/stdout: no space left on device\n"
			if code != exitFailure || last != want {
				t.Errorf("exit code %d, stderr %q; want %d and %q", code, stderr.String(), exitFailure, want)
			}
		})
	}
}
