package spool_test

import (
	"bufio"
	stdcmp "cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
	"igcsearch/store/spool"
)

// TestMain makes this test binary a worker for TestKill.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SPOOL_WORKER"); dir != "" {
		if err := work(context.Background(), dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const killEpochs = 12

func killStudy() (search.Study, []search.Trial) {
	s := search.Default()
	s.Name, s.Dataset, s.Pairs = "quick", "synthetic", []string{"40x2", "64x1"}
	s.Seeds, s.Epochs, s.RetryCrashed = search.FirstSeeds(12), killEpochs, 0
	s, err := s.Normalize()
	if err != nil {
		panic(err)
	}
	return s, s.Trials(space.Shape{C: 3, H: 32, W: 32}, 10)
}

// work is a worker with two trainings at once.
func work(ctx context.Context, dir string) error {
	f, err := spool.Open(dir, spool.Options{})
	if err != nil {
		return err
	}
	defer f.Close()
	f.SetLease(shortLease)
	s, trials := killStudy()
	r := search.Runner{Store: f, Trainer: chain{slow: true}, Workers: 2, Wait: 20 * time.Millisecond,
		Attempt: search.Attempt{PID: os.Getpid(), ISA: "test"}}
	_, err = r.Run(ctx, s, strategyOf(s), trials)
	return err
}

const stored = "an epoch is stored"

// chain is a trainer. What an epoch measures depends on all epochs before it. A slow one says when an
// epoch is stored.
type chain struct{ slow bool }

func (t chain) Train(ctx context.Context, job search.Job, r search.Reporter) error {
	c := search.Checkpoint{State: []byte(fmt.Sprint(job.System, job.Seed))}
	if job.From != nil {
		c = *job.From
	}
	for c.Epoch < job.Until {
		if t.slow {
			time.Sleep(time.Duration(20+rand.IntN(20)) * time.Millisecond)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		sum := sha256.Sum256(c.State)
		c.Epoch, c.State = c.Epoch+1, sum[:]
		e := search.Epoch{Number: c.Epoch, LearningRate: 0.1, TrainCorrect: int(sum[4]), TrainTotal: 255,
			TrainLoss: float64(binary.LittleEndian.Uint32(sum[:])) / 7}
		if err := r.Epoch(e, c); err != nil {
			return err
		}
		if t.slow {
			fmt.Println(stored)
		}
	}
	return nil
}

// TestKill kills workers of three processes at random moments. In the end every trial was done
// once, with the bits of an undisturbed run. A database that collected after every kill holds
// the same as one that collects in the end.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "spool")
	often := database(t)
	const kills = 12
	killWorkers(t, dir, kills, func() { bring(t, often, dir) })

	straight, once := database(t), database(t)
	s, trials := killStudy()
	r := search.Runner{Store: straight, Trainer: chain{}, Workers: 2}
	if _, err := r.Run(t.Context(), s, strategyOf(s), trials); err != nil {
		t.Fatal(err)
	}
	bring(t, often, dir)
	bring(t, once, dir)
	want := read(t, straight)
	for _, db := range []*store.DB{often, once} {
		got := read(t, db)
		for i, trial := range got.Trials {
			want := want.Trials[i].History
			diff := cmp.Diff(want, trial.History, cmpopts.IgnoreFields(search.Epoch{}, "TrainSeconds", "EvalSeconds"))
			if diff != "" || len(want) != killEpochs {
				t.Errorf("%d epochs; undisturbed (-) and collected (+):\n%s", len(want), diff)
			}
		}
		done, lost := map[string]int{}, 0
		for _, a := range got.Attempts {
			switch a.Ending {
			case "done":
				done[fmt.Sprint(a.System, a.Seed)]++
			case "lost":
				lost++
			}
		}
		for trial, n := range done {
			if n != 1 {
				t.Errorf("%s was done %d times", trial, n)
			}
		}
		if len(done) != len(trials) {
			t.Errorf("%d of %d trials are done", len(done), len(trials))
		}
		if lost < 3 {
			t.Errorf("only %d attempts were lost by %d kills", lost, kills)
		}
		t.Logf("%d kills, %d attempts, %d of them lost", kills, len(got.Attempts), lost)
	}
	if n := bring(t, once, dir); n != 0 {
		t.Errorf("%d trials were brought again", n)
	}
	less := cmpopts.SortSlices(func(a, b store.TrialAttempt) bool {
		return stdcmp.Or(strings.Compare(a.System.String(), b.System.String()), a.Seed-b.Seed,
			a.Started.Compare(b.Started)) < 0
	})
	if diff := cmp.Diff(read(t, once).Attempts, read(t, often).Attempts, less); diff != "" {
		t.Errorf("attempts collected once (-) and often (+):\n%s", diff)
	}
}

// process is a worker in a process of its own.
type process struct {
	*exec.Cmd
	epochs atomic.Int64  // that it has stored
	ended  chan struct{} // closed when it has ended
}

func startProcess(t *testing.T, dir string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0]), ended: make(chan struct{})}
	p.Env = append(os.Environ(), "SPOOL_WORKER="+dir)
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.StdoutPipe()
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == stored {
				p.epochs.Add(1)
			} else {
				t.Log(lines.Text())
			}
		}
		p.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	p.Process.Kill()
	<-p.ended
}

// train waits until the process has stored so many epochs, or has ended.
func (p *process) train(epochs int64) {
	for p.epochs.Load() < epochs {
		select {
		case <-p.ended:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// killWorkers trains the study with three processes until all is done. It kills so many of them
// at random moments of their trainings, starts another for each, and calls after.
func killWorkers(t *testing.T, dir string, kills int, after func()) {
	t.Helper()
	var workers []*process
	for range 3 {
		workers = append(workers, startProcess(t, dir))
	}
	for range kills {
		i := rand.IntN(len(workers))
		workers[i].train(1 + rand.Int64N(4))
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond) // to any moment of the next epoch
		workers[i].kill()
		workers[i] = startProcess(t, dir)
		after()
	}
	for _, w := range workers {
		if <-w.ended; !w.ProcessState.Success() {
			t.Errorf("a worker that was not killed ended with %v", w.ProcessState)
		}
	}
}

// read reads the study of a database, with histories and attempts.
func read(t *testing.T, db *store.DB) store.Results {
	t.Helper()
	s, _ := killStudy()
	stored, err := db.Read(t.Context(), s.Name, store.Histories, store.Attempts)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// database returns a new database.
func database(t *testing.T) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "a.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// bring collects a spool into a database, as igcsearch collect does. It returns how many trials it stored.
func bring(t *testing.T, db *store.DB, dir string) (taken int) {
	t.Helper()
	r, err := spool.Read(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := db.Bring(t.Context(), store.Source{Study: r.Study, Trials: r.Trials, Load: r.Load})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		if b.Taken {
			taken++
		}
	}
	return taken
}
