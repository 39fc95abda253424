package dataset_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"igcsearch/trainer/dataset"
)

// entry is one of an archive.
type entry struct {
	tar.Header
	body []byte
}

// entries returns the archive of a small set as the official one is made up:
// the folder, then its files.
func entries(f dataset.Format, files map[string][]byte) []entry {
	list := []entry{{Header: tar.Header{Name: f.Folder() + "/", Typeflag: tar.TypeDir, Mode: 0o755}}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, file(f.Folder()+"/"+name, files[name]))
	}
	return list
}

func file(name string, body []byte) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}, body}
}

func pack(t testing.TB, list []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, e := range list {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// server serves an archive and notes the Range header of each request.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	ranges []string
}

// serve starts a server; answer, if not nil, answers request number n itself
// and returns true, or leaves it to http.ServeContent, which knows ranges.
func serve(t *testing.T, archive []byte, answer func(w http.ResponseWriter, r *http.Request, n int) bool) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.ranges = append(s.ranges, r.Header.Get("Range"))
		n := len(s.ranges)
		s.mu.Unlock()
		if answer == nil || !answer(w, r, n) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(archive))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// breakAfter answers a request with the first n of the bytes that follow its
// range, and then breaks the connection.
func breakAfter(w http.ResponseWriter, r *http.Request, archive []byte, n int) {
	var from int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(archive)-1, len(archive)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(archive)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	w.Write(archive[from : from+n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func sumOf(b []byte) string {
	sum := md5.Sum(b)
	return hex.EncodeToString(sum[:])
}

// fixture is a small set, its archive, and where the tests download it to.
type fixture struct {
	f       dataset.Format
	archive []byte
	dir     string // does not exist yet
	part    string // the file that a broken download leaves
	notes   []string
	o       dataset.GetOptions
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	x := &fixture{f: dataset.Small("cifar10", 20, 30)}
	all := files(x.f, 20, 30)
	all["readme.html"] = []byte("<p>read me")
	x.archive = pack(t, entries(x.f, all))
	x.dir = filepath.Join(t.TempDir(), "data")
	x.part = filepath.Join(x.dir, "cifar-10-binary.tar.gz.part")
	x.o = dataset.GetOptions{Dir: x.dir, MD5: sumOf(x.archive), Pause: time.Millisecond,
		Note: func(line string) { x.notes = append(x.notes, line) }}
	return x
}

// get downloads from a server.
func (x *fixture) get(ctx context.Context, s *server) error {
	x.o.URL = s.URL + "/cifar.tar.gz"
	return x.f.Get(ctx, x.o)
}

// wantWhole checks that the set is there and nothing else is.
func (x *fixture) wantWhole(t *testing.T) {
	t.Helper()
	if _, err := x.f.Open(context.Background(), dataset.Options{Dir: x.dir}); err != nil {
		t.Error(err)
	}
	x.wantInDir(t, x.f.Folder())
}

// wantInDir checks the names in the data folder.
func (x *fixture) wantInDir(t *testing.T, want ...string) {
	t.Helper()
	list, err := os.ReadDir(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("the data folder has %q, want %q", got, want)
	}
}

func (s *server) wantRanges(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.ranges, want) {
		t.Errorf("the requests had the ranges %q, want %q", s.ranges, want)
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	ctx := context.Background()

	t.Run("the archive is downloaded, unpacked and tidied away, and a second call needs no server", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		s := serve(t, x.archive, nil)
		var done, total int64
		x.o.Progress = func(d, n int64) {
			if d < done {
				t.Errorf("the progress goes from %d back to %d", done, d)
			}
			done, total = d, n
		}
		if err := x.get(ctx, s); err != nil {
			t.Fatal(err)
		}
		x.wantWhole(t)
		if n := int64(len(x.archive)); done != n || total != n {
			t.Errorf("the progress ended at %d of %d, want %d", done, total, n)
		}
		if b, err := os.ReadFile(filepath.Join(x.dir, x.f.Folder(), "readme.html")); err != nil ||
			string(b) != "<p>read me" {
			t.Errorf("readme.html is %q, %v", b, err)
		}
		if info, err := os.Stat(filepath.Join(x.dir, x.f.Folder())); err != nil || info.Mode().Perm()&0o055 == 0 {
			t.Errorf("the folder is for its owner only: %v, %v", info.Mode(), err)
		}
		x.notes = nil
		if err := x.get(ctx, s); err != nil {
			t.Fatal(err)
		}
		s.wantRanges(t, "")
		if len(x.notes) != 1 || !strings.Contains(x.notes[0],
			"cifar10 is already in "+filepath.Join(x.dir, x.f.Folder())) {
			t.Errorf("the notes are %q", x.notes)
		}
	})

	t.Run("a connection that breaks goes on where it broke", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		s := serve(t, x.archive, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n <= 2 {
				breakAfter(w, r, x.archive, 1000)
			}
			return false
		})
		if err := x.get(ctx, s); err != nil {
			t.Fatal(err)
		}
		x.wantWhole(t)
		s.wantRanges(t, "", "bytes=1000-", "bytes=2000-")
	})

	t.Run("a connection that only breaks leaves what arrived, and the next call goes on", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		bad := serve(t, x.archive, func(w http.ResponseWriter, r *http.Request, n int) bool {
			breakAfter(w, r, x.archive, max(0, 3000-1000*n))
			return true
		})
		err := x.get(ctx, bad)
		wantError(t, err, "cifar10: ", "the connection broke", "3.0 kB are kept, try again")
		bad.wantRanges(t, "", "bytes=2000-", "bytes=3000-", "bytes=3000-", "bytes=3000-", "bytes=3000-", "bytes=3000-")
		for i, pause := range []string{"1ms", "2ms", "4ms", "8ms", "16ms", "32ms"} {
			if want := ", trying again in " + pause; i >= len(x.notes) || !strings.HasSuffix(x.notes[i], want) {
				t.Errorf("the notes are %q, want number %d to end with %q", x.notes, i, want)
			}
		}
		x.wantInDir(t, filepath.Base(x.part))
		if b, err := os.ReadFile(x.part); err != nil || !bytes.Equal(b, x.archive[:3000]) {
			t.Errorf("the kept part has %d bytes, want the first 3000: %v", len(b), err)
		}
		good := serve(t, x.archive, nil)
		if err := x.get(ctx, good); err != nil {
			t.Fatal(err)
		}
		x.wantWhole(t)
		good.wantRanges(t, "bytes=3000-")
	})
}

