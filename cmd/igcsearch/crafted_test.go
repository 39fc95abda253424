package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"igcsearch/cmd/igcsearch/live"
	"igcsearch/search"
)

const smallStudy = `name = "tiny"
dataset = "synthetic"
train_pictures = 64
validation = 20
test_pictures = 50
pairs = ["3x2", "2x3"]
blocks = 1
seeds = 2
epochs = 3
batch = 16
`

// trained trains a small study in process and returns the study file and the database.
func trained(t *testing.T) (study, db string) {
	t.Helper()
	dir := t.TempDir()
	study, db = filepath.Join(dir, "tiny.toml"), filepath.Join(dir, "tiny.db")
	if err := os.WriteFile(study, []byte(smallStudy), 0o666); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"run", study, "--db", db, "--no-figure"}, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	return study, db
}

// full is an output on a full disk.
type full struct{}

func (full) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}
}

func TestFullOutput(t *testing.T) {
	t.Parallel()
	study, db := trained(t)
	for _, args := range []string{
		"version", "--help", "help run", "completion bash", "studies", "space --budget 4672", "model IGC-L40M2",
		"devices", "run " + study + " --no-figure", "run " + study + " --dry-run", "status tiny", "analyze tiny",
		"export tiny", "export tiny --format json --epochs", "doctor", "replay tiny", "retry tiny",
		"verify tiny --pair 3x2", "paper table1",
	} {
		t.Run(args+" fails if its output cannot be written", func(t *testing.T) {
			t.Parallel()
			line := strings.Fields(args)
			if strings.Contains(args, "tiny") || args == "doctor" {
				line = append(line, "--db", db)
			}
			var stderr bytes.Buffer
			code := run(t.Context(), line, full{}, &stderr)
			last := stderr.String()[strings.LastIndexByte(strings.TrimSpace(stderr.String()), '\n')+1:]
			const want = "igcsearch: not all of the output could be written: write /dev/stdout: no space left on device\n"
			if code != exitFailure || last != want {
				t.Errorf("exit code %d, stderr %q; want %d and %q", code, stderr.String(), exitFailure, want)
			}
		})
	}
}

// crafting are values that a program does not store, or not in most places, by the type of the column.
var crafting = map[string][]string{
	"INTEGER": {"-1", "0", "2", "1000000", "9000000000", "-9223372036854775808", "9223372036854775807", "NULL"},
	"REAL":    {"-1.5", "0.0", "9e999", "-9e999", "5e-324", "1e308", "NULL"},
	"TEXT": {"''", "'x'", "CAST(x'ff00fe' AS TEXT)", "char(27) || '[2J' || char(10) || char(0)",
		"hex(zeroblob(100000))", "'null'", "'[]'", "'{}'", "'[null, 1, {}]'", "NULL"},
	"BLOB": {"x''", "x'00'", "zeroblob(16)", "zeroblob(32)", "zeroblob(1000000)", "NULL"},
}

// craftedSettings are values of single settings, as SQL.
var craftedSettings = []string{"-1", "0", "1000000000000", "1e300", "'x'", "NULL", "json('[]')", "json('[-1, 1e9]')",
	`json('["1000000x1000000"]')`, `json('["IGC-L99999M99999"]')`, `json('{"systems": -1}')`}

// crafted lists statements that change one column or one setting of a database.
func crafted(t *testing.T, db string) (list []string) {
	t.Helper()
	pool, err := sql.Open("sqlite3", db)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	rows, err := pool.Query(`SELECT m.name, c.name, c.type FROM sqlite_schema m, pragma_table_info(m.name) c
		WHERE m.type = 'table' ORDER BY 1, 2`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var table, column, kind string
		if err := rows.Scan(&table, &column, &kind); err != nil {
			t.Fatal(err)
		}
		for _, value := range crafting[kind] {
			list = append(list, fmt.Sprintf(`UPDATE OR IGNORE %s SET %s = %s`, table, column, value))
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[search.Study]()) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || key == "-" {
			continue
		}
		for _, value := range craftedSettings {
			list = append(list, fmt.Sprintf(`UPDATE study SET settings = json_set(settings, '$.%s', %s)`, key, value))
		}
	}
	return list
}

