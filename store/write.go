package store

import (
	"bytes"
	"cmp"
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-sqlite3"

	"igcsearch/search"
)

var _ search.Store = (*DB)(nil)

// maxMessage bounds attempt.message, in characters.
const maxMessage = 4000

// The values of attempt.outcome and attempt.failure that search.Status has not.
const (
	interrupted = "interrupted"
	lost        = "lost"
	paused      = "paused"
)

// Plan implements search.Store. It returns a *ConflictError if the study's name
// is taken by other settings.
func (db *DB) Plan(ctx context.Context, s search.Study, trials []search.Trial) ([]search.Trial, error) {
	if err := db.Join(ctx); err != nil {
		return nil, err
	}
	if err := db.reclaim(ctx, false); err != nil {
		return nil, db.explain(fmt.Sprintf("plan study %q in", s.Name), err)
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
		change(`UPDATE study SET keep_checkpoints = ?2, keep_best = ?3, checkpoint_quota = ?4
			WHERE id = ?1 AND (keep_checkpoints, keep_best, checkpoint_quota) IS NOT (?2, ?3, ?4)`, study, s.KeepCheckpoints, s.KeepBest, s.CheckpointQuota)
		for _, t := range trials {
			p := t.System.Pair()
			change(`INSERT INTO trial (study, system, L, M, seed, status, epochs, multiply_adds, params)
				VALUES (?, ?, nullif(?, 0), nullif(?, 0), ?, ?, ?, ?, ?) ON CONFLICT (study, system, seed) DO NOTHING`,
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
		stored, err := findTrials(ctx, tx, study, -1)
		if err != nil {
			return err
		}
		byKey := map[search.Key]search.Trial{}
		for _, t := range stored {
			byKey[t.Key] = t.Trial
		}
		planned = make([]search.Trial, len(trials))
		for i, t := range trials {
			if _, ok := byKey[t.Key]; !ok {
				return fmt.Errorf("trial %v is planned twice", t.Key)
			}
			planned[i] = byKey[t.Key]
			delete(byKey, t.Key)
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

// Begin implements search.Store. A checkpoint that is not what was stored is
// left out, with all that was recorded after the one before; the Turn says so.
func (db *DB) Begin(ctx context.Context, trial int64, until int, a search.Attempt) (search.Claim, error) {
	if err := db.Join(ctx); err != nil {
		return search.Claim{}, err
	}
	who := db.own(0)
	who.token = make([]byte, 16)
	crand.Read(who.token) // never fails
	claim, err := db.begin(ctx, who, trial, until, a)
	if err != nil {
		return claim, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.tokens[claim.ID] = who.token
	claim.Handle = ownAttempt{db, claim.ID}
	return claim, nil
}

func (db *DB) begin(ctx context.Context, who identity, trial int64, until int, a search.Attempt) (turn search.Claim, err error) {
	args, err := json.Marshal(append([]string{}, a.Args...)) // [] rather than null
	if err != nil {
		return turn, err
	}
	started := now()
	if !a.Started.IsZero() {
		started = a.Started.UnixMilli()
	}
	err = db.update(ctx, func(tx *sql.Tx) error {
		turn = search.Claim{}
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
			return fmt.Errorf("it is %s, want %s: %w", status, search.Pending, search.ErrTaken)
		}
		if turn.From, turn.Note, err = soundState(ctx, tx, trial); err != nil {
			return err
		}
		put := func() (sql.Result, error) {
			return tx.ExecContext(ctx, `INSERT INTO attempt
				(trial, worker, token, started, message, git_commit, go_version, cpu, isa, device, host, pid, args, job)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				trial, who.worker, who.token, started, turn.Note, a.Commit, a.GoVersion, a.CPU, a.ISA, a.Device, a.Host, a.PID, string(args), a.Job)
		}
		r, err := put()
		if e := (sqlite3.Error{}); errors.As(err, &e) && e.ExtendedCode == sqlite3.ErrConstraintForeignKey {
			// Another process took this worker for dead; it is not.
			if err = who.put(ctx, tx, db.lease); err == nil {
				r, err = put()
			}
		}
		if e := (sqlite3.Error{}); errors.As(err, &e) && e.ExtendedCode == sqlite3.ErrConstraintUnique {
			return errors.New("it has an attempt that is still open")
		}
		if err != nil {
			return err
		}
		if turn.ID, err = r.LastInsertId(); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE trial SET status = ?2, until = min(?3, epochs) WHERE id = ?1`, trial, search.Running, until); err != nil {
			return err
		}
		return touch(ctx, tx, study, trial)
	})
	if err != nil {
		return search.Claim{}, db.explain(fmt.Sprintf("begin trial %d in", trial), err)
	}
	return turn, nil
}

// soundState returns the newest checkpoint of a trial that is what was stored,
// nil if there is none, and takes away what was recorded after it: that is
// trained again.
func soundState(ctx context.Context, tx *sql.Tx, trial int64) (from *search.Checkpoint, note string, err error) {
	var n, last int
	if err := tx.QueryRowContext(ctx, `SELECT count(*), coalesce(max(number), 0) FROM epoch WHERE trial = ?`, trial).Scan(&n, &last); err != nil {
		return nil, "", err
	}
	from, damaged, err := findCheckpoint(ctx, tx, "checkpoint", trial)
	if err != nil {
		return nil, "", err
	}
	why := "it has no checkpoint"
	switch {
	case n != last:
		from, why = nil, fmt.Sprintf("it has %d of %d epochs", n, last)
	case len(damaged) > 0:
		why = fmt.Sprintf("its checkpoint after epoch %d is damaged (the checksum does not fit)", damaged[0])
	}
	at := 0
	if from != nil {
		at = from.Epoch
	}
	if at == last && len(damaged) == 0 {
		return from, "", nil
	}
	for _, query := range []string{
		`DELETE FROM checkpoint WHERE trial = ? AND epoch > ?`,
		`DELETE FROM best_checkpoint WHERE trial = ? AND epoch > ?`,
		`DELETE FROM epoch WHERE trial = ? AND number > ?`,
	} {
		if _, err := tx.ExecContext(ctx, query, trial, at); err != nil {
			return nil, "", err
		}
	}
	if at == 0 {
		return nil, why + ": it starts anew", nil
	}
	return from, fmt.Sprintf("%s: it goes on after epoch %d", why, at), nil
}

// ownAttempt is the search.Handle of an attempt of this process.
type ownAttempt struct {
	db *DB
	id int64
}

func (a ownAttempt) Record(ctx context.Context, e search.Epoch, c search.Checkpoint) error {
	return a.db.Record(ctx, a.id, e, c)
}

func (a ownAttempt) End(ctx context.Context, o search.Outcome) (search.Status, error) {
	return a.db.End(ctx, a.id, o)
}

// Record stores an epoch of an attempt of this process. The epoch must follow the last one stored. It
// returns when the data are on the disk.
func (db *DB) Record(ctx context.Context, attempt int64, e search.Epoch, c search.Checkpoint) error {
	return db.record(ctx, db.own(attempt), attempt, e, c)
}

func (db *DB) record(ctx context.Context, who identity, attempt int64, e search.Epoch, c search.Checkpoint) error {
	sum := sha256.Sum256(c.State) // before the transaction: the others wait
	state := c.State
	if state == nil {
		state = []byte{} // nil would be NULL
	}
	err := db.writeIn(ctx, &db.line.epochs, func(tx *sql.Tx) error {
		if there, err := brought(ctx, tx, who, attempt, e); there || err != nil {
			return err
		}
		t, err := db.ownTrial(ctx, tx, who, attempt, e.Number)
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
		if err := putEpoch(ctx, tx, t.id, attempt, e); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO checkpoint (trial, slot, epoch, state, sha256) VALUES (?1, ?2 % 2, ?2, ?3, ?4)
			ON CONFLICT (trial, slot) DO UPDATE SET epoch = excluded.epoch, state = excluded.state, sha256 = excluded.sha256`,
			t.id, c.Epoch, state, sum[:]); err != nil {
			return err
		}
		if t.keepBest && e.ValidationTotal > 0 {
			if _, err := tx.ExecContext(ctx, `INSERT INTO best_checkpoint (trial, epoch, state, sha256) VALUES (?1, ?2, ?3, ?4)
				ON CONFLICT (trial) DO UPDATE SET epoch = excluded.epoch, state = excluded.state, sha256 = excluded.sha256
				WHERE (SELECT validation_correct FROM epoch WHERE trial = ?1 AND number = best_checkpoint.epoch) < ?5`,
				t.id, c.Epoch, state, sum[:], e.ValidationCorrect); err != nil {
				return err
			}
		}
		if t.quota > 0 {
			if err := db.makeRoom(ctx, tx, t.study, t.quota); err != nil {
				return err
			}
		}
		return touch(ctx, tx, t.study, t.id)
	})
	if err != nil {
		return db.explain(fmt.Sprintf("record epoch %d of attempt %d in", e.Number, attempt), err)
	}
	return nil
}

func putEpoch(ctx context.Context, tx *sql.Tx, trial, attempt int64, e search.Epoch) error {
	// NULL is "not recorded" in these two, so NaN cannot be kept.
	if !(e.ValidationLoss >= 0 && e.TestLoss >= 0) {
		return fmt.Errorf("epoch %d: its validation_loss is %g and its test_loss %g: want 0 or more, and no NaN: a loss that is none is infinite", e.Number, e.ValidationLoss, e.TestLoss)
	}
	columns := epochColumns(&e)
	values := []any{trial, attempt}
	for _, c := range columns {
		values = append(values, c.value)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO epoch (trial, attempt, `+epochNames("")+`)
		VALUES (?, ?`+strings.Repeat(", ?", len(columns))+`)`, values...)
	return err
}

// makeRoom takes checkpoints of finished trials away, the oldest first, until
// all of the study are within its quota.
func (db *DB) makeRoom(ctx context.Context, tx *sql.Tx, study, quota int64) error {
	type kept struct {
		trial, bytes int64
		finished     bool
	}
	var all []kept
	total := int64(0)
	err := each(ctx, tx, `SELECT t.id, length(c.state), t.status IN ('done', 'diverged') FROM trial t
			JOIN (SELECT trial, state FROM checkpoint UNION ALL SELECT trial, state FROM best_checkpoint) c ON c.trial = t.id
			WHERE t.study = ? ORDER BY t.changed`, []any{study}, func(rows *sql.Rows) error {
		var k kept
		err := rows.Scan(&k.trial, &k.bytes, &k.finished)
		all, total = append(all, k), total+k.bytes
		return err
	})
	for _, k := range all {
		if err != nil || total <= quota {
			return err
		}
		if k.finished {
			total -= k.bytes
			for _, table := range []string{"checkpoint", "best_checkpoint"} {
				if _, e := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE trial = ?`, k.trial); e != nil {
					err = e
				}
			}
		}
	}
	if err == nil && total > quota {
		err = fmt.Errorf("the checkpoints of the study would take %d bytes: set checkpoint_quota, now %d, higher, or run fewer trials at once", total, quota)
	}
	return err
}

// End closes an attempt of this process. Done needs all epochs stored. Of a message
// longer than 4000 characters the middle is left out.
func (db *DB) End(ctx context.Context, attempt int64, o search.Outcome) (search.Status, error) {
	status, err := db.end(ctx, db.own(attempt), attempt, o)
	if err == nil {
		db.mu.Lock()
		defer db.mu.Unlock()
		delete(db.tokens, attempt)
	}
	return status, err
}

func (db *DB) end(ctx context.Context, who identity, attempt int64, o search.Outcome) (status search.Status, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		status = o.Status
		outcome := string(status)
		switch {
		case status == search.Pending && o.Failure == "":
			outcome = paused
		case status == search.Pending:
			outcome = interrupted
		}
		if there, now, err := ended(ctx, tx, who, attempt, outcome); there || err != nil {
			status = now
			return err
		}
		t, err := db.ownTrial(ctx, tx, who, attempt, 0)
		if err != nil {
			return err
		}
		switch {
		case status == search.Pending:
		case status == search.Done && t.epoch < t.epochs:
			return fmt.Errorf("the trial has %d of %d epochs", t.epoch, t.epochs)
		case status != search.Done && status != search.Diverged && status != search.Failed:
			return fmt.Errorf("no attempt ends as %q", status)
		}
		if err := closeAttempt(ctx, tx, attempt, outcome, string(o.Failure), o.Message); err != nil {
			return err
		}
		if o.Failure != "" {
			n, err := countFailure(ctx, tx, t.id, string(o.Failure))
			if err != nil {
				return err
			}
			if status == search.Failed && n <= o.Retries {
				status = search.Pending
			}
		}
		if status.Finished() && !t.keep {
			if _, err := tx.ExecContext(ctx, `DELETE FROM checkpoint WHERE trial = ?`, t.id); err != nil {
				return err
			}
		}
		return setStatus(ctx, tx, t.study, t.id, status)
	})
	if err != nil {
		return "", db.explain(fmt.Sprintf("end attempt %d in", attempt), err)
	}
	return status, nil
}

// ended reports whether an attempt was ended before, by its own worker and in
// this way, and how its trial stands for it.
func ended(ctx context.Context, tx *sql.Tx, who identity, attempt int64, outcome string) (there bool, now search.Status, err error) {
	var token []byte
	var was sql.NullString
	err = tx.QueryRowContext(ctx, `SELECT a.token, a.outcome, t.status FROM attempt a JOIN trial t ON t.id = a.trial WHERE a.id = ?`, attempt).Scan(&token, &was, &now)
	if errors.Is(err, sql.ErrNoRows) {
		return false, "", nil // ownTrial says so
	}
	if now == search.Running {
		now = search.Pending // it was, when another began it
	}
	return err == nil && was.String == outcome && len(token) > 0 && bytes.Equal(token, who.token), now, err
}

// Poll implements search.Store.
func (db *DB) Poll(ctx context.Context, name string, since int64) (changed []search.TrialState, moment int64, err error) {
	if err := db.Join(ctx); err != nil {
		return nil, since, err
	}
	if err := db.lookAround(ctx); err != nil {
		return nil, since, db.explain(fmt.Sprintf("read study %q in", name), err)
	}
	err = db.view(ctx, func(tx *sql.Tx) error {
		changed = nil
		var study int64
		err := tx.QueryRowContext(ctx, `SELECT id, changes FROM study WHERE name = ?`, name).Scan(&study, &moment)
		if err != nil || moment == since && since > 0 {
			return err
		}
		if since == 0 {
			since = -1 // those that never changed too
		}
		changed, err = findStates(ctx, tx, study, since)
		return err
	})
	if err != nil {
		return nil, since, db.explain(fmt.Sprintf("read study %q in", name), err)
	}
	return changed, moment, nil
}

// update runs f in a writing transaction, before all epochs that wait.
func (db *DB) update(ctx context.Context, f func(*sql.Tx) error) error {
	return db.writeIn(ctx, &db.line.first, f)
}

func (db *DB) writeIn(ctx context.Context, row *[]chan struct{}, f func(*sql.Tx) error) error {
	if db.write == nil {
		return errors.New("it was opened for reading only")
	}
	if err := db.line.enter(ctx, row); err != nil {
		return err
	}
	defer db.line.leave()
	return transact(ctx, db.write, f)
}

// ownTrial is the trial of an attempt, for its worker.
type ownTrial struct {
	id, study      int64
	epoch, epochs  int // stored, whole
	keep, keepBest bool
	quota          int64 // bytes
}

// ownTrial returns the trial of an attempt that is open, or that can be opened
// again: one that was taken for lost, and whose worker comes back with epoch
// next before any other has recorded one, or has taken the trial. Then the trial
// is its own again: whoever took it meanwhile has nothing to lose but the epoch
// in flight. next is 0 for none.
func (db *DB) ownTrial(ctx context.Context, tx *sql.Tx, who identity, attempt int64, next int) (t ownTrial, err error) {
	var outcome sql.NullString
	var token []byte
	var status search.Status
	var newest int64 // attempt with an epoch
	err = tx.QueryRowContext(ctx, `SELECT t.id, t.study, t.epochs, t.status, a.outcome, a.token, s.keep_checkpoints, s.keep_best, s.checkpoint_quota,
			coalesce((SELECT max(number) FROM epoch WHERE trial = t.id), 0),
			coalesce((SELECT max(attempt) FROM epoch WHERE trial = t.id), 0)
		FROM attempt a JOIN trial t ON t.id = a.trial JOIN study s ON s.id = t.study WHERE a.id = ?`, attempt).
		Scan(&t.id, &t.study, &t.epochs, &status, &outcome, &token, &t.keep, &t.keepBest, &t.quota, &t.epoch, &newest)
	if errors.Is(err, sql.ErrNoRows) {
		return t, errors.New("there is no such attempt")
	}
	if err != nil {
		return t, err
	}
	if len(who.token) == 0 || !bytes.Equal(who.token, token) {
		return t, errors.New("the attempt is not of this process: the file was replaced while it ran")
	}
	if !outcome.Valid {
		return t, nil
	}
	late := outcome.String == lost && newest <= attempt &&
		(status == search.Pending && (next == 0 || next == t.epoch+1) || status == search.Running && next > 0 && next == t.epoch+1)
	if !late {
		return t, fmt.Errorf("the attempt has ended (%s): %w", outcome.String, search.ErrSuperseded)
	}
	var other sql.NullInt64
	if err := tx.QueryRowContext(ctx, `SELECT max(id) FROM attempt WHERE trial = ? AND ended IS NULL`, t.id).Scan(&other); err != nil {
		return t, err
	}
	if other.Valid {
		if err := closeAttempt(ctx, tx, other.Int64, lost, lost, "the worker that had the trial before came back first"); err != nil {
			return t, err
		}
	}
	if err := who.put(ctx, tx, db.lease); err != nil {
		return t, err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE attempt SET ended = NULL, outcome = NULL, failure = NULL, worker = ?2 WHERE id = ?1`, attempt, who.worker); err != nil {
		return t, err
	}
	return t, setStatus(ctx, tx, t.study, t.id, search.Running)
}

// closeAttempt adds a message to what the attempt began with.
func closeAttempt(ctx context.Context, tx *sql.Tx, attempt int64, outcome, failure, message string) error {
	var note string
	if err := tx.QueryRowContext(ctx, `SELECT message FROM attempt WHERE id = ?`, attempt).Scan(&note); err != nil {
		return err
	}
	if note != "" && message != "" {
		message = note + "\n" + message
	}
	_, err := tx.ExecContext(ctx, `UPDATE attempt SET ended = max(started, ?2), outcome = ?3, failure = nullif(?4, ''), message = ?5, worker = NULL WHERE id = ?1`,
		attempt, now(), outcome, failure, bounded(cmp.Or(message, note)))
	return err
}

// countFailure returns how often the trial has failed in this way.
func countFailure(ctx context.Context, tx *sql.Tx, trial int64, kind string) (n int, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO failure (trial, kind, count) VALUES (?, ?, 1)
		ON CONFLICT (trial, kind) DO UPDATE SET count = count + 1 RETURNING count`, trial, kind).Scan(&n)
	return n, err
}

func setStatus(ctx context.Context, tx *sql.Tx, study, trial int64, s search.Status) error {
	if _, err := tx.ExecContext(ctx, `UPDATE trial SET status = ? WHERE id = ?`, s, trial); err != nil {
		return err
	}
	return touch(ctx, tx, study, trial)
}

// touch notes that a study and some of its trials changed. max, because clocks
// are set back.
func touch(ctx context.Context, tx *sql.Tx, study int64, trials ...int64) error {
	var change int64
	err := tx.QueryRowContext(ctx, `UPDATE study SET updated = max(updated, ?), changes = changes + 1 WHERE id = ? RETURNING changes`, now(), study).Scan(&change)
	for _, t := range trials {
		if err == nil {
			_, err = tx.ExecContext(ctx, `UPDATE trial SET changed = ? WHERE id = ?`, change, t)
		}
	}
	return err
}

// clock is the time of day, for people to read: nothing is decided by it.
var clock atomic.Pointer[func() time.Time]

func now() int64 {
	if f := clock.Load(); f != nil {
		return (*f)().UnixMilli()
	}
	return time.Now().UnixMilli()
}

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