func TestGetContinues(t *testing.T) {
	t.Parallel()
	ctx := context.Background()

	t.Run("an interrupt keeps what arrived, and the next call goes on", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		ctx, cancel := context.WithCancel(ctx)
		slow := serve(t, x.archive, func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.Header().Set("Content-Length", fmt.Sprint(len(x.archive)))
			w.Write(x.archive[:5000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		})
		x.o.Progress = func(done, total int64) {
			if done == 5000 {
				cancel()
			}
		}
		if err := x.get(ctx, slow); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
		x.o.Progress = nil
		good := serve(t, x.archive, nil)
		if err := x.get(context.Background(), good); err != nil {
			t.Fatal(err)
		}
		x.wantWhole(t)
		good.wantRanges(t, "bytes=5000-")
	})

	t.Run("an interrupt ends a pause", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		x.o.Pause = time.Hour
		x.o.Note = func(line string) {
			if strings.Contains(line, "trying again in 30s") {
				cancel()
			}
		}
		s := serve(t, x.archive, func(w http.ResponseWriter, r *http.Request, n int) bool {
			breakAfter(w, r, x.archive, 1000)
			return true
		})
		if err := x.get(ctx, s); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		x.wantInDir(t, filepath.Base(x.part))
	})

	t.Run("a server that fails for a while after it has begun is asked again, and no other", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		s := serve(t, x.archive, func(w http.ResponseWriter, r *http.Request, n int) bool {
			switch n {
			case 1:
				breakAfter(w, r, x.archive, 1000)
			case 2:
				http.Error(w, "later", http.StatusServiceUnavailable)
			}
			return n <= 2
		})
		if err := x.get(ctx, s); err != nil {
			t.Fatal(err)
		}
		x.wantWhole(t)
		s.wantRanges(t, "", "bytes=1000-", "bytes=1000-")
	})

	t.Run("an archive that lies in the folder is unpacked without a server, and stays", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		write(t, x.dir, map[string][]byte{"cifar-10-binary.tar.gz": x.archive})
		_, err := x.f.Open(ctx, dataset.Options{Dir: x.dir})
		wantError(t, err, "found no ", filepath.Join(x.dir, "cifar-10-binary.tar.gz")+" is not unpacked")
		if e := (*dataset.MissingError)(nil); !errors.As(err, &e) || !e.Packed || e.Get != "cifar10" {
			t.Errorf("got %+v", e)
		}
		x.o.URL = "http://none.invalid/x"
		if err := x.f.Get(ctx, x.o); err != nil {
			t.Fatal(err)
		}
		if _, err := x.f.Open(ctx, dataset.Options{Dir: x.dir}); err != nil {
			t.Error(err)
		}
		x.wantInDir(t, "cifar-10-batches-bin", "cifar-10-binary.tar.gz")
	})

	t.Run("an archive in the folder with another checksum is refused", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		write(t, x.dir, map[string][]byte{"cifar-10-binary.tar.gz": x.archive[1:]})
		wantError(t, x.f.Get(ctx, x.o), "cifar-10-binary.tar.gz have the MD5 checksum ",
			"remove the damaged file and try again")
		x.wantInDir(t, "cifar-10-binary.tar.gz")
	})

	t.Run("a pipe in place of an archive is refused, not waited for", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"} {
			x := newFixture(t)
			write(t, x.dir, nil)
			if err := syscall.Mkfifo(filepath.Join(x.dir, name), 0o666); err != nil {
				t.Fatal(err)
			}
			wantError(t, x.f.Get(ctx, x.o), name, "it is no regular file")
		}
	})

	t.Run("an archive of the Python version is unpacked too, unless there is one of the binary version", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		var list []entry
		for name, b := range pythonFiles(x.f, files(x.f, 20, 30)) {
			list = append(list, file("cifar-10-batches-py/"+name, b))
		}
		archive := pack(t, list)
		x.f.PublishPython(sumOf(archive))
		write(t, x.dir, map[string][]byte{"cifar-10-python.tar.gz": archive})
		_, err := x.f.Open(ctx, dataset.Options{Dir: x.dir})
		wantError(t, err, "found no ", filepath.Join(x.dir, "cifar-10-python.tar.gz")+" is not unpacked")
		if e := (*dataset.MissingError)(nil); !errors.As(err, &e) || !e.Packed || e.Get != "cifar10" {
			t.Errorf("got %+v", e)
		}
		x.o.URL = "http://none.invalid/x"
		if err := x.f.Get(ctx, x.o); err != nil {
			t.Fatal(err)
		}
		if _, err := x.f.Open(ctx, dataset.Options{Dir: x.dir}); err != nil {
			t.Error(err)
		}
		x.wantInDir(t, "cifar-10-batches-py", "cifar-10-python.tar.gz")
		if err := x.f.Get(ctx, x.o); err != nil {
			t.Errorf("once more: %v", err)
		}
	})

	t.Run("a damaged archive of the Python version leaves nothing behind", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		all := pythonFiles(x.f, files(x.f, 20, 30))
		for name, change := range map[string]func(list []entry) []byte{
			"unexpected EOF": func(list []entry) []byte { b := pack(t, list); return b[:len(b)-100] },
			"the archive has no cifar-10-batches-py/test_batch": func(list []entry) []byte {
				return pack(t, slices.DeleteFunc(list, func(e entry) bool { return strings.HasSuffix(e.Name, "/test_batch") }))
			},
			"batches.meta: no such file": func(list []entry) []byte {
				return pack(t, slices.DeleteFunc(list, func(e entry) bool { return strings.HasSuffix(e.Name, ".meta") }))
			},
			`leads out of the folder, want cifar-10-batches-py/FILE`: func(list []entry) []byte {
				return pack(t, append(list, file("../../etc/passwd", nil)))
			},
			`has 2000000 bytes, want at most`: func(list []entry) []byte {
				return pack(t, append(list, file("cifar-10-batches-py/data_batch_1", make([]byte, 2_000_000))))
			},
			"byte 0: it has the instruction": func(list []entry) []byte {
				for i, e := range list {
					if strings.HasSuffix(e.Name, "/data_batch_2") {
						list[i] = file(e.Name, []byte("#!/bin/sh"))
					}
				}
				return pack(t, list)
			},
		} {
			var list []entry
			for _, name := range slices.Sorted(maps.Keys(all)) {
				list = append(list, file("cifar-10-batches-py/"+name, all[name]))
			}
			archive := change(list)
			x.f.PublishPython(sumOf(archive))
			write(t, x.dir, map[string][]byte{"cifar-10-python.tar.gz": archive})
			wantError(t, x.f.Get(ctx, x.o), name)
			x.wantInDir(t, "cifar-10-python.tar.gz")
		}
	})

	t.Run("versions of the set that cannot be read are named", func(t *testing.T) {
		t.Parallel()
		for name, what := range map[string]string{
			"cifar-10-batches-mat/data_batch_1.mat":        "MATLAB",
			"cifar-10-matlab.tar.gz":                       "MATLAB",
			"train-00000-of-00001.parquet":                 "HuggingFace's datasets (parquet)",
			"plain_text/train-00000-of-00001.parquet":      "HuggingFace's datasets (parquet)",
			"cifar10/train/0000.parquet":                   "HuggingFace's datasets (parquet)",
			"train/data-00000-of-00001.arrow":              "HuggingFace's datasets (arrow)",
			"cifar[10]/cifar10-train-00000-of-00001.arrow": "HuggingFace's datasets (arrow)",
		} {
			x := newFixture(t)
			dir := filepath.Join(x.dir, "a[b]*")
			at := filepath.Join(dir, name)
			write(t, filepath.Dir(at), map[string][]byte{filepath.Base(at): nil})
			_, err := x.f.Open(ctx, dataset.Options{Dir: dir})
			if what == "MATLAB" {
				at, _, _ = strings.Cut(at, "/data_batch_1.mat")
			}
			wantError(t, err, "cifar10: ",
				at+" is the version for "+what+", which cannot be read: the binary or the Python version is needed")
			wantMissing(t, err, "cifar10", "")
		}
	})

	t.Run("a server that stops sending counts as a broken connection", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		// The second connection has to send within this time, also on a busy machine.
		x.o.Stall = 2 * time.Second
		s := serve(t, x.archive, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				w.Header().Set("Content-Length", fmt.Sprint(len(x.archive)))
				w.Write(x.archive[:4000])
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
			return n == 1
		})
		if err := x.get(ctx, s); err != nil {
			t.Fatal(err)
		}
		x.wantWhole(t)
		s.wantRanges(t, "", "bytes=4000-")
		if !slices.ContainsFunc(x.notes, func(n string) bool { return strings.Contains(n, "sent nothing for 2s") }) {
			t.Errorf("the notes do not say why: %q", x.notes)
		}
	})

	t.Run("a server that ignores ranges sends everything anew", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		s := serve(t, x.archive, func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.Write(x.archive)
			return true
		})
		write(t, x.dir, map[string][]byte{filepath.Base(x.part): x.archive[:7000]})
		if err := x.get(ctx, s); err != nil {
			t.Fatal(err)
		}
		x.wantWhole(t)
		s.wantRanges(t, "bytes=7000-")
	})
}

