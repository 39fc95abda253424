package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"igcsearch/search"
)

// A database can be removed, replaced or overwritten while it is in use. SQLite does not notice that: it goes on with
// the file that it has open, or mixes the pages of two databases. So before and after every commit this process looks
// whether what it has open is still what is at the path, and whether the main file alone holds what it held before.
//
// For the second, the table file has one row with a random id of the database and the number of its commits. Only a
// checkpoint writes the main file, so the number that the main file alone holds never falls, never passes that of the
// whole database, and is not below that with which the -wal begins. "Alone" means without -wal, where newer commits
// wait.

// fileRow is the row of the table file.
type fileRow struct {
	id              string
	commits, closed int64
	schema          int64 // counted up by every change of the schema and by a vacuum
	page            int64 // that the row is on
}

// seen is what was found in the main file alone when its state was this, and -wal had begun with this salt.
type seen struct {
	at   fileState
	salt string
	row  fileRow
}

func readFileRow(ctx context.Context, tx *sql.Tx) (r fileRow, err error) {
	err = tx.QueryRowContext(ctx, `SELECT hex(id), commits, closed, schema_version,
			(SELECT rootpage FROM sqlite_schema WHERE name = 'file')
		FROM file, pragma_schema_version`).Scan(&r.id, &r.commits, &r.closed, &r.schema, &r.page)
	return r, err
}

// goneError is wrapped by the error of a database that is not any more what this process has opened.
type goneError struct{ text string }

func (e goneError) Error() string        { return e.text }
func (e goneError) Is(target error) bool { return target == search.ErrGone }

// lose notes that nothing may be written any more.
func (db *DB) lose(fault Fault, text string) error {
	db.lost.CompareAndSwap(nil, db.fault("go on with", fault, goneError{text + " while it was in use"}))
	return db.lost.Load()
}

// misplaced returns an error if other files than those that this process has open are at their paths.
func (db *DB) misplaced() error {
	if lost := db.lost.Load(); lost != nil {
		return lost
	}
	switch here, there := hasID(db.path, db.file.id); {
	case !there:
		return db.lose(Lost, "the file was removed or renamed")
	case !here:
		return db.lose(Lost, "another file was put in its place")
	}
	if here, _ := hasID(db.given, db.file.id); !here {
		return db.lose(Lost, "a symbolic link on the way to it was removed or changed")
	}
	db.logMu.Lock()
	defer db.logMu.Unlock()
	for i, suffix := range logSuffixes {
		if db.log[i] == (fileID{}) {
			continue
		}
		if here, _ := hasID(db.path+suffix, db.log[i]); !here {
			return db.lose(LostLog, fmt.Sprintf("%s%s, a part of it, was removed or replaced", db.name, suffix))
		}
	}
	return nil
}

// hasID reports whether the file at a path has an ID, and whether there is a file. A file that cannot be looked at
// counts as the right one.
func hasID(path string, id fileID) (here, there bool) {
	var s unix.Stat_t
	err := unix.Stat(path, &s)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return false, false
	}
	return err != nil || idOf(s) == id, true
}

var logSuffixes = [2]string{"-wal", "-shm"}

// noteLog notes which -wal and -shm SQLite has opened for the writing connection. They stay until it is closed.
func (db *DB) noteLog() {
	db.logMu.Lock()
	defer db.logMu.Unlock()
	for i, suffix := range logSuffixes {
		db.log[i] = idAt(db.path + suffix)
	}
}

func (db *DB) forgetLog() {
	db.logMu.Lock()
	defer db.logMu.Unlock()
	db.log = [2]fileID{}
}

// check looks in a writing transaction whether the database is still what this process has opened, and returns its row.
func (db *DB) check(ctx context.Context, tx *sql.Tx) (fileRow, error) {
	if db.unnoted() {
		db.noteLog() // SQLite made them with the first transaction of a new file
	}
	live, err := readFileRow(ctx, tx)
	if err != nil {
		return live, err
	}
	if err := db.misplaced(); err != nil {
		return live, err
	}
	if err := db.checkMain(&live); err != nil {
		return live, err
	}
	return live, db.checkLog(live)
}

