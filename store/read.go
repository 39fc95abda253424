package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"igcsearch/search"
)

// StudyInfo is a study in a list.
type StudyInfo struct {
	Name, Title string
	Updated     time.Time // of the last change to the study or its trials, UTC
	// Revision differs after every commit that changes the study, its trials, attempts or epochs.
	Revision string
	// Counts holds the number of trials by status; a status that no trial has is absent.
	Counts map[search.Status]int
}

// Results is what the database holds of one study at one moment.
type Results struct {
	Study    search.Study // normalised; Workers is not stored and unset
	Updated  time.Time    // as in StudyInfo
	Revision string       // as in StudyInfo
	// Dropped is how many finished trials lost their checkpoints to keep the study's quota.
	Dropped int
	// Trials are in the order of the study (search.Study.Trials). History is empty unless Read was asked for Histories.
	Trials []search.TrialState
	// Outside are the trials with epochs that the study had before its extent left them out.
	Outside []search.TrialState
	// Attempts are the oldest first; empty unless Read was asked for them.
	Attempts []TrialAttempt
	// ISAs are the arithmetics of the attempts that ended as done, and Models the processors or GPUs that they
	// used. Each value is there once, in the order in which it first appeared.
	ISAs, Models []string
	// Gone has the IDs of the running trials whose process has ended.
	Gone map[int64]bool
}

// Part is a part of Results that is costly to read.
type Part int

const (
	// Histories are all epochs of all trials. Trial.Last is always read.
	Histories Part = iota + 1
	// Attempts are all attempts at all trials.
	Attempts
)

// TrialAttempt is an attempt at the trial of Key.
type TrialAttempt struct {
	search.Key
	search.PastAttempt
}

// revision is the SQL of StudyInfo.Revision. Times alone do not tell two commits of one millisecond apart.
const revision = `s.id || ' ' || s.created || ' ' || s.changes`

// Studies lists the studies by name.
func (db *DB) Studies(ctx context.Context) ([]StudyInfo, error) {
	var infos []StudyInfo
	err := db.view(ctx, func(tx *sql.Tx) error {
		infos = nil
		return each(ctx, tx, `SELECT s.name, s.title, s.updated, `+revision+`, t.status, count(t.id)
			FROM study s LEFT JOIN trial t ON t.study = s.id AND NOT t.outside
			GROUP BY s.id, t.status ORDER BY s.name`, nil, func(rows *sql.Rows) error {
			var i StudyInfo
			var updated int64
			var status sql.NullString
			var n int
			err := rows.Scan(&i.Name, &i.Title, &updated, &i.Revision, &status, &n)
			if err != nil {
				return err
			}
			if k := len(infos); k == 0 || infos[k-1].Name != i.Name {
				if i.Updated, err = moment(updated); err != nil {
					return err
				}
				i.Counts = map[search.Status]int{}
				infos = append(infos, i)
			}
			if status.Valid {
				infos[len(infos)-1].Counts[search.Status(status.String)] = n
			}
			return nil
		})
	})
	if err != nil {
		return nil, db.explain("list the studies of", err)
	}
	return infos, nil
}

// Read returns a study with its trials, and the parts that are asked for. It reads all of them in one transaction,
// so they belong together while other processes write. The error wraps ErrNoStudy if there is no such study.
func (db *DB) Read(ctx context.Context, name string, parts ...Part) (Results, error) {
	var r Results
	err := db.viewStudy(ctx, name, func(tx *sql.Tx, id int64, s search.Study) (err error) {
		r = Results{Study: s}
		var updated int64
		if err := tx.QueryRowContext(ctx, `SELECT s.updated, s.dropped, `+revision+` FROM study s WHERE s.id = ?`, id).
			Scan(&updated, &r.Dropped, &r.Revision); err != nil {
			return err
		}
		if r.Updated, err = moment(updated); err != nil {
			return err
		}
		var all []search.TrialState
		if slices.Contains(parts, Histories) {
			all, err = findStates(ctx, tx, id, -1)
		} else {
			all, err = findTrials(ctx, tx, `t.study = ?`, id)
		}
		if err == nil {
			r.Trials, r.Outside, err = divide(ctx, tx, id, s, all)
		}
		if err == nil {
			err = checkEpochs(s, r.Trials)
		}
		if err == nil && slices.Contains(parts, Attempts) {
			r.Attempts, _, err = findAttempts(ctx, tx, `t.study = ? AND NOT t.outside`, id)
		}
		if err != nil {
			return err
		}
		const done = ` FROM trial t JOIN attempt a ON a.trial = t.id
			WHERE t.study = ? AND NOT t.outside AND a.outcome = 'done' GROUP BY 1 ORDER BY min(a.id)`
		if r.ISAs, err = texts(ctx, tx, `SELECT a.isa`+done, id); err != nil {
			return err
		}
		if r.Models, err = texts(ctx, tx, `SELECT iif(a.device = 'cpu', a.cpu, a.device)`+done, id); err != nil {
			return err
		}
		r.Gone, err = db.findGone(ctx, tx, id)
		return err
	})
	return r, err
}