func TestGetRefuses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()

	t.Run("a part that is longer than the server's file is thrown away", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		s := serve(t, x.archive, nil) // answers 416
		write(t, x.dir, map[string][]byte{filepath.Base(x.part): make([]byte, len(x.archive)+10)})
		if err := x.get(ctx, s); err != nil {
			t.Fatal(err)
		}
		x.wantWhole(t)
		s.wantRanges(t, fmt.Sprintf("bytes=%d-", len(x.archive)+10), "")
	})

	t.Run("a server that answers 416 to everything is an error", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		s := serve(t, x.archive, func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return true
		})
		write(t, x.dir, map[string][]byte{filepath.Base(x.part): []byte("old")})
		wantError(t, x.get(ctx, s), "416", "request for the whole file")
		s.wantRanges(t, "bytes=3-", "")
	})

	t.Run("a part that is whole is unpacked without a server", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		s := serve(t, x.archive, nil)
		write(t, x.dir, map[string][]byte{filepath.Base(x.part): x.archive})
		if err := x.get(ctx, s); err != nil {
			t.Fatal(err)
		}
		x.wantWhole(t)
		s.wantRanges(t)
	})

	t.Run("an archive with a wrong checksum is removed, and the error has both sums", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		bad := bytes.Clone(x.archive)
		bad[len(bad)/2] ^= 1
		s := serve(t, bad, nil)
		wantError(t, x.get(ctx, s), "cifar10: "+s.URL, sumOf(bad), "want "+sumOf(x.archive), "was removed, try again")
		x.wantInDir(t)
	})

	t.Run("a file that is not the size of the official archive is refused before it is loaded", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		x.o.MD5 = ""
		s := serve(t, []byte("<html>Please log in to this network"), nil)
		wantError(t, x.get(ctx, s), s.URL, "has 35 bytes, want 170052171")
	})

	t.Run("a server's error is reported with its address", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		s := serve(t, nil, func(w http.ResponseWriter, r *http.Request, n int) bool {
			http.NotFound(w, r)
			return true
		})
		var e *dataset.UnreachableError
		want := []dataset.Published{{"https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
			"c32a1d4ab5d03f1284b67883e8d87530", 170052171}}
		for _, text := range []string{s.URL + "/cifar.tar.gz: the server answered 404", "connection refused"} {
			err := x.get(ctx, s)
			wantError(t, err, "cifar10: ", text)
			if !errors.As(err, &e) || e.Folder != x.dir || !slices.Equal(e.Files, want) {
				t.Errorf("got %+v, want %v", e, want)
			}
			s.Close()
		}
		s.wantRanges(t, "")
	})
}

