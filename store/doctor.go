package store

import (
	"bytes"
	"cmp"
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
	// Findings are what is wrong with what is stored in it.
	Findings []Finding
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
		var forbidden []Finding
		if h.Damage, forbidden, err = findDamage(ctx, tx, checks); err != nil {
			return err
		}
		if h.Workers, err = db.findWorkers(ctx, tx); err != nil {
			return err
		}
		h.Findings = findDead(h.Workers)
		faults, err := db.findFaults(ctx, tx)
		mendable := false
		for _, f := range faults {
			h.Findings = append(h.Findings, f.Finding)
			mendable = mendable || f.mend != nil
		}
		if !mendable { // else it is the same value, most of the time
			h.Findings = append(h.Findings, forbidden...)
		}
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

// findDamage returns what SQLite says is wrong with the file; checks are what brokenChecks found. A row that breaks a
// CHECK is no damage of the file. It is one of the findings.
func findDamage(ctx context.Context, tx *sql.Tx, checks []string) (damage []string, findings []Finding, err error) {
	damage, err = texts(ctx, tx, `SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'`)
	for _, text := range checks {
		if !slices.Contains(damage, text) {
			damage = append(damage, text)
		}
	}
	const failed = "CHECK constraint failed in "
	for _, text := range damage {
		if table, ok := strings.CutPrefix(text, failed); ok {
			findings = append(findings, Finding{Text: "table " + table + " has a row with a value that the schema forbids"})
		}
	}
	damage = slices.DeleteFunc(damage, func(text string) bool { return strings.HasPrefix(text, failed) })
	return damage, findings, err
}

// findDead returns the local workers that are gone as findings. Those that a coordinator had admitted are none: whoever
// runs the study next waits for their lease and takes their trials over.
func findDead(workers []WorkerInfo) (findings []Finding) {
	for _, w := range workers {
		if !w.Dead || w.Remote {
			continue
		}
		had, repair := fmt.Sprintf("%d trials", w.Trials), "they would become pending"
		switch w.Trials {
		case 0:
			had, repair = "no trial", "it would be forgotten"
		case 1:
			had, repair = "1 trial", again
		}
		findings = append(findings, Finding{fmt.Sprintf("process %d on %s is gone and had %s", w.PID, w.Host, had),
			repair})
	}
	return findings
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

// rounds is how often Repair looks again at most. What it mends may show what else is wrong.
const rounds = 20

// Repair does what the Findings of Examine say. It leaves trials of processes that are alive alone. Others can write
// while it looks, which takes long.
func (db *DB) Repair(ctx context.Context) error {
	if err := db.Join(ctx); err != nil {
		return err
	}
	err := db.reclaim(ctx, false)
	for round, left := 0, true; err == nil && left && round < rounds; round++ {
		var found []finding
		var changed map[int64]int64
		err = db.view(ctx, func(tx *sql.Tx) (err error) {
			if found, err = db.findFaults(ctx, tx); err == nil {
				changed, err = lastChanges(ctx, tx)
			}
			return err
		})
		found = slices.DeleteFunc(found, func(f finding) bool { return f.mend == nil })
		if left = len(found) > 0; err == nil && left {
			err = db.update(ctx, func(tx *sql.Tx) error { return mendAll(ctx, tx, found, changed) })
		}
	}
	return db.explain("repair", err)
}

// lastChanges returns the last change of each trial.
func lastChanges(ctx context.Context, tx *sql.Tx) (map[int64]int64, error) {
	changed := map[int64]int64{}
	err := each(ctx, tx, `SELECT id, changed FROM trial`, nil, func(rows *sql.Rows) error {
		var id, change int64
		err := rows.Scan(&id, &change)
		changed[id] = change
		return err
	})
	return changed, err
}

// mendAll mends what was found, but not of trials that have changed since.
func mendAll(ctx context.Context, tx *sql.Tx, found []finding, changed map[int64]int64) error {
	now, err := lastChanges(ctx, tx)
	if err != nil {
		return err
	}
	for _, f := range found {
		if now[f.trial] != changed[f.trial] {
			continue
		}
		if err := f.mend(ctx, tx, cmp.Or(f.trial, f.study), f.number); err != nil {
			return err
		}
	}
	// Processes that watch the studies have to read all trials again.
	return inSQL(
		`UPDATE study SET changes = max(changes, (SELECT coalesce(max(changed), 0)
			FROM trial WHERE study = study.id)) + 1`,
		`UPDATE trial SET changed = (SELECT changes FROM study WHERE id = trial.study)`,
	)(ctx, tx, 0, 0)
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

// damagedStates finds the checkpoints whose checksum does not fit.
func damagedStates(ctx context.Context, tx *sql.Tx, names map[int64]string) (damaged []finding, err error) {
	for _, of := range []struct{ table, called string }{
		{"checkpoint", "checkpoint"}, {"best_checkpoint", "best checkpoint"},
	} {
		remove := inSQL(`DELETE FROM ` + of.table + ` WHERE trial = ?1 AND epoch = ?2`)
		err := each(ctx, tx, `SELECT c.trial, c.epoch, c.state, c.sha256, t.status IN ('pending', 'running')
			FROM `+of.table+` c LEFT JOIN trial t ON t.id = c.trial`, nil, func(rows *sql.Rows) error {
			f := finding{mend: remove}
			var state, sum sql.RawBytes
			var goesOn sql.NullBool // from the checkpoint
			if err := rows.Scan(&f.trial, &f.number, &state, &sum, &goesOn); err != nil {
				return err
			}
			if !bytes.Equal(stateSum(f.trial, int(f.number), sha256.Sum256(state)), sum) {
				f.Text = fmt.Sprintf("%s has a %s after epoch %d that is damaged", names[f.trial], of.called, f.number)
				f.Repair = "it would be removed"
				if goesOn.Bool && of.table == "checkpoint" {
					f.Repair += ", and what came after the one before it trained again"
				}
				damaged = append(damaged, f)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return damaged, nil
}
