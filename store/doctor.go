package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
)

// Health is what Examine finds in a database.
type Health struct {
	Version             int    // of the schema
	Network             string // file system that other machines share, "" for a local one
	FileBytes, WALBytes int64
	LogMissing          bool  // see DB.LogMissing
	FreeBytes           int64 // of the file, which a vacuum would give back
	Tables              []TableSize
	Workers             []WorkerInfo
	// Damage is what SQLite says is wrong with the file. Repair does not repair it.
	Damage []string
	// Findings are what Repair repairs.
	Findings []string
}

// TableSize is a table with its content.
type TableSize struct {
	Name        string
	Rows, Bytes int64 // bytes of the values, without SQLite's own
}

// WorkerInfo is a worker of the database as Examine finds it.
type WorkerInfo struct {
	Worker
	Trials int // that it runs
	Dead   bool
}

// brokenChecks runs SQLite's check of the whole file on a connection that may write but is told not to. On one that may
// not write, SQLite leaves out the CHECK constraints. For a file that this process may not write it returns nothing.
func (db *DB) brokenChecks(ctx context.Context) (broken []string, err error) {
	if !db.mayWrite {
		return nil, nil
	}
	pool := db.pool(url.Values{"mode": {"rw"}, "_query_only": {"1"}}, false)
	defer pool.Close()
	rows, err := pool.QueryContext(ctx, `SELECT integrity_check
		FROM pragma_integrity_check WHERE integrity_check <> 'ok'`)
	if err != nil {
		return nil, ctx.Err()
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		broken = append(broken, text)
	}
	if rows.Err() != nil {
		return nil, ctx.Err()
	}
	return broken, nil
}

// Examine looks for what is wrong with the database. It changes nothing.
func (db *DB) Examine(ctx context.Context) (Health, error) {
	var h Health
	checks, err := db.brokenChecks(ctx)
	if err != nil {
		return h, db.explain("examine", err)
	}
	err = db.view(ctx, func(tx *sql.Tx) (err error) {
		h = Health{Version: schemaVersion, Network: db.network, LogMissing: db.LogMissing()}
		if err := db.findSizes(ctx, tx, &h); err != nil {
			return err
		}
		if h.Damage, err = findDamage(ctx, tx, checks); err != nil {
			return err
		}
		if h.Workers, err = db.findWorkers(ctx, tx); err != nil {
			return err
		}
		h.Findings, err = findFaults(ctx, tx, h.Workers)
		return err
	})
	return h, db.explain("examine", err)
}