func TestGetErrors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()

	t.Run("a server that answers another range is refused and the part kept", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		for _, header := range []string{"bytes 0-9/10", "pages 1-2/3", ""} {
			s := serve(t, nil, func(w http.ResponseWriter, r *http.Request, n int) bool {
				w.Header().Set("Content-Range", header)
				w.WriteHeader(http.StatusPartialContent)
				return true
			})
			write(t, x.dir, map[string][]byte{filepath.Base(x.part): x.archive[:100]})
			wantError(t, x.get(ctx, s), "the server sent")
			if b, err := os.ReadFile(x.part); err != nil || len(b) != 100 {
				t.Errorf("the part has %d bytes, %v", len(b), err)
			}
		}
	})

	t.Run("two downloads at once into one folder are refused", func(t *testing.T) {
		t.Parallel()
		x, y := newFixture(t), newFixture(t)
		y.o.Dir = x.dir
		var second error
		s := serve(t, x.archive, func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				y.o.URL = x.o.URL
				second = y.f.Get(ctx, y.o)
			}
			return false
		})
		if err := x.get(ctx, s); err != nil {
			t.Fatal(err)
		}
		wantError(t, second, "lock "+x.part, "is another download running?")
		x.wantWhole(t)
	})

	t.Run("damaged files are not overwritten", func(t *testing.T) {
		t.Parallel()
		x := newFixture(t)
		s := serve(t, x.archive, nil)
		write(t, filepath.Join(x.dir, x.f.Folder()), map[string][]byte{"data_batch_1.bin": []byte("mine")})
		wantError(t, x.get(ctx, s), "remove the damaged files in "+filepath.Join(x.dir, x.f.Folder()))
		write(t, filepath.Join(x.dir, x.f.Folder()), files(x.f, 20, 30))
		write(t, filepath.Join(x.dir, x.f.Folder()), map[string][]byte{"data_batch_1.bin": []byte("mine")})
		wantError(t, x.get(ctx, s), "data_batch_1.bin: ends at byte 4", "remove the damaged files")
		s.wantRanges(t)
	})

	t.Run("a folder without a name and a set that has no archive are errors", func(t *testing.T) {
		t.Parallel()
		wantError(t, dataset.Get(ctx, dataset.GetOptions{Name: "cifar10"}), "cifar10: no folder to download to")
		wantError(t, dataset.Get(ctx, dataset.GetOptions{Name: "synthetic", Dir: "x"}),
			`dataset "synthetic": want "cifar10", "cifar100" or "svhn"`)
	})
}

