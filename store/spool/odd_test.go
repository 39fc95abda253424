package spool_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/store/spool"
)

// odd are things that somebody may put under the name of a file. Each makes one at the path.
var odd = []struct {
	name string
	make func(path string) error
}{
	{"a pipe", func(path string) error { return syscall.Mkfifo(path, 0o666) }},
	{"a socket", func(path string) error {
		// The path of a socket is short, so it is made here and moved there.
		short, err := os.MkdirTemp("/tmp", "s")
		if err != nil {
			return err
		}
		defer os.RemoveAll(short)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(short, "s"), Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		return os.Rename(filepath.Join(short, "s"), path)
	}},
	{"a link to /dev/zero", func(path string) error { return os.Symlink("/dev/zero", path) }},
	{"a link to itself", func(path string) error { return os.Symlink(path, path) }},
	{"a link that leads nowhere", func(path string) error { return os.Symlink("nowhere", path) }},
	{"a folder", func(path string) error { return os.Mkdir(path, 0o777) }},
	{"an empty file", func(path string) error { return os.WriteFile(path, nil, 0o666) }},
	{"a hole of a terabyte", func(path string) error {
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			return err
		}
		return os.Truncate(path, 1<<40)
	}},
	{"no JSON", func(path string) error { return os.WriteFile(path, []byte("{\"sha256\":"), 0o666) }},
	{"an odd number", func(path string) error { return os.WriteFile(path, []byte("1e999"), 0o666) }},
	{"odd numbers in JSON", func(path string) error {
		const body = `{"number":1e999,"lease_ms":9223372036854775808,"until":-0,"from":[{"attempt":7e77}],"trials":1}`
		return os.WriteFile(path, spool.Sealed(path, body), 0o666)
	}},
	{"a file that cannot be read", func(path string) error { return os.WriteFile(path, nil, 0) }},
}

// oddPlaces are places in a spool. TRIAL stands for the folder of a trial of its own, whose first attempt has two of
// three epochs. WORKER is the worker that has these attempts.
var oddPlaces = []struct {
	path string
	note func(fs.FileMode, int64) bool // whether people hear of what lies there, by its mode and size
}{
	{"workers/f00.json", always},
	{"workers/f00.beat", never}, // nobody reads the heartbeat of a worker without a trial
	{"workers/f00.left", never},
	{"workers/WORKER.json", always},
	{"workers/WORKER.beat", always},
	{"trials/007", always},
	{"trials/two\nlines", always},
	{"TRIAL/0001.begin.json", always},
	{"TRIAL/0001.epoch-0001.json", always},
	{"TRIAL/0001.epoch-0002.json", always},
	{"TRIAL/0001.state-0001", func(m fs.FileMode, _ int64) bool { return !m.IsRegular() }},
	{"TRIAL/0001.state-0002", func(m fs.FileMode, size int64) bool {
		return !m.IsRegular() || size > maxState || m == 0
	}},
	{"TRIAL/0001.end.json", always},
	{"TRIAL/0001.what.json", always},
	{"TRIAL/0002", never}, // a claim, whatever it is
	{"TRIAL/0003", always},
	{"TRIAL/9223372036854775807", always},
	{"TRIAL/1.end.json", always},
	{"TRIAL/-001.begin.json", always},
	{"TRIAL/0001.epoch-9223372036854775807.json", always},
	{"TRIAL/0001.state-007", always},
	{"TRIAL/two\nlines", always},
}

const maxState = 1 << 30 // as the package has it

func always(fs.FileMode, int64) bool { return true }
func never(fs.FileMode, int64) bool  { return false }

// TestOdd puts odd things into all these places, and in place of the folder of a trial. They hinder no worker from
// training all other trials, and nobody from collecting what is there.
func TestOdd(t *testing.T) {
	t.Parallel()
	for _, o := range odd {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "spool")
			s, trials := newStudy(t, 9)
			a, trials := join(t, dir, s, trials, spool.Options{})
			beat, err := filepath.Glob(filepath.Join(dir, "workers", "*.beat"))
			if err != nil || len(beat) != 1 {
				t.Fatal(beat, err)
			}
			worker := strings.TrimSuffix(filepath.Base(beat[0]), ".beat")
			put := func(place string) fs.FileInfo {
				t.Helper()
				path := filepath.Join(dir, place)
				os.RemoveAll(path)
				if err := o.make(path); err != nil {
					t.Fatal(err)
				}
				info, err := os.Lstat(path)
				if err != nil {
					t.Fatal(err)
				}
				return info
			}
			if info := put("trials/0001"); info.Mode() == 0 && os.Geteuid() == 0 {
				t.Skip("root can read every file")
			}
			next, want := 1, []string{}
			for _, p := range oddPlaces {
				place := strings.Replace(p.path, "WORKER", worker, 1)
				if rest, ok := strings.CutPrefix(place, "TRIAL"); ok {
					record(t, a, begin(t, a, trials[next]), 1, 2)
					next++
					place = fmt.Sprintf("trials/%04d%s", next, rest)
				}
				if info := put(place); p.note(info.Mode(), info.Size()) {
					want = append(want, place)
				}
			}
			trainBesideOdd(t, dir, s, trials, want)
			collectBesideOdd(t, dir, s, len(trials)-1)
		})
	}
}

