package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"
)

// Create makes a new database, which fill fills. It appears at path when it is whole and on the disk: whoever is killed
// before leaves no file of that name. It never takes the place of another file, also of one that appears meanwhile.
func Create(ctx context.Context, path string, fill func(*DB) error) error {
	return newFile(path, func(db *DB, part string) error {
		made, err := Open(ctx, part)
		if err != nil {
			return err
		}
		made.name = db.name
		return errors.Join(fill(made), made.Close())
	})
}

// Backup writes the database as it stands, with all that was committed, to a new file at path, as Create does. Others
// go on writing meanwhile.
func (db *DB) Backup(ctx context.Context, path string) error {
	return newFile(path, func(to *DB, part string) error {
		if err := db.snapshot(ctx, part, func(pool *sql.DB) error { return copyPages(ctx, pool, part) }); err != nil {
			return err
		}
		made, err := Open(ctx, part)
		if err != nil {
			return err
		}
		made.name = to.name
		return errors.Join(made.becomeOther(ctx), made.Close())
	})
}

// becomeOther gives a copy an id of its own, by which it shows if it is written over the database in use.
func (db *DB) becomeOther(ctx context.Context) error {
	return db.explain("copy", db.update(ctx, func(tx *sql.Tx) error {
		return exec(ctx, tx, `UPDATE file SET id = randomblob(16)`)
	}))
}

// pagesAtOnce is how many pages are copied before ctx is looked at again.
const pagesAtOnce = 2048

// copyPages copies all pages of one moment, by SQLite's own backup, to a new file.
func copyPages(ctx context.Context, pool *sql.DB, path string) error {
	from, err := pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer from.Close()
	// The moment is that of this transaction. Without it the copy would begin again after every commit of others.
	tx, err := from.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&n); err != nil {
		return err
	}
	target, err := sql.Open("sqlite3", (&DB{path: path}).dsn(map[string][]string{"mode": {"rwc"}}))
	if err != nil {
		return err
	}
	defer target.Close()
	to, err := target.Conn(ctx)
	if err != nil {
		return err
	}
	defer to.Close()
	return to.Raw(func(toConn any) error {
		return from.Raw(func(fromConn any) error {
			b, err := toConn.(*sqlite3.SQLiteConn).Backup("main", fromConn.(*connection).SQLiteConn, "main")
			if err != nil {
				return err
			}
			for done := false; !done && err == nil; {
				if done, err = b.Step(pagesAtOnce); err == nil {
					err = ctx.Err()
				}
			}
			if e := b.Finish(); err == nil {
				err = e
			}
			return err
		})
	})
}

// newFile lets write make a file in a folder of its own beside path, in which SQLite may have files beside it, and
// moves the file to path. db has the name of the new database for messages.
func newFile(path string, write func(db *DB, part string) error) (err error) {
	db, err := locate(path)
	if err != nil {
		return err
	}
	const act = "create database"
	exists := db.fault(act, Exists, fs.ErrExist)
	if idAt(db.path) != (fileID{}) {
		return exists
	}
	if err := db.strangers(); err != nil {
		return err
	}
	folder := filepath.Dir(db.path)
	dir, err := os.MkdirTemp(folder, "."+filepath.Base(db.path)+"-*")
	if err != nil {
		fault := FolderClosed
		if errors.Is(err, fs.ErrNotExist) {
			fault, err = NoFolder, fmt.Errorf("folder %s does not exist", folder)
		}
		if p := (*fs.PathError)(nil); errors.As(err, &p) {
			err = p.Err
		}
		return db.fault(act, fault, err)
	}
	defer os.RemoveAll(dir)
	part := filepath.Join(dir, filepath.Base(db.path))
	if err := write(db, part); err != nil {
		return db.renamed(err, part)
	}
	err = unix.Renameat2(unix.AT_FDCWD, part, unix.AT_FDCWD, db.path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // the file system cannot do so
		if err = unix.Link(part, db.path); err == nil {
			err = unix.Unlink(part)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return exists
	}
	if err != nil {
		return db.fault(act, Other, err)
	}
	return db.syncFolder()
}

// renamed makes an error of the file part name the database.
func (db *DB) renamed(err error, part string) error {
	if e := (*Error)(nil); errors.As(err, &e) && e.Database == part {
		e.Database, e.Folder = db.name, filepath.Dir(db.path)
	}
	return err
}

// syncFolder sees to it that the name of a new file is on the disk.
func (db *DB) syncFolder() error {
	dir, err := os.Open(filepath.Dir(db.path))
	if err != nil {
		return nil // it may not be read, and the system writes it in some seconds
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return db.fault("create database", Other, err)
	}
	return nil
}