// unpackInside unpacks an archive into a folder inside of another and checks that
// nothing is written beside it.
func unpackInside(t *testing.T, unpack func(io.Reader, string) error, archive []byte) (string, error) {
	t.Helper()
	outside := t.TempDir()
	dir := filepath.Join(outside, "a", "b")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	err := unpack(bytes.NewReader(archive), dir)
	wantNothingBut(t, outside, dir)
	return dir, err
}

func TestUnpack(t *testing.T) {
	t.Parallel()
	f := dataset.Small("cifar10", 20, 30)
	all := files(f, 20, 30)
	unpack := func(t *testing.T, archive []byte) (string, error) { return unpackInside(t, f.Unpack, archive) }

	t.Run("files that do not belong to the set are passed over", func(t *testing.T) {
		t.Parallel()
		list := append(entries(f, all),
			file(f.Folder()+"/evil.so", []byte("x")),
			file("other/data_batch_1.bin", []byte("x")),
			file(f.Folder()+"/sub/data_batch_1.bin", []byte("x")),
			file("data_batch_1.bin", []byte("x")))
		dir, err := unpack(t, pack(t, list))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range all {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s has %d bytes, want %d: %v", name, len(got), len(want), err)
			}
		}
		if list, err := os.ReadDir(dir); err != nil || len(list) != len(all) {
			t.Errorf("the folder has %d files, want %d: %v", len(list), len(all), err)
		}
	})

	t.Run("names that begin with ./ are the same files", func(t *testing.T) {
		t.Parallel()
		list := entries(f, all)
		for i := range list {
			list[i].Name = "./" + list[i].Name
		}
		if _, err := unpack(t, pack(t, list)); err != nil {
			t.Error(err)
		}
	})
}

