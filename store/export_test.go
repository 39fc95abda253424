package store

import (
	"context"
	"database/sql"
)

const SchemaVersion = schemaVersion

// Pragma sets or reads a pragma of the writing connection.
func (db *DB) Pragma(ctx context.Context, text string) (value string, err error) {
	err = db.live.QueryRowContext(ctx, "PRAGMA "+text).Scan(&value)
	return value, err
}

// CountEpochs counts the epochs in one view that calls between before it
// looks; it returns every count that the view took.
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
