package store_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"igcsearch/search"
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

// TestOtherSQLite has the SQLite of the machine, mostly an older one than that of this program, check a database.
func TestOtherSQLite(t *testing.T) {
	t.Parallel()
	path, _ := patient(t)
	db := open(t, path)
	begin(t, db, search.Trial{ID: neverBegun, Epochs: 4})
	other, trials := newStudy(t, "given")
	if _, err := db.Plan(t.Context(), other, trials); err != nil {
		t.Fatal(err)
	}
	if err := db.GiveOut(t.Context(), other.Name, []byte(`{"workers":2}`)); err != nil {
		t.Fatal(err)
	}
	db.Close()
	const script = `import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for statement in sys.argv[2:]:
    for row in db.execute(statement):
        print(*row, sep="|")`
	asked := []string{`SELECT sqlite_version()`, `PRAGMA integrity_check`, `PRAGMA quick_check`,
		`SELECT count(*) FROM trial`}
	found := false
	for _, c := range [][]string{
		{"sqlite3", path, strings.Join(asked, ";")}, slices.Concat([]string{"python3", "-c", script, path}, asked),
	} {
		program, err := exec.LookPath(c[0])
		if err != nil {
			continue
		}
		out, err := exec.Command(program, c[1:]...).CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if err != nil && (strings.Contains(string(out), "malformed database schema") ||
			strings.Contains(string(out), "No module named")) {
			t.Logf("%s cannot read tables that are strict: %s", c[0], out)
			continue
		}
		if want := []string{"ok", "ok", "10"}; err != nil || !slices.Equal(lines[1:], want) {
			t.Errorf("%s: %q (%v), want %q", c[0], lines, err, want)
		}
		t.Logf("%s %s", c[0], lines[0])
		found = true
	}
	if !found {
		t.Skip("no sqlite3, and no python3 with its module sqlite3, from 3.37 on")
	}
}
