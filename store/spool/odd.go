package spool

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"igcsearch/search"
	"igcsearch/search/regular"
)

// Whoever may write into the folder of a spool may put anything there. This file says what fits. All else is left out,
// with a note, and hinders nobody.

// The largest files, in bytes. A study.json of 100,000 trials has 10 MB, and a state three numbers of four bytes for
// each parameter of the network.
const (
	maxBeat  = 64
	maxFile  = 1 << 20
	maxStudy = 1 << 28
	maxState = 1 << 30
)

// errContent says that a file is not what a worker wrote. It will not get better.
var errContent = errors.New("it is not what a worker wrote")

// unfit reports whether an error is of one file alone, which is left out then. The errors of a file system that is gone
// or broken are not.
func unfit(err error) bool {
	for _, one := range []error{errContent, ErrDamaged, regular.ErrKind, regular.ErrLarge, fs.ErrPermission,
		syscall.ELOOP, syscall.ENOTDIR, syscall.ENXIO} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// notes tells people of what is left out, once of each thing.
type notes struct {
	tell func(string) // may be nil
	said map[string]bool
}

// maxNotes bounds the notes, so that a folder with thousands of odd files does not fill a log.
const maxNotes = 20

func newNotes(tell func(string)) *notes { return &notes{tell, map[string]bool{}} }

// leftOut notes that something is left out, and why.
func (n *notes) leftOut(path string, err error) {
	if n.tell == nil || n.said[path] || len(n.said) > maxNotes {
		return
	}
	if n.said[path] = true; len(n.said) > maxNotes {
		n.tell("more is left out, without a note")
		return
	}
	n.tell(fmt.Sprintf("%s is left out: %v", shown(path), reason(err)))
}

// reason returns an error without the path, which its message has already.
func reason(err error) error {
	if onPath := (*fs.PathError)(nil); errors.As(err, &onPath) {
		return onPath.Err
	}
	return err
}

// shown returns a path for a message of one line.
func shown(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(path)
	}
	return path
}

// parseNumber reads a number that number wrote. It returns false for the same number in another form, like "7", "+007"
// or "00007".
func parseNumber(text string) (n int, ok bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil && n > 0 && number(n) == text
}

// check returns an error (errContent) if no attempt n at a trial of so many epochs begins like that.
func (b *beginFile) check(n, epochs int) error {
	token, err := hex.DecodeString(b.Token)
	switch {
	case !b.Retry && (err != nil || len(token) != 16):
		return fmt.Errorf("%w: its token has not 16 bytes", errContent)
	case b.Until < 0 || b.Until > epochs:
		return fmt.Errorf("%w: it goes on until epoch %d of %d", errContent, b.Until, epochs)
	case !isTime(b.Started):
		return fmt.Errorf("%w: it begins at %v", errContent, b.Started)
	}
	before := 0
	for _, s := range b.From {
		if s.Attempt < 1 || s.Attempt >= n || s.Until <= before || s.Until > epochs {
			return fmt.Errorf("%w: it goes on from epoch %d of attempt %d", errContent, s.Until, s.Attempt)
		}
		before = s.Until
	}
	return nil
}

// check returns an error (errContent) if no attempt ends like that.
func (e *endFile) check() error {
	for _, s := range []search.Status{e.Status, e.Stands} {
		switch s {
		case search.Pending, search.Done, search.Diverged, search.Failed:
		default:
			return fmt.Errorf("%w: no attempt ends as %q", errContent, s)
		}
	}
	switch e.Failure {
	case "", search.FailedDiverged, search.FailedMemory, search.FailedTimeout, search.FailedCrashed,
		search.FailedLost, search.FailedInterrupted:
	default:
		return fmt.Errorf("%w: no attempt fails by %q", errContent, e.Failure)
	}
	if !isTime(e.Time) {
		return fmt.Errorf("%w: it ends at %v", errContent, e.Time)
	}
	e.Message = search.Bounded(e.Message)
	return nil
}

// check returns an error (errContent) if no training of so many epochs measures that.
func (e *epochFile) check(epochs int) error {
	if err := e.Epoch.Check(); err != nil {
		return fmt.Errorf("%w: %w", errContent, err)
	}
	switch {
	case e.Epoch.Number < 1 || e.Epoch.Number > epochs:
		return fmt.Errorf("%w: it is epoch %d of %d", errContent, e.Epoch.Number, epochs)
	case !isTime(e.Time):
		return fmt.Errorf("%w: it ends at %v", errContent, e.Time)
	}
	return nil
}

// isTime reports whether a time can be stored.
func isTime(t time.Time) bool { return t.UnixMilli() > 0 && t.Year() <= 9999 }

// claimPath returns the path of an attempt's claim.
func (t *trial) claimPath(n int) string { return filepath.Join(t.dir, number(n)) }
