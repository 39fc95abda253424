package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-sqlite3"

	"igcsearch/search"
	"igcsearch/space"
)

var _ search.Store = (*DB)(nil)

// maxMessage bounds attempt.message, in characters.
const maxMessage = 4000

// The values of attempt.outcome; done, diverged and failed are those of
// search.Status.
const (
	interrupted = "interrupted"
	lost        = "lost"
)

// Plan implements search.Store. Failed trials become pending as well. It
// returns a *ConflictError if the study's name is taken by other settings,
// and an error if another process runs a study of this database.
func (db *DB) Plan(ctx context.Context, s search.Study, trials []search.Trial) ([]search.Trial, error) {
	// What another process runs must not be taken from it.
	if !db.locked() {
		release, err := db.LockRunner()
		if err != nil {
			return nil, err
		}
		defer release()
	}
	var planned []search.Trial
	err := db.update(ctx, func(tx *sql.Tx) error {
		study, isNew, err := db.putStudy(ctx, tx, s)
		if err != nil {
			return err
		}
		changed := isNew
		change := func(query string, args ...any) {
			if err != nil {
				return // and nothing more: SQLite may have rolled back
			}
			var r sql.Result
			if r, err = tx.ExecContext(ctx, query, args...); err != nil {
				return
			}
			var n int64
			n, err = r.RowsAffected()
			changed = changed || n > 0
		}
		change(`UPDATE study SET title = ?2 WHERE id = ?1 AND title <> ?2`, study, s.Title)
		change(`UPDATE attempt SET ended = max(started, ?2), outcome = ?3
			WHERE ended IS NULL AND trial IN (SELECT id FROM trial WHERE study = ?1)`, study, now(), lost)
		change(`UPDATE trial SET status = ?2 WHERE study = ?1 AND status IN (?3, ?4)`,
			study, search.Pending, search.Running, search.Failed)
		for _, t := range trials {
			p := t.System.Pair()
			change(`INSERT INTO trial (study, system, L, M, seed, status, epochs, multiply_adds, params)
				VALUES (?, ?, nullif(?, 0), nullif(?, 0), ?, ?, ?, ?, nullif(?, 0)) ON CONFLICT (study, system, seed) DO NOTHING`,
				study, t.System.String(), p.L, p.M, t.Seed, search.Pending, t.Epochs, t.MultiplyAdds, t.Params)
		}
		if err != nil {
			return err
		}
		if changed {
			if err := touch(ctx, tx, study); err != nil {
				return err
			}
		}
		stored, err := db.findTrials(ctx, tx, study)
		if err != nil {
			return err
		}
		type key struct {
			space.System
			seed int
		}
		byKey := map[key]search.Trial{}
		for _, t := range stored {
			byKey[key{t.System, t.Seed}] = t
		}
		planned = make([]search.Trial, len(trials))
		for i, t := range trials {
			k := key{t.System, t.Seed}
			if _, ok := byKey[k]; !ok {
				return fmt.Errorf("trial %s seed %d is planned twice", t.System.Label(), t.Seed)
			}
			planned[i] = byKey[k]
			delete(byKey, k)
		}
		return nil
	})
	if c := (*ConflictError)(nil); errors.As(err, &c) {
		return nil, c
	}
	if err != nil {
		return nil, db.explain(fmt.Sprintf("plan study %q in", s.Name), err)
	}
	return planned, nil
}

// putStudy returns the row of a study, inserted if there is none.
func (db *DB) putStudy(ctx context.Context, tx *sql.Tx, s search.Study) (id int64, isNew bool, err error) {
	var fingerprint string
	err = tx.QueryRowContext(ctx, `SELECT id, fingerprint FROM study WHERE name = ?`, s.Name).Scan(&id, &fingerprint)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		t := now()
		r, err := tx.ExecContext(ctx, `INSERT INTO study (name, title, settings, fingerprint, created, updated)
			VALUES (?, ?, ?, ?, ?, ?)`, s.Name, s.Title, string(s.Settings()), s.Fingerprint(), t, t)
		if err != nil {
			return 0, false, err
		}
		id, err = r.LastInsertId()
		return id, true, err
	case err != nil:
		return 0, false, err
	case fingerprint != s.Fingerprint():
		_, there, err := db.findStudy(ctx, tx, s.Name)
		if err != nil {
			return 0, false, err
		}
		return 0, false, &ConflictError{Study: s.Name, Database: db.name, Diff: search.Diff(there, s)}
	}
	return id, false, nil
}