// trainBesideOdd trains all trials but the first, and compares the notes with the places of which people are to hear.
func trainBesideOdd(t *testing.T, dir string, s search.Study, trials []search.Trial, want []string) {
	t.Helper()
	var notes []string
	b, _ := join(t, dir, s, trials, spool.Options{Note: func(line string) { notes = append(notes, line) }})
	for i, trial := range trials[1:] {
		var claim search.Claim
		err := error(search.ErrTaken)
		for errors.Is(err, search.ErrTaken) { // another claim was there, which is void after a lease
			wait(t, b, i+1, search.Pending)
			claim, err = b.Begin(t.Context(), trial.ID, 3, search.Attempt{})
		}
		if err != nil {
			t.Fatalf("begin trial %d: %v", i+2, err)
		}
		from := 0
		if claim.From != nil {
			from = claim.From.Epoch
		}
		for n := from + 1; n <= 3; n++ {
			record(t, b, claim.ID, n)
		}
		end(t, b, claim.ID, search.Outcome{Status: search.Done}, search.Done)
	}
	first := poll(t, b)[0]
	if info, err := os.Lstat(filepath.Join(dir, "trials", "0001")); err != nil || !info.IsDir() {
		if first.Status != search.Failed || !strings.Contains(first.Error, "cannot be used") {
			t.Errorf("the trial without a folder is %s, %q", first.Status, first.Error)
		}
	}
	for _, place := range want {
		path := filepath.Join(dir, place)
		if strings.Contains(path, "\n") {
			path = strconv.Quote(path)
		}
		about := func(line string) bool { return strings.HasPrefix(line, path+" is left out: ") }
		if !slices.ContainsFunc(notes, about) {
			t.Errorf("no note of %q", place)
		}
	}
	if len(notes) != len(want) || strings.Contains(strings.Join(notes, ""), "\n") {
		t.Errorf("want a line about each of %q, got %q", want, notes)
	}
}

// collectBesideOdd checks that so many trials come into a database as done.
func collectBesideOdd(t *testing.T, dir string, s search.Study, want int) {
	t.Helper()
	r, err := spool.Read(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	db := database(t)
	if _, err := db.Bring(t.Context(), store.Source{Study: r.Study, Trials: r.Trials, Load: r.Load}); err != nil {
		t.Fatal(err)
	}
	stored, err := db.Read(t.Context(), s.Name)
	if err != nil {
		t.Fatal(err)
	}
	done := 0
	for _, trial := range stored.Trials {
		if trial.Status == search.Done {
			done++
		}
	}
	if done != want {
		t.Errorf("%d trials are done in the database, want %d", done, want)
	}
}

// TestOddStudy: what lies in place of study.json, and of the folders, is said at once.
func TestOddStudy(t *testing.T) {
	t.Parallel()
	for _, o := range odd {
		for _, place := range []string{"study.json", "workers", "trials"} {
			t.Run(o.name+" as "+place, func(t *testing.T) {
				t.Parallel()
				a, dir, s, trials := planned(t)
				a.Close()
				path := filepath.Join(dir, place)
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
				if err := o.make(path); err != nil {
					t.Fatal(err)
				}
				if info, err := os.Lstat(path); err == nil && info.IsDir() && place != "study.json" {
					return // it is one
				}
				if place == "study.json" {
					if _, err := spool.Read(dir, nil); err == nil {
						t.Error("it can be read")
					} else {
						wantError(t, err, dir)
					}
				}
				b, err := spool.Open(dir, spool.Options{})
				if err == nil {
					_, err = b.Plan(t.Context(), s, trials)
				}
				wantError(t, err, dir)
			})
		}
	}
}

// TestMoved puts files of one trial at the places of another one. They are no results of that.
func TestMoved(t *testing.T) {
	t.Parallel()
	for name, move := range map[string]func(trials string) error{
		"an epoch is copied from another trial": func(trials string) error {
			b, err := os.ReadFile(filepath.Join(trials, "0001", "0001.epoch-0001.json"))
			if err == nil {
				err = os.WriteFile(filepath.Join(trials, "0002", "0001.epoch-0001.json"), b, 0o666)
			}
			return err
		},
		"two trials change places": func(trials string) error {
			return errors.Join(os.Rename(filepath.Join(trials, "0001"), filepath.Join(trials, "third")),
				os.Rename(filepath.Join(trials, "0002"), filepath.Join(trials, "0001")),
				os.Rename(filepath.Join(trials, "third"), filepath.Join(trials, "0002")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, dir, _, trials := planned(t)
			for _, trial := range trials[:2] {
				record(t, f, begin(t, f, trial), 1)
			}
			if err := move(filepath.Join(dir, "trials")); err != nil {
				t.Fatal(err)
			}
			var notes []string
			r, err := spool.Read(dir, func(note string) { notes = append(notes, note) })
			if err != nil {
				t.Fatal(err)
			}
			record, err := r.Load(1, false)
			if err != nil || len(record.History) != 0 {
				t.Errorf("epochs of another trial are believed: %+v, %v", record.History, err)
			}
			if !strings.Contains(strings.Join(notes, "\n"), "is left out: its checksum does not fit") {
				t.Errorf("said: %q", notes)
			}
		})
	}
}

// TestStudyRemoved removes study.json, without which nothing in a spool can be read. The next epoch is an error.
func TestStudyRemoved(t *testing.T) {
	t.Parallel()
	f, dir, _, trials := planned(t)
	attempt := begin(t, f, trials[0])
	record(t, f, attempt, 1)
	if err := os.Remove(filepath.Join(dir, "study.json")); err != nil {
		t.Fatal(err)
	}
	wantError(t, recordError(t, f, attempt, 2, 2), "record epoch 2", "study.json: no such file or directory")
}
