package main

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"igcsearch/cmd/igcsearch/live"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

// interrupting is a context that calls act when it is asked for Done for the n-th time.
// The database packages ask at every step of a read, so act runs in the middle of one.
type interrupting struct {
	context.Context
	n     int64
	asked atomic.Int64
	act   func()
	acted chan struct{} // closed after act
}

func (c *interrupting) Done() <-chan struct{} {
	if c.asked.Add(1) == c.n {
		c.act()
		close(c.acted)
	}
	return c.Context.Done()
}

// TestServeReadsOneMoment commits a retry at each moment of a read of the live page.
// The page may show the numbers from before the retry once, but its next read must show
// what is stored.
func TestServeReadsOneMoment(t *testing.T) {
	dir := t.TempDir()
	first := newSweep(t, filepath.Join(dir, "first.db"), "")
	first.train(0)
	first.begin(1)
	first.end(1, search.Failed, "out of luck")
	first.db.Close()
	stored, err := os.ReadFile(first.path)
	if err != nil {
		t.Fatal(err)
	}
	moments := 0
	for {
		path := filepath.Join(t.TempDir(), "moment.db")
		if err := os.WriteFile(path, stored, 0o644); err != nil {
			t.Fatal(err)
		}
		age := func(ms int) { // the last change of the study
			pool, err := sql.Open("sqlite3", path)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			if _, err := pool.Exec(`UPDATE study SET created = 1, updated = updated - ?`, ms); err != nil {
				t.Fatal(err)
			}
		}
		age(3_600_000)
		ctx := &interrupting{Context: t.Context(), n: int64(moments + 1), acted: make(chan struct{})}
		ctx.act = func() {
			db, err := store.Open(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			all := func(space.System, int) bool { return true }
			again, err := db.Retry(t.Context(), "sweep", []search.Status{search.Failed}, all)
			if err != nil || len(again) != 1 {
				t.Errorf("%v, %v", again, err)
			}
			age(1_800_000)
		}
		read := func(w *watched, ctx context.Context) live.Study {
			t.Helper()
			state, err := w.Read(ctx)
			if err != nil || len(state.Studies) != 1 {
				t.Fatalf("%+v, %v", state, err)
			}
			study := state.Studies[0]
			study.Figures = nil         // they hold functions
			study.Updated = time.Time{} // age changes it in a commit of its own
			return study
		}
		page := &watched{path: path}
		read(page, ctx)
		if ctx.asked.Add(1<<40) < 1<<40+ctx.n {
			break // the read has no more moments
		}
		<-ctx.acted // a goroutine of the database package may have asked
		moments++
		want := read(&watched{path: path}, t.Context())
		if diff := cmp.Diff(want, read(page, t.Context())); diff != "" {
			t.Errorf("retry at moment %d of the read: stored (-) and shown afterwards (+):\n%s", moments, diff)
		}
		if want.Counts != "1 done, 3 pending" {
			t.Fatalf("moment %d: stored is %q", moments, want.Counts)
		}
	}
	t.Logf("%d moments", moments)
	if moments < 10 {
		t.Errorf("a read has %d moments, want more: is the context passed on?", moments)
	}
}
