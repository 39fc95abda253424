package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

// storeSweep stores a study of two pairs whose trials are all done, each with so many epochs.
func storeSweep(t testing.TB, path string, seeds, epochs int) {
	t.Helper()
	s := search.Default()
	s.Name, s.Dataset = "sweep", "synthetic"
	s.Pairs, s.Seeds, s.Epochs = []string{"40x2", "12x6"}, search.FirstSeeds(seeds), epochs
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	trials, err := db.Plan(t.Context(), s, s.Trials(space.Shape{C: 3, H: 32, W: 32}, 10))
	if err != nil {
		t.Fatal(err)
	}
	results := make([]search.TrialState, len(trials))
	for i, trial := range trials {
		r := search.TrialState{Trial: trial}
		for n := 1; n <= epochs; n++ {
			r.History = append(r.History, search.Epoch{
				Number: n, LearningRate: 0.1 / float64(n), TrainLoss: 2.3 / float64(n), TrainCorrect: 31000 + n,
				TrainTotal: 45000, ValidationCorrect: 3000 + n, ValidationTotal: 5000, ValidationLoss: 1.1 / float64(n),
				TestCorrect: 6000 + n, TestTotal: 10000, TestLoss: 1.2 / float64(n),
				TrainSeconds: 15.3, EvalSeconds: 1.2,
			})
		}
		r.Status, r.Epoch, r.Last = search.Done, epochs, r.History[epochs-1]
		results[i] = r
	}
	if _, err := importRecords(t.Context(), db, s, trials, results, "elsewhere.csv"); err != nil {
		t.Fatal(err)
	}
}

// TestServeMemory fetches a large table by 30 clients at once. The server makes it once, so that they take no more of
// its memory than one client does.
func TestServeMemory(t *testing.T) {
	t.Parallel()
	const clients, more = 30, 100 // MiB; each client would take 15
	db := filepath.Join(t.TempDir(), "x.db")
	storeSweep(t, db, 100, 100)
	cmd := exec.Command("igcsearch", "serve", "--db", db) // see TestMain
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	peak := func() int {
		t.Helper()
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
		if found == nil {
			t.Fatalf("the system does not say how much memory a process took: %s", text)
		}
		kB, err := strconv.Atoi(string(found[1]))
		if err != nil {
			t.Fatal(err)
		}
		return kB / 1024
	}
	table := strings.TrimSpace(line) + "studies/sweep/epochs.csv"
	_, want := fetch(t, "GET", table)
	if n := strings.Count(want, "\n"); n != 20_001 {
		t.Errorf("it has %d lines, want a header and 20,000", n)
	}
	one := peak()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			r, err := http.Get(table)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Body.Close()
			if got, err := io.ReadAll(r.Body); err != nil || string(got) != want {
				t.Errorf("%s, %d bytes of %d, %v", r.Status, len(got), len(want), err)
			}
		})
	}
	all.Wait()
	if many := peak(); many > one+more {
		t.Errorf("one client takes %d MiB, %d clients %d MiB", one, clients, many)
	}
}
