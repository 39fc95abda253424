package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"igcsearch/plots"
)

func saying(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// check fails unless a file has this text and these permissions, in a folder with so many entries.
func check(t *testing.T, path, want string, mode fs.FileMode, entries int) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
		t.Errorf("%s: got the mode %v, %v, want %v", path, info.Mode(), err, mode)
	}
	if list, _ := os.ReadDir(filepath.Dir(path)); len(list) != entries {
		t.Errorf("the folder has %v, want %d entries", list, entries)
	}
}

// setUmask sets the permissions that a new file does not get, for the time of a test that is not parallel.
func setUmask(t *testing.T, mask int) {
	before := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(before) })
}

func TestWriteFile(t *testing.T) {
	setUmask(t, 0o027)
	path := filepath.Join(t.TempDir(), "f.csv")
	t.Run("a new file has the permissions that the umask leaves", func(t *testing.T) {
		if err := writeFile(path, saying("one")); err != nil {
			t.Fatal(err)
		}
		check(t, path, "one", 0o640, 1)
	})
	t.Run("an old file keeps its permissions", func(t *testing.T) {
		for _, mode := range []fs.FileMode{0o600, 0o666, 0o444} {
			if err := errors.Join(os.Chmod(path, mode), writeFile(path, saying("two"))); err != nil {
				t.Fatal(err)
			}
			check(t, path, "two", mode, 1)
		}
	})
	t.Run("an error leaves the old file, and nothing else", func(t *testing.T) {
		broken := errors.New("broken")
		err := writeFile(path, func(w io.Writer) error { return errors.Join(saying("half")(w), broken) })
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		check(t, path, "two", 0o444, 1)
	})
	t.Run("an error names the file, not the temporary one", func(t *testing.T) {
		missing := filepath.Join(t.TempDir(), "no", "f.csv")
		err := writeFile(missing, saying(""))
		if !errors.Is(err, fs.ErrNotExist) || err.Error() != "write "+missing+": no such file or directory" {
			t.Errorf("got %v", err)
		}
	})
}

func TestWriteFileElsewhere(t *testing.T) {
	setUmask(t, 0o027)
	t.Run("a symbolic link stays, and the file that it points to is written", func(t *testing.T) {
		dir := t.TempDir()
		link, target := filepath.Join(dir, "link"), filepath.Join(dir, "sub", "target")
		if err := errors.Join(os.Mkdir(filepath.Dir(target), 0o755), os.Symlink("sub/target", link)); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"a link to nothing", "a link to a file"} {
			if err := writeFile(link, saying(want)); err != nil {
				t.Fatal(err)
			}
			check(t, target, want, 0o640, 1)
			if to, err := os.Readlink(link); err != nil || to != "sub/target" {
				t.Errorf("the link is %q, %v", to, err)
			}
		}
	})
	t.Run("links that go round are an error", func(t *testing.T) {
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(link, link); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(link, saying("")); err == nil || !strings.Contains(err.Error(), link) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a pipe is written, and stays", func(t *testing.T) {
		pipe := filepath.Join(t.TempDir(), "pipe")
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		if err := writeFile(pipe, saying("through")); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(reader); err != nil || string(got) != "through" {
			t.Errorf("got %q, %v", got, err)
		}
		if info, err := os.Stat(pipe); err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
			t.Errorf("the pipe is gone: %v", err)
		}
	})
	t.Run("a pipe that nobody reads is an error at once", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "pipe")
		if err := syscall.Mkfifo(path, 0o666); err != nil {
			t.Fatal(err)
		}
		err := writeFile(path, func(io.Writer) error { return nil })
		if want := "write " + path + ": no process reads this pipe: start one first"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

func TestCheckOutput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, pipe := filepath.Join(dir, "f.csv"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(path, []byte("old"), 0o640), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{"", path, filepath.Join(dir, "new.csv"), pipe, "/dev/null"} {
		if err := checkOutput("--output", good, filepath.Join(dir, "no.db")); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	check(t, path, "old", 0o640, 2)
	later := filepath.Join(dir, "new.pdf") // a database that is not there yet
	if err := checkOutput("--figure", later, filepath.Join(dir, "pipe", "..", "new.pdf")); err == nil ||
		!strings.Contains(err.Error(), "is the database") {
		t.Errorf("got %v", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for bad, want := range map[string]string{
		dir:                               "is a folder",
		link:                              "is the database",
		filepath.Join(dir, "no", "f.csv"): "create the folder",
		filepath.Join(path, "f.csv"):      "not a directory",
		filepath.Join(dir, strings.Repeat("a", 250)): "file name too long",
	} {
		if err := checkOutput("--output", bad, path); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "--output") {
			t.Errorf("%s: got %v, want %s", bad, err, want)
		}
	}
}

// TestWriteFigure: a figure and its table are written in the same way.
func TestWriteFigure(t *testing.T) {
	t.Parallel()
	points := []plots.Point{{L: 40, M: 2, Accuracies: []float64{63.5, 64.1}}}
	good := plots.AccuracyVsM{Series: []plots.Series{{Points: points}}}
	for _, format := range plots.Formats() {
		t.Run("writes ."+format+" whatever its case, and keeps 0600", func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f."+strings.ToUpper(format))
			var want strings.Builder
			err := errors.Join(os.WriteFile(path, nil, 0o600), writeFigure(path, good, plots.Options{}),
				plots.Encode(&want, format, good, plots.Options{Data: "f.dat"}))
			if err != nil {
				t.Fatal(err)
			}
			files := 1
			if format == "tikz" {
				files = 2 // with its numbers
			}
			check(t, path, want.String(), 0o600, files)
		})
	}
	for _, name := range []string{"figure", "figure.gif", "figure.", "pdf"} {
		t.Run(name+" is refused with the known extensions", func(t *testing.T) {
			err := writeFigure(filepath.Join(t.TempDir(), name), good, plots.Options{})
			for _, want := range []string{".pdf, .svg, .png, .eps, .tex, .pgf, .tikz, .dat, .csv", name} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
		})
	}
	t.Run("an error leaves the old figure", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f.pdf")
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := writeFigure(path, plots.AccuracyVsM{}, plots.Options{})
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("got %v", err)
		}
		check(t, path, "old", 0o600, 1)
	})
}