func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	f := dataset.Small("cifar10", 20, 30)
	all := files(f, 20, 30)
	unpack := func(t *testing.T, archive []byte) (string, error) { return unpackInside(t, f.Unpack, archive) }

	for _, c := range []struct {
		what string
		bad  entry
		want string
	}{
		{"a path that leads out", file(f.Folder()+"/../../data_batch_1.bin", []byte("x")), "leads out of the folder"},
		{"a path to the parent", file("../evil", []byte("x")),
			`entry "../evil" leads out of the folder, want cifar-10-batches-bin/FILE`},
		{"an absolute path", file("/tmp/evil", []byte("x")), "leads out of the folder"},
		{"a path with backslashes", file(`..\evil`, []byte("x")), "leads out of the folder"},
		{"a symbolic link", link(tar.TypeSymlink, f.Folder()+"/data_batch_1.bin", "/etc/passwd"),
			`has type '2', want plain files`},
		{"a symbolic link in place of the folder", link(tar.TypeSymlink, f.Folder(), "/tmp"), "want plain files"},
		{"a hard link", link(tar.TypeLink, f.Folder()+"/test_batch.bin", "/etc/passwd"), "want plain files"},
		{"a device", link(tar.TypeChar, f.Folder()+"/test_batch.bin", ""), "want plain files"},
		{"a named pipe", link(tar.TypeFifo, f.Folder()+"/test_batch.bin", ""), "want plain files"},
		{"a data file of a wrong size", file(f.Folder()+"/test_batch.bin", make([]byte, 92191)),
			"has 92191 bytes, want 92190"},
		{"a huge text", file(f.Folder()+"/readme.html", make([]byte, 1<<20+1)),
			"has 1048577 bytes, want at most 1048576"},
	} {
		t.Run(c.what+" is refused", func(t *testing.T) {
			t.Parallel()
			_, err := unpack(t, pack(t, append([]entry{c.bad}, entries(f, all)...)))
			wantError(t, err, "unpack: ", c.want)
		})
	}

	t.Run("a file that comes twice is refused", func(t *testing.T) {
		t.Parallel()
		_, err := unpack(t, pack(t, append(entries(f, all), file(f.Folder()+"/batches.meta.txt", names(10)))))
		wantError(t, err, "unpack: ", "batches.meta.txt", "file exists")
	})

	t.Run("an archive without one of the files is refused", func(t *testing.T) {
		t.Parallel()
		less := maps.Clone(all)
		delete(less, "data_batch_3.bin")
		_, err := unpack(t, pack(t, entries(f, less)))
		wantError(t, err, "the archive has no cifar-10-batches-bin/data_batch_3.bin")
	})

	t.Run("a stream that never ends is left after what a set can need", func(t *testing.T) {
		t.Parallel()
		list := append([]entry{file("bomb", make([]byte, 18<<20))}, entries(f, all)...)
		_, err := unpack(t, pack(t, list))
		wantError(t, err, "unpack: unexpected EOF")
	})
}

