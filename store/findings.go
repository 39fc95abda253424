package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"igcsearch/search"
)

// This file knows what is always true of a database, beyond the CHECKs of schema.sql, and how to make it true again.
// Training again gives the same bits, so Repair may take away whatever follows from the study. It never invents a
// measurement.
//
// What an import may leave out: an export without --epochs has only the last epoch of each trial. So the epochs of a
// trial need not be complete where an attempt without a token, which is an imported one, measured the later ones. What
// was trained, here or in a database or folder that was brought, has all epochs up to its last.

// Finding is something in the database that no igcsearch leaves there.
type Finding struct {
	Text   string // what is wrong, on one line, with the study, the trial and the number
	Repair string // what Repair does about it, "it would become pending"; "" if it can do nothing
}

func (f Finding) String() string {
	if f.Repair == "" {
		return f.Text
	}
	return f.Text + ": " + f.Repair
}

// mend puts right what a rule found of a trial, or of a study; number is that of the epoch or the attempt.
type mend func(ctx context.Context, tx *sql.Tx, of, number int64) error

// finding is a Finding with what Repair does about it; mend is nil if it can do nothing.
type finding struct {
	Finding
	study, trial int64 // one of them is 0
	number       int64
	mend         mend
}

// rule finds what breaks one rule: for each case the id of the trial, the number of the epoch or the attempt, and what
// is wrong, after the name of the trial.
type rule struct {
	find   string
	repair string
	mend   mend
}

// inSQL is the mend of SQL statements, which may use ?1, the id of the trial or study, and ?2, the number.
func inSQL(queries ...string) mend {
	return func(ctx context.Context, tx *sql.Tx, of, number int64) error {
		for _, query := range queries {
			args := []any{of, number}
			if !strings.Contains(query, "?2") {
				args = args[:1]
			}
			if err := exec(ctx, tx, query, args...); err != nil {
				return err
			}
		}
		return nil
	}
}

const (
	again  = "it would become pending"
	anew   = "it and what comes after it would be removed and trained again"
	latest = `coalesce((SELECT max(number) FROM epoch WHERE trial = t.id), 0)`
	lost   = `UPDATE attempt SET ended = max(started, min(unixepoch() * 1000, 253402300799999)), outcome = 'lost',
		failure = 'lost', worker = NULL WHERE id = ?2`
)

var pending = inSQL(`UPDATE trial SET status = 'pending' WHERE id = ?1`)

// cut removes the epochs of a trial from a number on, and all that was recorded after its newest checkpoint before
// that, as the next attempt would.
func cut(ctx context.Context, tx *sql.Tx, trial, number int64) error {
	err := inSQL(
		`DELETE FROM checkpoint WHERE trial = ?1 AND epoch >= ?2`,
		`DELETE FROM best_checkpoint WHERE trial = ?1 AND epoch >= ?2`,
		`DELETE FROM epoch WHERE trial = ?1 AND (number >= ?2 OR number < 1)`,
		`UPDATE trial SET status = 'pending' WHERE id = ?1 AND status IN ('done', 'diverged')`,
	)(ctx, tx, trial, number)
	if err == nil {
		_, _, err = soundState(ctx, tx, trial)
	}
	return err
}

// rules are those of trials and of what belongs to them, in the order in which Repair mends. A rule may break because
// another one is broken; Repair therefore looks again.
var rules = slices.Concat(trialRules, attemptRules, epochRules, checkpointRules)

