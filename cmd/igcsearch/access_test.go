package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"igcsearch/store"
	"igcsearch/store/fleet"
)

// TestReadByAccessFile checks that no read through an access file leaves a temporary file, however it ends.
func TestReadByAccessFile(t *testing.T) {
	dir := t.TempDir()
	copied := filepath.Join(dir, "copy.db")
	w := newSweep(t, filepath.Join(dir, "x.db"), "")
	w.train(0)
	w.do(func(db *store.DB) error { return db.Snapshot(t.Context(), copied) })
	whole, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	temporary := filepath.Join(dir, "temporary")
	if err := os.Mkdir(temporary, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temporary)
	for _, c := range []struct {
		name  string
		study string
		send  func(w http.ResponseWriter, interrupt func())
		code  int
		want  string // on stderr
	}{
		{"it succeeds", "sweep", func(w http.ResponseWriter, _ func()) { w.Write(whole) }, exitOK, ""},
		{"there is no such study", "other", func(w http.ResponseWriter, _ func()) { w.Write(whole) }, exitFailure,
			"no such study"},
		{"the copy is no database", "sweep", func(w http.ResponseWriter, _ func()) {
			io.WriteString(w, "a proxy's page")
		}, exitFailure, ".access: file is not a database: give"},
		{"the copy breaks off", "sweep", func(w http.ResponseWriter, _ func()) {
			w.Header().Set("Content-Length", "100000")
			w.Write(whole[:5000])
		}, exitFailure, "broke off"},
		{"it is interrupted", "sweep", func(w http.ResponseWriter, interrupt func()) {
			w.Write(whole[:5000])
			http.NewResponseController(w).Flush()
			interrupt()
		}, exitInterrupted, "interrupted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.send(w, interrupt)
				if ctx.Err() != nil {
					<-r.Context().Done() // the reader has gone
				}
			}))
			defer server.Close()
			access := filepath.Join(dir, "x.access")
			if err := (fleet.Access{Address: server.URL, Token: fleet.NewToken()}).Write(access); err != nil {
				t.Fatal(err)
			}
			var stderr strings.Builder
			code := run(ctx, []string{"export", c.study, "--db", access}, io.Discard, &stderr)
			if code != c.code || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("exit code %d: %s", code, stderr.String())
			}
			if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}
