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

// Plan implements search.Store. A study that is stored with the same fingerprint gets the extent and the other settings
// of s. Trials that it had and that are not planned any more keep what is stored of them and are Results.Outside, until
// they are planned again.
//
// It returns a *ConflictError if the study's name is taken by settings that give other results, or if none of the trials
// with results is planned; and a *BusyError if other processes train while trials leave the study.
func (db *DB) Plan(ctx context.Context, s search.Study, trials []search.Trial) ([]search.Trial, error) {
	if err := db.Join(ctx); err != nil {
		return nil, err
	}
	if err := db.reclaim(ctx, false); err != nil {
		return nil, db.explain(fmt.Sprintf("plan study %q in", s.Name), err)
	}
	var planned []search.Trial
	err := db.update(ctx, func(tx *sql.Tx) (err error) {
		planned, err = db.plan(ctx, tx, s, trials)
		return err
	})
	return planned, db.explainPlan(s, err)
}

// planJoined is Plan of a study with results that were made elsewhere. A study that is stored keeps its settings; its
// extent becomes that of both. Those of the trials that are in neither become Results.Outside.
func (db *DB) planJoined(ctx context.Context, tx *sql.Tx, s search.Study, trials []search.Trial) error {
	joined, known := s, slices.Clone(trials)
	id, stored, err := db.findStudy(ctx, tx, s.Name)
	switch {
	case errors.Is(err, ErrNoStudy):
	case err != nil:
		return err
	default:
		for i, t := range trials {
			known[i].Key = s.KeyAlong(t.Key, stored.Axes)
		}
		trials, s = slices.Clone(known), s.Along(stored.Axes)
		if err := db.checkSame(ctx, tx, stored, s); err != nil {
			return err
		}
		here, err := findTrials(ctx, tx, `t.study = ?`, id)
		if err != nil {
			return err
		}
		for _, t := range here {
			known = append(known, t.Trial)
		}
		if joined, err = stored.Join(s); err != nil {
			return err
		}
	}
	inside, err := joined.TrialsLike(known)
	if err != nil {
		return err
	}
	if _, err := db.plan(ctx, tx, joined, inside); err != nil {
		return err
	}
	id, _, err = db.findStudy(ctx, tx, s.Name)
	if err != nil {
		return err
	}
	_, err = putTrials(ctx, tx, id, trials, true)
	return err
}

func (db *DB) explainPlan(s search.Study, err error) error {
	if errors.As(err, new(*ConflictError)) || errors.As(err, new(*BusyError)) {
		return err
	}
	return db.explain(fmt.Sprintf("plan study %q in", s.Name), err)
}

// plan makes the trials those of the study, and returns them as they stand.
func (db *DB) plan(
	ctx context.Context, tx *sql.Tx, s search.Study, trials []search.Trial,
) (planned []search.Trial, err error) {
	var changes []string
	if _, there, err := db.findStudy(ctx, tx, s.Name); err == nil {
		changes = search.Changes(there, s)
	}
	study, changed, err := db.putStudy(ctx, tx, s)
	if err != nil {
		return nil, err
	}
	added, err := putTrials(ctx, tx, study, trials, false)
	if err != nil {
		return nil, err
	}
	stored, err := findTrials(ctx, tx, `t.study = ?`, study)
	if err == nil {
		err = checkEpochs(s, stored)
	}
	if err != nil {
		return nil, err
	}
	byKey := map[search.Key]search.Trial{}
	for _, t := range stored {
		byKey[t.Key] = t.Trial
	}
	planned = make([]search.Trial, len(trials))
	inside := map[int64]bool{}
	for i, t := range trials {
		if _, ok := byKey[t.Key]; !ok {
			return nil, fmt.Errorf("trial %v is planned twice", t.Key)
		}
		planned[i] = byKey[t.Key]
		inside[planned[i].ID] = true
		delete(byKey, t.Key)
	}
	moved, err := db.moveTrials(ctx, tx, study, s.Name, changes, inside)
	if err == nil && (changed || added || len(moved) > 0) {
		err = touch(ctx, tx, study, moved...)
	}
	return planned, err
}

// putTrials inserts trials that are not stored yet, and reports whether there were any.
func putTrials(
	ctx context.Context, tx *sql.Tx, study int64, trials []search.Trial, outside bool,
) (added bool, err error) {
	for _, t := range trials {
		p := t.System.Pair()
		n, err := changes(tx.ExecContext(ctx, `INSERT INTO trial
				(study, system, L, M, point, seed, status, epochs, multiply_adds, params, outside)
			VALUES (?, ?, nullif(?, 0), nullif(?, 0), ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (study, system, point, seed) DO NOTHING`,
			study, t.System.String(), p.L, p.M, t.At, t.Seed, search.Pending, t.Epochs, t.MultiplyAdds, t.Params, outside))
		if err != nil {
			return added, err
		}
		added = added || n > 0
	}
	return added, nil
}

