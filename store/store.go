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
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3" // and the driver "sqlite3"

	"igcsearch/search"
)

//go:embed schema.sql
var schema string

const (
	// applicationID is "igcs" in ASCII, at offset 68 of the file.
	applicationID = 0x69676373
	// schemaVersion is the version of schema.sql, counted up with every change of it. A database of another version is
	// refused: its results are carried over by export and import. Versions 1 to 6 are from before the first release.
	schemaVersion = 7

	// statements is the size of the statement cache of a runner's connection, large enough for all its statements.
	statements = "100"
)

// DB is an open database. Its methods may be called concurrently.
type DB struct {
	path string // absolute, symbolic links resolved
	name string // as the caller spells it, for messages
	// live are readers that see what other processes commit.
	live *sql.DB
	// write is the one writing connection; nil after OpenReadOnly.
	write *sql.DB
	// still reads a file at rest, see view; nil after Open.
	still   *sql.DB
	stillAt fileState

	network  string // file system that other machines share, "" for a local one
	lease    time.Duration
	patience time.Duration // of lock

	mu      sync.Mutex
	self    *process          // nil before Join
	remotes map[int64]*remote // that this process admitted
	gone    func(ctx context.Context, job string) (bool, error)
	note    func(string) // for people; may be nil
	copied  string       // folder that Close removes, "" for none
	looked  time.Time    // when reclaim was last called

	line line // of those who write
}

// Open opens the database at path for running studies. It creates the file if there is none. It refuses, without
// changing it, a file that is not an igcsearch database, that an igcsearch with another schema wrote, or that cannot be
// written.
func Open(ctx context.Context, path string) (*DB, error) {
	db, err := locate(path)
	if err != nil {
		return nil, err
	}
	folder := filepath.Dir(db.path)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return nil, db.fault("open database", NoFolder, fmt.Errorf("folder %s does not exist", folder))
	}
	alone, err := db.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if alone != nil {
		defer unlock(alone)
	}
	db.write, err = sql.Open("sqlite3", db.dsn(url.Values{
		"mode": {"rw"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"},
		"_foreign_keys": {"on"}, "_busy_timeout": {"60000"}, "_txlock": {"immediate"}, "_stmt_cache_size": {statements},
	}))
	if err != nil {
		return nil, db.explain("open database", err)
	}
	db.write.SetMaxOpenConns(1)
	if alone != nil {
		err = db.createTables(ctx)
	}
	if err == nil {
		// SQLite opens a file that it may not write for reading, without an error. A statement that would write, if
		// there were a row, returns one.
		_, err = db.write.ExecContext(ctx, `DELETE FROM study WHERE id IS NULL`)
	}
	if err == nil {
		db.live, err = sql.Open("sqlite3", db.dsn(url.Values{
			"mode": {"rw"}, "_query_only": {"on"}, "_busy_timeout": {"60000"}, "_stmt_cache_size": {statements},
		}))
	}
	if err != nil {
		db.write.Close()
		return nil, db.explain("open database", err)
	}
	db.live.SetMaxIdleConns(8) // to open one costs more than most of what is read
	return db, nil
}

