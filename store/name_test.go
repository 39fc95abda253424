package store_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"igcsearch/store"
)

// wantRefused checks what both ways to open a file say of it.
func wantRefused(t *testing.T, path string, write, reading store.Fault) {
	t.Helper()
	err1, err2 := both(t.Context(), path)
	wantFault(t, err1, write)
	if reading != store.Other {
		wantFault(t, err2, reading)
	} else if err2 != nil {
		t.Errorf("reading: %v", err2)
	}
}

func TestHardLinks(t *testing.T) {
	t.Parallel()
	t.Run("a file that is in use is not opened by another name", func(t *testing.T) {
		t.Parallel()
		db, path, _, trials := planned(t)
		link := filepath.Join(t.TempDir(), "link.db")
		must(t, os.Link(path, link))
		wantRefused(t, link, store.HardLinks, store.InUseElsewhere)
		wantRefused(t, path, store.HardLinks, store.Other)
		record(t, begin(t, db, trials[0]), 1) // the first goes on
		if got, err := db.Pragma(t.Context(), "integrity_check"); err != nil || got != "ok" {
			t.Errorf("integrity_check: %s (%v)", got, err)
		}
	})
	t.Run("one at rest can be read by each name, and written by none", func(t *testing.T) {
		t.Parallel()
		db, path, _, _ := planned(t)
		db.Close()
		link := filepath.Join(t.TempDir(), "link.db")
		must(t, os.Link(path, link))
		for _, name := range []string{path, link} {
			wantRefused(t, name, store.HardLinks, store.Other)
		}
		must(t, os.Remove(link))
		open(t, path)
	})
	t.Run("one that a killed process left is read by its own name alone", func(t *testing.T) {
		t.Parallel()
		db, path, s, trials := planned(t)
		record(t, begin(t, db, trials[0]), 1, 2)
		killed := filepath.Join(t.TempDir(), "killed.db")
		for _, suffix := range []string{"", "-wal", "-shm"} {
			must(t, os.WriteFile(killed+suffix, read(t, path+suffix), 0o644))
		}
		link := filepath.Join(t.TempDir(), "link.db")
		must(t, os.Link(killed, link))
		wantRefused(t, link, store.HardLinks, store.HardLinks)
		ro, err := store.OpenReadOnly(t.Context(), killed)
		must(t, err)
		defer ro.Close()
		if epochs, err := readEpochs(t.Context(), ro, s.Name); err != nil || len(epochs) != 2 {
			t.Errorf("%d epochs, %v", len(epochs), err)
		}
	})
}

// TestMounted mounts a database file by itself, as "docker run -v FILE:FILE" does.
func TestMounted(t *testing.T) {
	t.Parallel()
	db, path, _, trials := planned(t)
	mounted := filepath.Join(t.TempDir(), "mounted.db")
	must(t, os.WriteFile(mounted, nil, 0o644))
	if err := syscall.Mount(path, mounted, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("cannot mount a file: %v", err)
	}
	defer syscall.Unmount(mounted, syscall.MNT_DETACH)
	wantRefused(t, mounted, store.Mounted, store.InUseElsewhere)
	record(t, begin(t, db, trials[0]), 1)
	db.Close()
	wantRefused(t, mounted, store.Mounted, store.Other)
	open(t, path)
	wantRefused(t, mounted, store.Mounted, store.InUseElsewhere)
}

// TestMountedFolder reaches one folder by two paths, which is no other name.
func TestMountedFolder(t *testing.T) {
	t.Parallel()
	db, path, s, trials := planned(t)
	begin(t, db, trials[0])
	mounted := t.TempDir()
	if err := syscall.Mount(filepath.Dir(path), mounted, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("cannot mount a folder: %v", err)
	}
	defer syscall.Unmount(mounted, syscall.MNT_DETACH)
	other, err := store.Open(t.Context(), filepath.Join(mounted, filepath.Base(path)))
	must(t, err)
	defer other.Close()
	if got, err := other.Plan(t.Context(), s, trials); err != nil || got[0].Status != "running" {
		t.Errorf("planned %v, %v", statuses(got), err)
	}
}