var trialRules = []rule{
	{
		`SELECT t.id, 0, 'is running, but no attempt at it is open' FROM trial t
			WHERE t.status = 'running' AND NOT EXISTS (SELECT 1 FROM attempt WHERE trial = t.id AND ended IS NULL)`,
		again, pending,
	}, {
		`SELECT t.id, a.id, 'has an open attempt, but is ' || t.status
			FROM trial t JOIN attempt a ON a.trial = t.id AND a.ended IS NULL WHERE t.status <> 'running'`,
		"the attempt would be closed as lost", inSQL(lost),
	}, {
		`SELECT t.id, 0, 'is done, but has ' || ` + latest + ` || ' of ' || t.epochs || ' epochs' FROM trial t
			WHERE t.status = 'done' AND ` + latest + ` < t.epochs`,
		again, pending,
	}, {
		`SELECT t.id, 0, 'is done, but no attempt at it ended as done' FROM trial t WHERE t.status = 'done'
			AND NOT EXISTS (SELECT 1 FROM attempt WHERE trial = t.id AND (outcome = 'done' OR ended IS NULL))
			AND EXISTS (SELECT 1 FROM epoch WHERE trial = t.id AND number = t.epochs)`,
		"the attempt that measured its last epoch would end so",
		inSQL(`UPDATE attempt SET outcome = 'done', failure = NULL WHERE id = (SELECT e.attempt
			FROM epoch e JOIN trial t ON t.id = e.trial WHERE t.id = ?1 AND e.number = t.epochs)`),
	}, {
		`SELECT t.id, 0, 'is ' || t.status || ', but no attempt at it ended so' FROM trial t
			WHERE t.status IN ('diverged', 'failed') AND NOT EXISTS (SELECT 1 FROM attempt
				WHERE trial = t.id AND (outcome = t.status OR ended IS NULL))`,
		again, pending,
	}, {
		`SELECT t.id, 0, 'is diverged, but has all its ' || t.epochs || ' epochs' FROM trial t
			WHERE t.status = 'diverged' AND ` + latest + ` >= t.epochs`,
		again, pending,
	}, {
		`SELECT t.id, 0, 'is ' || substr(t.status, 1, 20) || ', which is no status of a trial' FROM trial t
			WHERE t.status NOT IN ('pending', 'running', 'done', 'diverged', 'failed')`,
		again, pending,
	}, {
		`SELECT t.id, 0, 'was last to be trained to epoch ' || t.until || ', but has ' || max(e.number)
			FROM trial t JOIN epoch e ON e.trial = t.id JOIN attempt a ON a.id = e.attempt
			WHERE a.token IS NOT NULL GROUP BY t.id HAVING max(e.number) > t.until AND max(e.number) <= t.epochs`,
		"that epoch would be stored in its place",
		inSQL(`UPDATE trial SET until = min(epochs, (SELECT max(number)
			FROM epoch WHERE trial = ?1)) WHERE id = ?1`),
	}, {
		`SELECT t.id, 0, 'was last to be trained to epoch ' || t.until || ' of ' || t.epochs FROM trial t
			WHERE t.until NOT BETWEEN 0 AND t.epochs`,
		"its last epoch would be stored in its place", inSQL(`UPDATE trial SET until = epochs WHERE id = ?1`),
	},
}