// Begin implements search.Store. The trial must be pending: a trial that
// another worker has, or that is finished, is refused. So is a checkpoint
// that is not what was stored.
func (db *DB) Begin(ctx context.Context, trial int64, a search.Attempt) (attempt int64, from *search.Checkpoint, err error) {
	args, err := json.Marshal(append([]string{}, a.Args...)) // [] rather than null
	if err != nil {
		return 0, nil, err
	}
	started := now()
	if !a.Started.IsZero() {
		started = a.Started.UnixMilli()
	}
	err = db.update(ctx, func(tx *sql.Tx) error {
		var study int64
		var status search.Status
		err := tx.QueryRowContext(ctx, `SELECT study, status FROM trial WHERE id = ?`, trial).Scan(&study, &status)
		if errors.Is(err, sql.ErrNoRows) {
			return errors.New("there is no such trial")
		}
		if err != nil {
			return err
		}
		if status != search.Pending {
			return fmt.Errorf("it is %s, want %s", status, search.Pending)
		}
		r, err := tx.ExecContext(ctx, `INSERT INTO attempt
			(trial, started, git_commit, go_version, cpu, isa, device, host, pid, args)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			trial, started, a.Commit, a.GoVersion, a.CPU, a.ISA, a.Device, a.Host, a.PID, string(args))
		if e := (sqlite3.Error{}); errors.As(err, &e) && e.ExtendedCode == sqlite3.ErrConstraintUnique {
			return errors.New("it has an attempt that is still open")
		}
		if err != nil {
			return err
		}
		if attempt, err = r.LastInsertId(); err != nil {
			return err
		}
		if from, err = findCheckpoint(ctx, tx, trial); err != nil {
			return err
		}
		return setStatus(ctx, tx, study, trial, search.Running)
	})
	if err != nil {
		return 0, nil, db.explain(fmt.Sprintf("begin trial %d in", trial), err)
	}
	return attempt, from, nil
}

// Record implements search.Store. The epoch must follow the last one stored
// and the attempt must be open: the late result of an attempt that was given
// up is refused. It returns when the data are on the disk.
func (db *DB) Record(ctx context.Context, attempt int64, e search.Epoch, c search.Checkpoint) error {
	sum := sha256.Sum256(c.State) // before the transaction: the others wait
	state := c.State
	if state == nil {
		state = []byte{} // nil would be NULL
	}
	err := db.update(ctx, func(tx *sql.Tx) error {
		t, err := openAttempt(ctx, tx, attempt)
		if err != nil {
			return err
		}
		switch {
		case e.Number != t.epoch+1:
			return fmt.Errorf("want epoch %d, the one after the last stored", t.epoch+1)
		case e.Number > t.epochs:
			return fmt.Errorf("the training has %d epochs", t.epochs)
		case c.Epoch != e.Number:
			return fmt.Errorf("its checkpoint is of epoch %d", c.Epoch)
		}
		// NaN would be bound as NULL all the same; said here because scanning
		// has to undo it. Infinities are stored as they are.
		loss := sql.NullFloat64{Float64: e.TrainLoss, Valid: !math.IsNaN(e.TrainLoss)}
		if _, err := tx.ExecContext(ctx, `INSERT INTO epoch (trial, number, attempt, learning_rate, train_loss,
				train_correct, train_total, validation_correct, validation_total, test_correct, test_total,
				train_seconds, eval_seconds)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			t.id, e.Number, attempt, e.LearningRate, loss,
			e.TrainCorrect, e.TrainTotal, e.ValidationCorrect, e.ValidationTotal, e.TestCorrect, e.TestTotal,
			e.TrainSeconds, e.EvalSeconds); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO checkpoint (trial, epoch, state, sha256) VALUES (?, ?, ?, ?)
			ON CONFLICT (trial) DO UPDATE SET epoch = excluded.epoch, state = excluded.state, sha256 = excluded.sha256`,
			t.id, c.Epoch, state, sum[:]); err != nil {
			return err
		}
		return touch(ctx, tx, t.study)
	})
	if err != nil {
		return db.explain(fmt.Sprintf("record epoch %d of attempt %d in", e.Number, attempt), err)
	}
	return nil
}

// End implements search.Store. Done needs all epochs stored. Of a message
// longer than 4000 characters the middle is left out.
func (db *DB) End(ctx context.Context, attempt int64, s search.Status, message string) error {
	err := db.update(ctx, func(tx *sql.Tx) error {
		t, err := openAttempt(ctx, tx, attempt)
		if err != nil {
			return err
		}
		outcome := string(s)
		switch {
		case s == search.Pending:
			outcome = interrupted
		case s == search.Done && t.epoch < t.epochs:
			return fmt.Errorf("the trial has %d of %d epochs", t.epoch, t.epochs)
		case s != search.Done && s != search.Diverged && s != search.Failed:
			return fmt.Errorf("no attempt ends as %q", s)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE attempt SET ended = max(started, ?2), outcome = ?3, message = ?4 WHERE id = ?1`,
			attempt, now(), outcome, bounded(message)); err != nil {
			return err
		}
		return setStatus(ctx, tx, t.study, t.id, s)
	})
	if err != nil {
		return db.explain(fmt.Sprintf("end attempt %d in", attempt), err)
	}
	return nil
}

