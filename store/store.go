// Package store keeps studies in an SQLite file: it implements search.Store for the runner and reads studies back for
// people.
//
// The metrics of an epoch and the checkpoint after it are one transaction, which is synced to the disk before Record
// returns (WAL, synchronous=FULL). A process that is killed at any moment, or a power cut, costs the epoch that is
// trained and nothing else. One connection of each process writes, and readers go on meanwhile. Any number of processes
// of one machine run studies of the same file: Begin gives a trial to one of them, and process.go says how it is taken
// from a dead one.
//
// The schema, with the unit of each column, is schema.sql. PRAGMA application_id marks the file as ours, and PRAGMA
// user_version is the version of the schema. An exported method opens a transaction; the plain functions take it.
// Errors name the file; the command adds what people can do, see Fault.
package store

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"igcsearch/search"
)

//go:embed schema.sql
var schema string

const (
	// applicationID is "igcs" in ASCII, at offset 68 of the file.
	applicationID = 0x69676373
	// schemaVersion is the version of schema.sql, counted up with every change of it. A database of another version is
	// refused: its results are carried over by export and import. Versions 1 to 7 are from before the first release.
	schemaVersion = 8

	// statements is the size of the statement cache of a runner's connection, large enough for all its statements.
	statements = "100"
)

// DB is an open database. Its methods may be called concurrently.
type DB struct {
	path  string // absolute, symbolic links resolved
	given string // absolute, as the caller spells it
	name  string // as the caller spells it, for messages
	// live are readers that see what other processes commit.
	live *sql.DB
	// write is the one writing connection; nil after OpenReadOnly.
	write *sql.DB
	// still reads a file at rest, see view; nil after Open.
	still   *sql.DB
	stillAt fileState
	stillMu sync.Mutex // guards the two
	rests   bool       // still may be used

	file     *mainFile
	mayWrite bool // this process has the right to write the file and its folder

	logMu   sync.Mutex
	log     [2]fileID // -wal and -shm of the writing connection, see present.go
	main    seen      // by the one who writes
	newest  logPlace  // of the newest commit that the one who writes has seen
	lost    atomic.Pointer[Error]
	rescued atomic.Bool
	closed  atomic.Bool

	hurry    atomic.Int64 // when waiting for other processes ends, in ns since 1970; 0 before the context of Open ends
	unhurry  func() bool
	network  string // file system that other machines share, "" for a local one
	lease    time.Duration
	patience time.Duration // of lock

	mu      sync.Mutex
	self    *process          // nil before Join
	own     atomic.Int64      // ID of self, 0 before Join
	remotes map[int64]*remote // that this process admitted
	gone    func(ctx context.Context, job string) (bool, error)
	note    func(string) // for people; may be nil
	copied  string       // folder that Close removes, "" for none
	looked  time.Time    // when reclaim was last called

	line line // of those who write
}

// lockWait is how long to wait for a process that writes, and lastWait how much longer than the context of Open.
const lockWait, lastWait = time.Minute, 2 * time.Second

// sqliteWait is how long SQLite waits for a lock, in milliseconds. Nothing can interrupt that wait, so it is short, and
// await tries again.
const sqliteWait = "50"

// Open opens the database at path for running studies. It creates the file if there is none. It refuses, without
// changing it, a file that is not an igcsearch database, that an igcsearch with another schema wrote, that cannot be
// written, or that has more names than one. Once ctx has ended, what is done without it waits for other processes for
// two seconds at most.
func Open(ctx context.Context, path string) (*DB, error) {
	db, err := locate(path)
	if err != nil {
		return nil, err
	}
	folder := filepath.Dir(db.path)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return nil, db.fault("open database", NoFolder, fmt.Errorf("folder %s does not exist", folder))
	}
	if err := db.take(); err != nil {
		return nil, err
	}
	db.unhurry = context.AfterFunc(ctx, func() { db.hurry.Store(time.Now().Add(lastWait).UnixNano()) })
	if err := db.openWriter(ctx); err != nil {
		db.hold() // what is there stays as it is
		db.Close()
		return nil, db.explain("open database", err)
	}
	return db, nil
}