var attemptRules = []rule{
	{
		`SELECT t.id, a.id, 'is trained by worker ' || a.worker || ', which is missing' FROM attempt a
			JOIN trial t ON t.id = a.trial WHERE a.worker IS NOT NULL AND a.worker NOT IN (SELECT id FROM worker)`,
		"attempt %d would be closed as lost, and it would become pending",
		inSQL(lost, `UPDATE trial SET status = 'pending' WHERE id = ?1 AND status = 'running'`),
	}, {
		`SELECT t.id, a.id, 'has an attempt that is open, but has no token of a worker' FROM attempt a
			JOIN trial t ON t.id = a.trial WHERE a.token IS NULL AND a.ended IS NULL`,
		"attempt %d would be closed as lost, and it would become pending",
		inSQL(lost, `UPDATE trial SET status = 'pending' WHERE id = ?1 AND status = 'running'`),
	}, {
		`SELECT t.id, a.id, 'has an attempt that is half open and half ended' FROM attempt a
			JOIN trial t ON t.id = a.trial
			WHERE (a.ended IS NULL) <> (a.outcome IS NULL) OR (a.ended IS NULL) <> (a.worker IS NOT NULL)`,
		"attempt %d would be closed as lost", inSQL(lost),
	}, {
		`SELECT t.id, a.id, 'has an attempt whose times are out of order or out of range' FROM attempt a
			JOIN trial t ON t.id = a.trial
			WHERE a.started NOT BETWEEN 1 AND 253402300799999 OR a.ended NOT BETWEEN a.started AND 253402300799999`,
		"attempt %d would get the time of the study's last change in their place",
		inSQL(`UPDATE attempt SET started = a.started,
				ended = iif(attempt.ended IS NULL, NULL, max(a.started, a.ended))
			FROM (SELECT iif(o.started BETWEEN 1 AND 253402300799999, o.started, s.updated) AS started,
					iif(o.ended BETWEEN 1 AND 253402300799999, o.ended, s.updated) AS ended
				FROM attempt o JOIN trial t ON t.id = o.trial JOIN study s ON s.id = t.study WHERE o.id = ?2) a
			WHERE id = ?2`),
	}, {
		`SELECT t.id, a.id, 'has an attempt that ended as ' || a.outcome || ' by the failure ' || substr(a.failure, 1, 20)
			FROM attempt a JOIN trial t ON t.id = a.trial WHERE a.outcome IN ('done', 'paused')
				AND a.failure IS NOT NULL OR a.outcome IN ('diverged', 'lost') AND a.failure <> a.outcome`,
		"the failure of attempt %d would be what its end says",
		inSQL(`UPDATE attempt SET failure = iif(outcome IN ('done', 'paused'), NULL, outcome) WHERE id = ?2`),
	}, {
		`SELECT t.id, max(a.id), 'has an attempt with the token of attempt ' || min(a.id)
			FROM attempt a JOIN trial t ON t.id = a.trial WHERE a.token IS NOT NULL
			GROUP BY a.token HAVING count(*) > 1`,
		"attempt %d would get a token of its own",
		inSQL(`UPDATE attempt SET token = randomblob(16) WHERE id = ?2`),
	}, {
		`SELECT t.id, a.id, 'has an attempt whose command line is no list of texts' FROM attempt a
			JOIN trial t ON t.id = a.trial WHERE NOT json_valid(a.args)
			OR EXISTS (SELECT 1 FROM json_each(iif(json_valid(a.args), a.args, '[]')) WHERE type <> 'text')`,
		"the command line of attempt %d would become empty",
		inSQL(`UPDATE attempt SET args = '[]' WHERE id = ?2`),
	}, {
		// An attempt that was lost and came back may be lost again, so the count of these has no bound.
		`SELECT t.id, 0, 'counts ' || f.count || ' failed attempts of the kind ' || substr(f.kind, 1, 20) || ', but has ' ||
				(SELECT count(*) FROM attempt WHERE trial = t.id AND failure = f.kind)
			FROM failure f JOIN trial t ON t.id = f.trial WHERE f.kind <> 'lost' AND f.count NOT BETWEEN 1 AND
				(SELECT count(*) FROM attempt WHERE trial = t.id AND failure = f.kind)`,
		"they would be counted again",
		inSQL(`DELETE FROM failure WHERE trial = ?1 AND kind <> 'lost' AND NOT EXISTS (SELECT 1
				FROM attempt WHERE trial = ?1 AND attempt.failure = failure.kind)`,
			`UPDATE failure SET count = max(1, min(count, (SELECT count(*) FROM attempt
				WHERE trial = ?1 AND attempt.failure = failure.kind))) WHERE trial = ?1 AND kind <> 'lost'`),
	},
}

var epochRules = []rule{
	{
		`SELECT t.id, min(e.number), 'epoch ' || e.number || ': the training has ' || t.epochs || ' epochs'
			FROM epoch e JOIN trial t ON t.id = e.trial WHERE e.number NOT BETWEEN 1 AND t.epochs GROUP BY t.id`,
		anew, cut,
	}, {
		`SELECT k.trial, k.k, 'epoch ' || k.k || ' is missing, but epoch ' || own.last || ' was trained after it'
			FROM (SELECT trial, min(k) AS k FROM (SELECT trial, number,
					row_number() OVER (PARTITION BY trial ORDER BY number) AS k FROM epoch WHERE number >= 1)
				WHERE number <> k GROUP BY trial) k
			JOIN (SELECT e.trial, max(e.number) AS last FROM epoch e JOIN attempt a ON a.id = e.attempt
				JOIN trial t ON t.id = e.trial WHERE a.token IS NOT NULL AND e.number <= t.epochs
				GROUP BY e.trial) own ON own.trial = k.trial AND own.last > k.k`,
		"what comes after it would be removed and trained again", cut,
	}, {
		`SELECT t.id, min(e.number), 'epoch ' || e.number || ' was measured by attempt ' || e.attempt ||
				iif(a.id IS NULL, ', which is missing', ', which is of another trial')
			FROM epoch e JOIN trial t ON t.id = e.trial LEFT JOIN attempt a ON a.id = e.attempt
			WHERE a.trial IS NOT e.trial GROUP BY t.id`,
		anew, cut,
	}, {
		`SELECT t.id, min(e.number), 'epoch ' || e.number || ' has counts that no training measures: ' ||
				train_correct || ' of ' || train_total || ', ' || validation_correct || ' of ' || validation_total ||
				', ' || test_correct || ' of ' || test_total
			FROM epoch e JOIN trial t ON t.id = e.trial
			WHERE train_correct NOT BETWEEN 0 AND train_total OR validation_correct NOT BETWEEN 0 AND validation_total
				OR test_correct NOT BETWEEN 0 AND test_total GROUP BY t.id`,
		anew, cut,
	}, {
		`SELECT t.id, min(e.number), 'epoch ' || e.number || ' took ' || train_seconds || ' and ' || eval_seconds ||
				' s, which no training takes' FROM epoch e JOIN trial t ON t.id = e.trial
			WHERE train_seconds NOT BETWEEN 0 AND 1e9 OR eval_seconds NOT BETWEEN 0 AND 1e9 GROUP BY t.id`,
		anew, cut,
	}, {
		`SELECT t.id, min(e.number), 'epoch ' || e.number || ' has a loss that no evaluation measures'
			FROM epoch e JOIN trial t ON t.id = e.trial
			WHERE validation_loss < 0 OR test_loss < 0 GROUP BY t.id`,
		anew, cut,
	},
}

