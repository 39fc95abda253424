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
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"

	"igcsearch/search"
)

// handle is an attempt in the hands of its worker, this process or a remote worker.
type handle struct {
	db    *DB
	by    Worker
	token []byte // of the attempt, known to its worker alone
	id    int64  // 0 before it begins
}

// Begin implements search.Store. It leaves out a checkpoint that is not what was stored, with all that was recorded
// after the one before. The note of the claim says so.
func (db *DB) Begin(ctx context.Context, trial int64, until int, a search.Attempt) (search.Claim, error) {
	if err := db.Join(ctx); err != nil {
		return search.Claim{}, err
	}
	token := make([]byte, 16)
	crand.Read(token) // never fails
	db.mu.Lock()
	h := handle{db: db, by: db.self.Worker, token: token}
	db.mu.Unlock()
	return h.Begin(ctx, trial, until, a)
}

// Begin implements search.Beginner.
func (h handle) Begin(ctx context.Context, trial int64, until int, a search.Attempt) (search.Claim, error) {
	var claim search.Claim
	if err := h.db.Join(ctx); err != nil {
		return claim, err
	}
	err := h.db.update(ctx, func(tx *sql.Tx) (err error) {
		claim, err = h.begin(ctx, tx, trial, until, a)
		return err
	})
	if err != nil {
		return search.Claim{}, h.db.explain(fmt.Sprintf("begin trial %d in", trial), err)
	}
	h.id = claim.ID
	claim.Handle = h
	return claim, nil
}

func (h handle) begin(
	ctx context.Context, tx *sql.Tx, trial int64, until int, a search.Attempt,
) (claim search.Claim, err error) {
	var study int64
	var status search.Status
	err = tx.QueryRowContext(ctx, `SELECT study, status FROM trial WHERE id = ?`, trial).Scan(&study, &status)
	if errors.Is(err, sql.ErrNoRows) {
		return claim, errors.New("there is no such trial")
	}
	if err != nil {
		return claim, err
	}
	if status != search.Pending {
		return claim, fmt.Errorf("it is %s, want %s: %w", status, search.Pending, search.ErrTaken)
	}
	if claim.From, claim.Note, err = soundState(ctx, tx, trial); err != nil {
		return claim, err
	}
	if a.Started.IsZero() {
		a.Started = time.UnixMilli(now()).UTC()
	}
	open := search.PastAttempt{Attempt: a, Token: h.token, Message: claim.Note}
	claim.ID, err = putAttempt(ctx, tx, trial, h.by.ID, open)
	if isConstraint(err, sqlite3.ErrConstraintForeignKey) {
		// Another process took this worker for dead, but it is not.
		if err = h.by.putRow(ctx, tx, h.db.lease); err == nil {
			claim.ID, err = putAttempt(ctx, tx, trial, h.by.ID, open)
		}
	}
	if isConstraint(err, sqlite3.ErrConstraintUnique) {
		return claim, errors.New("it has an attempt that is still open")
	}
	if err != nil {
		return claim, err
	}
	if err := exec(ctx, tx, `UPDATE trial SET status = ?2, until = min(?3, epochs) WHERE id = ?1`,
		trial, search.Running, until); err != nil {
		return claim, err
	}
	return claim, touch(ctx, tx, study, trial)
}

func isConstraint(err error, which sqlite3.ErrNoExtended) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.ExtendedCode == which
}