// TestStrangers makes a database where other files have the names that SQLite would use, or that an igcsearch of before
// used.
func TestStrangers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "uv")
	must(t, os.WriteFile(path+".lock", []byte("[[package]]\n"), 0o644))
	must(t, os.Symlink(path+".lock", path+".other"))
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		t.Run("a file "+suffix, func(t *testing.T) {
			must(t, os.WriteFile(path+suffix, []byte("notes of a user\n"), 0o644))
			defer os.Remove(path + suffix)
			before := folder(t, dir)
			_, err := store.Open(t.Context(), path)
			wantFault(t, err, store.Stranger)
			wantError(t, err, path+suffix+" lies beside it")
			if after := folder(t, dir); !maps.Equal(before, after) {
				t.Errorf("the folder changed: %v", after)
			}
		})
		t.Run("a symbolic link "+suffix, func(t *testing.T) {
			must(t, os.Symlink(path+".lock", path+suffix))
			defer os.Remove(path + suffix)
			_, err := store.Open(t.Context(), path)
			wantFault(t, err, store.Stranger)
		})
	}
	before := folder(t, dir)
	open(t, path).Close()
	after := folder(t, dir)
	delete(after, "uv")
	if !maps.Equal(before, after) {
		t.Errorf("the other files changed: %v", after)
	}
}

func TestOpenThroughLinks(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), t.TempDir()
	link := filepath.Join(dir, "link.db")
	must(t, os.Symlink(filepath.Join(elsewhere, "real.db"), link)) // to a file that is not there yet
	db := open(t, link)
	if db.Path() != filepath.Join(elsewhere, "real.db") {
		t.Errorf("it is %s", db.Path())
	}
	db.Close()
	if files := folder(t, elsewhere); len(files) != 1 {
		t.Errorf("%d files beside the real one", len(files)-1)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	t.Run("never takes the place of a file, also of one that appears meanwhile", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path := filepath.Join(dir, "new.db")
		err := store.Create(t.Context(), path, func(*store.DB) error {
			return os.WriteFile(path, []byte("other"), 0o644)
		})
		wantFault(t, err, store.Exists)
		if !errors.Is(err, fs.ErrExist) {
			t.Errorf("%v does not wrap fs.ErrExist", err)
		}
		wantFault(t, store.Create(t.Context(), path, func(*store.DB) error { return nil }), store.Exists)
		if files := folder(t, dir); len(files) != 1 || files["new.db"] != "other" {
			t.Errorf("the folder has %v", files)
		}
	})
	t.Run("is at its path when it is whole, and after an error leaves nothing", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path := filepath.Join(dir, "new.db")
		reason := errors.New("the disk is full")
		err := store.Create(t.Context(), path, func(*store.DB) error {
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it is there before it is whole: %v", err)
			}
			return reason
		})
		if !errors.Is(err, reason) {
			t.Error(err)
		}
		if files := folder(t, dir); len(files) != 0 {
			t.Errorf("the folder has %v", files)
		}
		must(t, store.Create(t.Context(), path, func(*store.DB) error { return nil }))
		if files := folder(t, dir); len(files) != 1 {
			t.Errorf("the folder has %d files", len(files))
		}
		open(t, path)
	})
}

func TestBackup(t *testing.T) {
	t.Parallel()
	db, path, s, trials := planned(t)
	attempt := begin(t, db, trials[0])
	record(t, attempt, 1, 2)
	dir := t.TempDir()
	must(t, db.Backup(t.Context(), filepath.Join(dir, "writer.db")))
	ro, err := store.OpenReadOnly(t.Context(), path)
	must(t, err)
	defer ro.Close()
	must(t, ro.Backup(t.Context(), filepath.Join(dir, "live.db")))
	record(t, attempt, 3)
	db.Close()
	must(t, ro.Backup(t.Context(), filepath.Join(dir, "rest.db")))
	for name, want := range map[string]int{"writer.db": 2, "live.db": 2, "rest.db": 3} {
		ro, err := store.OpenReadOnly(t.Context(), filepath.Join(dir, name))
		must(t, err)
		if epochs, err := readEpochs(t.Context(), ro, s.Name); err != nil || len(epochs) != want {
			t.Errorf("%s has %d epochs, want %d (%v)", name, len(epochs), want, err)
		}
		if c, err := ro.Checkpoint(t.Context(), s.Name, trials[0].Key); err != nil || c == nil || c.Epoch != want {
			t.Errorf("%s: the checkpoint %v, %v", name, c, err)
		}
		ro.Close()
	}
	if files := folder(t, dir); len(files) != 3 {
		t.Errorf("%d files, want 3", len(files))
	}
}