var checkpointRules = []rule{
	{
		`SELECT t.id, c.epoch, 'has a checkpoint after epoch ' || c.epoch || ', which is missing'
			FROM checkpoint c JOIN trial t ON t.id = c.trial
			WHERE NOT EXISTS (SELECT 1 FROM epoch WHERE trial = c.trial AND number = c.epoch)`,
		"it would be removed", inSQL(`DELETE FROM checkpoint WHERE trial = ?1 AND epoch = ?2`),
	}, {
		`SELECT t.id, c.epoch, 'has a best checkpoint after epoch ' || c.epoch || ', which is missing'
			FROM best_checkpoint c JOIN trial t ON t.id = c.trial
			WHERE NOT EXISTS (SELECT 1 FROM epoch WHERE trial = c.trial AND number = c.epoch)`,
		"it would be removed", inSQL(`DELETE FROM best_checkpoint WHERE trial = ?1`),
	}, {
		`SELECT t.id, c.epoch, 'has the checkpoint after epoch ' || c.epoch || ' in the place of another one'
			FROM checkpoint c JOIN trial t ON t.id = c.trial WHERE c.slot <> c.epoch % 2`,
		"it would be removed", inSQL(`DELETE FROM checkpoint WHERE trial = ?1 AND epoch = ?2`),
	}, {
		`SELECT t.id, 0, 'has a checkpoint that nothing needs' FROM trial t JOIN study s ON s.id = t.study
			WHERE t.status IN ('done', 'diverged') AND NOT s.keep_checkpoints
				AND EXISTS (SELECT 1 FROM checkpoint WHERE trial = t.id)`,
		"it would be removed", inSQL(`DELETE FROM checkpoint WHERE trial = ?1`),
	}, {
		`SELECT t.id, 0, 'has ' || ` + latest + ` || ' epochs, but its newest checkpoint is after epoch ' || max(c.epoch)
			FROM trial t JOIN checkpoint c ON c.trial = t.id WHERE t.status IN ('pending', 'running')
			GROUP BY t.id HAVING max(c.epoch) < ` + latest,
		"the epochs after that would be removed and trained again",
		func(ctx context.Context, tx *sql.Tx, trial, _ int64) error {
			_, _, err := soundState(ctx, tx, trial)
			return err
		},
	}, {
		// keep_best may have been set after some epochs, so an earlier epoch may be better.
		`SELECT t.id, e.number, 'has the checkpoint after epoch ' || c.epoch || ' as its best, but epoch ' ||
				min(e.number) || ' is better' FROM best_checkpoint c JOIN trial t ON t.id = c.trial
			JOIN study s ON s.id = t.study AND s.keep_best
			JOIN epoch b ON b.trial = c.trial AND b.number = c.epoch
			JOIN epoch e ON e.trial = c.trial AND e.number > c.epoch AND e.validation_total > 0
				AND e.validation_correct > b.validation_correct GROUP BY t.id`,
		"it would be removed", inSQL(`DELETE FROM best_checkpoint WHERE trial = ?1`),
	},
}

