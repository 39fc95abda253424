package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/store"
)

// folder is every file of a folder with its content.
func folder(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

// both opens path in both ways and closes what opens.
func both(ctx context.Context, path string) (write, read error) {
	w, write := store.Open(ctx, path)
	if write == nil {
		w.Close()
	}
	r, read := store.OpenReadOnly(ctx, path)
	if read == nil {
		r.Close()
	}
	return write, read
}

// wantFault checks what an error is about.
func wantFault(t *testing.T, err error, want store.Fault) {
	t.Helper()
	var e *store.Error
	if !errors.As(err, &e) || e.Fault != want {
		t.Errorf("fault of %v: %+v, want %d", err, e, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, want string
		fault      store.Fault
		prepare    func(t *testing.T, path string)
	}{
		{"a file that is no database", "file is not a database", store.NotADatabase, func(t *testing.T, path string) {
			if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 500), 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"a short text", "file is not a database", store.NotADatabase, func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("epochs = 3\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"a database without a mark", "belongs to another program (application_id 0x0)", store.Foreign,
			func(t *testing.T, path string) {
				execute(t, path, `PRAGMA journal_mode = WAL; CREATE TABLE study (name TEXT)`)
			}},
		{"the database of another application", "belongs to another program (application_id 0x47504b47)",
			store.Foreign, func(t *testing.T, path string) {
				execute(t, path, `PRAGMA application_id = 0x47504B47`)
			}},
		{"a newer igcsearch's database",
			fmt.Sprintf("a newer igcsearch wrote it (schema version %d, this one knows %d)", store.SchemaVersion+1,
				store.SchemaVersion),
			store.Newer, func(t *testing.T, path string) {
				open(t, path).Close()
				execute(t, path, fmt.Sprintf(`PRAGMA user_version = %d`, store.SchemaVersion+1))
			}},
		{"an older igcsearch's database",
			fmt.Sprintf("an older igcsearch wrote it (schema version 5, this one reads %d)", store.SchemaVersion),
			store.Older, func(t *testing.T, path string) {
				execute(t, path, `PRAGMA application_id = 0x69676373; PRAGMA journal_mode = WAL;
				CREATE TABLE study (id INTEGER); PRAGMA user_version = 5`)
			}},
		{"a folder", "not a regular file", store.NotRegular, func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name+", and leaves it as it is", func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "a.db")
			test.prepare(t, path)
			var before map[string]string
			if test.name != "a folder" {
				before = folder(t, dir)
			}
			write, read := both(t.Context(), path)
			for _, err := range []error{write, read} {
				wantError(t, err, "open database "+path, test.want)
				wantFault(t, err, test.fault)
			}
			if test.name != "a folder" {
				if after := folder(t, dir); !maps.Equal(before, after) {
					t.Errorf("the folder had %v and has %v, or a file changed", slices.Sorted(maps.Keys(before)),
						slices.Sorted(maps.Keys(after)))
				}
			}
		})
	}
}

func TestOpenDamaged(t *testing.T) {
	t.Parallel()
	t.Run("a damaged database", func(t *testing.T) {
		t.Parallel()
		db, path, _, _ := planned(t)
		db.Close()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 4096; i < len(b); i++ {
			b[i] = 0xA5
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		write, read := both(t.Context(), path)
		wantError(t, write, path, "malformed", "damaged; copy it")
		wantError(t, read, path, "malformed", "damaged; copy it")
	})
	t.Run("a folder that does not exist", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "none")
		_, err := store.Open(t.Context(), filepath.Join(dir, "a.db"))
		wantError(t, err, "folder "+dir+" does not exist")
		wantFault(t, err, store.NoFolder)
	})
}

func TestOpen(t *testing.T) {
	t.Parallel()
	t.Run("takes an empty file and one whose creation was cut short", func(t *testing.T) {
		t.Parallel()
		for _, statement := range []string{
			``,
			`PRAGMA application_id = 0x69676373`,
			`PRAGMA application_id = 0x69676373; PRAGMA journal_mode = WAL`,
		} {
			path := filepath.Join(t.TempDir(), "a.db")
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			execute(t, path, statement)
			_, err := store.OpenReadOnly(t.Context(), path)
			wantError(t, err, path, "it is empty")
			wantFault(t, err, store.Empty)
			if infos, err := open(t, path).Studies(t.Context()); err != nil || len(infos) != 0 {
				t.Errorf("studies %v (%v), want none", infos, err)
			}
		}
	})
	t.Run("takes any file name", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path := filepath.Join(dir, "50% a?b#c&mode=memory ü.db")
		open(t, path).Close()
		if files := folder(t, dir); len(files) != 1 || files[filepath.Base(path)] == "" {
			t.Errorf("the folder has %q", slices.Collect(maps.Keys(files)))
		}
		if _, read := both(t.Context(), path); read != nil {
			t.Error(read)
		}
	})
	t.Run("finds the same workers through a symbolic link", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		begin(t, db, trials[0])
		link := filepath.Join(t.TempDir(), "link.db")
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		if got, err := open(t, link).Plan(t.Context(), s, trials); err != nil || got[0].Status != search.Running {
			t.Errorf("planned %v, %v", statuses(got), err)
		}
	})
}

