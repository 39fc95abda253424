package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/store"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// overwrite writes a file over another one, which stays the same file. It does so in a process of its own, as people
// do: one that closed the file in this process would drop the locks of SQLite.
func overwrite(t testing.TB, path string, content []byte) {
	t.Helper()
	from := filepath.Join(t.TempDir(), "from")
	must(t, os.WriteFile(from, content, 0o644))
	if out, err := exec.Command("cp", from, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// read returns the content of a file, by a process of its own.
func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := exec.Command("cat", path).Output()
	must(t, err)
	return b
}

// attack is something that people do to a database in use.
type attack struct {
	name string
	want string
	do   func(t *testing.T, db *store.DB, path string)
	// over, instead of do, returns what is copied over the file.
	over func(t *testing.T, db *store.DB, path string) []byte
}

func attacks(t *testing.T) []attack {
	dir := t.TempDir()
	another := filepath.Join(dir, "another.db")
	open(t, another).Close()
	older := "an older copy was written over it"
	return []attack{
		{name: "all its files are removed", want: "the file was removed or renamed while it was in use",
			do: func(t *testing.T, _ *store.DB, path string) {
				for _, suffix := range []string{"", "-wal", "-shm"} {
					must(t, os.Remove(path+suffix))
				}
			}},
		{name: "the file alone is removed", want: "removed or renamed",
			do: func(t *testing.T, _ *store.DB, path string) { must(t, os.Remove(path)) }},
		{name: "it is renamed", want: "removed or renamed",
			do: func(t *testing.T, _ *store.DB, path string) { must(t, os.Rename(path, path+".old")) }},
		{name: "its folder is renamed", want: "removed or renamed",
			do: func(t *testing.T, _ *store.DB, path string) {
				must(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+"-old"))
			}},
		{name: "another file takes its place", want: "another file was put in its place",
			do: func(t *testing.T, _ *store.DB, path string) {
				must(t, os.WriteFile(path+".new", read(t, another), 0o644))
				must(t, os.Rename(path+".new", path))
			}},
		{name: "another database is copied over it", want: "another database or a backup was written over it",
			over: func(t *testing.T, _ *store.DB, _ string) []byte { return read(t, another) }},
		{name: "a backup of this moment is copied over it", want: "another database or a backup was written over it",
			over: func(t *testing.T, db *store.DB, path string) []byte {
				must(t, db.Backup(t.Context(), path+".backup"))
				return read(t, path+".backup")
			}},
		{name: "a compacted copy of this moment is copied over it", want: "another copy was written over it",
			over: func(t *testing.T, db *store.DB, path string) []byte {
				must(t, db.Snapshot(t.Context(), path+".compact"))
				return read(t, path+".compact")
			}},
		{name: "a copy from before the last checkpoint is copied over it", want: older,
			over: func(t *testing.T, _ *store.DB, path string) []byte { return read(t, path+".first") }},
		{name: "it is emptied", want: "something else was written over it",
			over: func(*testing.T, *store.DB, string) []byte { return nil }},
		{name: "a text is written over it", want: "something else was written over it",
			over: func(*testing.T, *store.DB, string) []byte { return bytes.Repeat([]byte("text\n"), 9000) }},
	}
}

// TestGone does to a database in use what people do to files. The next epoch is refused with the reason, and nothing
// that lies at the path then is changed.
func TestGone(t *testing.T) {
	t.Parallel()
	for _, a := range attacks(t) {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "folder", "a.db")
			must(t, os.Mkdir(filepath.Dir(path), 0o755))
			db := open(t, path)
			s, _ := newStudy(t, "quick")
			s.Epochs = 100
			trials, err := db.Plan(t.Context(), s, s.Trials(s.Shape()))
			must(t, err)
			attempt := begin(t, db, trials[0])
			recordLarge := func(epoch int) error {
				return attempt.Record(t.Context(), search.Epoch{Number: epoch},
					search.Checkpoint{Epoch: epoch, State: state(epoch, 5<<20)}) // each moves pages into the main file
			}
			must(t, recordLarge(1))
			must(t, os.WriteFile(path+".first", read(t, path), 0o644))
			must(t, recordLarge(2))
			must(t, recordLarge(3))

			var over []byte
			if a.do != nil {
				a.do(t, db, path)
			} else {
				over = a.over(t, db, path)
				overwrite(t, path, over)
			}
			err = attempt.Record(t.Context(), search.Epoch{Number: 4}, search.Checkpoint{Epoch: 4})
			wantError(t, err, "go on with "+path, a.want)
			wantFault(t, err, store.Lost)
			if !errors.Is(err, search.ErrGone) {
				t.Errorf("%v is not ErrGone", err)
			}
			if _, err := db.Beat(t.Context()); !errors.Is(err, search.ErrGone) {
				t.Errorf("the beat: %v", err)
			}
			db.Close()

			there := folderIfAny(t, filepath.Dir(path))
			switch {
			case a.over != nil:
				if there["a.db"] != string(over) {
					t.Error("what was copied over the database was changed")
				}
				if there["a.db-wal"] == "" {
					t.Error("the -wal, with the newest epochs, was removed")
				}
				write, reading := both(t.Context(), path)
				for _, err := range []error{write, reading} {
					var e *store.Error
					refused := []store.Fault{store.Mixed, store.Stranger, store.Empty}
					if !errors.As(err, &e) || !slices.Contains(refused, e.Fault) {
						t.Errorf("opened with the -wal of another state: %v", err)
					}
				}
				now := folder(t, filepath.Dir(path))
				if now["a.db"] != there["a.db"] || now["a.db-wal"] != there["a.db-wal"] {
					t.Error("opening changed the files")
				}
			case there["a.db"] != "" && a.name != "another file takes its place":
				t.Errorf("there is a new file at the path")
			}
		})
	}
}

