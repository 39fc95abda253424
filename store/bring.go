package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"igcsearch/search"
)

// Brought is a trial with all that was recorded of it elsewhere, in a spool.
type Brought struct {
	search.TrialState     // Running counts as pending
	Until             int // epoch that its newest attempt trains to, 0 before the first
	// Attempts are all there were, oldest first; By says for each epoch of Curve
	// which measured it.
	Attempts []BroughtAttempt
	By       []int
	// Checkpoints are its last states, newest first, and Best that of the best
	// validation accuracy, nil if there is none.
	Checkpoints []search.Checkpoint
	Best        *search.Checkpoint
}

// BroughtAttempt is an attempt of a Brought trial, by a worker that knows
// nothing of this database.
type BroughtAttempt struct {
	search.Attempt
	Token   []byte // 16 bytes: which attempt it is, however often it is brought
	Ended   time.Time
	Outcome string // as TrialAttempt has it; "" of one that is open
	Failure search.Failure
	Message string
}

// Bringing says what Bring did with a trial.
type Bringing struct {
	Trial search.Trial // as it stands there
	// Taken: its results are now those that were brought.
	Taken bool
	// Busy: it was left alone, because a process trains it for this database.
	Busy bool
}

// Bring stores what was recorded elsewhere, of trials in any state, and may be
// repeated while it goes on there: an attempt is brought once, and changed when
// it ended. Of a trial that both have, the result that is further on is taken, as
// Merge does, and it is an error, before anything is stored, if their epochs
// differ in a bit; unless all that the database has of it was brought before: then
// it was trained anew there, and counts. Trials that a process trains for this
// database are left alone.
//
// load returns trial i of trials, the plan of the study; with its states if they
// are wanted. Each trial is one transaction, so a run of this database goes on
// meanwhile.
func (db *DB) Bring(ctx context.Context, s search.Study, trials []search.Trial, load func(i int, states bool) (Brought, error)) ([]Bringing, error) {
	fail := func(err error) ([]Bringing, error) {
		if c := (*ConflictError)(nil); errors.As(err, &c) {
			return nil, c
		}
		return nil, db.explain(fmt.Sprintf("bring study %q into", s.Name), err)
	}
	there, err := db.Read(ctx, s.Name)
	if errors.Is(err, ErrNoStudy) || err == nil && there.Study.Fingerprint() != s.Fingerprint() {
		// Only then: it would also change how a run keeps checkpoints.
		if _, err := db.Plan(ctx, s, trials); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	} else if err := db.Join(ctx); err != nil {
		return nil, err
	} else if err := db.reclaim(ctx, false); err != nil {
		return fail(err)
	}
	var conflicts []string
	acts := make([]act, len(trials))
	for i := range trials {
		b, err := load(i, false)
		if err != nil {
			return nil, err
		}
		err = db.view(ctx, func(tx *sql.Tx) error {
			here, err := db.findHere(ctx, tx, s.Name, trials[i])
			if err == nil {
				acts[i] = here.decide(b)
			}
			return err
		})
		if err != nil {
			return fail(err)
		}
		if acts[i].conflict != "" {
			conflicts = append(conflicts, acts[i].conflict)
		}
	}
	if len(conflicts) > 0 {
		return nil, contradiction(conflicts)
	}
	list := make([]Bringing, len(trials))
	for i := range trials {
		b, err := load(i, acts[i].take)
		if err != nil {
			return nil, err
		}
		list[i].Trial = b.Trial
		if !acts[i].store && !acts[i].take && !acts[i].busy {
			continue
		}
		err = db.update(ctx, func(tx *sql.Tx) error {
			list[i].Taken, list[i].Busy = false, false
			here, err := db.findHere(ctx, tx, s.Name, trials[i])
			if err != nil {
				return err
			}
			do := here.decide(b) // another process may have been there
			if do.conflict != "" {
				return contradiction([]string{do.conflict})
			}
			list[i].Busy = do.busy
			if do.busy || !do.store && !do.take || do.take && !acts[i].take && len(b.History) > 0 {
				return nil // of the last the states are missing: the next time
			}
			list[i].Taken = do.take
			return here.put(ctx, tx, b, do.take)
		})
		if err != nil {
			return fail(err)
		}
	}
	return list, nil
}

// here is what the database has of a trial that is brought.
type here struct {
	study, trial int64
	name         string
	keep         bool // checkpoints of finished trials
	status       search.Status
	curve        []search.Epoch
	attempts     map[string]hereAttempt
	of           []string // tokens, by curve
}

type hereAttempt struct {
	id                        int64
	outcome, failure, message string
}

func (db *DB) findHere(ctx context.Context, tx *sql.Tx, study string, t search.Trial) (h here, err error) {
	h.name, h.attempts = fmt.Sprintf("%s seed %d", t.System.Label(), t.Seed), map[string]hereAttempt{}
	err = tx.QueryRowContext(ctx, `SELECT s.id, s.keep_checkpoints, t.id, t.status FROM study s JOIN trial t ON t.study = s.id
		WHERE s.name = ? AND t.system = ? AND t.seed = ?`, study, t.System.String(), t.Seed).Scan(&h.study, &h.keep, &h.trial, &h.status)
	if errors.Is(err, sql.ErrNoRows) {
		return h, fmt.Errorf("%s is none of its trials", h.name)
	}
	if err != nil {
		return h, err
	}
	if err := each(ctx, tx, `SELECT id, token, coalesce(outcome, ''), coalesce(failure, ''), message FROM attempt WHERE trial = ?`, []any{h.trial}, func(rows *sql.Rows) error {
		var a hereAttempt
		var token []byte
		err := rows.Scan(&a.id, &token, &a.outcome, &a.failure, &a.message)
		h.attempts[string(token)] = a
		return err
	}); err != nil {
		return h, err
	}
	var token []byte
	var e search.Epoch
	fields := []any{&token}
	for _, c := range epochColumns(&e) {
		fields = append(fields, c.value)
	}
	err = each(ctx, tx, `SELECT coalesce(a.token, x''), `+epochNames("e.")+` FROM epoch e JOIN attempt a ON a.id = e.attempt
		WHERE e.trial = ? ORDER BY e.number`, []any{h.trial}, func(rows *sql.Rows) error {
		err := rows.Scan(fields...)
		h.curve, h.of = append(h.curve, e), append(h.of, string(token))
		return err
	})
	return h, err
}

