package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDataCheck: check says of files what their checksums tell: pickles that were written again have the official pictures,
// but are not the official files.
func TestDataCheck(t *testing.T) {
	t.Parallel()
	if got, want := compared(nil), "by their checksums all pictures and labels are those of the official files"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	dir := t.TempDir() // files of zeros, in the official sizes
	for name, records := range map[string]int64{"train.bin": 50000, "test.bin": 10000} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, records*(2+3072)); err != nil {
			t.Fatal(err)
		}
	}
	var names strings.Builder
	for i := range 100 {
		names.WriteString("class" + string(rune('0'+i/10)) + string(rune('0'+i%10)) + "\n")
	}
	if err := os.WriteFile(filepath.Join(dir, "fine_label_names.txt"), []byte(names.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"data", "check", "cifar100", "--data", dir}, &stdout, &stderr)
	const want = "cifar100: 100 classes, 50000 training and 10000 test pictures; the checksums of these files are not the " +
		"official ones: train.bin, test.bin\n"
	if code != exitOK || stdout.String() != want {
		t.Errorf("exit code %d: %s%s, want %s", code, stdout.String(), stderr.String(), want)
	}
}
