package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"igcsearch/search"
	"igcsearch/space"
)

var _ search.Store = (*DB)(nil)

// Plan implements search.Store. It returns a *ConflictError if the study's name is taken by other settings.
func (db *DB) Plan(ctx context.Context, s search.Study, trials []search.Trial) ([]search.Trial, error) {
	if err := db.Join(ctx); err != nil {
		return nil, err
	}
	if err := db.reclaim(ctx, false); err != nil {
		return nil, db.explain(fmt.Sprintf("plan study %q in", s.Name), err)
	}
	return db.plan(ctx, s, trials, true)
}

// plan stores a study and its trials as far as they are not there, and returns the trials as they stand. It changes the
// title of a study that is there, and how its checkpoints are kept, only if asked.
func (db *DB) plan(
	ctx context.Context, s search.Study, trials []search.Trial, change bool,
) (planned []search.Trial, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		study, changed, err := db.putStudy(ctx, tx, s, change)
		if err != nil {
			return err
		}
		for _, t := range trials {
			p := t.System.Pair()
			n, err := changes(tx.ExecContext(ctx, `INSERT INTO trial
					(study, system, L, M, seed, status, epochs, multiply_adds, params)
				VALUES (?, ?, nullif(?, 0), nullif(?, 0), ?, ?, ?, ?, ?) ON CONFLICT (study, system, seed) DO NOTHING`,
				study, t.System.String(), p.L, p.M, t.Seed, search.Pending, t.Epochs, t.MultiplyAdds, t.Params))
			if err != nil {
				return err
			}
			changed = changed || n > 0
		}
		if changed {
			if err := touch(ctx, tx, study); err != nil {
				return err
			}
		}
		stored, err := findTrials(ctx, tx, `t.study = ?`, study)
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

// putStudy returns the row of a study, and whether it inserted or changed it.
func (db *DB) putStudy(
	ctx context.Context, tx *sql.Tx, s search.Study, change bool,
) (id int64, changed bool, err error) {
	var fingerprint string
	err = tx.QueryRowContext(ctx, `SELECT id, fingerprint FROM study WHERE name = ?`, s.Name).Scan(&id, &fingerprint)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		t := now()
		r, err := tx.ExecContext(ctx, `INSERT INTO study
				(name, title, settings, fingerprint, created, updated, keep_checkpoints, keep_best, checkpoint_quota)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			s.Name, s.Title, string(s.Settings()), s.Fingerprint(), t, t,
			s.KeepCheckpoints, s.KeepBest, s.CheckpointQuota)
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
	case !change:
		return id, false, nil
	}
	n, err := changes(tx.ExecContext(ctx, `UPDATE study
		SET title = ?2, keep_checkpoints = ?3, keep_best = ?4, checkpoint_quota = ?5
		WHERE id = ?1 AND (title, keep_checkpoints, keep_best, checkpoint_quota) IS NOT (?2, ?3, ?4, ?5)`,
		id, s.Title, s.KeepCheckpoints, s.KeepBest, s.CheckpointQuota))
	return id, n > 0, err
}

// changes is how many rows a statement changed.
func changes(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Poll implements search.Store.
func (db *DB) Poll(
	ctx context.Context, name string, since int64,
) (changed []search.TrialState, moment int64, err error) {
	act := fmt.Sprintf("read study %q in", name)
	if err := db.Join(ctx); err != nil {
		return nil, since, err
	}
	if err := db.lookAround(ctx); err != nil {
		return nil, since, db.explain(act, err)
	}
	err = db.view(ctx, func(tx *sql.Tx) error {
		changed = nil
		var study int64
		err := tx.QueryRowContext(ctx, `SELECT id, changes FROM study WHERE name = ?`, name).Scan(&study, &moment)
		if err != nil || moment == since && since > 0 {
			return err
		}
		if since == 0 {
			since = -1 // also the trials that never changed
		}
		changed, err = findStates(ctx, tx, study, since)
		return err
	})
	if err != nil {
		return nil, since, db.explain(act, err)
	}
	return changed, moment, nil
}

// Retry makes trials of a study pending again that have one of the statuses, Failed or Diverged, and that match, and
// forgets how often they failed. It returns them as they were.
func (db *DB) Retry(
	ctx context.Context, name string, statuses []search.Status, match func(space.System, int) bool,
) (again []search.Trial, err error) {
	err = db.update(ctx, func(tx *sql.Tx) error {
		again = nil
		study, _, err := db.findStudy(ctx, tx, name)
		if err != nil {
			return err
		}
		trials, err := findTrials(ctx, tx, `t.study = ?`, study)
		if err != nil {
			return err
		}
		for _, t := range trials {
			ended := t.Status == search.Failed || t.Status == search.Diverged
			if !ended || !slices.Contains(statuses, t.Status) || !match(t.System, t.Seed) {
				continue
			}
			if err := exec(ctx, tx, `DELETE FROM failure WHERE trial = ?`, t.ID); err != nil {
				return err
			}
			if err := setStatus(ctx, tx, study, t.ID, search.Pending); err != nil {
				return err
			}
			again = append(again, t.Trial)
		}
		return nil
	})
	if err != nil {
		return nil, db.explain(fmt.Sprintf("retry study %q in", name), err)
	}
	return again, nil
}

// update runs f in a writing transaction, which comes before all epochs that wait to be stored.
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
	return db.commit(ctx, f)
}

func setStatus(ctx context.Context, tx *sql.Tx, study, trial int64, s search.Status) error {
	if err := exec(ctx, tx, `UPDATE trial SET status = ? WHERE id = ?`, s, trial); err != nil {
		return err
	}
	return touch(ctx, tx, study, trial)
}

// touch notes that a study and some of its trials changed. The time never goes back, because clocks are set back.
func touch(ctx context.Context, tx *sql.Tx, study int64, trials ...int64) error {
	var change int64
	err := tx.QueryRowContext(ctx, `UPDATE study SET updated = max(updated, ?), changes = changes + 1
		WHERE id = ? RETURNING changes`, now(), study).Scan(&change)
	for _, t := range trials {
		if err == nil {
			err = exec(ctx, tx, `UPDATE trial SET changed = ? WHERE id = ?`, change, t)
		}
	}
	return err
}

// clock is the time of day, which tests set. It is stored for people to read; nothing depends on it.
var clock atomic.Pointer[func() time.Time]

func now() int64 {
	if f := clock.Load(); f != nil {
		return (*f)().UnixMilli()
	}
	return time.Now().UnixMilli()
}