// readers are the commands that read a database, DB, and a page; then those that write it, too.
var readers = []string{
	"status tiny --db DB", "status tiny --db DB --format json", "export tiny --db DB --format json --epochs --times",
	"export tiny --db DB --epochs", "analyze tiny --db DB", "plot tiny --db DB -o DIR/a.csv",
	"plot tiny --kind curves --db DB -o DIR/b.svg", "replay tiny --db DB --repeat 2", "doctor --db DB", "page DB",
	"merge DB -o DIR/new.db", "retry tiny --db DB --status failed,diverged", "run STUDY --db DB --no-figure",
	"doctor --repair --db DB",
}

// TestFaultsCrafted gives databases to all commands in which one column or one setting has a value that nobody expects.
// A database may come from somebody else.
func TestFaultsCrafted(t *testing.T) {
	t.Parallel()
	study, db := trained(t)
	must(t, change(db, `UPDATE trial SET status = 'pending' WHERE id = 2;
		UPDATE trial SET status = 'diverged' WHERE id = 3;
		UPDATE attempt SET outcome = 'diverged', failure = 'diverged' WHERE trial = 3`))
	good, err := os.ReadFile(db)
	must(t, err)
	all := crafted(t, db)
	chosen := all
	if !longFaults { // what was a fault before, and some others
		chosen = []string{
			`UPDATE OR IGNORE epoch SET number = -1`, `UPDATE OR IGNORE epoch SET number = 9000000000`,
			`UPDATE OR IGNORE trial SET seed = 9223372036854775807`, `UPDATE OR IGNORE trial SET epochs = 1000000`,
			`UPDATE OR IGNORE attempt SET ended = 9223372036854775807`, `UPDATE OR IGNORE study SET updated = 9e15`,
			`UPDATE study SET settings = json_set(settings, '$.pairs', json('["1000000x1000000"]'))`,
			`UPDATE study SET settings = json_set(settings, '$.seeds', -1)`,
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 8 {
			chosen = append(chosen, all[r.IntN(len(all))])
		}
	}
	tried := 0
	for _, statement := range chosen {
		dir := t.TempDir()
		bad := filepath.Join(dir, "bad.db")
		for _, args := range readers {
			must(t, os.WriteFile(bad, good, 0o666))
			if change(bad, statement) != nil {
				break // SQLite does not let it in
			}
			line := strings.NewReplacer("DB", bad, "DIR", dir, "STUDY", study).Replace(args)
			if problem := tryReader(t, strings.Fields(line)); problem != "" {
				t.Errorf("%.200s\n%s: %s", statement, args, problem)
			}
			tried++
		}
	}
	fault("databases with a value that nobody expects", "%d values, %d commands: all ended in time, with a result or one "+
		"line; no panic", len(chosen), tried)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// change changes a database behind the program's back.
func change(path, statement string) error {
	pool, err := sql.Open("sqlite3", path)
	if err != nil {
		return err
	}
	defer pool.Close()
	_, err = pool.Exec(`PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; ` + statement +
		`; PRAGMA wal_checkpoint(TRUNCATE)`)
	return err
}

// tryReader runs a command and says what is wrong with how it ends, "" if nothing is.
func tryReader(t *testing.T, args []string) (problem string) {
	defer func() {
		if p := recover(); p != nil {
			problem = fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // the machine may be busy
	defer cancel()
	if args[0] == "page" {
		mux := http.NewServeMux()
		live.New(&watched{path: args[1]}).Register(mux)
		for _, path := range []string{"/", "/studies/tiny", "/studies/tiny/epochs.csv", "/studies/tiny/accuracy.svg"} {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", path, nil))
			if w.Body.Len() == 0 {
				return path + " is empty"
			}
		}
		return ""
	}
	var stdout, stderr bytes.Buffer
	code := run(ctx, args, &stdout, &stderr)
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	last := lines[len(lines)-1]
	if strings.HasPrefix(last, "give this one another name") { // after the list of settings that differ
		return ""
	}
	switch {
	case ctx.Err() != nil:
		return "it hangs"
	case code == exitUsage, code != exitOK && !strings.HasPrefix(last, "igcsearch: "), len(last) > 2000:
		return fmt.Sprintf("exit code %d, the last of %d lines: %.300q", code, len(lines), last)
	}
	return ""
}