// folderIfAny is folder of one that may not be there.
func folderIfAny(t *testing.T, dir string) map[string]string {
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	return folder(t, dir)
}

// TestGoneLog removes -wal or -shm of a database in use. Everything that was stored is in the main file afterwards.
func TestGoneLog(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"-wal", "-shm"} {
		t.Run(suffix+" is removed", func(t *testing.T) {
			t.Parallel()
			db, path, s, trials := planned(t)
			attempt := begin(t, db, trials[0])
			record(t, attempt, 1, 2)
			must(t, os.Remove(path+suffix))
			err := attempt.Record(t.Context(), search.Epoch{Number: 3}, search.Checkpoint{Epoch: 3})
			wantError(t, err, path+suffix, "was removed or replaced while it was in use; "+
				"what was stored is in the file now")
			wantFault(t, err, store.LostLog)
			db.Close()
			if files := folder(t, filepath.Dir(path)); len(files) != 1 {
				t.Errorf("%d files are left", len(files))
			}
			if epochs, err := readEpochs(t.Context(), open(t, path), s.Name); err != nil || len(epochs) != 2 {
				t.Errorf("%d epochs, %v", len(epochs), err)
			}
		})
	}
	t.Run("another process has begun new ones", func(t *testing.T) {
		t.Parallel()
		db, path, _, trials := planned(t)
		attempt := begin(t, db, trials[0])
		record(t, attempt, 1, 2)
		for _, suffix := range []string{"-wal", "-shm"} {
			must(t, os.Remove(path+suffix))
			must(t, os.WriteFile(path+suffix, nil, 0o644))
		}
		before := read(t, path)
		err := attempt.Record(t.Context(), search.Epoch{Number: 3}, search.Checkpoint{Epoch: 3})
		wantError(t, err, "what was stored last is lost, because there are others at its place")
		db.Close()
		if !bytes.Equal(before, read(t, path)) {
			t.Error("the main file was written, which the other process may have changed")
		}
	})
}

// TestGoneContent overwrites -wal of a database in use, or all its files, and leaves them at their places. The next
// epoch is refused, and what the main file holds is kept.
func TestGoneContent(t *testing.T) {
	t.Parallel()
	lost := "-wal, a part of it, was emptied or overwritten while it was in use"
	for _, test := range []struct {
		name, want string
		change     func(t *testing.T, path string, before map[string][]byte)
	}{
		{"-wal is emptied", lost, func(t *testing.T, path string, _ map[string][]byte) {
			overwrite(t, path+"-wal", nil)
		}},
		{"-wal gets another content", lost, func(t *testing.T, path string, _ map[string][]byte) {
			overwrite(t, path+"-wal", bytes.Repeat([]byte("text\n"), 9000))
		}},
		{"-wal gets the content that it had", lost, func(t *testing.T, path string, before map[string][]byte) {
			overwrite(t, path+"-wal", before["-wal"])
		}},
		{"all files get the content that they had", "an older copy was written over all its files",
			func(t *testing.T, path string, before map[string][]byte) {
				for _, suffix := range []string{"", "-wal", "-shm"} {
					overwrite(t, path+suffix, before[suffix])
				}
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db, path, _, trials := planned(t)
			attempt := begin(t, db, trials[0])
			record(t, attempt, 1)
			before := map[string][]byte{}
			for _, suffix := range []string{"", "-wal", "-shm"} {
				before[suffix] = read(t, path+suffix)
			}
			record(t, attempt, 2)
			_, err := db.Beat(t.Context()) // sees the newest epoch
			must(t, err)
			test.change(t, path, before)
			main := read(t, path)
			_, err = db.Beat(t.Context())
			wantError(t, err, test.want)
			wantFault(t, err, store.Lost)
			db.Close()
			if !bytes.Equal(main, read(t, path)) {
				t.Error("the main file was written")
			}
		})
	}
}

