package store_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

const (
	manyEpochs = 1_000_000
	stateBytes = 100 << 10
)

func endless() (search.Study, []search.Trial) {
	s := search.Default()
	s.Name, s.Dataset = "endless", "synthetic"
	s.Epochs, s.Pairs, s.Seeds = manyEpochs, []string{"40x2"}, search.FirstSeeds(1)
	s, err := s.Normalize()
	if err != nil {
		panic(err)
	}
	return s, s.Trials(s.Shape())
}

// recordForever is the child of TestKill: it takes the trial up where it
// stands and prints each epoch after it is recorded.
func recordForever(ctx context.Context, path string) { recordEvery(ctx, path, 0) }

func recordEvery(ctx context.Context, path string, rest time.Duration) {
	err := func() error {
		db, err := store.Open(ctx, path)
		if err != nil {
			return err
		}
		s, trials := endless()
		if trials, err = db.Plan(ctx, s, trials); err != nil {
			return err
		}
		turn, err := db.Begin(ctx, trials[0].ID, manyEpochs, search.Attempt{})
		if err != nil {
			return err
		}
		c := search.Checkpoint{}
		if turn.From != nil {
			c = *turn.From
		}
		for {
			c.Epoch++
			c.State = state(c.Epoch, stateBytes)
			if err := turn.Record(ctx, search.Epoch{Number: c.Epoch}, c); err != nil {
				return err
			}
			fmt.Println(c.Epoch)
			time.Sleep(rest)
		}
	}()
	fmt.Println(err)
}

// TestKill kills a recording process, again and again, at any moment, and
// looks at what it leaves.
func TestKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	last := 0 // epoch whose Record has returned
	for round := range 8 {
		c := command("record", path)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for i := 0; lines.Scan(); i++ {
			if last, err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatalf("round %d: the child says %q", round, lines.Text())
			}
			if i == 3*round { // then somewhere in the next epochs
				time.Sleep(time.Duration(rand.IntN(10_000)) * time.Microsecond)
				c.Process.Kill()
			}
		}
		c.Wait()

		// A reader comes first: it must see everything in a file that no
		// process has put in order yet.
		for _, opened := range []string{"for reading", "for running"} {
			var db *store.DB
			if opened == "for reading" {
				db, err = store.OpenReadOnly(t.Context(), path)
			} else {
				db, err = store.Open(t.Context(), path)
			}
			if err != nil {
				t.Fatalf("round %d, opened %s: %v", round, opened, err)
			}
			trials, err1 := readTrials(t.Context(), db, "endless")
			c, err2 := db.Checkpoint(t.Context(), "endless",
				search.Key{System: space.PairSystem(space.Pair{L: 40, M: 2})})
			epochs, err3 := readEpochs(t.Context(), db, "endless")
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Fatal(err)
			}
			// The epoch after the last one announced may be there as well.
			if got := trials[0].Epoch; got < last || got > last+1 || c.Epoch != got || len(epochs) != got ||
				!bytes.Equal(c.State, state(got, stateBytes)) {
				t.Errorf("round %d, opened %s: epoch %d, checkpoint %d, %d epochs; recorded were %d", round, opened,
					got, c.Epoch, len(epochs), last)
			}
			if opened == "for running" {
				if got, err := db.Pragma(t.Context(), "integrity_check"); err != nil || got != "ok" {
					t.Errorf("round %d: integrity_check: %s (%v)", round, got, err)
				}
			}
			db.Close()
		}
	}
	db := open(t, path)
	s, trials := endless()
	if _, err := db.Plan(t.Context(), s, trials); err != nil {
		t.Fatal(err)
	}
	attempts, err := readAttempts(t.Context(), db, s.Name)
	if err != nil || len(attempts) != 8 {
		t.Fatalf("%d attempts (%v), want 8", len(attempts), err)
	}
	for i, a := range attempts {
		if a.Ending != "lost" {
			t.Errorf("attempt %d is %q, want lost", i, a.Ending)
		}
	}
}

// TestReadersWhileWriting lets workers record while others open the database and read. What a reader gets must be of
// one moment.
func TestReadersWhileWriting(t *testing.T) {
	t.Parallel()
	db, path, _, _ := planned(t)
	const epochs = 15
	s, trials := newStudy(t, "busy")
	s.Epochs = epochs
	for i := range trials {
		trials[i].Epochs = epochs
	}
	trials, err := db.Plan(t.Context(), s, trials)
	if err != nil {
		t.Fatal(err)
	}
	var workers, readers sync.WaitGroup
	done := make(chan struct{})
	for _, trial := range trials {
		workers.Go(func() {
			turn, err := db.Begin(t.Context(), trial.ID, epochs, search.Attempt{})
			for n := 1; err == nil && n <= epochs; n++ {
				err = turn.Record(t.Context(), search.Epoch{Number: n, TestCorrect: n, TestTotal: n},
					search.Checkpoint{Epoch: n, State: state(n, 20_000)})
			}
			if err == nil {
				_, err = turn.End(t.Context(), search.Outcome{Status: search.Done})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	read := func(db *store.DB) error {
		trials, err := readTrials(t.Context(), db, s.Name)
		if err != nil {
			return err
		}
		for _, trial := range trials {
			if trial.Epoch > 0 && trial.Last.TestCorrect != trial.Epoch {
				return fmt.Errorf("epoch %d with the metrics of epoch %d", trial.Epoch, trial.Last.TestCorrect)
			}
			c, err := db.Checkpoint(t.Context(), s.Name, trial.Key)
			if err != nil {
				return err
			}
			if c == nil { // it has none when it is done
				continue
			}
			if trial.Epoch > 0 && (c.Epoch < trial.Epoch || !bytes.Equal(c.State, state(c.Epoch, 20_000))) {
				return fmt.Errorf("after epoch %d a checkpoint of epoch %d, or its state is another's", trial.Epoch,
					c.Epoch)
			}
		}
		return nil
	}
	for range 3 {
		readers.Go(func() {
			for {
				ro, err := store.OpenReadOnly(t.Context(), path)
				if err == nil {
					err = errors.Join(read(ro), read(ro), ro.Close())
				}
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	workers.Wait()
	close(done)
	readers.Wait()
	all, err := readEpochs(t.Context(), db, s.Name)
	if err != nil || len(all) != epochs*len(trials) {
		t.Errorf("%d epochs (%v), want %d", len(all), err, epochs*len(trials))
	}
}