// update runs f in a writing transaction.
func (db *DB) update(ctx context.Context, f func(*sql.Tx) error) error {
	if db.still != nil {
		return errors.New("it was opened for reading only")
	}
	return transact(ctx, db.live, f)
}

func (db *DB) locked() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.runner != nil
}

// openTrial is the trial of an open attempt.
type openTrial struct {
	id, study     int64
	epoch, epochs int // stored, whole
}

func openAttempt(ctx context.Context, tx *sql.Tx, attempt int64) (t openTrial, err error) {
	var outcome sql.NullString
	err = tx.QueryRowContext(ctx, `SELECT t.id, t.study, t.epochs, a.outcome,
			coalesce((SELECT max(number) FROM epoch WHERE trial = t.id), 0)
		FROM attempt a JOIN trial t ON t.id = a.trial WHERE a.id = ?`, attempt).
		Scan(&t.id, &t.study, &t.epochs, &outcome, &t.epoch)
	if errors.Is(err, sql.ErrNoRows) {
		return t, errors.New("there is no such attempt")
	}
	if err == nil && outcome.Valid {
		err = fmt.Errorf("the attempt has ended (%s), its trial is no longer its own", outcome.String)
	}
	return t, err
}

func setStatus(ctx context.Context, tx *sql.Tx, study, trial int64, s search.Status) error {
	if _, err := tx.ExecContext(ctx, `UPDATE trial SET status = ? WHERE id = ?`, s, trial); err != nil {
		return err
	}
	return touch(ctx, tx, study)
}

// touch moves study.updated; max, because clocks are set back.
func touch(ctx context.Context, tx *sql.Tx, study int64) error {
	_, err := tx.ExecContext(ctx, `UPDATE study SET updated = max(updated, ?) WHERE id = ?`, now(), study)
	return err
}

func now() int64 { return time.Now().UnixMilli() }

// bounded cuts the middle out of a message that is too long: its start says
// what failed, its end why.
func bounded(message string) string {
	message = strings.ToValidUTF8(message, "\uFFFD")
	if utf8.RuneCountInString(message) <= maxMessage {
		return message
	}
	const gap = "\n[...]\n"
	r := []rune(message)
	half := (maxMessage - len(gap)) / 2
	return string(slices.Concat(r[:half], []rune(gap), r[len(r)-half:]))
}
