package store_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"igcsearch/search"
	"igcsearch/store"
)

// fault prints a row of the table of make faults.
func fault(what, format string, a ...any) {
	if longFaults {
		fmt.Printf("| %s | %s |\n", what, fmt.Sprintf(format, a...))
	}
}

// claimAll is a child of TestFaultsClaims: it begins every trial that it can, in
// the order of all others, and prints their numbers.
func claimAll(ctx context.Context, path string) {
	err := func() error {
		db, err := store.Open(ctx, path)
		if err != nil {
			return err
		}
		states, _, err := db.Poll(ctx, "quick", 0)
		if err != nil {
			return err
		}
		fmt.Println("ready")
		in := bufio.NewReader(os.Stdin)
		if _, err := in.ReadString('\n'); err != nil { // all begin at once
			return err
		}
		for _, t := range states {
			switch _, err := db.Begin(ctx, t.ID, 3, search.Attempt{}); {
			case err == nil:
				fmt.Println(t.ID)
				time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond) // SQLite's queue is not fair
			case !errors.Is(err, search.ErrTaken):
				return err
			}
		}
		fmt.Println("end")
		in.ReadString('\n') // until the test ends, those that it has stay its own
		return nil
	}()
	fmt.Println(err)
}

func TestFaultsClaims(t *testing.T) {
	n := 200
	if longFaults {
		n = 10_000
	}
	s, _ := newStudy(t, "quick")
	var trials []search.Trial
	for seed := range n {
		trials = append(trials, search.Trial{Key: search.Key{System: s.SystemList()[0], Seed: seed},
			Status: search.Pending, Epochs: 3})
	}
	path := filepath.Join(t.TempDir(), "a.db")
	db := open(t, path)
	if _, err := db.Plan(t.Context(), s, trials); err != nil {
		t.Fatal(err)
	}
	type claim struct {
		by int
		id int64
	}
	claims := make(chan claim)
	var wg sync.WaitGroup
	var begin sync.WaitGroup
	begin.Add(2)
	for by := range 2 {
		c := command("claim", path)
		in, err1 := c.StdinPipe()
		out, err2 := c.StdoutPipe()
		if err := errors.Join(err1, err2, c.Start()); err != nil {
			t.Fatal(err)
		}
		defer func() { c.Process.Kill(); c.Wait() }()
		wg.Go(func() {
			lines := bufio.NewScanner(out)
			for lines.Scan() && lines.Text() != "end" {
				if lines.Text() == "ready" {
					begin.Done()
					begin.Wait()
					fmt.Fprintln(in)
					continue
				}
				id, err := strconv.ParseInt(lines.Text(), 10, 64)
				if err != nil {
					t.Errorf("a child says %q", lines.Text())
					return
				}
				claims <- claim{by, id}
			}
		})
	}
	go func() { wg.Wait(); close(claims) }()
	start, got, each := time.Now(), map[int64]int{}, [2]int{}
	for c := range claims {
		got[c.id]++
		each[c.by]++
	}
	double := 0
	for _, k := range got {
		if k > 1 {
			double++
		}
	}
	if len(got) != n || double > 0 {
		t.Errorf("%d of %d trials begun, %d twice", len(got), n, double)
	}
	fault("two processes claim at once", "%d trials, %d and %d begun, %d twice; %.2f ms a claim", n, each[0], each[1],
		double, 1000*time.Since(start).Seconds()/float64(n))
}

func TestFaultsClock(t *testing.T) {
	t.Cleanup(func() { store.SetClock(time.Now) })
	rounds := 1
	if longFaults {
		rounds = 20
	}
	jumps, taken, slowest := 0, 0, time.Duration(0)
	for round := range rounds {
		synctest.Test(t, func(t *testing.T) {
			a, path, s, trials := planned(t)
			a.SetLease(shortLease)
			stop := beats(t, a)
			b := open(t, path)
			b.SetLease(shortLease)
			beats(t, b)
			execute(t, path, fmt.Sprintf(`UPDATE worker SET lease = %d`, shortLease.Milliseconds()))
			attempt := begin(t, a, trials[0])
			for k := range 4 {
				jump := time.Duration(1-2*((round+k)%2)) * time.Hour
				store.SetClock(func() time.Time { return time.Now().Add(jump) })
				jumps++
				for begin := time.Now(); time.Since(begin) < shortLease; time.Sleep(shortLease / 20) {
					if poll(t, b, s.Name)[0].Status != search.Running {
						taken++
						break
					}
				}
			}
			record(t, attempt, 1)
			stop()
			slowest = max(slowest, wait(t, b, s.Name, 0, search.Pending))
		})
	}
	if taken > 0 || slowest > 2*shortLease {
		t.Errorf("%d live trials taken, a dead one after %v", taken, slowest)
	}
	fault("clock jumps by ±1 hour", "%d jumps: %d live trials taken over; %d stopped processes, all taken over, the "+
		"slowest after %.1f leases", jumps, taken, rounds, slowest.Seconds()/shortLease.Seconds())
}

