package store_test

import (
	"database/sql"
	"io"
	"os"
	"path/filepath"
	"testing"

	"igcsearch/store"
)

// TestHotJournal opens a new file whose switch to WAL was cut short.
func TestHotJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	execute(t, path, `PRAGMA application_id = 0x69676373`)
	pool, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	pool.SetMaxOpenConns(1)
	for _, s := range []string{`PRAGMA cache_size = 1`,
		`PRAGMA cache_spill = 1`, `BEGIN IMMEDIATE`, `CREATE TABLE x (y)`,
		`INSERT INTO x SELECT zeroblob(100000) FROM json_each('[1,2,3,4,5]')`} {
		if _, err := pool.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	copied := filepath.Join(dir, "b.db")
	for _, suffix := range []string{"", "-journal"} { // as a kill leaves them
		in, err1 := os.Open(path + suffix)
		out, err2 := os.Create(copied + suffix)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if _, err := io.Copy(out, in); err != nil {
			t.Fatal(err)
		}
		in.Close()
		out.Close()
	}
	_, err = store.OpenReadOnly(t.Context(), copied)
	wantError(t, err, copied, "readonly") // only a run may repair it
	db, err := store.Open(t.Context(), copied)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if infos, err := db.Studies(t.Context()); err != nil || len(infos) != 0 {
		t.Errorf("%v, %v", infos, err)
	}
}
