package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"
)

// The locks of a database are on bytes of its main file, so they belong to the file and not to one of its names, and
// need no file of their own. The bytes lie far beyond the end of any database and beyond those that SQLite locks, which
// begin at 0x40000000. They are locks of an open file description (F_OFD_SETLK): another DB of this process conflicts
// with them as another process does, and the system gives them back when the process ends, however that happens.
const (
	// openByte is shared by all who have the database open for writing. Whoever creates the tables has it alone, and so
	// has the last one who closes the database.
	openByte = 1 << 60
	// runByte belongs to the one process that can run studies on a network file system.
	runByte = openByte + 1
	// nameBytes has a byte for each name that the file can be reached by. Whoever writes shares the byte of its name.
	nameBytes, names = 1 << 61, 1 << 60
	// workerBytes has a byte for each ID of a worker, from 1 on. A local worker has the byte of its own alone.
	workerBytes, workerIDs = 1 << 62, 1 << 61
	// sqliteBytes are those that SQLite shares while it reads. It needs them alone to remove the -wal file.
	sqliteBytes, sqliteShared = 0x40000002, 510
)

// mainFile is an open main file, the one that is no -wal and no -shm. Its locks end with done.
type mainFile struct {
	*os.File
	id      fileID
	mayLock bool // it is open for writing
}

// fileID tells files apart, whatever they are called.
type fileID struct{ device, inode uint64 }

func idOf(s unix.Stat_t) fileID { return fileID{s.Dev, s.Ino} }

// idAt returns the ID of the file at a path, the zero ID if there is none.
func idAt(path string) fileID {
	var s unix.Stat_t
	if unix.Stat(path, &s) != nil {
		return fileID{}
	}
	return idOf(s)
}

// opened counts who uses a file in this process, by itself or by a connection of SQLite. When a process closes any
// descriptor of a file, the system drops all POSIX locks that the process has on the file, and these are the ones that
// SQLite uses. So a descriptor that nobody uses any more is kept for the next who wants one, while others use the file.
var opened = struct {
	sync.Mutex
	files map[fileID]*users
}{files: map[fileID]*users{}}

type users struct {
	n    int
	idle []mainFile
}

// openMain opens the file at a path with the flags of os.OpenFile.
func openMain(path string, flags int) (*mainFile, error) {
	opened.Lock()
	defer opened.Unlock()
	mayLock := flags&os.O_RDWR != 0
	if u := opened.files[idAt(path)]; u != nil && flags&os.O_EXCL == 0 {
		for i, f := range u.idle {
			if f.mayLock == mayLock {
				u.idle = append(u.idle[:i], u.idle[i+1:]...)
				u.n++
				return &f, nil
			}
		}
	}
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, err
	}
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		f.Close()
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	m := &mainFile{f, idOf(s), mayLock}
	if opened.files[m.id] == nil {
		opened.files[m.id] = &users{}
	}
	opened.files[m.id].n++
	return m, nil
}

// use counts a connection of SQLite, which left takes back.
func (m *mainFile) use() {
	opened.Lock()
	defer opened.Unlock()
	opened.files[m.id].n++
}

func (m *mainFile) left() {
	opened.Lock()
	defer opened.Unlock()
	u := opened.files[m.id]
	if u.n--; u.n > 0 {
		return
	}
	for _, f := range u.idle {
		f.Close()
	}
	delete(opened.files, m.id)
}

// done gives up the file with all its locks.
func (m *mainFile) done() {
	m.lock(unix.F_UNLCK, 0, 0)
	opened.Lock()
	u := opened.files[m.id]
	u.idle = append(u.idle, *m)
	opened.Unlock()
	m.left()
}

// lock locks n bytes, to the end for 0, or unlocks them. It waits for nobody: errTaken says that others have one.
func (m *mainFile) lock(kind int16, start, n int64) error {
	l := unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: start, Len: n}
	err := unix.FcntlFlock(m.Fd(), unix.F_OFD_SETLK, &l)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return errTaken
	}
	return err
}

var errTaken = errors.New("another process has it locked")

// taken returns the first of n bytes that others have locked, in any way; −1 if there is none.
func (m *mainFile) taken(start, n int64) (int64, error) {
	if n <= 0 {
		return -1, nil
	}
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: start, Len: n}
	if err := unix.FcntlFlock(m.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return -1, err
	}
	if l.Type == unix.F_UNLCK {
		return -1, nil
	}
	return max(start, l.Start), nil
}

// takenByWorker reports whether the process of a local worker has its byte.
func (m *mainFile) takenByWorker(id int64) bool {
	if id < 1 || id > workerIDs {
		return false
	}
	at, err := m.taken(workerBytes+id, 1)
	return at >= 0 || err != nil
}

// nameByte is the byte of a name. SQLite finds -wal and -shm by the name, so it is the folder with the last part of the
// path that counts, by whatever path the folder is reached.
func nameByte(path string) int64 {
	h := fnv.New64a()
	folder := idAt(filepath.Dir(path))
	fmt.Fprintf(h, "%d %d %s", folder.device, folder.inode, filepath.Base(path))
	return nameBytes + int64(h.Sum64()%names)
}

// lockMain takes the bytes of openByte in one way, as soon as others let it. It returns errTaken if they do not within
// the patience of db.
func (db *DB) lockMain(ctx context.Context, kind int16, start int64) error {
	for begin := time.Now(); ; {
		err := db.file.lock(kind, start, 1)
		if !errors.Is(err, errTaken) || time.Since(begin) >= db.patience || db.hurried() {
			return db.noLocks(err)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// noLocks explains the error of a file system that has no such locks.
func (db *DB) noLocks(err error) error {
	if err == nil || errors.Is(err, errTaken) {
		return err
	}
	return db.fault("lock database", NoLocks, fmt.Errorf("its file system has no locks of open files: %w", err))
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// connector opens connections of SQLite to the file that a DB has open, and to no other that has come to its place.
type connector struct {
	db      *DB
	options string
	writes  bool
}

func (c connector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }

func (c connector) Connect(context.Context) (driver.Conn, error) {
	c.db.file.use()
	conn, err := c.Driver().Open(c.options)
	if err != nil {
		c.db.file.left()
		if lost := c.db.misplaced(); lost != nil {
			err = lost
		}
		return nil, err
	}
	if lost := c.db.misplaced(); lost != nil {
		conn.Close()
		c.db.file.left()
		return nil, lost
	}
	left := c.db.file.left
	if c.writes {
		c.db.noteLog()
		left = func() { c.db.forgetLog(); c.db.file.left() }
	}
	return &connection{conn.(*sqlite3.SQLiteConn), sync.OnceFunc(left)}, nil
}

// connection is a connection of SQLite that is counted as a user of its file until it is closed.
type connection struct {
	*sqlite3.SQLiteConn
	left func()
}

func (c *connection) Close() error {
	err := c.SQLiteConn.Close()
	c.left()
	return err
}
