package store_test

import (
	"database/sql"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"igcsearch/search"
	"igcsearch/store"
)

// TestSchemaPage: docs/schema.md names every table and column, and the version.
func TestSchemaPage(t *testing.T) {
	t.Parallel()
	page := schemaPage(t)
	_, path, _, _ := planned(t)
	pool := readOnly(t, path)
	for _, c := range rowsOf(t, pool, `SELECT m.name, p.name FROM sqlite_schema m, pragma_table_info(m.name) p
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'`) {
		table, column, _ := strings.Cut(c, " ")
		// The part of the page about a table begins with its name in bold.
		_, part, found := strings.Cut(page, "**"+table+"**")
		if !found {
			t.Errorf("docs/schema.md has no table %s", table)
		} else if part, _, _ = strings.Cut(part, "\n**"); !strings.Contains(part, "`"+column+"`") {
			t.Errorf("docs/schema.md does not name the column %s of %s", column, table)
		}
	}
	version := rowsOf(t, pool, `PRAGMA user_version`)[0]
	if !strings.Contains(page, "(`PRAGMA user_version`, now "+version+")") {
		t.Errorf("docs/schema.md does not say that the version is %s", version)
	}
}

// TestSchemaQueries runs the queries of docs/schema.md on a database that is in use, as pandas would.
func TestSchemaQueries(t *testing.T) {
	t.Parallel()
	db, path, s, trials := planned(t)
	rename(t, db, s.Name, "quickstart")
	for i, trial := range trials {
		claim, err := db.Begin(t.Context(), trial.ID, 3, search.Attempt{Started: time.Now(), Host: "here", CPU: "processor",
			Device: map[bool]string{false: "cpu", true: "a GPU"}[i == 3], ISA: "portable"})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			if i == 3 && n == 1 {
				break // it runs on
			}
			e := search.Epoch{Number: n + 1, LearningRate: 0.1, TrainLoss: float64(4 - n), TrainCorrect: 8, TrainTotal: 64,
				TrainSeconds: 1700, EvalSeconds: 100}
			if n != 1 {
				e.TestCorrect, e.TestTotal = 20+10*n+i, 80
			}
			if err := claim.Record(t.Context(), e, search.Checkpoint{Epoch: n + 1, State: state(n, 10)}); err != nil {
				t.Fatal(err)
			}
		}
		if i < 3 {
			end(t, claim, search.Done, "")
		}
	}
	var got []string
	for _, query := range regexp.MustCompile(`(?s)pd\.read_sql\("""(.*?)"""`).FindAllStringSubmatch(schemaPage(t), -1) {
		got = append(got, strings.Join(rowsOf(t, readOnly(t, path), query[1]), "\n"))
	}
	// Trials are planned by seed, the network with more multiply–adds first: L40M2, L64M1, and both again with seed 1, of
	// which L64M1 still runs. A network has 27·G + 6·T + 10·G + 10 parameters: L40M2 of width G = 80 with T = 4640, L64M1 of
	// width 64 with T = 4672. Trial i has 20 + i of 80 pictures right after epoch 1, and 40 + i after epoch 3.
	want := []string{`IGC-L40M2 40 2  0 30810 <nil> 50
IGC-L40M2 40 2  1 30810 <nil> 52.5
IGC-L64M1 64 1  0 30410 <nil> 51.25`, `IGC-L40M2  1 2 4 26.25
IGC-L40M2  3 2 2 51.25
IGC-L64M1  1 2 4 27.5
IGC-L64M1  3 1 2 51.25`, `here processor 9 4.5
here a GPU 1 0.5`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func rename(t *testing.T, db *store.DB, from, to string) {
	t.Helper()
	if err := db.Rename(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
}

func schemaPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/schema.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// readOnly opens a database as docs/schema.md says.
func readOnly(t *testing.T, path string) *sql.DB {
	t.Helper()
	pool, err := sql.Open("sqlite3", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return pool
}

// rowsOf returns a line for each row of a query.
func rowsOf(t *testing.T, pool *sql.DB, query string) (lines []string) {
	t.Helper()
	rows, err := pool.Query(query)
	if err != nil {
		t.Fatalf("%v in %s", err, query)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		cells, at := make([]any, len(columns)), make([]any, len(columns))
		for i := range cells {
			at[i] = &cells[i]
		}
		if err := rows.Scan(at...); err != nil {
			t.Fatal(err)
		}
		texts := make([]string, len(cells))
		for i, cell := range cells {
			texts[i] = fmt.Sprint(cell)
		}
		lines = append(lines, strings.Join(texts, " "))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}
