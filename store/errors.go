package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"
)

// ErrNoStudy is wrapped by the error for a name that no study has. Its text lists the names that there are.
var ErrNoStudy = errors.New("no such study")

// ConflictError says that the name of a study is taken by other settings.
type ConflictError struct {
	Study    string
	Database string   // as given to Open
	Diff     []string // of search.Diff: "epochs: 400 there, 20 here"
}

// Error has one line for each difference.
func (e *ConflictError) Error() string {
	diff := e.Diff
	if len(diff) == 0 {
		diff = []string{"settings that this version of igcsearch does not have"}
	}
	return fmt.Sprintf("study %q is stored in %s with other settings:\n  %s",
		e.Study, e.Database, strings.Join(diff, "\n  "))
}

// BusyError says that other processes train trials of a study, which can therefore not be changed.
type BusyError struct {
	Study, Database string
	Workers         []Worker
}

func (e *BusyError) Error() string {
	var processes []string
	for _, w := range e.Workers {
		processes = append(processes, fmt.Sprintf("process %d on %s", w.PID, w.Host))
	}
	verb := "trains"
	if len(processes) > 1 {
		verb = "train"
	}
	return fmt.Sprintf("study %q in %s: %s %s trials of it now", e.Study, e.Database, strings.Join(processes, ", "), verb)
}

// Fault tells what an Error is about, so that a command can say what to do.
type Fault int

const (
	Other          Fault = iota // the text says all that there is to say
	NoFolder                    // there is no folder for the new database
	Missing                     // there is no database; the error wraps fs.ErrNotExist
	Empty                       // the file is empty
	NotRegular                  // the file is a folder or a device
	NotADatabase                // SQLite did not write the file
	Foreign                     // another program wrote the database
	Older                       // an older igcsearch wrote the database
	Newer                       // a newer igcsearch wrote the database
	Altered                     // somebody changed the tables of the database
	Contradictory               // the database has a value that no igcsearch stores
	NotReadable                 // the file cannot be read
	NotWritable                 // the file or its folder cannot be written
	LogClosed                   // -wal or -shm beside the database cannot be written
	FolderClosed                // the folder of a new database cannot be written
	HardLinks                   // the file has several names
	Mounted                     // the file itself is mounted, without the files beside it
	Stranger                    // a file beside it has a name that SQLite needs, and SQLite did not write it
	Mixed                       // the -wal beside it does not belong to it
	Lost                        // it was removed, replaced or overwritten while it was in use
	LostLog                     // the same was done to its -wal or -shm
	InUseElsewhere              // another process has it open by another name
	NoLocks                     // the file system has no locks
	Exists                      // there is a file where a new database was to be made; the error wraps fs.ErrExist
	InUse                       // another process has the database for itself
	InUseNetwork                // the same, on a network file system, where only one process can have it
	NoTemporary                 // there is no folder for temporary files
	NoStudies                   // the database has no study yet; the error wraps ErrNoStudy
)

// Error is an error of a database.
type Error struct {
	Act      string // what failed, "open database"; "" if Err says it
	Database string // as given to Open
	Folder   string // of the database
	Fault    Fault
	Err      error
}

func (e *Error) Error() string {
	if e.Act == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s %s: %v", e.Act, e.Database, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// fault returns an Error of this database.
func (db *DB) fault(act string, fault Fault, err error) *Error {
	return &Error{Act: act, Database: db.name, Folder: filepath.Dir(db.path), Fault: fault, Err: err}
}

// explain makes an error an Error of this database, if it is none yet, and says what SQLite's result codes mean.
func (db *DB) explain(act string, err error) error {
	if err == nil || errors.As(err, new(*Error)) {
		return err
	}
	if c := contradiction(""); errors.As(err, &c) {
		if strings.HasPrefix(err.Error(), "sql: Scan error") {
			err = c
		}
		return db.fault(act, Contradictory, err)
	}
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return db.fault(act, Other, err)
	}
	hint := ""
	switch {
	case e.Code == sqlite3.ErrFull, e.SystemErrno == syscall.ENOSPC, e.SystemErrno == syscall.EDQUOT:
		hint = "the disk is full; free some space and run again, all epochs stored so far are kept"
	case e.Code == sqlite3.ErrNotADB:
		return db.fault(act, NotADatabase, err)
	case e.Code == sqlite3.ErrCorrupt && db.LogMissing():
		hint = "it was in use when it was last written, and there is no " + db.name + "-wal beside it: either it is a " +
			"copy that was made meanwhile and without that file, or the file was removed"
	case e.Code == sqlite3.ErrCorrupt:
		hint = "the file is damaged; copy it before anything else, then salvage it with: sqlite3 FILE .recover"
	case e.Code == sqlite3.ErrReadonly, e.Code == sqlite3.ErrPerm, e.Code == sqlite3.ErrCantOpen:
		if closed := db.closedLog(); closed != "" {
			return db.fault(act, LogClosed, fmt.Errorf("%w: this user may not write %s", err, closed))
		}
		return db.fault(act, NotWritable, err)
	case e.Code == sqlite3.ErrBusy, e.Code == sqlite3.ErrLocked:
		hint = "another process holds it; wait for it or stop it, and try again"
	case e.Code == sqlite3.ErrIoErr:
		hint = "look at the disk and the system's log, then run again"
	default:
		return db.fault(act, Other, err)
	}
	return db.fault(act, Other, fmt.Errorf("%w: %s", err, hint))
}

// contradiction says what value of the file no igcsearch stores. A file may come from somebody else, so readers refuse
// a value that would not fit into what is made of it: an epoch after the last, a time after the year 9999.
type contradiction string

func (c contradiction) Error() string { return string(c) }

// brief is a text of the file, or an error that quotes one, as a message has it: the file may have any length.
func brief(text string) string {
	const most = 300
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}

// closedLog names those of -wal and -shm that this user cannot write.
func (db *DB) closedLog() string {
	var names []string
	for _, suffix := range logSuffixes {
		if idAt(db.path+suffix) != (fileID{}) && !writable(db.path+suffix) {
			names = append(names, db.name+suffix)
		}
	}
	return strings.Join(names, " and ")
}

// writable reports whether this process has the right to write a file or in a folder.
func writable(path string) bool {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS) == nil
}