// putAttempt inserts an attempt, of a worker if it is open.
func putAttempt(ctx context.Context, tx *sql.Tx, trial, worker int64, a search.PastAttempt) (id int64, err error) {
	args, err := json.Marshal(append([]string{}, a.Args...)) // [] rather than null
	if err != nil {
		return 0, err
	}
	ended := int64(0)
	if a.Ending != "" {
		ended = a.Ended.UnixMilli()
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO attempt (trial, worker, token, started, ended, outcome, failure, message,
			git_commit, go_version, cpu, isa, device, host, pid, args, job)
		VALUES (?, nullif(?, 0), nullif(?, x''), ?, nullif(?, 0), nullif(?, ''), nullif(?, ''), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		RETURNING id`,
		trial, worker, a.Token, a.Started.UnixMilli(), ended, a.Ending, a.Failure, a.Message,
		a.Commit, a.GoVersion, a.CPU, a.ISA, a.Device, a.Host, a.PID, string(args), a.Job).Scan(&id)
	return id, err
}

// soundState returns the newest checkpoint of a trial that is what was stored, nil if there is none. It removes what
// was recorded after it, because that is trained again.
func soundState(ctx context.Context, tx *sql.Tx, trial int64) (from *search.Checkpoint, note string, err error) {
	var n, last int
	if err := tx.QueryRowContext(ctx, `SELECT count(*), coalesce(max(number), 0) FROM epoch WHERE trial = ?`,
		trial).Scan(&n, &last); err != nil {
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
		if err := exec(ctx, tx, query, trial, at); err != nil {
			return nil, "", err
		}
	}
	if at == 0 {
		return nil, why + ": it starts anew", nil
	}
	return from, fmt.Sprintf("%s: it goes on after epoch %d", why, at), nil
}

// Record implements search.Handle. The epoch must follow the last one that is stored. Record returns when the data are
// on the disk.
func (h handle) Record(ctx context.Context, e search.Epoch, c search.Checkpoint) error {
	sum := sha256.Sum256(c.State) // before the transaction, for which others wait
	err := h.db.writeIn(ctx, &h.db.line.epochs, func(tx *sql.Tx) error { return h.record(ctx, tx, e, c, sum) })
	return h.db.explain(fmt.Sprintf("record epoch %d of attempt %d in", e.Number, h.id), err)
}

func (h handle) record(ctx context.Context, tx *sql.Tx, e search.Epoch, c search.Checkpoint, sum [32]byte) error {
	if there, err := h.recorded(ctx, tx, e); there || err != nil {
		return err
	}
	t, err := h.ownTrial(ctx, tx, e.Number)
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
	if err := putEpoch(ctx, tx, t.id, h.id, e); err != nil {
		return err
	}
	if err := putCheckpoint(ctx, tx, t.id, c, sum); err != nil {
		return err
	}
	if t.keepBest && e.ValidationTotal > 0 {
		if err := exec(ctx, tx, `INSERT INTO best_checkpoint (trial, epoch, state, sha256) VALUES (?1, ?2, ?3, ?4)
			ON CONFLICT (trial) DO UPDATE SET epoch = excluded.epoch, state = excluded.state, sha256 = excluded.sha256
			WHERE (SELECT validation_correct FROM epoch WHERE trial = ?1 AND number = best_checkpoint.epoch) < ?5`,
			t.id, c.Epoch, notNull(c.State), stateSum(t.id, c.Epoch, sum), e.ValidationCorrect); err != nil {
			return err
		}
	}
	if t.quota > 0 {
		if err := makeRoom(ctx, tx, t.study, t.quota); err != nil {
			return err
		}
	}
	return touch(ctx, tx, t.study, t.id)
}

// recorded reports whether this worker has recorded the epoch before, with the same measurements.
func (h handle) recorded(ctx context.Context, tx *sql.Tx, e search.Epoch) (bool, error) {
	var token []byte
	var there search.Epoch
	err := tx.QueryRowContext(ctx, `SELECT a.token, `+epochNames("e.")+`
		FROM attempt a JOIN epoch e ON e.trial = a.trial AND e.attempt = a.id
		WHERE a.id = ? AND e.number = ?`, h.id, e.Number).Scan(epochFields(&there, &token)...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil && h.owns(token) && identical(there, e), err
}

func (h handle) owns(token []byte) bool { return len(token) > 0 && bytes.Equal(token, h.token) }

// putEpoch stores an epoch, in place of another measurement of it if there is one.
func putEpoch(ctx context.Context, tx *sql.Tx, trial, attempt int64, e search.Epoch) error {
	for _, v := range e.Values() {
		// In these columns NULL means "not recorded", and SQLite stores NaN as NULL.
		if x, ok := v.At.(*float64); ok && v.Optional && !(*x >= 0) {
			return fmt.Errorf("epoch %d: its %s is %g: want 0 or more, and no NaN: record what is not a number as infinite",
				e.Number, v.Name, *x)
		}
	}
	columns := epochColumns(&e)
	values := []any{trial, attempt}
	for _, c := range columns {
		values = append(values, c.value)
	}
	return exec(ctx, tx, `INSERT OR REPLACE INTO epoch (trial, attempt, `+epochNames("")+`)
		VALUES (?, ?`+strings.Repeat(", ?", len(columns))+`)`, values...)
}

// putCheckpoint stores the state after an epoch, in place of the one after the epoch before the last.
func putCheckpoint(ctx context.Context, tx *sql.Tx, trial int64, c search.Checkpoint, sum [32]byte) error {
	return exec(ctx, tx, `INSERT INTO checkpoint (trial, slot, epoch, state, sha256) VALUES (?1, ?2 % 2, ?2, ?3, ?4)
		ON CONFLICT (trial, slot) DO UPDATE
		SET epoch = excluded.epoch, state = excluded.state, sha256 = excluded.sha256`,
		trial, c.Epoch, notNull(c.State), stateSum(trial, c.Epoch, sum))
}

// stateSum is the checksum of a state with the SHA-256 sum, which is of one trial and one epoch only: a state that lies
// at the place of another one is damaged.
func stateSum(trial int64, epoch int, sum [32]byte) []byte {
	of := fmt.Appendf(nil, "trial %d epoch %d ", trial, epoch)
	whole := sha256.Sum256(append(of, sum[:]...))
	return whole[:]
}

// notNull returns the bytes so that SQLite stores nil as no bytes.
func notNull(state []byte) []byte {
	if state == nil {
		return []byte{}
	}
	return state
}

// makeRoom keeps the checkpoints of a study within its quota by dropOldest. It is an error if that is not enough, unless
// the quota is the default, which nobody has asked for.
func makeRoom(ctx context.Context, tx *sql.Tx, study, quota int64) error {
	total, err := dropOldest(ctx, tx, study, quota)
	if err == nil && total > quota && quota != search.DefaultCheckpointQuota {
		err = fmt.Errorf("the checkpoints of the study would take %d bytes: set checkpoint_quota, now %d, higher, "+
			"or run fewer trials at once", total, quota)
	}
	return err
}

// dropOldest removes checkpoints of finished trials, the oldest first, until all checkpoints of the study are within a
// quota. It returns the bytes of those that are left.
func dropOldest(ctx context.Context, tx *sql.Tx, study, quota int64) (total int64, err error) {
	bytes := func() error {
		return tx.QueryRowContext(ctx, `SELECT checkpoint_bytes FROM study WHERE id = ?`, study).Scan(&total)
	}
	if err := bytes(); err != nil || total <= quota {
		return total, err
	}
	var finished []int64
	err = each(ctx, tx, `SELECT id FROM trial t WHERE study = ? AND status IN ('done', 'diverged') AND
			(EXISTS (SELECT 1 FROM checkpoint WHERE trial = t.id)
				OR EXISTS (SELECT 1 FROM best_checkpoint WHERE trial = t.id))
		ORDER BY changed`, []any{study}, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		finished = append(finished, id)
		return err
	})
	dropped := 0
	for _, id := range finished {
		if err != nil || total <= quota {
			break
		}
		for _, table := range []string{"checkpoint", "best_checkpoint"} {
			if err := exec(ctx, tx, `DELETE FROM `+table+` WHERE trial = ?`, id); err != nil {
				return total, err
			}
		}
		dropped++
		err = bytes()
	}
	if err == nil && dropped > 0 {
		err = exec(ctx, tx, `UPDATE study SET dropped = dropped + ? WHERE id = ?`, dropped, study)
	}
	return total, err
}

// End implements search.Handle. Done needs all epochs stored. The middle of a message longer than 4000 characters is
// left out.
func (h handle) End(ctx context.Context, o search.Outcome) (status search.Status, err error) {
	err = h.db.update(ctx, func(tx *sql.Tx) (err error) {
		status, err = h.end(ctx, tx, o)
		return err
	})
	if err != nil {
		return "", h.db.explain(fmt.Sprintf("end attempt %d in", h.id), err)
	}
	return status, nil
}

func (h handle) end(ctx context.Context, tx *sql.Tx, o search.Outcome) (search.Status, error) {
	status := o.Status
	if there, now, err := h.ended(ctx, tx, o.Ending()); there || err != nil {
		return now, err
	}
	t, err := h.ownTrial(ctx, tx, 0)
	if err != nil {
		return "", err
	}
	switch {
	case status == search.Pending:
	case status == search.Done && t.epoch < t.epochs:
		return "", fmt.Errorf("the trial has %d of %d epochs", t.epoch, t.epochs)
	case status != search.Done && status != search.Diverged && status != search.Failed:
		return "", fmt.Errorf("no attempt ends as %q", status)
	}
	if err := closeAttempt(ctx, tx, h.id, o.Ending(), o.Failure, o.Message); err != nil {
		return "", err
	}
	if o.Failure != "" {
		n, err := countFailure(ctx, tx, t.id, o.Failure)
		if err != nil {
			return "", err
		}
		if status == search.Failed && n <= o.Retries {
			status = search.Pending
		}
	}
	if status.Finished() { // only the last state is worth keeping
		if err := exec(ctx, tx, `DELETE FROM checkpoint WHERE trial = ?1 AND (NOT ?2 OR
			epoch < (SELECT max(epoch) FROM checkpoint WHERE trial = ?1))`, t.id, t.keep); err != nil {
			return "", err
		}
	}
	return status, setStatus(ctx, tx, t.study, t.id, status)
}

// ended reports whether this worker has ended the attempt in this way before, and how the trial stands for it.
func (h handle) ended(
	ctx context.Context, tx *sql.Tx, ending search.Ending,
) (there bool, now search.Status, err error) {
	var token []byte
	var was search.Ending
	err = tx.QueryRowContext(ctx, `SELECT a.token, coalesce(a.outcome, ''), t.status
		FROM attempt a JOIN trial t ON t.id = a.trial WHERE a.id = ?`, h.id).Scan(&token, &was, &now)
	if errors.Is(err, sql.ErrNoRows) {
		return false, "", nil // ownTrial says so
	}
	if now == search.Running {
		now = search.Pending // as it was before another worker began it
	}
	return err == nil && was == ending && h.owns(token), now, err
}

// ownTrial is the trial of an attempt, for its worker.
type ownTrial struct {
	id, study      int64
	epoch, epochs  int // stored, whole
	keep, keepBest bool
	quota          int64 // bytes
}

// ownTrial returns the trial of an attempt that is open. It opens an attempt again that was taken for lost, if its
// worker comes back with epoch next (0 for none) before any other worker has recorded one. Then the trial is its own
// again: a worker that took it meanwhile loses only the epoch that it trains.
func (h handle) ownTrial(ctx context.Context, tx *sql.Tx, next int) (t ownTrial, err error) {
	var ending search.Ending
	var token []byte
	var status search.Status
	var newest int64 // attempt with an epoch
	err = tx.QueryRowContext(ctx, `SELECT t.id, t.study, t.epochs, t.status, coalesce(a.outcome, ''), a.token,
			s.keep_checkpoints, s.keep_best, s.checkpoint_quota,
			coalesce((SELECT max(number) FROM epoch WHERE trial = t.id), 0),
			coalesce((SELECT max(attempt) FROM epoch WHERE trial = t.id), 0)
		FROM attempt a JOIN trial t ON t.id = a.trial JOIN study s ON s.id = t.study WHERE a.id = ?`, h.id).
		Scan(&t.id, &t.study, &t.epochs, &status, &ending, &token, &t.keep, &t.keepBest, &t.quota, &t.epoch, &newest)
	if errors.Is(err, sql.ErrNoRows) {
		return t, errors.New("there is no such attempt")
	}
	if err != nil {
		return t, err
	}
	if !h.owns(token) {
		return t, errors.New("the attempt is not of this process: the file was replaced while it ran")
	}
	if ending == "" {
		return t, nil
	}
	fits := next == t.epoch+1
	late := ending == search.EndedLost && newest <= h.id &&
		(status == search.Pending && (next == 0 || fits) || status == search.Running && next > 0 && fits)
	if !late {
		return t, fmt.Errorf("the attempt has ended (%s): %w", ending, search.ErrSuperseded)
	}
	var other sql.NullInt64
	if err := tx.QueryRowContext(ctx, `SELECT max(id) FROM attempt WHERE trial = ? AND ended IS NULL`,
		t.id).Scan(&other); err != nil {
		return t, err
	}
	if other.Valid {
		const why = "the worker that had the trial before came back first"
		if err := closeAttempt(ctx, tx, other.Int64, search.EndedLost, search.FailedLost, why); err != nil {
			return t, err
		}
	}
	if err := h.by.putRow(ctx, tx, h.db.lease); err != nil {
		return t, err
	}
	if err := exec(ctx, tx, `UPDATE attempt SET ended = NULL, outcome = NULL, failure = NULL, worker = ?2
		WHERE id = ?1`, h.id, h.by.ID); err != nil {
		return t, err
	}
	return t, setStatus(ctx, tx, t.study, t.id, search.Running)
}

// closeAttempt ends an attempt and adds a message to the note that it began with.
func closeAttempt(
	ctx context.Context, tx *sql.Tx, attempt int64, ending search.Ending, failure search.Failure, message string,
) error {
	var note string
	if err := tx.QueryRowContext(ctx, `SELECT message FROM attempt WHERE id = ?`, attempt).Scan(&note); err != nil {
		return err
	}
	if note != "" && message != "" {
		message = note + "\n" + message
	}
	return exec(ctx, tx, `UPDATE attempt
		SET ended = max(started, ?2), outcome = ?3, failure = nullif(?4, ''), message = ?5, worker = NULL
		WHERE id = ?1`, attempt, now(), ending, failure, search.Bounded(cmp.Or(message, note)))
}

// closeAttempts ends the open attempts of a worker as lost or interrupted; their trials become pending.
func closeAttempts(ctx context.Context, tx *sql.Tx, worker int64, ending search.Ending, why string) error {
	type open struct{ attempt, trial, study int64 }
	var list []open
	err := each(ctx, tx, `SELECT a.id, t.id, t.study
		FROM attempt a JOIN trial t ON t.id = a.trial WHERE a.worker = ?`, []any{worker}, func(rows *sql.Rows) error {
		var o open
		err := rows.Scan(&o.attempt, &o.trial, &o.study)
		list = append(list, o)
		return err
	})
	failure := search.Failure(ending) // both have these words
	for _, o := range list {
		if err == nil {
			err = closeAttempt(ctx, tx, o.attempt, ending, failure, why)
		}
		if err == nil {
			_, err = countFailure(ctx, tx, o.trial, failure)
		}
		if err == nil {
			err = setStatus(ctx, tx, o.study, o.trial, search.Pending)
		}
	}
	return err
}

// countFailure returns how often the trial has failed in this way.
func countFailure(ctx context.Context, tx *sql.Tx, trial int64, kind search.Failure) (n int, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO failure (trial, kind, count) VALUES (?, ?, 1)
		ON CONFLICT (trial, kind) DO UPDATE SET count = count + 1 RETURNING count`, trial, kind).Scan(&n)
	return n, err
}

// Begun returns the claim that a remote worker has made with this token, and the name of its study: the answer to it
// may have been lost on the way. The ID of the claim is 0 if there is none. The error wraps search.ErrSuperseded if the
// attempt has ended: then the worker had its answer, and this is a copy of its request that arrives late.
func (db *DB) Begun(ctx context.Context, worker int64, token []byte) (study string, claim search.Claim, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		claim = search.Claim{}
		var trial int64
		var by sql.NullInt64
		err := tx.QueryRowContext(ctx, `SELECT a.id, a.message, a.worker, t.id, t.until, s.name
			FROM attempt a JOIN trial t ON t.id = a.trial JOIN study s ON s.id = t.study
			WHERE a.token = ?`, token).Scan(&claim.ID, &claim.Note, &by, &trial, &claim.Until, &study)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if by.Int64 != worker {
			return fmt.Errorf("attempt %d has ended: %w", claim.ID, search.ErrSuperseded)
		}
		if claim.From, _, err = findCheckpoint(ctx, tx, "checkpoint", trial); err != nil {
			return err
		}
		trials, err := findTrials(ctx, tx, `t.id = ?`, trial)
		if err == nil {
			claim.Trial = trials[0].Trial
		}
		return err
	})
	return study, claim, db.explain("read an attempt of", err)
}

var _ interface {
	search.Beginner
	search.Handle
} = handle{}