// TestGoneLink changes a symbolic link by which a database in use was opened. Messages name the link, so it is no place
// to say that the epochs are there.
func TestGoneLink(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, link, target, open string }{
		{"to the file", "link.db", "real/a.db", "link.db"},
		{"to its folder", "link", "real", "link/a.db"},
	} {
		for _, change := range []string{"removed", "changed"} {
			t.Run("a link "+test.name+" is "+change, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				must(t, os.Mkdir(filepath.Join(dir, "real"), 0o755))
				link := filepath.Join(dir, test.link)
				must(t, os.Symlink(test.target, link))
				db := open(t, filepath.Join(dir, test.open))
				s, trials := newStudy(t, "quick")
				trials, err := db.Plan(t.Context(), s, trials)
				must(t, err)
				attempt := begin(t, db, trials[0])
				record(t, attempt, 1)
				must(t, os.Remove(link))
				if change == "changed" {
					must(t, os.Symlink("elsewhere", link))
				}
				err = attempt.Record(t.Context(), search.Epoch{Number: 2}, search.Checkpoint{Epoch: 2})
				wantError(t, err, "a symbolic link on the way to it was removed or changed while it was in use")
				wantFault(t, err, store.Lost)
				db.Close()
				epochs, err := readEpochs(t.Context(), open(t, filepath.Join(dir, "real", "a.db")), s.Name)
				if err != nil || len(epochs) != 1 {
					t.Errorf("%d epochs, %v", len(epochs), err)
				}
			})
		}
	}
}

// TestGoneOfOther lets one process move pages into the main file, and the other notice that an older copy is there.
func TestGoneOfOther(t *testing.T) {
	t.Parallel()
	db, path, s, trials := planned(t)
	first := read(t, path)
	other := open(t, path)
	_, err := other.Plan(t.Context(), s, trials)
	must(t, err)
	attempt := begin(t, db, trials[0])
	must(t, attempt.Record(t.Context(), search.Epoch{Number: 1}, search.Checkpoint{Epoch: 1, State: state(1, 5<<20)}))
	overwrite(t, path, first)
	_, err = other.Begin(t.Context(), trials[1].ID, 3, search.Attempt{})
	wantError(t, err, "an older copy was written over it")
	db.Close()
	other.Close()
	if !bytes.Equal(first, read(t, path)) {
		t.Error("the file was written")
	}
}

// TestVacuumBeside compacts a database while another process uses it, which is no reason to stop.
func TestVacuumBeside(t *testing.T) {
	t.Parallel()
	db, path, _, trials := planned(t)
	attempt := begin(t, db, trials[0])
	must(t, attempt.Record(t.Context(), search.Epoch{Number: 1}, search.Checkpoint{Epoch: 1, State: state(1, 5<<20)}))
	other := open(t, path)
	must(t, other.Vacuum(t.Context()))
	record(t, attempt, 2)
	must(t, other.Close())
	record(t, attempt, 3)
}

func TestLogMissing(t *testing.T) {
	t.Parallel()
	missing := func(path string) bool {
		t.Helper()
		db, err := store.OpenReadOnly(t.Context(), path)
		must(t, err)
		defer db.Close()
		return db.LogMissing()
	}
	db, path, _, trials := planned(t)
	record(t, begin(t, db, trials[0]), 1, 2)
	copied := filepath.Join(t.TempDir(), "copy.db")
	must(t, os.WriteFile(copied, read(t, path), 0o644))
	if !missing(copied) {
		t.Error("not seen in a copy that was made without -wal while a process had the database open")
	}
	must(t, os.WriteFile(copied+"-wal", read(t, path+"-wal"), 0o644))
	backup := filepath.Join(t.TempDir(), "backup.db")
	must(t, db.Backup(t.Context(), backup))
	second := open(t, path)
	db.Close()
	second.Close()
	for _, whole := range []string{path, copied, backup} {
		if missing(whole) {
			t.Errorf("seen in %s, which has all", whole)
		}
	}
}

// TestWaiting ends the context of those who wait for a process that holds SQLite's lock.
func TestWaiting(t *testing.T) {
	t.Parallel()
	db, path, s, trials := planned(t)
	for _, test := range []struct {
		name string
		wait func(ctx context.Context) error
	}{
		{"who opens it", func(ctx context.Context) error {
			db, err := store.Open(ctx, path)
			if err == nil {
				defer db.Close()
				_, err = db.Plan(ctx, s, trials)
			}
			return err
		}},
		{"who begins a trial", func(ctx context.Context) error {
			_, err := db.Begin(ctx, trials[0].ID, 3, search.Attempt{})
			return err
		}},
	} {
		release := lockOut(t, path)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		begin := time.Now()
		err := test.wait(ctx)
		if took := time.Since(begin); !errors.Is(err, context.Canceled) || took > 10*time.Second {
			t.Errorf("%s: %v after %v", test.name, err, took)
		}
		release()
	}

	// What was trained is stored although the context has ended, but does not wait a minute for that.
	ctx, cancel := context.WithCancel(t.Context())
	second, err := store.Open(ctx, path)
	must(t, err)
	defer second.Close()
	attempt, err := second.Begin(ctx, trials[0].ID, 3, search.Attempt{})
	must(t, err)
	release := lockOut(t, path)
	defer release()
	cancel()
	start := time.Now()
	err = attempt.Record(context.WithoutCancel(ctx), search.Epoch{Number: 1}, search.Checkpoint{Epoch: 1})
	wantError(t, err, "another process holds it")
	if took := time.Since(start); took < time.Second || took > 20*time.Second {
		t.Errorf("it waited %v", took)
	}
}
