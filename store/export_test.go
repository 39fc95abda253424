package store

import (
	"context"
	"database/sql"
	"time"
)

const SchemaVersion = schemaVersion

// SetLease shortens the lease of this process and how long it waits for others.
func (db *DB) SetLease(d time.Duration) { db.lease, db.patience = d, d }

// SetNetwork makes the database lie on a network file system.
func (db *DB) SetNetwork(name string) { db.network, db.patience = name, 50*time.Millisecond }

var NetworkSystems = networkSystems

// SetClock sets the time of day for all databases of this process.
func SetClock(f func() time.Time) { clock.Store(&f) }

// Pragma sets or reads a pragma of the writing connection.
func (db *DB) Pragma(ctx context.Context, text string) (value string, err error) {
	err = db.write.QueryRowContext(ctx, "PRAGMA "+text).Scan(&value)
	return value, err
}

// CountEpochs counts the epochs in one view, which calls between before each count. It returns all counts.
func (db *DB) CountEpochs(ctx context.Context, between func()) (counts []int, err error) {
	err = db.view(ctx, func(tx *sql.Tx) error {
		between()
		var n int
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM epoch`).Scan(&n)
		counts = append(counts, n)
		return err
	})
	return counts, err
}

// Hold takes the place of a transaction that lasts until release.
func (db *DB) Hold(ctx context.Context) (release func(), err error) {
	return db.line.leave, db.line.enter(ctx, &db.line.first)
}

// Waiting returns how many wait to write.
func (db *DB) Waiting() int {
	db.line.mu.Lock()
	defer db.line.mu.Unlock()
	return len(db.line.first) + len(db.line.epochs)
}

// Path is that of the database file.
func (db *DB) Path() string { return db.path }
