package regular_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"igcsearch/search/regular"
)

const most = 1000

// TestRead puts into a folder what others may put there. Each read ends at once.
func TestRead(t *testing.T) {
	t.Chdir(t.TempDir()) // the path of a socket is short
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile("file", []byte("text"), 0o666))
	must(os.WriteFile("empty", nil, 0o666))
	must(os.WriteFile("full", make([]byte, most), 0o666))
	must(os.WriteFile("large", make([]byte, most+1), 0o666))
	must(os.WriteFile("line\nbreak", []byte("text"), 0o666))
	must(os.WriteFile("hole", nil, 0o666))
	must(os.Truncate("hole", 1<<40))
	must(os.Mkdir("folder", 0o777))
	must(syscall.Mkfifo("pipe", 0o666))
	l, err := net.Listen("unix", "socket")
	must(err)
	t.Cleanup(func() { l.Close() })
	must(os.Symlink("/dev/zero", "zero"))
	must(os.Symlink("loop", "loop"))
	must(os.Symlink("nothing", "dangling"))
	must(os.Symlink("file", "link"))
	must(os.Symlink("pipe", "to pipe"))
	for _, c := range []struct {
		name         string
		want         error // of Read
		wantUnlinked error
		text         string
	}{
		{"file", nil, nil, "text"},
		{"empty", nil, nil, ""},
		{"full", nil, nil, string(make([]byte, most))},
		{"line\nbreak", nil, nil, "text"},
		{"link", nil, regular.ErrKind, "text"},
		{"large", regular.ErrLarge, regular.ErrLarge, ""},
		{"hole", regular.ErrLarge, regular.ErrLarge, ""},
		{"folder", regular.ErrKind, regular.ErrKind, ""},
		{"pipe", regular.ErrKind, regular.ErrKind, ""},
		{"to pipe", regular.ErrKind, regular.ErrKind, ""},
		{"socket", regular.ErrKind, regular.ErrKind, ""},
		{"zero", regular.ErrKind, regular.ErrKind, ""},
		{"loop", syscall.ELOOP, regular.ErrKind, ""},
		{"dangling", fs.ErrNotExist, regular.ErrKind, ""},
		{"nothing", fs.ErrNotExist, fs.ErrNotExist, ""},
	} {
		for name, read := range map[string]func(string, int64) ([]byte, error){
			"Read": regular.Read, "ReadUnlinked": regular.ReadUnlinked,
		} {
			want := c.want
			if name == "ReadUnlinked" {
				want = c.wantUnlinked
			}
			text, err := read(c.name, most)
			if !errors.Is(err, want) || err == nil && string(text) != c.text {
				t.Errorf("%s of %q: %d bytes, %v; want %v", name, c.name, len(text), err, want)
			}
			if err != nil && !strings.Contains(err.Error(), c.name) {
				t.Errorf("%s of %q: the error does not name it: %v", name, c.name, err)
			}
		}
	}
	if text, err := regular.Read("/proc/self/status", 1<<20); err != nil || len(text) == 0 {
		t.Errorf("a file whose size is said to be 0: %d bytes, %v", len(text), err)
	}
	if _, err := regular.ReadGiven("/dev/zero", most); !errors.Is(err, regular.ErrLarge) {
		t.Errorf("/dev/zero: %v", err)
	}
	r, w, err := os.Pipe()
	must(err)
	defer r.Close()
	if _, err := w.WriteString("through a pipe"); err != nil {
		t.Fatal(err)
	}
	must(w.Close())
	given, err := regular.ReadGiven(fmt.Sprintf("/dev/fd/%d", r.Fd()), most)
	if err != nil || string(given) != "through a pipe" {
		t.Errorf("%q, %v", given, err)
	}
	f, err := regular.Open(filepath.Join(".", "link"))
	must(err)
	must(f.Close())
}