func TestUnpackDamaged(t *testing.T) {
	t.Parallel()
	f := dataset.Small("cifar10", 20, 30)
	all := files(f, 20, 30)
	unpack := func(t *testing.T, archive []byte) (string, error) { return unpackInside(t, f.Unpack, archive) }

	t.Run("what is no archive, or ends early, is refused", func(t *testing.T) {
		t.Parallel()
		whole := pack(t, entries(f, all))
		for _, b := range [][]byte{nil, []byte("<html>"), whole[:10], whole[:len(whole)/2], whole[:len(whole)-4]} {
			if _, err := unpack(t, b); err == nil {
				t.Errorf("%d bytes of %d were accepted", len(b), len(whole))
			}
		}
	})
}

func link(kind byte, name, to string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: kind, Linkname: to, Mode: 0o777}}
}

// wantNothingBut checks that root has the folder dir in it and nothing else.
func wantNothingBut(t *testing.T, root, dir string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == dir {
			return filepath.SkipDir
		}
		if !strings.HasPrefix(dir, path) {
			t.Errorf("%s was written outside of the folder", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func FuzzUnpack(f *testing.F) {
	format := dataset.Small("cifar10", 1, 1)
	all := files(format, 1, 1)
	// The input is the tar stream; the gzip around it would only hide it from
	// the fuzzer.
	add := func(list ...entry) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, e := range list {
			if err := w.WriteHeader(&e.Header); err != nil {
				f.Fatal(err)
			}
			w.Write(e.body)
		}
		w.Close()
		f.Add(b.Bytes())
	}
	add(entries(format, all)...)
	add(file("../evil", []byte("x")))
	add(file(format.Folder()+"/../../evil", []byte("x")))
	add(entry{Header: tar.Header{Name: format.Folder() + "/readme.html", Typeflag: tar.TypeSymlink,
		Linkname: "/etc/passwd"}})
	add(entry{Header: tar.Header{Name: format.Folder(), Typeflag: tar.TypeSymlink, Linkname: ".."}},
		file(format.Folder()+"/readme.html", []byte("x")))
	f.Add([]byte{})
	known := append(slices.Collect(maps.Keys(all)), "readme.html")
	f.Fuzz(func(t *testing.T, stream []byte) {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(stream)
		z.Close()
		outside := t.TempDir()
		dir := filepath.Join(outside, "in")
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		err := format.Unpack(&b, dir)
		wantNothingBut(t, outside, dir)
		list, readErr := os.ReadDir(dir)
		if readErr != nil {
			t.Fatal(readErr)
		}
		have := map[string]bool{}
		for _, e := range list {
			info, statErr := e.Info()
			if statErr != nil || !info.Mode().IsRegular() || !slices.Contains(known, e.Name()) || info.Size() > 1<<20 {
				t.Errorf("%s was written: %v, %v", e.Name(), info.Mode(), statErr)
			}
			have[e.Name()] = true
		}
		for _, name := range append(format.TrainFiles(), "test_batch.bin") {
			if err == nil && !have[name] {
				t.Errorf("accepted without %s", name)
			}
		}
	})
}

func FuzzParseContentRange(f *testing.F) {
	for _, s := range []string{"bytes 5-9/10", "bytes 5-9/*", "bytes */10", "bytes -1-2/3", "bytes 9-9/3", "",
		"bytes 0-0/99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		from, size, err := dataset.ParseContentRange(header)
		if err == nil && (from < 0 || size < from && size != -1 || !strings.HasPrefix(header, "bytes ")) {
			t.Errorf("%q is from %d of %d", header, from, size)
		}
	})
}