// checkLog looks in a writing transaction whether -wal holds the newest commit, unless the main file does. It looks from
// where it found the one before.
func (db *DB) checkLog(live fileRow) error {
	if live.commits < db.newest.commits {
		return db.lose(Lost, "an older copy was written over all its files")
	}
	if live.commits == db.main.row.commits {
		db.newest.commits = live.commits
		return nil
	}
	at, found := db.findCommit(live, db.newest)
	if !found {
		return db.lose(Lost, fmt.Sprintf("%s-wal, a part of it, was emptied or overwritten", db.name))
	}
	db.newest = at
	return nil
}

func (db *DB) unnoted() bool {
	db.logMu.Lock()
	defer db.logMu.Unlock()
	return db.log[0] == fileID{}
}

// unreadable is how long the row may be unreadable while the main file stands still: another process may be writing it.
const unreadable = time.Second

// checkMain looks at the main file alone, if it or the begin of -wal has changed since the last time. live is the row of
// the whole database in a transaction that writes, so that it cannot change; nil if that is not known.
func (db *DB) checkMain(live *fileRow) error {
	var last fileState
	for since := time.Now(); ; {
		at, err := db.mainState()
		salt := db.logBegin(0).salt
		if err != nil || at == db.main.at && salt == db.main.salt {
			return nil
		}
		if at != last {
			since, last = time.Now(), at
		}
		page := cmp.Or(db.main.row.page, filePage)
		if live != nil {
			page = live.page
		}
		begin := db.logBegin(page) // before the row, whose commits only rise
		row, err := db.mainRow(page)
		switch {
		case err == nil:
			if why := row.differs(db.main.row, live, begin); why != "" {
				return db.lose(Lost, why)
			}
			db.main = seen{at, begin.salt, row}
			return nil
		case !errors.Is(err, errNotOurs) && db.main.row.id == "":
			return nil // whoever created the tables, or compacted the file, ended before they were in the main file
		case errors.Is(err, errNotOurs) || time.Since(since) > unreadable:
			return db.lose(Lost, "something else was written over it")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// differs says in which way the row of a main file is not one that a checkpoint can have written after the row before,
// for a -wal that begins there.
func (r fileRow) differs(before fileRow, live *fileRow, begin logBegins) string {
	if live != nil && before.id == "" {
		before.id = live.id
	}
	switch {
	case before.id != "" && r.id != before.id:
		return "another database or a backup was written over it"
	case r.commits < max(before.commits, begin.commits):
		return "an older copy was written over it"
	case live != nil && (r.commits > live.commits || r.schema > live.schema):
		return "another copy was written over it"
	}
	return ""
}

// belongs refuses a database whose -wal is of another one, or of another state of it, as a backup leaves it that was
// copied over a database after a crash. SQLite would mix the two.
func (db *DB) belongs(ctx context.Context) error {
	if _, atRest := db.state(); atRest {
		return nil
	}
	before, err1 := db.mainRow(filePage) // has no more commits than live
	var live fileRow
	err2 := transact(ctx, db.live, func(tx *sql.Tx) (err error) {
		live, err = readFileRow(ctx, tx)
		return err
	})
	begin := db.logBegin(filePage)
	after, err3 := db.mainRow(filePage) // has no fewer than when -wal was begun
	why := ""
	switch {
	case errors.Is(err1, errNotOurs):
		why = "it does not begin as a database does"
	case errors.Join(err1, err3) == nil && damaged(err2):
		why = "without it there is no error, with it: " + err2.Error()
	case err2 != nil:
		return err2
	case errors.Join(err1, err3) == nil:
		if before.differs(fileRow{}, &live, logBegins{}) != "" || after.differs(fileRow{}, nil, begin) != "" {
			why = "the one is of another state or another database than the other"
		}
	}
	if why == "" {
		return nil
	}
	return db.fault("open database", Mixed, fmt.Errorf("it does not fit to %s-wal, which lies beside it: %s",
		db.name, why))
}

// damaged reports whether SQLite takes a file for damaged or for no database.
func damaged(err error) bool {
	e := sqlite3.Error{}
	return errors.As(err, &e) && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB)
}

// count counts a commit.
func (db *DB) count(ctx context.Context, tx *sql.Tx) error {
	return exec(ctx, tx, `UPDATE file SET commits = commits + 1`)
}

// commit runs f in a writing transaction, if the database is still what this process has opened.
func (db *DB) commit(ctx context.Context, f func(*sql.Tx) error) error {
	if lost := db.lost.Load(); lost != nil {
		return lost
	}
	err := db.tryCommit(ctx, f)
	if err == nil {
		// The commit may have moved pages into the main file. Look now what it holds, before others write over it.
		err = db.checkMain(nil)
	} else if damaged(err) && db.misplaced() == nil {
		// Perhaps something was written over the main file. How many commits there are cannot be told now.
		known := db.main.row
		known.commits = math.MaxInt64
		db.checkMain(&known)
	}
	if lost := db.lost.Load(); lost != nil {
		return db.rescue(lost)
	}
	return err
}

func (db *DB) tryCommit(ctx context.Context, f func(*sql.Tx) error) error {
	var tx *sql.Tx
	err := db.await(ctx, func() (err error) {
		tx, err = db.write.BeginTx(ctx, nil)
		return err
	})
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	if _, err := db.check(ctx, tx); err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return err
	}
	if err := db.count(ctx, tx); err != nil {
		return err
	}
	if err := db.misplaced(); err != nil {
		return err
	}
	return tx.Commit()
}

// rescue moves what is in a -wal that has no name any more into the main file, if that is the right one, and says so.
func (db *DB) rescue(lost *Error) error {
	if lost.Fault != LostLog || db.rescued.Swap(true) {
		return lost
	}
	said := "what was stored last is lost, because there are others at its place"
	if here, _ := hasID(db.path, db.file.id); here && !db.logReplaced() {
		var busy, frames, moved int
		err := db.write.QueryRow(`PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &frames, &moved)
		said = "what was stored is in the file now"
		if err != nil || busy != 0 {
			said = "what was stored last could not be moved into the file"
		}
	}
	whole := *lost
	whole.Err = goneError{lost.Err.Error() + "; " + said}
	db.lost.Store(&whole)
	return &whole
}

// logReplaced reports whether other files have come to the places of -wal and -shm.
func (db *DB) logReplaced() bool {
	db.logMu.Lock()
	defer db.logMu.Unlock()
	for i, suffix := range logSuffixes {
		if here, there := hasID(db.path+suffix, db.log[i]); there && !here {
			return true
		}
	}
	return false
}

// hold keeps SQLite from moving -wal into the main file, and from removing a file of that name, when the last
// connection closes.
func (db *DB) hold() { db.file.lock(unix.F_RDLCK, sqliteBytes, sqliteShared) }

// finish notes, if nobody else writes, that all commits are in the main file, and moves them there.
func (db *DB) finish(ctx context.Context) {
	if lost := db.lost.Load(); lost != nil {
		if here, _ := hasID(db.path, db.file.id); !here || !db.rescued.Load() || db.logReplaced() {
			db.hold()
		}
		return
	}
	if db.line.enter(ctx, &db.line.first) != nil {
		return // somebody still writes
	}
	defer db.line.leave()
	// Of two that close at once, one gives its share up before the other asks for all.
	db.file.lock(unix.F_UNLCK, openByte, 1)
	if db.file.lock(unix.F_WRLCK, openByte, 1) == nil {
		db.tryCommit(ctx, func(tx *sql.Tx) error {
			n, err := changes(tx.ExecContext(ctx, `UPDATE file SET closed = commits + 1 WHERE closed <> commits`))
			if err == nil && n == 0 {
				err = errors.New("nothing was written")
			}
			return err
		})
	}
	if db.lost.Load() != nil {
		db.hold()
		return
	}
	// SQLite moves everything from -wal into the one file that people copy when the last connection closes, but not if
	// a reader has the file open. An error does not matter, because the data are safe in -wal too, and this waits for
	// nobody.
	db.write.Exec(`PRAGMA busy_timeout = 0`)
	db.write.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`)
}

// LogMissing reports whether the file was in use when it was last written, and has no -wal beside it. Then it is a copy
// that somebody made while a process wrote, or its -wal was removed, and what was stored last is not in it; or another
// program than this one has moved all that there was into the file.
func (db *DB) LogMissing() bool {
	row, err := db.mainRow(filePage)
	if err != nil || row.commits == row.closed {
		return false
	}
	_, err = os.Stat(db.path + "-wal")
	return errors.Is(err, fs.ErrNotExist)
}