// divide returns the trials of a study in the order of the study, and those with epochs that are outside.
func divide(
	ctx context.Context, tx *sql.Tx, study int64, s search.Study, all []search.TrialState,
) (inside, outside []search.TrialState, err error) {
	isOutside := map[int64]bool{}
	err = each(ctx, tx, `SELECT id FROM trial WHERE study = ? AND outside`, []any{study}, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		isOutside[id] = true
		return err
	})
	for _, t := range all {
		switch {
		case !isOutside[t.ID]:
			inside = append(inside, t)
		case t.Epoch > 0 || t.Status.Finished():
			outside = append(outside, t)
		}
	}
	s.SortTrials(inside)
	return inside, outside, err
}

// findAttempts returns the attempts at the trials t that an expression selects, the oldest first, and their rows.
func findAttempts(
	ctx context.Context, tx *sql.Tx, which string, args ...any,
) (attempts []TrialAttempt, rows []int64, err error) {
	systems := systemNames{}
	query := `SELECT a.id, t.system, t.point, t.seed, coalesce(a.token, x''), a.started, coalesce(a.ended, 0),
			coalesce(a.outcome, ''), coalesce(a.failure, ''), a.message,
			a.git_commit, a.go_version, a.cpu, a.isa, a.device, a.host, a.pid, a.args, a.job
		FROM trial t JOIN attempt a ON a.trial = t.id WHERE ` + which + ` ORDER BY a.id`
	err = each(ctx, tx, query, args, func(found *sql.Rows) error {
		var row, started, ended int64
		var a TrialAttempt
		var text []byte
		if err := found.Scan(&row, systems.into(&a.System), &a.At, &a.Seed, &a.Token, &started, &ended,
			&a.Ending, &a.Failure, &a.Message,
			&a.Commit, &a.GoVersion, &a.CPU, &a.ISA, &a.Device, &a.Host, &a.PID, &text, &a.Attempt.Job); err != nil {
			return err
		}
		var err error
		if a.Started, err = moment(started); err == nil && ended != 0 {
			a.Ended, err = moment(ended)
		}
		if err != nil {
			return fmt.Errorf("attempt %d at %v: %w", row, a.Key, err)
		}
		if err := json.Unmarshal(text, &a.Args); err != nil {
			return fmt.Errorf("command line of an attempt: %w", err)
		}
		attempts, rows = append(attempts, a), append(rows, row)
		return nil
	})
	return attempts, rows, err
}

// findGone returns the IDs of the running trials of a study whose process has ended.
func (db *DB) findGone(ctx context.Context, tx *sql.Tx, study int64) (map[int64]bool, error) {
	gone := map[int64]bool{}
	err := each(ctx, tx, `SELECT t.id, w.id, w.host, w.pid, w.remote
		FROM attempt a JOIN worker w ON w.id = a.worker JOIN trial t ON t.id = a.trial
		WHERE t.study = ?`, []any{study}, func(rows *sql.Rows) error {
		var trial int64
		var w Worker
		err := rows.Scan(&trial, &w.ID, &w.Host, &w.PID, &w.Remote)
		if err == nil && !db.alive(w) {
			gone[trial] = true
		}
		return err
	})
	return gone, err
}

// Checkpoint returns the newest checkpoint of a trial that is what was stored, nil if the trial has none. It is an
// error if all are damaged.
func (db *DB) Checkpoint(ctx context.Context, name string, key search.Key) (*search.Checkpoint, error) {
	return db.checkpoint(ctx, "checkpoint", name, key)
}

// BestCheckpoint returns the checkpoint after the epoch with the best validation accuracy, which a study with KeepBest
// has.
func (db *DB) BestCheckpoint(ctx context.Context, name string, key search.Key) (*search.Checkpoint, error) {
	return db.checkpoint(ctx, "best_checkpoint", name, key)
}

