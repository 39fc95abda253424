package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"igcsearch/store"
)

// intoDatabase opens a database for do. One that does not exist yet is made in a temporary folder beside its place and
// gets its name after do, so that an error leaves nothing behind.
func intoDatabase(ctx context.Context, path string, do func(*store.DB) error) error {
	target, err := followLinks(path)
	if err != nil {
		return fmt.Errorf("open database %s: %w", path, err)
	}
	if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
		return useDatabase(ctx, path, do)
	}
	folder, err := os.MkdirTemp(filepath.Dir(target), "."+filepath.Base(target)+"-")
	if err != nil {
		return useDatabase(ctx, path, do) // which says why nothing can be made there
	}
	defer os.RemoveAll(folder)
	fresh := filepath.Join(folder, filepath.Base(target))
	err = useDatabase(ctx, fresh, do)
	if e := (*store.Error)(nil); errors.As(err, &e) {
		e.Database, e.Folder = path, filepath.Dir(target)
	}
	if err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, target, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // some network file systems do not have it
		err = cmp.Or(os.Link(fresh, target), os.Remove(fresh))
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", path, err)
	}
	return nil
}

func useDatabase(ctx context.Context, path string, do func(*store.DB) error) error {
	db, err := openWriter(ctx, path)
	if err != nil {
		return err
	}
	err = do(db)
	return cmp.Or(err, db.Close())
}