// findSizes fills in how large the files and the tables are.
func (db *DB) findSizes(ctx context.Context, tx *sql.Tx, h *Health) error {
	for suffix, n := range map[string]*int64{"": &h.FileBytes, "-wal": &h.WALBytes} {
		if info, err := os.Stat(db.path + suffix); err == nil {
			*n = info.Size()
		}
	}
	if err := tx.QueryRowContext(ctx, `SELECT freelist_count * page_size
		FROM pragma_freelist_count, pragma_page_size`).Scan(&h.FreeBytes); err != nil {
		return err
	}
	names, err := texts(ctx, tx, `SELECT name FROM sqlite_schema
		WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name`)
	if err != nil {
		return err
	}
	for _, name := range names {
		columns, err := texts(ctx, tx, `SELECT 'coalesce(length(CAST("' || name || '" AS BLOB)), 0)'
			FROM pragma_table_info(?)`, name)
		if err != nil {
			return err
		}
		t := TableSize{Name: name}
		if err := tx.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(`+strings.Join(columns, " + ")+`), 0)
			FROM "`+name+`"`).Scan(&t.Rows, &t.Bytes); err != nil {
			return err
		}
		h.Tables = append(h.Tables, t)
	}
	return nil
}

// findDamage returns what SQLite says is wrong with the file; checks are what brokenChecks found.
func findDamage(ctx context.Context, tx *sql.Tx, checks []string) ([]string, error) {
	damage, err := texts(ctx, tx, `SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'
		UNION ALL SELECT 'table ' || "table" || ', row ' || coalesce(rowid, '?') ||
			': what it refers to in ' || parent || ' is missing' FROM pragma_foreign_key_check`)
	for _, text := range checks {
		if !slices.Contains(damage, text) {
			damage = append(damage, text)
		}
	}
	return damage, err
}

// findFaults returns what Repair repairs.
func findFaults(ctx context.Context, tx *sql.Tx, workers []WorkerInfo) (findings []string, err error) {
	for _, w := range workers {
		if w.Dead {
			trials := "1 trial: it"
			if w.Trials != 1 {
				trials = fmt.Sprintf("%d trials: they", w.Trials)
			}
			findings = append(findings, fmt.Sprintf("process %d on %s is gone and had %s would become pending",
				w.PID, w.Host, trials))
		}
	}
	for _, f := range faults {
		found, err := texts(ctx, tx, `SELECT 'study ' || s.name || ': '|| t.system || ' seed ' || t.seed || `+f.what+`
			FROM trial t JOIN study s ON s.id = t.study WHERE `+f.where)
		if err != nil {
			return nil, err
		}
		for _, text := range found {
			findings = append(findings, text+": "+f.repair)
		}
	}
	damaged, err := damagedStates(ctx, tx)
	for _, d := range damaged {
		findings = append(findings, d.text+
			": it would be removed, and what came after the state before it trained again")
	}
	return findings, err
}

// findWorkers lists all workers but this process.
func (db *DB) findWorkers(ctx context.Context, tx *sql.Tx) (list []WorkerInfo, err error) {
	own := int64(0)
	if db.self != nil {
		own = db.self.ID
	}
	err = each(ctx, tx, `SELECT w.id, w.remote, w.host, w.pid, (SELECT count(*) FROM attempt WHERE worker = w.id)
		FROM worker w WHERE w.id <> ? ORDER BY w.host, w.pid`, []any{own}, func(rows *sql.Rows) error {
		var w WorkerInfo
		if err := rows.Scan(&w.ID, &w.Remote, &w.Host, &w.PID, &w.Trials); err != nil {
			return err
		}
		w.Dead = !db.alive(w.Worker)
		list = append(list, w)
		return nil
	})
	return list, err
}

// faults lists what Repair puts right: how to describe a trial t of a study s with the fault, which
// trials have it, and what
// Repair would do.
var faults = []struct{ what, where, repair string }{
	{
		what:   `' is running, but no attempt at it is open'`,
		where:  `t.status = 'running' AND NOT EXISTS (SELECT 1 FROM attempt WHERE trial = t.id AND ended IS NULL)`,
		repair: "it would become pending",
	}, {
		what:   `' has an open attempt, but is ' || t.status`,
		where:  `t.status <> 'running' AND EXISTS (SELECT 1 FROM attempt WHERE trial = t.id AND ended IS NULL)`,
		repair: "the attempt would be closed as lost",
	}, {
		what: `' is done, but has ' || (SELECT coalesce(max(number), 0) FROM epoch WHERE trial = t.id) ||
			' of ' || t.epochs || ' epochs'`,
		where:  `t.status = 'done' AND coalesce((SELECT max(number) FROM epoch WHERE trial = t.id), 0) < t.epochs`,
		repair: "it would become pending",
	}, {
		what: `' has a checkpoint that nothing needs'`,
		where: `t.status IN ('done', 'diverged') AND NOT s.keep_checkpoints
			AND EXISTS (SELECT 1 FROM checkpoint WHERE trial = t.id)`,
		repair: "it would be removed",
	},
}

var repairs = []string{
	`UPDATE trial SET status = 'pending'
		WHERE status = 'running' AND NOT EXISTS (SELECT 1 FROM attempt WHERE trial = trial.id AND ended IS NULL)`,
	`UPDATE attempt SET ended = max(started, unixepoch() * 1000), outcome = 'lost', failure = 'lost', worker = NULL
		WHERE ended IS NULL AND (SELECT status FROM trial WHERE id = attempt.trial) <> 'running'`,
	`UPDATE trial SET status = 'pending'
		WHERE status = 'done' AND coalesce((SELECT max(number) FROM epoch WHERE trial = trial.id), 0) < epochs`,
	`DELETE FROM checkpoint WHERE trial IN (SELECT t.id FROM trial t JOIN study s ON s.id = t.study
		WHERE t.status IN ('done', 'diverged') AND NOT s.keep_checkpoints)`,
}

// Repair repairs the Findings of Examine. It leaves trials of processes that are alive alone.
func (db *DB) Repair(ctx context.Context) error {
	if err := db.Join(ctx); err != nil {
		return err
	}
	err := db.reclaim(ctx, false)
	if err == nil {
		err = db.update(ctx, func(tx *sql.Tx) error {
			damaged, err := damagedStates(ctx, tx)
			if err != nil {
				return err
			}
			for _, d := range damaged {
				if err := exec(ctx, tx, `DELETE FROM `+d.table+` WHERE trial = ? AND epoch = ?`,
					d.trial, d.epoch); err != nil {
					return err
				}
			}
			for _, statement := range repairs {
				if err := exec(ctx, tx, statement); err != nil {
					return err
				}
			}
			// Processes that watch the study have to read all trials again.
			if err := exec(ctx, tx, `UPDATE study SET changes = changes + 1`); err != nil {
				return err
			}
			err = exec(ctx, tx, `UPDATE trial SET changed = (SELECT changes FROM study WHERE id = trial.study)`)
			return err
		})
	}
	return db.explain("repair", err)
}

// Vacuum gives the free bytes of the file back to the file system.
func (db *DB) Vacuum(ctx context.Context) error {
	err := db.update(ctx, func(*sql.Tx) error { return nil }) // is it still the file that was opened?
	if err == nil {
		err = db.await(ctx, func() error {
			_, err := db.write.ExecContext(ctx, `VACUUM`)
			return err
		})
	}
	if err == nil {
		_, err = db.write.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`)
	}
	return db.explain("vacuum", err)
}

type damagedState struct {
	table string
	trial int64
	epoch int
	text  string
}

func damagedStates(ctx context.Context, tx *sql.Tx) (damaged []damagedState, err error) {
	for _, table := range []string{"checkpoint", "best_checkpoint"} {
		err := each(ctx, tx, `SELECT c.trial, c.epoch, c.state, c.sha256, s.name, t.system, t.seed FROM `+table+` c
			JOIN trial t ON t.id = c.trial JOIN study s ON s.id = t.study`, nil, func(rows *sql.Rows) error {
			d := damagedState{table: table}
			var state, sum sql.RawBytes
			var study, system string
			var seed int
			if err := rows.Scan(&d.trial, &d.epoch, &state, &sum, &study, &system, &seed); err != nil {
				return err
			}
			if got := sha256.Sum256(state); string(got[:]) != string(sum) {
				d.text = fmt.Sprintf("study %s: the checkpoint of %s seed %d after epoch %d is damaged",
					study, system, seed, d.epoch)
				damaged = append(damaged, d)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return damaged, nil
}