func TestFaultsReaders(t *testing.T) {
	n := 100
	if longFaults {
		n = 2000
	}
	write := func(readers int) (median, worst time.Duration, reads int) {
		db, path, _, _ := planned(t)
		s, trials := newStudy(t, "busy")
		s.Epochs = n
		for i := range trials {
			trials[i].Epochs = n
		}
		trials, err := db.Plan(t.Context(), s, trials)
		if err != nil {
			t.Fatal(err)
		}
		attempt := begin(t, db, trials[0])
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		for range readers {
			wg.Go(func() {
				for ctx.Err() == nil {
					ro, err := store.OpenReadOnly(t.Context(), path)
					if err == nil {
						_, err1 := readTrials(t.Context(), ro, s.Name)
						_, err2 := readEpochs(t.Context(), ro, s.Name)
						_, err3 := readAttempts(t.Context(), ro, s.Name)
						err = errors.Join(err1, err2, err3, ro.Close())
					}
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					reads++
					mu.Unlock()
				}
			})
		}
		var times []time.Duration
		for k := range n {
			start := time.Now()
			if err := attempt.Record(t.Context(), search.Epoch{Number: k + 1},
				search.Checkpoint{Epoch: k + 1, State: state(k+1, 100_000)}); err != nil {
				t.Fatal(err)
			}
			times = append(times, time.Since(start))
		}
		cancel()
		wg.Wait()
		slices.Sort(times)
		return times[n/2], times[n-1], reads
	}
	alone, worstAlone, _ := write(0)
	with, worst, reads := write(2)
	if longFaults && worst > 10*time.Second { // this machine may have other work
		t.Errorf("a write took %v beside readers", worst)
	}
	fault("readers during writes", "%d epochs written beside %d reads of all that status, plot and export read: "+
		"no error on either side; a write takes %.1f ms at the median, %.0f ms at most, without readers %.1f and %.0f",
		n, reads, ms(with), ms(worst), ms(alone), ms(worstAlone))
}

func ms(d time.Duration) float64 { return 1000 * d.Seconds() }

// TestFaultsDatabases reads databases with bytes changed, cut out or cut off.
func TestFaultsDatabases(t *testing.T) {
	n := 40
	if longFaults {
		n = 400
	}
	db, path, s, trials := planned(t)
	attempt := begin(t, db, trials[0])
	record(t, attempt, 1, 2)
	db.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused, found := 0, 0
	for k := range n {
		r := rand.New(rand.NewPCG(1, uint64(k)))
		b := slices.Clone(good)
		switch k % 4 {
		case 0:
			b = b[:r.IntN(len(b))]
		case 1:
			at := r.IntN(len(b))
			b = slices.Delete(b, at, min(len(b), at+1+r.IntN(5000)))
		default:
			for range 1 + r.IntN(200) {
				b[r.IntN(len(b))] ^= byte(1 + r.IntN(255))
			}
		}
		bad := filepath.Join(t.TempDir(), "bad.db")
		if err := os.WriteFile(bad, b, 0o644); err != nil {
			t.Fatal(err)
		}
		ro, err := store.OpenReadOnly(t.Context(), bad)
		if err == nil {
			_, err1 := readTrials(t.Context(), ro, s.Name)
			_, err2 := readEpochs(t.Context(), ro, s.Name)
			_, err3 := readAttempts(t.Context(), ro, s.Name)
			h, err4 := ro.Examine(t.Context())
			ro.Close()
			err = errors.Join(err1, err2, err3, err4)
			if err == nil && (len(h.Damage) > 0 || len(h.Findings) > 0) {
				found++
			}
		}
		if err != nil {
			refused++
		}
		if after, err := os.ReadFile(bad); err != nil || !bytes.Equal(after, b) {
			t.Fatalf("file %d was written to (%v)", k, err)
		}
	}
	if refused+found == 0 {
		t.Error("no damage was found in any")
	}
	fault("malformed databases", "%d read: %d refused with an error, %d with damage that doctor names, "+
		"%d where only unused bytes or values were hit; no panic, none written to", n, refused, found, n-refused-found)
}