func TestOpenReadOnly(t *testing.T) {
	t.Parallel()
	t.Run("creates no file", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		_, err := store.OpenReadOnly(t.Context(), filepath.Join(dir, "none.db"))
		wantError(t, err, "none.db", "file does not exist")
		wantFault(t, err, store.Missing)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v does not wrap fs.ErrNotExist", err)
		}
		if files := folder(t, dir); len(files) != 0 {
			t.Errorf("it created %v", files)
		}
	})
	t.Run("leaves no file behind and refuses to run", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		db.Close()
		before := folder(t, filepath.Dir(path))
		ro, err := store.OpenReadOnly(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readTrials(t.Context(), ro, s.Name); err != nil || len(got) != len(trials) {
			t.Errorf("%d trials (%v), want %d", len(got), err, len(trials))
		}
		_, err = ro.Plan(t.Context(), s, trials)
		wantError(t, err, "opened for reading only")
		_, err = ro.Begin(t.Context(), trials[0].ID, 3, search.Attempt{})
		wantError(t, err, "opened for reading only")
		ro.Close()
		if after := folder(t, filepath.Dir(path)); !maps.Equal(before, after) {
			t.Errorf("the folder has %v, or the file changed", slices.Collect(maps.Keys(after)))
		}
	})
	t.Run("keeps no run from leaving everything in the one file", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		record(t, begin(t, db, trials[0]), 1)
		ro, err := store.OpenReadOnly(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		db.Close() // while the reader has it open
		ro.Close()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), "copy.db")
		if err := os.WriteFile(copied, b, 0o644); err != nil {
			t.Fatal(err)
		}
		ro, err = store.OpenReadOnly(t.Context(), copied)
		if err != nil {
			t.Fatal(err)
		}
		defer ro.Close()
		if epochs, err := readEpochs(t.Context(), ro, s.Name); err != nil || len(epochs) != 1 {
			t.Errorf("the copy has %d epochs (%v), want 1", len(epochs), err)
		}
	})
}

// TestOpenReadOnlyBeside reads while a run writes.
func TestOpenReadOnlyBeside(t *testing.T) {
	t.Parallel()
	t.Run("reads again what a run wrote to meanwhile", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		record(t, begin(t, db, trials[0]), 1)
		db.Close()
		for n, leave := range []bool{true, false} { // ended, still running
			ro, err := store.OpenReadOnly(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			called := false
			counts, err := ro.CountEpochs(t.Context(), func() {
				if called {
					return
				}
				called = true
				db := open(t, path)
				p, err := db.Plan(t.Context(), s, trials)
				if err != nil {
					t.Fatal(err)
				}
				record(t, begin(t, db, p[0]), n+2)
				if leave {
					db.Close()
				}
			})
			if err != nil || len(counts) != 2 || counts[1] != n+2 {
				t.Errorf("views counted %v epochs (%v), want two views, the second with %d", counts, err, n+2)
			}
			ro.Close()
		}
	})
	t.Run("sees what a run commits, also one that starts and ends later", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		db.Close()
		ro, err := store.OpenReadOnly(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer ro.Close()
		epochs := func() int {
			t.Helper()
			e, err := readEpochs(t.Context(), ro, s.Name)
			if err != nil {
				t.Fatal(err)
			}
			return len(e)
		}
		for n := range 3 {
			if got := epochs(); got != n {
				t.Errorf("at rest: %d epochs, want %d", got, n)
			}
			db := open(t, path)
			if trials, err = db.Plan(t.Context(), s, trials); err != nil {
				t.Fatal(err)
			}
			record(t, begin(t, db, trials[0]), n+1)
			if got := epochs(); got != n+1 {
				t.Errorf("while it runs: %d epochs, want %d", got, n+1)
			}
			db.Close()
		}
	})
}