// openWriter opens the file that db has taken, and creates its tables if it has none.
func (db *DB) openWriter(ctx context.Context) error {
	create, err := db.prepare(ctx)
	if err != nil {
		return err
	}
	db.write = db.pool(url.Values{
		"mode": {"rw"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"},
		"_foreign_keys": {"on"}, "_txlock": {"immediate"}, "_stmt_cache_size": {statements},
	}, true)
	db.write.SetMaxOpenConns(1)
	if create {
		if err := db.await(ctx, func() error { return db.createTables(ctx) }); err != nil {
			return err
		}
		db.write.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`) // from now on the main file alone is a database
		if err := db.lockMain(ctx, unix.F_RDLCK, openByte); err != nil {
			return err
		}
	}
	// SQLite opens a file that it may not write for reading, without an error. A statement that would write, if there
	// were a row, returns one.
	err = db.await(ctx, func() error {
		_, err := db.write.ExecContext(ctx, `DELETE FROM study WHERE id IS NULL`)
		return err
	})
	if err != nil {
		return err
	}
	db.live = db.pool(url.Values{"mode": {"rw"}, "_query_only": {"on"}, "_stmt_cache_size": {statements}}, false)
	db.live.SetMaxIdleConns(8) // to open one costs more than most of what is read
	return nil
}

// take opens the main file, or creates an empty one, and sees to it that all who write it do so by the same name.
func (db *DB) take() error {
	const act = "open database"
	var err error
	for range 10 { // others create and remove it
		db.file, err = openMain(db.path, os.O_RDWR)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err := db.strangers(); err != nil {
			return err
		}
		if db.file, err = openMain(db.path, os.O_RDWR|os.O_CREATE|os.O_EXCL); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	var closed *fs.PathError
	switch {
	case err == nil:
	case errors.As(err, &closed) && idAt(db.path) == fileID{}:
		return db.fault(act, FolderClosed, fmt.Errorf("create it: %w", closed.Err))
	case errors.As(err, &closed):
		return db.fault(act, NotWritable, closed.Err)
	default:
		return db.fault(act, Other, err)
	}
	db.mayWrite = true
	if err = db.oneName(); err == nil {
		err = db.strangers()
	}
	if err == nil {
		err = db.sameName()
	}
	if err != nil {
		db.file.done()
	}
	return err
}

// prepare looks what is at the path before Open opens it for writing, and takes its share of openByte. If the tables
// are not there, this process is to create them, and has the byte alone. The other processes wait until they get the
// byte or until the tables are there.
func (db *DB) prepare(ctx context.Context) (create bool, err error) {
	for begin := time.Now(); ; {
		r := &DB{path: db.path, given: db.given, name: db.name, file: db.file, mayWrite: true}
		version, err := r.openReaders(ctx) // a connection that may write would change the file
		r.closeReaders()
		if e := (sqlite3.Error{}); errors.As(err, &e) && e.ExtendedCode == sqlite3.ErrReadonlyRollback &&
			time.Since(begin) < db.patience {
			if err := db.rollBack(ctx); err != nil {
				return false, err
			}
			continue
		}
		if err != nil {
			return false, err
		}
		kind := int16(unix.F_RDLCK)
		if version == 0 {
			kind = unix.F_WRLCK
		}
		err = db.file.lock(kind, openByte, 1)
		switch {
		case errors.Is(err, errTaken) && time.Since(begin) < db.patience && !db.hurried():
			if err := pause(ctx, 10*time.Millisecond); err != nil {
				return false, err
			}
		case errors.Is(err, errTaken):
			return false, db.inUse(ctx)
		case err != nil:
			return false, db.noLocks(err)
		case version == schemaVersion:
			return false, nil
		default:
			err := db.await(ctx, func() error { return db.claim(ctx) })
			return true, db.explain("create database", err)
		}
	}
}

// OpenReadOnly opens the database at path for reading, also while a runner writes to it, and also where neither the
// file nor its folder can be written. It changes nothing that is stored and creates no database. The error wraps
// fs.ErrNotExist if there is no such file.
func OpenReadOnly(ctx context.Context, path string) (*DB, error) {
	db, err := locate(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(db.path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, db.fault("open database", Missing, fs.ErrNotExist)
		}
		return nil, db.fault("open database", Other, err)
	}
	if db.file, err = openMain(db.path, os.O_RDONLY); err != nil {
		if closed := (*fs.PathError)(nil); errors.As(err, &closed) {
			err = fmt.Errorf("unable to open database file: %w", closed.Err)
		}
		return nil, db.fault("open database", NotReadable, err)
	}
	db.mayWrite = writable(db.path) && writable(filepath.Dir(db.path))
	db.rests = true
	version, err := db.openReaders(ctx)
	if err == nil && version == 0 {
		err = db.fault("open database", Empty, errors.New("it is empty"))
	}
	if err == nil {
		err = db.readable()
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// OpenCopy is OpenReadOnly of a copy of a database, which write makes at a path in a temporary folder. Close removes
// both. Messages have the name of the database that it is a copy of.
func OpenCopy(ctx context.Context, name string, write func(path string) error) (db *DB, err error) {
	dir, err := os.MkdirTemp("", "igcsearch-")
	if err != nil {
		return nil, &Error{Act: "copy", Database: name, Fault: NoTemporary, Err: err}
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	path := filepath.Join(dir, "copy.db")
	if err := write(path); err != nil {
		return nil, err
	}
	if db, err = OpenReadOnly(ctx, path); err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			e.Database = name
		}
		return nil, err
	}
	db.name, db.copied = name, dir
	return db, nil
}

// Close releases what Open and Join took.
func (db *DB) Close() error {
	db.leave(context.Background())
	var errs []error
	if db.copied != "" {
		defer os.RemoveAll(db.copied)
	}
	if db.unhurry != nil {
		db.unhurry()
	}
	errs = append(errs, db.closeReaders())
	if db.write != nil {
		if db.live != nil { // Open has succeeded
			ctx, cancel := context.WithTimeout(context.Background(), db.patience)
			db.finish(ctx)
			cancel()
		}
		errs = append(errs, db.write.Close())
	}
	if db.file != nil && !db.closed.Swap(true) {
		db.file.done()
	}
	return db.explain("close database", errors.Join(errs...))
}

func (db *DB) closeReaders() error {
	db.stillMu.Lock()
	defer db.stillMu.Unlock()
	var errs []error
	for _, pool := range []*sql.DB{db.live, db.still} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	return errors.Join(errs...)
}

// locate resolves path, so that SQLite's own files are the same however the database is reached.
func locate(path string) (*DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	given := abs
	for range 40 { // as many links as Linux follows
		if real, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
			abs = filepath.Join(real, filepath.Base(abs))
		}
		link, err := os.Readlink(abs) // also one to a file that is not there yet
		if err != nil {
			break
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(abs), link)
		}
		abs = link
	}
	db := &DB{path: abs, given: given, name: path, network: networkSystem(abs), lease: search.Lease,
		patience: patience, remotes: map[int64]*remote{}}
	if info, err := os.Stat(abs); err == nil && !info.Mode().IsRegular() {
		return nil, db.fault("open database", NotRegular, errors.New("it is not a regular file"))
	}
	return db, nil
}

func (db *DB) dsn(options url.Values) string {
	options.Set("_busy_timeout", sqliteWait)
	return (&url.URL{Scheme: "file", Path: db.path, RawQuery: options.Encode()}).String()
}

// pool returns connections to the database, which are opened when they are needed.
func (db *DB) pool(options url.Values, writes bool) *sql.DB {
	return sql.OpenDB(connector{db, db.dsn(options), writes})
}

// readOptions are those of a connection that reads while others write. If this process has no right to write the file,
// SQLite makes no -shm for it, which the owner of the file could not write.
func (db *DB) readOptions() url.Values {
	options := url.Values{"mode": {"ro"}, "_query_only": {"on"}, "_stmt_cache_size": {statements}}
	if !db.mayWrite {
		options.Set("readonly_shm", "1")
	}
	return options
}

// openReaders opens db for reading and returns its schema version, 0 if it holds nothing yet. It refuses a file that is
// not ours, every other version, and tables that are not those of the version.
func (db *DB) openReaders(ctx context.Context) (version int, err error) {
	const act = "open database"
	if s, err := db.mainState(); err == nil && s.size == 0 {
		return 0, nil // SQLite would remove a -wal that is there
	}
	altered := ""
	db.rests = true
	db.live = db.pool(db.readOptions(), false)
	err = db.view(ctx, func(tx *sql.Tx) (err error) {
		if _, err := db.unused(ctx, tx); err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
			return err
		}
		if version == schemaVersion {
			altered, err = alteration(ctx, tx)
		}
		return err
	})
	if version == schemaVersion || err != nil {
		if err2 := db.belongs(ctx); err == nil || errors.As(err2, new(*Error)) {
			err = err2
		}
	}
	switch {
	case err != nil:
		return version, db.explain(act, err)
	case altered != "":
		return version, db.fault(act, Altered, errors.New(altered))
	case version > schemaVersion:
		return version, db.fault(act, Newer,
			fmt.Errorf("a newer igcsearch wrote it (schema version %d, this one knows %d)", version, schemaVersion))
	case version > 0 && version < schemaVersion:
		return version, db.fault(act, Older,
			fmt.Errorf("an older igcsearch wrote it (schema version %d, this one reads %d)", version, schemaVersion))
	}
	return version, nil
}

// unused tells an empty database from one of ours, and refuses all others.
func (db *DB) unused(ctx context.Context, tx *sql.Tx) (bool, error) {
	var id int32
	if err := tx.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&id); err != nil || id == applicationID {
		return false, err
	}
	var tables int
	if err := tx.QueryRowContext(ctx, `SELECT count(*)
		FROM sqlite_schema`).Scan(&tables); err != nil || id == 0 && tables == 0 {
		return true, err
	}
	return false, db.fault("open database", Foreign,
		fmt.Errorf("it belongs to another program (application_id %#x)", uint32(id)))
}

// claim creates the file, or takes an empty one, and marks it as ours before the switch to WAL. So the file is empty or
// ours however early this process is killed. An empty file needs no journal on the disk.
func (db *DB) claim(ctx context.Context) error {
	pool := db.pool(url.Values{
		"mode": {"rw"}, "_journal_mode": {"MEMORY"}, "_synchronous": {"FULL"}, "_txlock": {"immediate"},
	}, false)
	defer pool.Close()
	return transact(ctx, pool, func(tx *sql.Tx) error {
		if free, err := db.unused(ctx, tx); err != nil || !free {
			return err // another process was faster
		}
		return exec(ctx, tx, fmt.Sprintf(`PRAGMA application_id = %d`, applicationID))
	})
}

// rollBack ends what a process began that was killed while it switched a new file to WAL. A reader cannot do so. The
// application_id, which was written before the switch, says that the file is ours.
func (db *DB) rollBack(ctx context.Context) error {
	head := make([]byte, 72)
	if n, _ := db.file.ReadAt(head, 0); n < len(head) || binary.BigEndian.Uint32(head[68:]) != applicationID {
		return db.fault("open database", Foreign,
			errors.New("it belongs to another program, which did not finish with it"))
	}
	pool := db.pool(url.Values{"mode": {"rw"}}, false)
	defer pool.Close()
	err := db.await(ctx, func() error {
		_, err := pool.ExecContext(ctx, `SELECT count(*) FROM sqlite_schema`)
		return err
	})
	return db.explain("open database", err)
}

// createTables creates the tables in one transaction, unless another process was faster.
func (db *DB) createTables(ctx context.Context) error {
	return transact(ctx, db.write, func(tx *sql.Tx) error {
		var version int
		if err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil || version > 0 {
			return err
		}
		return exec(ctx, tx, schema+fmt.Sprintf(`PRAGMA user_version = %d`, schemaVersion))
	})
}

// fileState tells whether a database file has changed.
type fileState struct {
	size              int64
	modified, changed unix.Timespec
}

func (db *DB) mainState() (fileState, error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(db.file.Fd()), &s); err != nil {
		return fileState{}, err
	}
	return fileState{s.Size, s.Mtim, s.Ctim}, nil
}

// state returns the state of the main file. The file is at rest if no commit waits outside of it, in a -wal or a
// -journal file. Then no process can be about to write it.
func (db *DB) state() (s fileState, atRest bool) {
	for _, suffix := range []string{"-wal", "-journal"} {
		info, err := os.Stat(db.path + suffix)
		if !errors.Is(err, fs.ErrNotExist) && (err != nil || info.Size() > 0) {
			return fileState{}, false
		}
	}
	s, err := db.mainState()
	return s, err == nil
}

// view runs f in a reading transaction. f may run more than once and must begin afresh each time.
//
// To read a WAL database SQLite creates -wal and -shm beside it. That fails in a folder that cannot be written, and
// leaves the two files behind in one that can, where the owner of the database perhaps cannot write them. A file at
// rest is therefore read as immutable, and what was read counts only if the file is at rest and unchanged afterwards:
// whatever a runner commits is in -wal first, and what leaves -wal changes the main file.
func (db *DB) view(ctx context.Context, f func(*sql.Tx) error) error {
	return db.await(ctx, func() error {
		for range 2 {
			pool, at := db.resting()
			if pool == nil {
				break
			}
			err := transact(ctx, pool, f)
			if s, atRest := db.state(); atRest && s == at {
				return err
			}
		}
		if _, err := os.Stat(db.path + "-shm"); !db.mayWrite && errors.Is(err, fs.ErrNotExist) {
			return db.fault("read", LogClosed, fmt.Errorf("what was stored last is in %s-wal, and only who may write "+
				"the file can take it from there", db.name))
		}
		return transact(ctx, db.live, f)
	})
}

// resting returns a pool that reads the file as immutable, and the state of the file in which it may be used, if the
// file is at rest.
func (db *DB) resting() (*sql.DB, fileState) {
	at, atRest := db.state()
	if !atRest || !db.rests {
		return nil, at
	}
	db.stillMu.Lock()
	defer db.stillMu.Unlock()
	if db.still == nil || db.stillAt != at {
		if db.still != nil {
			db.still.Close() // it has pages of the file as it was
		}
		options := db.readOptions()
		options.Set("immutable", "1")
		db.still, db.stillAt = db.pool(options, false), at
	}
	return db.still, at
}

// await calls try until no lock of another process is in its way. It gives up after a minute, and when ctx ends.
func (db *DB) await(ctx context.Context, try func() error) error {
	for begin := time.Now(); ; {
		err := try()
		e := sqlite3.Error{}
		busy := errors.As(err, &e) && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked)
		if !busy || time.Since(begin) > lockWait || db.hurried() {
			return err
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// hurried reports whether the context of Open has ended some time ago.
func (db *DB) hurried() bool {
	at := db.hurry.Load()
	return at != 0 && time.Now().UnixNano() > at
}

// transact runs f in one transaction and commits it if f returns nil.
func transact(ctx context.Context, pool *sql.DB, f func(*sql.Tx) error) error {
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

func exec(ctx context.Context, tx *sql.Tx, query string, args ...any) error {
	_, err := tx.ExecContext(ctx, query, args...)
	return err
}
