package store_test

import (
	"testing"

	"igcsearch/store"
)

// TestTables opens databases whose tables somebody changed.
func TestTables(t *testing.T) {
	t.Parallel()
	const retell = `PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = `
	for _, test := range []struct{ what, change, want string }{
		{"a view in place of a table, whose rows never end", `ALTER TABLE failure RENAME TO old;
			CREATE VIEW failure AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n)
			SELECT i AS trial, 'lost' AS kind, 1 AS count FROM n`, "its table failure is missing"},
		{"a trigger", `CREATE TRIGGER later AFTER INSERT ON epoch BEGIN DELETE FROM checkpoint; END`,
			"it has the trigger later that igcsearch did not make"},
		{"a table of somebody else", `CREATE TABLE notes (text)`,
			"it has the table notes that igcsearch did not make"},
		{"an index that forbids rows", `CREATE UNIQUE INDEX one ON trial (seed, system)`,
			"it has the index one that igcsearch did not make"},
		{"a missing index", `DROP INDEX one_open_attempt`, "its index one_open_attempt is missing"},
		{"a missing table", `DROP TABLE best_checkpoint`, "its table best_checkpoint is missing"},
		{"a missing column", `ALTER TABLE attempt DROP COLUMN job`, "its table attempt was changed"},
		{"another column", `ALTER TABLE trial ADD COLUMN note TEXT`, "its table trial was changed"},
		{"a check that is gone", retell + `replace(sql, 'CHECK (seed >= 0)', '') WHERE name = 'trial'`,
			"its table trial was changed"},
	} {
		t.Run("refuses "+test.what, func(t *testing.T) {
			t.Parallel()
			db, path, _, _ := planned(t)
			db.Close()
			execute(t, path, test.change)
			write, read := both(t.Context(), path)
			for _, err := range []error{write, read} {
				wantError(t, err, "open database "+path+": "+test.want)
				wantFault(t, err, store.Altered)
			}
		})
	}
	t.Run("takes other comments, and the statistics of SQLite", func(t *testing.T) {
		t.Parallel()
		db, path, _, _ := planned(t)
		db.Close()
		execute(t, path, retell+`replace(sql, '-- byte', '-- a byte') WHERE name = 'worker'; ANALYZE`)
		if write, read := both(t.Context(), path); write != nil || read != nil {
			t.Errorf("%v, %v", write, read)
		}
	})
}