func TestFull(t *testing.T) {
	t.Parallel()
	t.Run("keeps what is stored and goes on when there is space again", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		attempt := begin(t, db, trials[0])
		record(t, attempt, 1)
		// SQLite returns SQLITE_FULL for this as it does for a full disk.
		if _, err := db.Pragma(t.Context(), "max_page_count = 60"); err != nil {
			t.Fatal(err)
		}
		err := attempt.Record(t.Context(), search.Epoch{Number: 2}, search.Checkpoint{Epoch: 2, State: state(2, 1<<20)})
		wantError(t, err, "record epoch 2", path, "the disk is full; free some space")
		wantEpoch(t, db, s, trials[0], 1, 1000)
		if _, err := db.Pragma(t.Context(), "max_page_count = 100000"); err != nil {
			t.Fatal(err)
		}
		record(t, attempt, 2, 3)
		end(t, attempt, search.Done, "")
		if got, err := db.Pragma(t.Context(), "integrity_check"); err != nil || got != "ok" {
			t.Errorf("integrity_check: %s (%v)", got, err)
		}
	})
	// A full disk leaves -wal half copied into the main file, which alone is
	// then no sound database.
	t.Run("can be read and taken up after a disk was really full", func(t *testing.T) {
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
			t.Skipf("cannot mount a small file system: %v", err)
		}
		defer syscall.Unmount(dir, syscall.MNT_DETACH)
		path, ballast := filepath.Join(dir, "a.db"), filepath.Join(dir, "ballast")
		if err := os.WriteFile(ballast, make([]byte, 5<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		const size = 300_000
		db := open(t, path)
		s, _ := newStudy(t, "quick")
		s.Epochs = 1000
		trials, err := db.Plan(t.Context(), s, s.Trials(s.Shape()))
		if err != nil {
			t.Fatal(err)
		}
		attempt, last := begin(t, db, trials[0]), 0
		for {
			err := attempt.Record(t.Context(), search.Epoch{Number: last + 1},
				search.Checkpoint{Epoch: last + 1, State: state(last+1, size)})
			if err != nil {
				wantError(t, err, path, "the disk is full; free some space")
				break
			}
			last++
		}
		db.Close()
		os.WriteFile(ballast+"2", make([]byte, 8<<20), 0o644) // takes what is left

		ro, err := store.OpenReadOnly(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		wantEpoch(t, ro, s, trials[0], last, size)
		ro.Close()
		_, err = store.Open(t.Context(), filepath.Join(dir, "b.db"))
		wantError(t, err, "b.db", "the disk is full; free some space")

		os.Remove(ballast)
		os.Remove(ballast + "2")
		db = open(t, path)
		defer db.Close()
		if trials, err = db.Plan(t.Context(), s, trials); err != nil {
			t.Fatal(err)
		}
		wantEpoch(t, db, s, trials[0], last, size)
		record(t, begin(t, db, trials[0]), last+1)
		if got, err := db.Pragma(t.Context(), "integrity_check"); err != nil || got != "ok" {
			t.Errorf("integrity_check: %s (%v)", got, err)
		}
	})
}

// wantEpoch checks that the metrics and the checkpoint of a trial are those after an epoch.
func wantEpoch(t *testing.T, db *store.DB, s search.Study, trial search.Trial, epoch, size int) {
	t.Helper()
	c, err1 := db.Checkpoint(t.Context(), s.Name, trial.Key)
	epochs, err2 := readEpochs(t.Context(), db, s.Name)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if c == nil || c.Epoch != epoch || !bytes.Equal(c.State, state(epoch, size)) || len(epochs) != epoch {
		t.Errorf("%d epochs and the checkpoint of epoch %d, want %d and its own", len(epochs), c.Epoch, epoch)
	}
}

// permissionFolders makes databases in two folders: closed cannot be written, free can.
func permissionFolders(t *testing.T, dir string) (closed, free string) {
	closed, free = filepath.Join(dir, "closed"), filepath.Join(dir, "free")
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Mkdir(closed, 0o755))
	must(t, os.Mkdir(free, 0o755))
	s, trials := newStudy(t, "quick")
	prepare := func(path string) *store.DB {
		db := open(t, path)
		p, err := db.Plan(t.Context(), s, trials)
		must(t, err)
		record(t, begin(t, db, p[0]), 1)
		return db
	}
	prepare(filepath.Join(closed, "rest.db")).Close()
	prepare(filepath.Join(closed, "live.db"))
	for _, suffix := range []string{"", "-wal", "-shm"} { // as a killed run leaves them
		b := read(t, filepath.Join(closed, "live.db"+suffix))
		must(t, os.WriteFile(filepath.Join(closed, "killed.db"+suffix), b, 0o644))
		if suffix != "-shm" { // somebody removed it
			must(t, os.WriteFile(filepath.Join(closed, "copied.db"+suffix), b, 0o644))
			must(t, os.WriteFile(filepath.Join(free, "killed.db"+suffix), b, 0o444))
		}
	}
	prepare(filepath.Join(free, "file.db")).Close()
	prepare(filepath.Join(free, "secret.db")).Close()
	must(t, os.Chmod(filepath.Join(closed, "rest.db"), 0o444))
	must(t, os.Chmod(filepath.Join(free, "file.db"), 0o444))
	must(t, os.Chmod(filepath.Join(free, "secret.db"), 0))
	must(t, os.Chmod(closed, 0o555))
	must(t, os.Chmod(free, 0o777))
	return closed, free
}