// moveTrials makes the trials inside those of the study, and returns the ones that it had not before, and those that it
// had. changes says what differs from the extent before.
func (db *DB) moveTrials(
	ctx context.Context, tx *sql.Tx, study int64, name string, changes []string, inside map[int64]bool,
) (moved []int64, err error) {
	leave, kept, lost := 0, 0, 0 // kept and lost have epochs
	err = each(ctx, tx, `SELECT id, outside, EXISTS (SELECT 1 FROM epoch WHERE trial = t.id) FROM trial t
		WHERE study = ?`, []any{study}, func(rows *sql.Rows) error {
		var id int64
		var outside, trained bool
		if err := rows.Scan(&id, &outside, &trained); err != nil {
			return err
		}
		switch {
		case trained && inside[id]:
			kept++
		case trained && !outside:
			lost++
		}
		if outside == inside[id] {
			moved = append(moved, id)
		}
		if !outside && !inside[id] {
			leave++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if lost > 0 && kept == 0 {
		return nil, conflictOfExtents(db.name, name, changes, lost)
	}
	if leave > 0 {
		if err := db.checkIdle(ctx, tx, study, name); err != nil {
			return nil, err
		}
	}
	for _, id := range moved {
		if err := exec(ctx, tx, `UPDATE trial SET outside = ? WHERE id = ?`, !inside[id], id); err != nil {
			return nil, err
		}
	}
	return moved, nil
}

// CheckChange returns the *ConflictError with which a run refuses to go on with a study, as it is stored in a database
// of this name, with the settings of s and its trials.
func (r Results) CheckChange(database string, s search.Study, trials []search.Trial) error {
	if diff := search.Diff(r.Study, s); len(diff) > 0 {
		return &ConflictError{Study: s.Name, Database: database, Diff: diff}
	}
	inside := map[search.Key]bool{}
	for _, t := range trials {
		inside[t.Key] = true
	}
	kept, lost := 0, 0 // with epochs
	for i, t := range slices.Concat(r.Trials, r.Outside) {
		switch {
		case t.Epoch > 0 && inside[r.Study.KeyAlong(t.Key, s.Axes)]:
			kept++
		case t.Epoch > 0 && i < len(r.Trials):
			lost++
		}
	}
	if lost > 0 && kept == 0 {
		return conflictOfExtents(database, s.Name, search.Changes(r.Study, s), lost)
	}
	return nil
}

func conflictOfExtents(database, study string, changes []string, lost int) error {
	why := fmt.Sprintf("with these, none of the trials that are trained would stay in the study, %d", lost)
	return &ConflictError{Study: study, Database: database, Diff: append(changes, why)}
}

// checkIdle returns a *BusyError if another process trains trials of a study, as far as this process can know.
func (db *DB) checkIdle(ctx context.Context, tx *sql.Tx, study int64, name string) error {
	busy := &BusyError{Study: name, Database: db.name}
	err := each(ctx, tx, `SELECT DISTINCT w.id, w.host, w.pid, w.remote FROM attempt a JOIN worker w ON w.id = a.worker
		JOIN trial t ON t.id = a.trial WHERE t.study = ? ORDER BY 2, 3`, []any{study}, func(rows *sql.Rows) error {
		var w Worker
		err := rows.Scan(&w.ID, &w.Host, &w.PID, &w.Remote)
		if err == nil && db.alive(w) {
			busy.Workers = append(busy.Workers, w)
		}
		return err
	})
	if err == nil && len(busy.Workers) > 0 {
		return busy
	}
	return err
}

// checkSame returns a *ConflictError if a stored study and s give other results. s may have axes that the stored study
// lacks.
func (db *DB) checkSame(ctx context.Context, tx *sql.Tx, stored, s search.Study) error {
	var fingerprint, settings string
	err := tx.QueryRowContext(ctx, `SELECT fingerprint, settings FROM study WHERE name = ?`, s.Name).
		Scan(&fingerprint, &settings)
	if err != nil || fingerprint == stored.Fingerprint() && settings == string(stored.Settings()) &&
		stored.Along(s.Axes).Fingerprint() == s.Fingerprint() {
		return err
	}
	return &ConflictError{Study: s.Name, Database: db.name, Diff: search.Diff(stored, s)}
}

// align gives the stored trials of a study the keys that they have along axes, as Study.Along does. Their results stay:
// a value that all trials had becomes part of each key, and the fingerprint leaves it out.
func align(ctx context.Context, tx *sql.Tx, id int64, stored search.Study, axes search.Axes) error {
	along := stored.Along(axes)
	if len(along.Axes) == len(stored.Axes) {
		return nil
	}
	points, err := texts(ctx, tx, `SELECT DISTINCT point FROM trial WHERE study = ?`, id)
	for _, p := range points {
		if err == nil {
			key := stored.KeyAlong(search.Key{At: search.Point(p)}, axes)
			err = exec(ctx, tx, `UPDATE trial SET point = ? WHERE study = ? AND point = ?`, key.At, id, p)
		}
	}
	if err != nil {
		return err
	}
	return exec(ctx, tx, `UPDATE study SET settings = ?, fingerprint = ? WHERE id = ?`, string(along.Settings()),
		along.Fingerprint(), id)
}

// putStudy returns the row of a study, and whether it inserted or changed it.
func (db *DB) putStudy(ctx context.Context, tx *sql.Tx, s search.Study) (id int64, changed bool, err error) {
	id, there, err := db.findStudy(ctx, tx, s.Name)
	switch {
	case errors.Is(err, ErrNoStudy):
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
	}
	if err := db.checkSame(ctx, tx, there, s); err != nil {
		return 0, false, err
	}
	if err := align(ctx, tx, id, there, s.Axes); err != nil {
		return 0, false, err
	}
	n, err := changes(tx.ExecContext(ctx, `UPDATE study
		SET title = ?2, settings = ?3, keep_checkpoints = ?4, keep_best = ?5, checkpoint_quota = ?6
		WHERE id = ?1 AND (title, settings, keep_checkpoints, keep_best, checkpoint_quota) IS NOT (?2, ?3, ?4, ?5, ?6)`,
		id, s.Title, string(s.Settings()), s.KeepCheckpoints, s.KeepBest, s.CheckpointQuota))
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
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w: it was renamed or deleted meanwhile", ErrNoStudy)
		}
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
		trials, err := findTrials(ctx, tx, `t.study = ? AND NOT t.outside`, study)
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