// prepare looks what is at the path before Open opens it for writing. If the tables are not there, it returns the lock
// of the process that is to create them. The other processes wait until they get the lock or until the tables are
// there.
func (db *DB) prepare(ctx context.Context) (alone *os.File, err error) {
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		patient := time.Since(begin) < db.patience && ctx.Err() == nil
		version := 0
		if _, err := os.Stat(db.path); err == nil {
			r := &DB{path: db.path, name: db.name} // a connection that may write would change the file
			version, err = r.openReaders(ctx)
			r.Close()
			if e := (sqlite3.Error{}); errors.As(err, &e) && e.ExtendedCode == sqlite3.ErrReadonlyRollback && patient {
				if err := db.rollBack(ctx); err != nil {
					return nil, err
				}
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		if version == schemaVersion {
			return nil, nil
		}
		alone, err := db.lock(true, 0, 0)
		var e *Error
		if errors.As(err, &e) && (e.Fault == InUse || e.Fault == InUseNetwork) && patient {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := db.claim(ctx); err != nil {
			unlock(alone)
			return nil, db.explain("create database", err)
		}
		return alone, nil
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
	version, err := db.openReaders(ctx)
	if err == nil && version == 0 {
		err = db.fault("open database", Empty, errors.New("it is empty"))
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
	for _, pool := range []*sql.DB{db.live, db.still} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	if db.write != nil {
		// SQLite moves everything from -wal into the one file that people copy when the last connection closes, but
		// not if a reader has the file open. An error does not matter, because the data are safe in -wal too, and this
		// waits for nobody.
		db.write.Exec(`PRAGMA busy_timeout = 0`)
		db.write.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`)
		errs = append(errs, db.write.Close())
	}
	return db.explain("close database", errors.Join(errs...))
}

// locate resolves path, so that the lock file and SQLite's own files are the same however the database is reached.
func locate(path string) (*DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	db := &DB{path: abs, name: path, network: networkSystem(abs), lease: search.Lease, patience: patience,
		remotes: map[int64]*remote{}}
	if info, err := os.Stat(abs); err == nil && !info.Mode().IsRegular() {
		return nil, db.fault("open database", NotRegular, errors.New("it is not a regular file"))
	}
	return db, nil
}

func (db *DB) dsn(options url.Values) string {
	return (&url.URL{Scheme: "file", Path: db.path, RawQuery: options.Encode()}).String()
}

// openReaders opens db for reading and returns its schema version, 0 if it holds nothing yet. It refuses a file that is
// not ours, every other version, and tables that are not those of the version.
func (db *DB) openReaders(ctx context.Context) (version int, err error) {
	const act = "open database"
	altered := ""
	db.stillAt, _ = db.state() // before the first look into the file
	options := url.Values{
		"mode": {"ro"}, "_query_only": {"on"}, "_busy_timeout": {"60000"}, "_stmt_cache_size": {statements},
	}
	db.live, err = sql.Open("sqlite3", db.dsn(options))
	if err == nil {
		options.Set("immutable", "1")
		db.still, err = sql.Open("sqlite3", db.dsn(options))
	}
	if err == nil {
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
	pool, err := sql.Open("sqlite3", db.dsn(url.Values{
		"mode": {"rwc"}, "_journal_mode": {"MEMORY"}, "_synchronous": {"FULL"},
		"_busy_timeout": {"60000"}, "_txlock": {"immediate"},
	}))
	if err != nil {
		return err
	}
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
	f, err := os.Open(db.path)
	if err != nil {
		return db.fault("open database", Other, err)
	}
	_, err = io.ReadFull(f, head)
	f.Close()
	if err != nil || binary.BigEndian.Uint32(head[68:]) != applicationID {
		return db.fault("open database", Foreign,
			errors.New("it belongs to another program, which did not finish with it"))
	}
	pool, err := sql.Open("sqlite3", db.dsn(url.Values{"mode": {"rw"}, "_busy_timeout": {"60000"}}))
	if err == nil {
		defer pool.Close()
		_, err = pool.ExecContext(ctx, `SELECT count(*) FROM sqlite_schema`)
	}
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
	size     int64
	modified time.Time
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
	info, err := os.Stat(db.path)
	if err != nil {
		return fileState{}, false
	}
	return fileState{info.Size(), info.ModTime()}, true
}

// view runs f in a reading transaction. f may run twice and must begin afresh each time.
//
// To read a WAL database SQLite creates -wal and -shm beside it. That fails in a folder that cannot be written, and
// leaves the two files behind in one that can. A file at rest is therefore read as immutable, and what was read counts
// only if the file is at rest and unchanged afterwards: whatever a runner commits is in -wal first, and what leaves
// -wal changes the main file. It is enough to look at size and time. If package os opened and closed the file, it would
// drop the POSIX locks that SQLite holds on it in this process.
func (db *DB) view(ctx context.Context, f func(*sql.Tx) error) error {
	if db.still != nil {
		if s, atRest := db.state(); atRest && s == db.stillAt {
			err := transact(ctx, db.still, f)
			if s, atRest := db.state(); atRest && s == db.stillAt {
				return err
			}
		}
	}
	return transact(ctx, db.live, f)
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