// findFaults returns what breaks a rule, workers and what SQLite finds apart.
func (db *DB) findFaults(ctx context.Context, tx *sql.Tx) (list []finding, err error) {
	list, err = orphans(ctx, tx)
	if err != nil {
		return nil, err
	}
	names, err := trialNames(ctx, tx)
	if err != nil {
		return nil, err
	}
	studies, err := findStudyFaults(ctx, tx, names)
	if err != nil {
		return nil, err
	}
	list = append(list, studies...)
	for _, r := range rules {
		err := each(ctx, tx, r.find, nil, func(rows *sql.Rows) error {
			f := finding{mend: r.mend}
			if err := rows.Scan(&f.trial, &f.number, &f.Text); err != nil {
				return err
			}
			f.Text = names[f.trial] + " " + f.Text
			if f.Repair = r.repair; strings.Contains(r.repair, "%d") {
				f.Repair = fmt.Sprintf(r.repair, f.number)
			}
			list = append(list, f)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	damaged, err := damagedStates(ctx, tx, names)
	if err != nil {
		return nil, err
	}
	list = append(list, damaged...)
	busy, err := db.busyTrials(ctx, tx)
	for i, f := range list {
		if f.mend != nil && busy[f.trial] {
			list[i].mend, list[i].Repair = nil, "stop the process that trains it first"
		}
	}
	return list, err
}

// busyTrials are those that a process trains that is alive.
func (db *DB) busyTrials(ctx context.Context, tx *sql.Tx) (map[int64]bool, error) {
	busy := map[int64]bool{}
	err := each(ctx, tx, `SELECT a.trial, w.id, w.host, w.pid, w.remote
		FROM attempt a JOIN worker w ON w.id = a.worker WHERE a.ended IS NULL`, nil, func(rows *sql.Rows) error {
		var trial int64
		var w Worker
		err := rows.Scan(&trial, &w.ID, &w.Host, &w.PID, &w.Remote)
		busy[trial] = busy[trial] || db.alive(w)
		return err
	})
	return busy, err
}

// trialNames names each trial with its study: "study quick: L40M2 seed 1".
func trialNames(ctx context.Context, tx *sql.Tx) (map[int64]string, error) {
	names, systems := map[int64]string{}, systemNames{}
	err := each(ctx, tx, `SELECT t.id, t.system, t.point, t.seed, coalesce(s.name, '')
		FROM trial t LEFT JOIN study s ON s.id = t.study`, nil, func(rows *sql.Rows) error {
		var id, seed int64
		var system, study string
		var key search.Key
		if err := rows.Scan(&id, &system, &key.At, &seed, &study); err != nil {
			return err
		}
		label := fmt.Sprintf("%q", brief(system))
		if err := (systemName{systems, &key.System}).Scan(system); err == nil {
			label = brief(key.Label())
		}
		names[id] = fmt.Sprintf("study %s: %s seed %d", plainName(study), label, seed)
		return nil
	})
	return names, err
}

// plainName is the name of a study, in quotes if no igcsearch gives such a name.
func plainName(study string) string {
	for _, r := range study {
		if r <= ' ' || r > '~' {
			return fmt.Sprintf("%q", brief(study))
		}
	}
	return brief(study)
}

// orphans finds what belongs to a trial or a study that is missing.
func orphans(ctx context.Context, tx *sql.Tx) (list []finding, err error) {
	const missing = ` WHERE trial NOT IN (SELECT id FROM trial)`
	err = each(ctx, tx, `SELECT trial, count(*) FROM (SELECT trial FROM epoch`+missing+`
		UNION ALL SELECT trial FROM attempt`+missing+` UNION ALL SELECT trial FROM failure`+missing+`
		UNION ALL SELECT trial FROM checkpoint`+missing+` UNION ALL SELECT trial FROM best_checkpoint`+missing+`)
		GROUP BY trial`, nil, func(rows *sql.Rows) error {
		f := finding{mend: inSQL(`DELETE FROM checkpoint WHERE trial = ?1`,
			`DELETE FROM best_checkpoint WHERE trial = ?1`, `DELETE FROM epoch WHERE trial = ?1`,
			`DELETE FROM failure WHERE trial = ?1`, `DELETE FROM attempt WHERE trial = ?1`)}
		var n int
		err := rows.Scan(&f.trial, &n)
		f.Text = fmt.Sprintf("trial number %d is missing, but %d epochs, attempts, failures and checkpoints "+
			"belong to it", f.trial, n)
		f.Repair = "they would be removed"
		list = append(list, f)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = each(ctx, tx, `SELECT study, count(*) FROM trial WHERE study NOT IN (SELECT id FROM study) GROUP BY study`,
		nil, func(rows *sql.Rows) error {
			var study int64
			var n int
			err := rows.Scan(&study, &n)
			list = append(list, finding{Finding: Finding{Text: fmt.Sprintf(
				"study number %d is missing, but %d trials belong to it: their results are of no known settings",
				study, n)}})
			return err
		})
	return list, err
}
