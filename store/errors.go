package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/mattn/go-sqlite3"
)

// ErrNoStudy is wrapped by the error for a name that no study has; its text
// lists the names there are.
var ErrNoStudy = errors.New("no such study")

// ConflictError says that a study's name is taken by other settings.
type ConflictError struct {
	Study    string
	Database string   // as given to Open
	Diff     []string // of search.Diff: "epochs: 400 there, 20 here"
}

// Error has one line per difference, and one that says what to do.
func (e *ConflictError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "study %q is stored in %s with other settings:\n", e.Study, e.Database)
	for _, line := range e.Diff {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	if len(e.Diff) == 0 {
		b.WriteString("  settings that this version of igcsearch does not have\n")
	}
	b.WriteString("give this one another name (--set name=NEW) or another database (--db FILE)")
	return b.String()
}

// reported marks an error that already names the file and says what to do.
type reported struct{ error }

func (e reported) Unwrap() error { return e.error }

// explain names the file and says what to do about SQLite's result codes.
func (db *DB) explain(act string, err error) error {
	if r := (reported{}); err == nil || errors.As(err, &r) {
		return err
	}
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s %s: %w", act, db.name, err)
	}
	hint := ""
	switch {
	case e.Code == sqlite3.ErrFull, e.SystemErrno == syscall.ENOSPC, e.SystemErrno == syscall.EDQUOT:
		hint = "the disk is full; free some space and run again, all epochs stored so far are kept"
	case e.Code == sqlite3.ErrNotADB:
		hint = "give the --db of an igcsearch database, or a new name"
	case e.Code == sqlite3.ErrCorrupt:
		hint = "the file is damaged; copy it before anything else, then salvage it with: sqlite3 FILE .recover"
	case e.Code == sqlite3.ErrReadonly, e.Code == sqlite3.ErrPerm, e.Code == sqlite3.ErrCantOpen:
		hint = fmt.Sprintf("check the permissions of the file and of folder %s, a run writes both; or give another --db", filepath.Dir(db.path))
	case e.Code == sqlite3.ErrBusy, e.Code == sqlite3.ErrLocked:
		hint = "another process holds it; wait for it or stop it, and try again"
	case e.Code == sqlite3.ErrIoErr:
		hint = "look at the disk and the system's log, then run again"
	default:
		return fmt.Errorf("%s %s: %w", act, db.name, err)
	}
	return fmt.Errorf("%s %s: %w: %s", act, db.name, err, hint)
}