func (db *DB) checkpoint(ctx context.Context, table, name string, key search.Key) (*search.Checkpoint, error) {
	var c *search.Checkpoint
	err := db.viewStudy(ctx, name, func(tx *sql.Tx, id int64, _ search.Study) error {
		var trial int64
		var status search.Status
		err := tx.QueryRowContext(ctx, `SELECT t.id, t.status FROM trial t
			WHERE t.study = ? AND t.system = ? AND t.point = ? AND t.seed = ?`, id, key.System.String(), key.At, key.Seed).
			Scan(&trial, &status)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("it has no trial %v", key)
		}
		if err != nil {
			return err
		}
		var damaged []int
		c, damaged, err = findCheckpoint(ctx, tx, table, trial)
		if err == nil && c == nil && len(damaged) > 0 {
			then := "the next run trains it again"
			if status.Finished() {
				then = "the training has ended, so no run makes it again"
			}
			err = fmt.Errorf("the checkpoint of %v after epoch %d is damaged (its checksum does not fit): %s", key,
				damaged[0], then)
		}
		return err
	})
	return c, err
}

// Mark returns a short text that differs after every commit that adds or changes a study, a trial, an attempt or an
// epoch. Its cost does not depend on how much is stored.
func (db *DB) Mark(ctx context.Context) (mark string, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT coalesce(group_concat(`+revision+`, ', '), '') FROM study s`).Scan(&mark)
	})
	return mark, db.explain("read", err)
}

// viewStudy is view for one study.
func (db *DB) viewStudy(ctx context.Context, name string, f func(tx *sql.Tx, id int64, s search.Study) error) error {
	err := db.view(ctx, func(tx *sql.Tx) error {
		id, s, err := db.findStudy(ctx, tx, name)
		if err != nil {
			return err
		}
		return f(tx, id, s)
	})
	if err != nil {
		return db.explain(fmt.Sprintf("read study %q in", name), err)
	}
	return nil
}

func (db *DB) findStudy(ctx context.Context, tx *sql.Tx, name string) (id int64, s search.Study, err error) {
	var settings []byte
	var title string
	var kept search.Study
	err = tx.QueryRowContext(ctx, `SELECT id, settings, title, keep_checkpoints, keep_best, checkpoint_quota
		FROM study WHERE name = ?`,
		name).
		Scan(&id, &settings, &title, &kept.KeepCheckpoints, &kept.KeepBest, &kept.CheckpointQuota)
	if errors.Is(err, sql.ErrNoRows) {
		names, err := texts(ctx, tx, `SELECT substr(name, 1, 100) FROM study ORDER BY name`)
		if err != nil {
			return 0, s, err
		}
		if len(names) == 0 {
			return 0, s, db.fault("", NoStudies, fmt.Errorf("%w: %q; %s has none yet", ErrNoStudy, name, db.name))
		}
		return 0, s, db.fault("", Other,
			fmt.Errorf("%w: %q; %s has %s", ErrNoStudy, name, db.name, strings.Join(names, ", ")))
	}
	if err != nil {
		return 0, s, err
	}
	if s, err = soundSettings(settings); err != nil {
		return 0, s, err
	}
	s.Title = title
	s.KeepCheckpoints, s.KeepBest, s.CheckpointQuota = kept.KeepCheckpoints, kept.KeepBest, kept.CheckpointQuota
	return id, s, nil
}

var statuses = []search.Status{search.Pending, search.Running, search.Done, search.Diverged, search.Failed}

// findTrials returns the trials t that an expression selects, each with its last epoch and an empty History.
func findTrials(ctx context.Context, tx *sql.Tx, which string, args ...any) (trials []search.TrialState, err error) {
	var t search.TrialState
	var message string
	fields := epochFields(&t.Last, &t.ID, systemNames{}.into(&t.System), &t.At, &t.Seed, &t.Status, &t.Epochs, &t.Until,
		&t.MultiplyAdds, &t.Params, &message, &t.Failure, &t.ISA)
	// The last attempt says why a trial failed or diverged.
	err = each(ctx, tx, `SELECT t.id, t.system, t.point, t.seed, t.status, t.epochs,
			CASE t.status WHEN 'running' THEN t.until ELSE 0 END, t.multiply_adds, t.params,
			coalesce(a.message, ''), coalesce(a.failure, ''), coalesce(b.isa, ''), `+epochNames("e.")+`
		FROM trial t LEFT JOIN epoch e ON e.trial = t.id AND e.number = (SELECT max(number)
			FROM epoch WHERE trial = t.id)
			LEFT JOIN attempt b ON b.id = e.attempt
			LEFT JOIN attempt a ON a.id = CASE WHEN t.status IN ('failed', 'diverged') THEN (SELECT max(id)
				FROM attempt WHERE trial = t.id) END
		WHERE `+which+` ORDER BY t.id`, args, func(rows *sql.Rows) error {
		if err := rows.Scan(fields...); err != nil {
			return err
		}
		t.Error = search.LastLine(message)
		if t.Epoch = t.Last.Number; t.Epoch == 0 {
			t.Last = search.Epoch{}
		}
		if !slices.Contains(statuses, t.Status) {
			return contradiction(fmt.Sprintf("%v has the status %q", t.Key, brief(string(t.Status))))
		}
		if err := checkEpoch(t.Trial, t.Epoch, 0); err != nil {
			return err
		}
		trials = append(trials, t)
		return nil
	})
	return trials, err
}

// findStates returns the trials of a study that changed after since, all for −1, with their epochs.
func findStates(ctx context.Context, tx *sql.Tx, study, since int64) ([]search.TrialState, error) {
	states, err := findTrials(ctx, tx, `t.study = ? AND t.changed > ?`, study, since)
	if err != nil {
		return nil, err
	}
	at := make(map[whole]*search.TrialState, len(states))
	for i := range states {
		at[whole(states[i].ID)] = &states[i]
	}
	var trial whole
	var e search.Epoch
	fields := epochFields(&e, &trial)
	err = each(ctx, tx, `SELECT e.trial, `+epochNames("e.")+` FROM epoch e
		WHERE e.trial IN (SELECT id FROM trial WHERE study = ? AND changed > ?)
		ORDER BY e.trial, e.number`, []any{study, since}, func(rows *sql.Rows) error {
		if err := rows.Scan(fields...); err != nil {
			return err
		}
		s := at[trial]
		if err := checkEpoch(s.Trial, e.Number, 1); err != nil {
			return err
		}
		if s.History == nil {
			s.History = make([]search.Epoch, 0, min(s.Epoch, 1000)) // the number is only that of the last
		}
		s.History = append(s.History, e)
		return nil
	})
	return states, err
}

// findCheckpoints returns the checkpoints of a trial whose checksum fits, the newest first, and the epochs of the
// others.
func findCheckpoints(
	ctx context.Context, tx *sql.Tx, table string, trial int64,
) (sound []search.Checkpoint, damaged []int, err error) {
	err = each(ctx, tx, `SELECT epoch, state, sha256
		FROM `+table+` WHERE trial = ? ORDER BY epoch DESC`, []any{trial}, func(rows *sql.Rows) error {
		var c search.Checkpoint
		var sum []byte
		if err := rows.Scan(&c.Epoch, &c.State, &sum); err != nil {
			return err
		}
		if bytes.Equal(stateSum(trial, c.Epoch, sha256.Sum256(c.State)), sum) {
			sound = append(sound, c)
		} else {
			damaged = append(damaged, c.Epoch)
		}
		return nil
	})
	return sound, damaged, err
}

// findCheckpoint returns the newest checkpoint of a trial whose checksum fits, nil if there is none, and the epochs of
// those that are newer.
func findCheckpoint(ctx context.Context, tx *sql.Tx, table string, trial int64) (*search.Checkpoint, []int, error) {
	sound, damaged, err := findCheckpoints(ctx, tx, table, trial)
	if len(sound) == 0 {
		return nil, damaged, err
	}
	return &sound[0], slices.DeleteFunc(damaged, func(epoch int) bool { return epoch < sound[0].Epoch }), err
}

// each calls f for every row of a query.
func each(ctx context.Context, tx *sql.Tx, query string, args []any, f func(*sql.Rows) error) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// texts returns the one column of a query.
func texts(ctx context.Context, tx *sql.Tx, query string, args ...any) (list []string, err error) {
	err = each(ctx, tx, query, args, func(rows *sql.Rows) error {
		var s string
		err := rows.Scan(&s)
		list = append(list, s)
		return err
	})
	return list, err
}

// lastMoment is the end of the year 9999, in ms. JSON has no time after it.
const lastMoment = 253402300799999

// moment is a stored time.
func moment(ms int64) (time.Time, error) {
	if ms < 0 || ms > lastMoment {
		return time.Time{}, contradiction("it has a time before 1970 or after the year 9999")
	}
	return time.UnixMilli(ms).UTC(), nil
}

// checkEpoch refuses the number of an epoch below least, or above the last of the training.
func checkEpoch(t search.Trial, number, least int) error {
	if number < least || number > t.Epochs {
		return contradiction(fmt.Sprintf("%v has an epoch %d, but its training %d epochs", t.Key, number, t.Epochs))
	}
	return nil
}

// checkEpochs refuses trials with another number of epochs than their study has at their point.
func checkEpochs(s search.Study, trials []search.TrialState) error {
	for _, t := range trials {
		if epochs := s.At(t.At).Epochs; t.Epochs != epochs {
			return contradiction(fmt.Sprintf("%v has %d epochs, but its study %d", t.Key, t.Epochs, epochs))
		}
	}
	return nil
}