// act is what to do with a trial that is brought.
type act struct {
	store    bool // its attempts
	take     bool // its results too
	busy     bool // nothing, for now
	conflict string
}

func (h *here) decide(b Brought) (do act) {
	brought := map[string]bool{}
	for _, a := range b.Attempts {
		brought[string(a.Token)] = true
		outcome, failure, message, _ := a.row()
		old, ok := h.attempts[string(a.Token)]
		do.store = do.store || !ok || old.outcome != outcome || old.failure != failure || old.message != message
	}
	foreign := true
	for _, token := range h.of {
		foreign = foreign && brought[token]
	}
	further := rank(b.Status) > rank(h.status)
	same := agree(search.TrialState{History: h.curve}, b.TrialState)
	ended := b.Status.Finished() && h.status.Finished() && (b.Status != h.status || len(b.History) != len(h.curve))
	short := b.Status.Finished() && len(b.History) < len(h.curve) || h.status.Finished() && len(h.curve) < len(b.History)
	switch {
	case same && !ended && !short:
		// A status alone is no news: people may have asked for another try here.
		do.take = len(b.History) > len(h.curve) || do.store && further && len(b.History) == len(h.curve)
	case foreign:
		do.take = do.store
	default:
		return act{conflict: fmt.Sprintf("%s (%s after %d epochs there, %s after %d here)", h.name, b.Status, len(b.History), h.status, len(h.curve))}
	}
	if h.status == search.Running && (do.store || do.take) {
		return act{busy: true}
	}
	return do
}

// row is an attempt as the table has it: one that is open there cannot be so
// here, for no process here has it.
func (a BroughtAttempt) row() (outcome, failure, message string, ended int64) {
	outcome, failure, message = a.Outcome, string(a.Failure), a.Message
	if outcome == "" {
		outcome, failure = interrupted, interrupted
		message = strings.TrimSpace(message + "\nit was running there when it was brought")
	}
	return outcome, failure, bounded(message), max(a.Ended.UnixMilli(), a.Started.UnixMilli())
}

// put stores what was decided.
func (h *here) put(ctx context.Context, tx *sql.Tx, b Brought, take bool) error {
	ids := make([]int64, len(b.Attempts))
	for i, a := range b.Attempts {
		outcome, failure, message, ended := a.row()
		if old, ok := h.attempts[string(a.Token)]; ok {
			ids[i] = old.id
			if _, err := tx.ExecContext(ctx, `UPDATE attempt SET ended = ?2, outcome = ?3, failure = nullif(?4, ''), message = ?5 WHERE id = ?1`,
				old.id, ended, outcome, failure, message); err != nil {
				return err
			}
			continue
		}
		args, err := json.Marshal(append([]string{}, a.Args...))
		if err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, `INSERT INTO attempt (trial, token, started, ended, outcome, failure, message, git_commit, go_version, cpu, isa, device, host, pid, args, job)
			VALUES (?, ?, ?, ?, ?, nullif(?, ''), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`, h.trial, a.Token, a.Started.UnixMilli(), ended, outcome, failure, message,
			a.Commit, a.GoVersion, a.CPU, a.ISA, a.Device, a.Host, a.PID, string(args), a.Job).Scan(&ids[i]); err != nil {
			return err
		}
	}
	if !take {
		return touch(ctx, tx, h.study, h.trial)
	}
	for _, table := range []string{"checkpoint", "best_checkpoint", "epoch", "failure"} {
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE trial = ?`, h.trial); err != nil {
			return err
		}
	}
	for i, e := range b.History {
		if err := putEpoch(ctx, tx, h.trial, ids[b.By[i]], e); err != nil {
			return err
		}
	}
	for _, a := range b.Attempts {
		if _, failure, _, _ := a.row(); failure != "" {
			if _, err := countFailure(ctx, tx, h.trial, failure); err != nil {
				return err
			}
		}
	}
	status := b.Status
	if status == search.Running {
		status = search.Pending
	}
	if !status.Finished() || h.keep {
		for _, c := range b.Checkpoints {
			sum := sha256.Sum256(c.State)
			if _, err := tx.ExecContext(ctx, `INSERT INTO checkpoint (trial, slot, epoch, state, sha256) VALUES (?1, ?2 % 2, ?2, ?3, ?4)`,
				h.trial, c.Epoch, append([]byte{}, c.State...), sum[:]); err != nil {
				return err
			}
		}
	}
	if c := b.Best; c != nil {
		sum := sha256.Sum256(c.State)
		if _, err := tx.ExecContext(ctx, `INSERT INTO best_checkpoint (trial, epoch, state, sha256) VALUES (?, ?, ?, ?)`, h.trial, c.Epoch, append([]byte{}, c.State...), sum[:]); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `UPDATE trial SET until = min(max(?2, until), epochs) WHERE id = ?1`, h.trial, b.Until); err != nil {
		return err
	}
	return setStatus(ctx, tx, h.study, h.trial, status)
}
