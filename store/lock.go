package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// lock is a flock on a file beside the database. The system releases it when
// the process ends, however that happens.
type lock struct{ file *os.File }

// LockRunner makes this process the only one that runs studies of the
// database, until release is called, DB closed, or the process ends, even by
// SIGKILL. It holds "<database>.lock"; readers are not held off. The error
// names the process that has the lock.
func (db *DB) LockRunner() (release func(), err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.still != nil {
		return nil, reported{fmt.Errorf("lock database %s: it was opened for reading only", db.name)}
	}
	if db.runner != nil {
		return nil, reported{fmt.Errorf("lock database %s: this process runs a study of it already", db.name)}
	}
	l, err := db.lock()
	if err != nil {
		return nil, err
	}
	db.runner = l
	return func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		if db.runner == l {
			l.release()
			db.runner = nil
		}
	}, nil
}

func (db *DB) lock() (*lock, error) {
	path := db.path + ".lock"
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, reported{fmt.Errorf("lock database %s: %w: a run needs to write in that folder; give another --db", db.name, err)}
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			defer f.Close()
			if !errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, reported{fmt.Errorf("lock %s: %w", path, err)}
			}
			holder, _ := io.ReadAll(io.LimitReader(f, 200))
			if holder = bytes.TrimSpace(holder); len(holder) == 0 {
				holder = []byte("another process")
			}
			return nil, reported{fmt.Errorf("lock database %s: %s is running a study of it: wait for it, stop it, or give another --db", db.name, holder)}
		}
		// release removes the file: what is locked here may no longer be what
		// the next process will find under this name.
		held, err1 := f.Stat()
		named, err2 := os.Stat(path)
		if err1 != nil || err2 != nil || !os.SameFile(held, named) {
			f.Close()
			continue
		}
		host, _ := os.Hostname()
		f.Truncate(0) // only text for a message: its errors do not matter
		fmt.Fprintf(f, "process %d on %s\n", os.Getpid(), host)
		return &lock{f}, nil
	}
}

// release removes the file while it is still locked, so that no other process
// can have locked it in between.
func (l *lock) release() {
	if l != nil {
		os.Remove(l.file.Name())
		l.file.Close()
	}
}
