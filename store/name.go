package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// SQLite keeps what was stored last in -wal, and its locks in -shm, and finds both by the name of the main file. Two
// processes that open one file by two names have two of each, know nothing of one another, and destroy the file. So a
// file that has several names is not opened for writing.

// oneName refuses a file that has several names, as far as it shows.
func (db *DB) oneName() error {
	var s unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, db.path, 0, unix.STATX_NLINK, &s) != nil {
		return nil
	}
	if s.Nlink > 1 {
		return db.fault("open database", HardLinks, fmt.Errorf("it has %d names (hard links), and SQLite keeps what "+
			"was stored last beside one of them", s.Nlink))
	}
	if s.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return db.fault("open database", Mounted, errors.New("the file is mounted by itself, without the file beside "+
			"it in which SQLite keeps what was stored last"))
	}
	return nil
}

// sameName refuses a file that is open for writing by another name. Whoever writes first takes the byte of its name and
// then looks at the others, so of two that come at once at least one sees the other.
func (db *DB) sameName() error {
	own := nameByte(db.path)
	if db.file.mayLock {
		if err := db.file.lock(unix.F_RDLCK, own, 1); err != nil {
			return db.noLocks(err)
		}
	}
	for _, part := range [][2]int64{{nameBytes, own - nameBytes}, {own + 1, nameBytes + names - 1 - own}} {
		at, err := db.file.taken(part[0], part[1])
		if err != nil && db.file.mayLock {
			return db.noLocks(err)
		}
		if at >= 0 {
			return db.fault("open database", InUseElsewhere, errors.New("another process has it open by another path "+
				"(a hard link, or a mount of the file), which would destroy it"))
		}
	}
	return nil
}

// readable refuses a file with several names if it is not sure that all that was stored is in it.
func (db *DB) readable() error {
	if err := db.sameName(); err != nil {
		return err
	}
	several := db.oneName()
	if several == nil {
		return nil
	}
	_, err := os.Stat(db.path + "-wal") // is there if the file was opened by this name
	row, err2 := db.mainRow(filePage)
	if err == nil || err2 == nil && row.commits == row.closed {
		return nil
	}
	return several
}

// strangers refuses to write where a file has a name that SQLite would use, and that SQLite did not write. SQLite would
// write over it, or remove it.
func (db *DB) strangers() error {
	empty := true
	if info, err := os.Stat(db.path); err == nil {
		empty = info.Size() == 0
	}
	for _, side := range []struct {
		suffix string
		fits   func(info fs.FileInfo, head []byte) bool
	}{
		{"-journal", func(_ fs.FileInfo, head []byte) bool {
			return !empty && begins(head, "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")
		}},
		{"-wal", func(_ fs.FileInfo, head []byte) bool {
			return !empty && (begins(head, "\x37\x7f\x06\x82") || begins(head, "\x37\x7f\x06\x83"))
		}},
		// Not by its content: to close it would drop the locks that SQLite has on it in this process.
		{"-shm", func(info fs.FileInfo, _ []byte) bool { return info.Size() <= 3 || info.Size()%4096 == 0 }},
	} {
		path := db.path + side.suffix
		info, err := os.Lstat(path)
		if err != nil || info.Mode().IsRegular() && info.Size() == 0 {
			continue
		}
		var head []byte
		if info.Mode().IsRegular() && side.suffix != "-shm" {
			head = headOf(path)
		}
		if info.Mode().IsRegular() && side.fits(info, head) {
			continue
		}
		text := "SQLite would write over it"
		if empty && info.Mode().IsRegular() && side.suffix == "-wal" {
			text = "it may be left of a database that was here"
		}
		return db.fault("open database", Stranger, fmt.Errorf("%s%s lies beside it and is not a part of it: %s",
			db.name, side.suffix, text))
	}
	return nil
}

// begins reports whether a file begins with some bytes, or with zeros, as a crash of the machine may leave it. A file
// that cannot be read has no head and passes: SQLite says what is wrong with it.
func begins(head []byte, want string) bool {
	n := min(len(head), len(want))
	return string(head[:n]) == want[:n] || bytes.Count(head[:n], []byte{0}) == n
}

func headOf(path string) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	head := make([]byte, 8)
	n, _ := f.Read(head)
	return head[:n]
}

// inUse is the error for a lock that another process has.
func (db *DB) inUse(ctx context.Context) error {
	holder := db.holder(ctx)
	if db.network != "" {
		return db.fault("lock database", InUseNetwork, fmt.Errorf("%s is running a study of it, and it lies on a "+
			"network file system (%s), where locks and shared memory do not reach other machines", holder, db.network))
	}
	return db.fault("lock database", InUse, fmt.Errorf("%s is creating or closing it", holder))
}

// holder names a process that is one of the local workers.
func (db *DB) holder(ctx context.Context) string {
	text := "another process"
	at, err := db.file.taken(workerBytes+1, workerIDs)
	if err != nil || at < 0 {
		return text
	}
	db.view(ctx, func(tx *sql.Tx) error { // an error does not matter: it is only text for a message
		var w Worker
		err := tx.QueryRowContext(ctx, `SELECT host, pid FROM worker WHERE id = ?`, at-workerBytes).Scan(&w.Host, &w.PID)
		if err == nil {
			text = fmt.Sprintf("process %d on %s", w.PID, w.Host)
		}
		return err
	})
	return text
}
