package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
)

// Snapshot writes the database as it stands, with all that was committed, to a new file at path. A runner goes on
// writing meanwhile.
func (db *DB) Snapshot(ctx context.Context, path string) error {
	return db.snapshot(ctx, path, func(pool *sql.DB) error {
		_, err := pool.ExecContext(ctx, `VACUUM INTO ?`, path)
		return err
	})
}

// SnapshotResults is Snapshot without the states of trainings, which take most of the room of a database in work.
func (db *DB) SnapshotResults(ctx context.Context, path string) error {
	return db.snapshot(ctx, path, func(pool *sql.DB) error { return copyResults(ctx, pool, path) })
}

// copyResults copies all tables, the two of states without their rows. Nobody writes to the copy, so it has no triggers.
func copyResults(ctx context.Context, pool *sql.DB, path string) error {
	c, err := pool.Conn(ctx) // ATTACH is of one connection
	if err != nil {
		return err
	}
	defer c.Close()
	target := (&url.URL{Scheme: "file", Path: path, RawQuery: "mode=rwc"}).String()
	if _, err := c.ExecContext(ctx, `ATTACH ? AS copy`, target); err != nil {
		return err
	}
	defer c.ExecContext(context.WithoutCancel(ctx), `DETACH copy`)
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	var statements []string
	err = each(ctx, tx, `SELECT type, name, sql FROM main.sqlite_schema
		WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%'
		ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 ELSE 2 END, rowid`, nil, func(rows *sql.Rows) error {
		var kind, name, text string
		if err := rows.Scan(&kind, &name, &text); err != nil {
			return err
		}
		i := strings.Index(text, name) // after CREATE TABLE or CREATE UNIQUE INDEX
		if q := i - 1; q >= 0 && text[q] == '"' {
			i = q
		}
		statements = append(statements, text[:i]+"copy."+text[i:])
		if kind == "table" && name != "checkpoint" && name != "best_checkpoint" {
			statements = append(statements, fmt.Sprintf(`INSERT INTO copy.%q SELECT * FROM main.%q`, name, name))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, pragma := range []string{"application_id", "user_version"} {
		var value int64
		if err := tx.QueryRowContext(ctx, `PRAGMA main.`+pragma).Scan(&value); err != nil {
			return err
		}
		statements = append(statements, fmt.Sprintf(`PRAGMA copy.%s = %d`, pragma, value))
	}
	for _, statement := range statements {
		if err := exec(ctx, tx, statement); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// snapshot has write copy the database, as it stands, to a new file at path.
func (db *DB) snapshot(ctx context.Context, path string, write func(*sql.DB) error) error {
	options := db.readOptions()
	options.Del("_query_only") // which also forbids to write the copy
	copyFrom := func() error {
		return db.await(ctx, func() error {
			pool := db.pool(options, false)
			defer pool.Close()
			return write(pool)
		})
	}
	if err := db.misplaced(); err != nil {
		return err
	}
	// A file at rest is read as view does, for the same reasons.
	if before, atRest := db.state(); atRest {
		options.Set("immutable", "1")
		err := copyFrom()
		if after, atRest := db.state(); atRest && after == before {
			return db.explain("copy", err)
		}
		options.Del("immutable")
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return db.explain("copy", copyFrom())
}