// TestPermissions opens databases as a user who may not write them. Root may
// always, so as root the test runs itself again as nobody.
func TestPermissions(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "igcsearch-permissions") // t.TempDir is closed to others
	must(t, err)
	t.Cleanup(func() {
		os.Chmod(filepath.Join(dir, "closed"), 0o755)
		os.RemoveAll(dir)
	})
	closed, free := permissionFolders(t, dir)
	// -shm is the memory that readers share; its owner may write it even here.
	stored := func() map[string]string {
		files := folder(t, closed)
		for name := range files {
			if strings.HasSuffix(name, "-shm") {
				files[name] = ""
			}
		}
		return files
	}
	names := func() string {
		entries, err := os.ReadDir(free)
		must(t, err)
		return fmt.Sprint(entries)
	}
	before, beside := stored(), names()

	got := child(t, "permissions", dir, os.Getuid() == 0)
	for _, want := range []string{
		"read closed/rest.db: 1 epochs",
		"read closed/live.db: 1 epochs",
		"read closed/killed.db: 1 epochs",
		"read closed/copied.db: read " + closed + "/copied.db: what was stored last is in " + closed +
			"/copied.db-wal, and only who may write the file can take it from there",
		"read free/file.db: 1 epochs",
		"read free/killed.db: read " + free + "/killed.db: what was stored last is in " + free + "/killed.db-wal",
		"read free/secret.db: open database " + free + "/secret.db: unable to open database file: permission denied",
		"run closed/rest.db: open database " + closed + "/rest.db: ",
		"run closed/new.db: open database " + closed + "/new.db: create it: permission denied (fault FolderClosed)",
		"run free/file.db: open database " + free + "/file.db: permission denied (fault NotWritable)",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
	if after := stored(); !maps.Equal(before, after) {
		t.Errorf("the closed folder changed: %v", slices.Collect(maps.Keys(after)))
	}
	if after := names(); beside != after { // the owner could not write what others leave there
		t.Errorf("the free folder had %v and has %v", beside, after)
	}
}

// permissions is the child of TestPermissions.
func permissions(ctx context.Context, dir string) {
	for _, name := range []string{"closed/rest.db", "closed/live.db", "closed/killed.db", "closed/copied.db",
		"free/file.db", "free/secret.db", "free/killed.db"} {
		db, err := store.OpenReadOnly(ctx, filepath.Join(dir, name))
		if err != nil {
			fmt.Printf("read %s: %v\n", name, err)
			continue
		}
		epochs, err := readEpochs(ctx, db, "quick")
		if err != nil {
			fmt.Printf("read %s: %v\n", name, err)
			continue
		}
		if _, err := db.Examine(ctx); err != nil {
			fmt.Printf("examine %s: %v\n", name, err)
		}
		fmt.Printf("read %s: %d epochs\n", name, len(epochs))
		db.Close()
	}
	for _, name := range []string{"closed/rest.db", "closed/new.db", "free/file.db"} {
		_, err := store.Open(ctx, filepath.Join(dir, name))
		var e *store.Error
		errors.As(err, &e)
		fault := map[store.Fault]string{store.FolderClosed: "FolderClosed", store.NotWritable: "NotWritable"}[e.Fault]
		fmt.Printf("run %s: %v (fault %s)\n", name, err, fault)
	}
}

// children are the parts of tests that run in a process of their own.
var children = map[string]func(ctx context.Context, arg string){
	"permissions": permissions,
	"record":      recordForever,
	"claim":       claimAll,
	"slowly":      func(ctx context.Context, path string) { recordEvery(ctx, path, 10*time.Millisecond) },
}

func TestMain(m *testing.M) {
	if child := children[os.Getenv("STORE_TEST_CHILD")]; child != nil {
		child(context.Background(), os.Getenv("STORE_TEST_ARG"))
		return
	}
	os.Exit(m.Run())
}

func command(name, arg string) *exec.Cmd {
	c := exec.Command("/proc/self/exe") // by this name another user may run it
	c.Env = append(os.Environ(), "STORE_TEST_CHILD="+name, "STORE_TEST_ARG="+arg)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it does not outlive the test
	return c
}

// child runs a part in a process of its own and returns what it prints.
func child(t *testing.T, name, arg string, asNobody bool) string {
	t.Helper()
	c := command(name, arg)
	if asNobody {
		c.Dir = "/"
		c.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	out, err := c.CombinedOutput()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EPERM) {
		t.Skipf("cannot run as another user than root: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
