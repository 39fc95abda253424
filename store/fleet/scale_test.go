package fleet_test

import (
	"context"
	crand "crypto/rand"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/store/fleet"
)

// The load of TestScale. The default is so small that on a busy machine too no answer takes longer than a worker waits
// for it; make scale gives others.
var load struct {
	workers, trials, epochs, state int
	epoch                          time.Duration
	profile                        string
}

func init() {
	flag.IntVar(&load.workers, "scale.workers", 30, "workers of TestScale")
	flag.IntVar(&load.trials, "scale.trials", 90, "trials of its study")
	flag.IntVar(&load.epochs, "scale.epochs", 2, "epochs of a trial")
	flag.DurationVar(&load.epoch, "scale.epoch", 200*time.Millisecond,
		"mean time of an epoch; each takes half to one and a half of it")
	flag.IntVar(&load.state, "scale.state", 262054, "bytes of a checkpoint; the default is that of IGC-L40M2")
	flag.StringVar(&load.profile, "scale.profile", "", "folder for profiles of the coordinator")
}

// coordinatorIn is the environment variable that makes this process a coordinator. It holds the
// folder of the database.
const coordinatorIn = "IGC_SCALE_COORDINATOR"

// TestMain makes this test binary the coordinator of TestScale.
func TestMain(m *testing.M) {
	if dir := os.Getenv(coordinatorIn); dir != "" {
		if err := coordinate(dir, os.Getenv(coordinatorIn+"_PROFILE")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// coordinate is igcsearch serve --access without the page. It returns at an interrupt.
func coordinate(dir, profile string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if profile != "" {
		cpu, err := os.Create(filepath.Join(profile, "cpu.pprof"))
		if err != nil {
			return err
		}
		defer cpu.Close()
		runtime.SetMutexProfileFraction(10)
		runtime.SetBlockProfileRate(int(100 * time.Microsecond))
		if err := pprof.StartCPUProfile(cpu); err != nil {
			return err
		}
		defer func() {
			pprof.StopCPUProfile()
			for _, name := range []string{"mutex", "block"} {
				f, e := os.Create(filepath.Join(profile, name+".pprof"))
				if e == nil {
					e = pprof.Lookup(name).WriteTo(f, 0)
				}
				err = errors.Join(err, e)
			}
		}()
	}
	db, err := store.Open(ctx, filepath.Join(dir, "a.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	access := filepath.Join(dir, "access")
	token := fleet.NewToken()
	c, err := fleet.NewCoordinator(ctx, fleet.Options{DB: db, Access: access, Token: token, Program: "v1",
		Note: func(s string) { fmt.Fprintln(os.Stderr, s) }})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	c.Register(mux)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 1 << 16}
	var wg sync.WaitGroup
	wg.Go(func() { c.Keep(ctx) })
	wg.Go(func() { server.Serve(listener) })
	if err := (fleet.Access{Address: "http://" + listener.Addr().String(), Token: token}).Write(access); err != nil {
		return err
	}
	<-ctx.Done()
	server.Close()
	wg.Wait()
	return nil
}

// sleeper trains nothing, but its epochs take time.
type sleeper struct {
	epoch time.Duration
	state []byte
}

func (s sleeper) Train(ctx context.Context, job search.Job, r search.Reporter) error {
	at := 0
	if job.From != nil {
		at = job.From.Epoch
	}
	for n := at + 1; n <= job.Until; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration((0.5 + rand.Float64()) * float64(s.epoch))):
		}
		e := search.Epoch{Number: n, LearningRate: 0.1, TrainLoss: 1 / float64(n), TrainCorrect: 1, TrainTotal: 9,
			TestCorrect: job.Seed % 7, TestTotal: 7, TrainSeconds: s.epoch.Seconds()}
		if err := r.Epoch(e, search.Checkpoint{Epoch: n, State: s.state}); err != nil {
			return err
		}
	}
	return nil
}

// latencies holds how long each request of one kind took.
type latencies struct {
	name string
	mu   sync.Mutex
	all  []time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

func (l *latencies) at(part float64) time.Duration {
	if len(l.all) == 0 {
		return 0
	}
	slices.Sort(l.all)
	return l.all[int(part*float64(len(l.all)-1))]
}

func (l *latencies) String() string {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.3g", float64(d.Microseconds())/1000) }
	return fmt.Sprintf("%s | %d | %s | %s | %s", l.name, len(l.all), ms(l.at(0.5)), ms(l.at(0.99)), ms(l.at(1)))
}

// clocked is a desk that measures how long its methods take.
type clocked struct {
	search.Desk
	m *measured
	n int // claims
}

// measured is what TestScale measures.
type measured struct {
	join, first, claim, epoch, end, beat latencies
	epochs                               atomic.Int64  // that were recorded
	planned                              time.Duration // that planning the study took
	took                                 time.Duration // from the first join to the last leave
	mostBytes                            atomic.Int64  // of the database with its log
}

func (c *clocked) Claim(ctx context.Context, ask search.Ask) (*search.Claim, time.Duration, error) {
	begin := time.Now()
	claim, wait, err := c.Desk.Claim(ctx, ask)
	if claim != nil {
		if c.n++; c.n == 1 {
			c.m.first.add(time.Since(begin))
		} else {
			c.m.claim.add(time.Since(begin))
		}
		claim.Handle = clockedAttempt{claim.Handle, c.m}
	}
	return claim, wait, err
}

// clockedAttempt is a handle that measures how long its methods take.
type clockedAttempt struct {
	search.Handle
	m *measured
}

func (a clockedAttempt) Record(ctx context.Context, e search.Epoch, state search.Checkpoint) error {
	begin := time.Now()
	err := a.Handle.Record(ctx, e, state)
	a.m.epoch.add(time.Since(begin))
	a.m.epochs.Add(1)
	return err
}

func (a clockedAttempt) End(ctx context.Context, o search.Outcome) (search.Status, error) {
	begin := time.Now()
	status, err := a.Handle.End(ctx, o)
	a.m.end.add(time.Since(begin))
	return status, err
}

func (c *clocked) Beat(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	next, err := c.Desk.Beat(ctx)
	c.m.beat.add(time.Since(begin))
	return next, err
}

// TestScale starts many workers at once on a coordinator in another process: every trial is
// done once, in one attempt. It prints the figures of docs/scale.md.
func TestScale(t *testing.T) {
	dir := t.TempDir()
	access, database := filepath.Join(dir, "access"), filepath.Join(dir, "a.db")
	child, ended := startCoordinator(t, dir, access)
	study, list := small(t, load.trials)
	study.Epochs = load.epochs
	for i := range list {
		list[i].Epochs = load.epochs
	}
	m := &measured{join: latencies{name: "join"}, first: latencies{name: "first claim"},
		claim: latencies{name: "claim"}, epoch: latencies{name: "epoch"}, end: latencies{name: "end"},
		beat: latencies{name: "heartbeat"}}
	begin := time.Now()
	if _, err := fleet.Tell(t.Context(), access, "v1", study, list); err != nil {
		t.Fatal(err)
	}
	m.planned = time.Since(begin)

	watch, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		for watch.Err() == nil {
			m.mostBytes.Store(max(m.mostBytes.Load(), size(database)+size(database+"-wal")))
			time.Sleep(200 * time.Millisecond)
		}
	}()
	runWorkers(t, access, study, m)
	stop()
	child.Process.Signal(os.Interrupt)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	checkScale(t, database, study, m)
	m.print(size(database), child.ProcessState)
}

// startCoordinator starts a coordinator in another process, and waits for its access file. ended
// receives how the process ended.
func startCoordinator(t *testing.T, dir, access string) (child *exec.Cmd, ended chan error) {
	t.Helper()
	child = exec.Command(os.Args[0])
	child.Env = append(os.Environ(), coordinatorIn+"="+dir, coordinatorIn+"_PROFILE="+load.profile)
	child.Stderr = os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- child.Wait() }()
	t.Cleanup(func() { child.Process.Kill() })
	for {
		if _, err := os.Stat(access); err == nil {
			return child, ended
		}
		select {
		case err := <-ended:
			t.Fatalf("the coordinator ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// runWorkers runs all workers to their end. None of them may have anything to tell people.
func runWorkers(t *testing.T, access string, study search.Study, m *measured) {
	t.Helper()
	state := make([]byte, load.state)
	crand.Read(state)
	notes := &lines{}
	begin := time.Now()
	var all sync.WaitGroup
	for i := range load.workers {
		all.Go(func() {
			c := fleet.NewClient(fleet.ClientOptions{Access: access, Program: "v1", Note: notes.add,
				Attempt: search.Attempt{Host: fmt.Sprintf("node%d", i/8), PID: i, ISA: "test", Device: "none"},
				Load:    func(context.Context, search.Study) (string, error) { return study.DataSum, nil }})
			if _, err := c.Join(t.Context()); err != nil {
				t.Error(err)
				return
			}
			m.join.add(time.Since(begin))
			c.Loaded(study.Name, study.DataSum)
			r := search.Runner{Trainer: sleeper{load.epoch, state}}
			if err := r.Work(t.Context(), &clocked{Desk: c, m: m}); err != nil {
				t.Error(err)
			}
			leave, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
			defer cancel()
			c.Leave(leave)
		})
	}
	all.Wait()
	m.took = time.Since(begin)
	for _, note := range notes.all[:min(3, len(notes.all))] {
		t.Error(note)
	}
}

// checkScale checks that each trial was done in one attempt, and that no epoch was trained twice.
func checkScale(t *testing.T, database string, study search.Study, m *measured) {
	t.Helper()
	db, err := store.OpenReadOnly(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	stored, err := db.Read(t.Context(), study.Name, store.Attempts)
	if err != nil {
		t.Fatal(err)
	}
	done := map[int]int{}
	for _, a := range stored.Attempts {
		if a.Ending != "done" {
			t.Errorf("an attempt at seed %d ended %q: %s", a.Seed, a.Ending, a.Message)
		}
		done[a.Seed]++
	}
	for seed := range load.trials {
		if done[seed] != 1 {
			t.Errorf("seed %d had %d attempts", seed, done[seed])
		}
	}
	epochs := 0
	for _, trial := range stored.Trials {
		epochs += trial.Epoch
	}
	if want := load.trials * load.epochs; epochs != want || int(m.epochs.Load()) != want {
		t.Errorf("%d epochs are stored and %d were recorded, want %d", epochs, m.epochs.Load(), want)
	}
	if workers, err := db.Workers(t.Context()); err != nil || len(workers) > 0 {
		t.Errorf("still there: %d workers, %v", len(workers), err)
	}
}

// size returns the bytes of a file, 0 if there is none.
func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// print prints what was measured. database is in bytes; child is the coordinator's process.
func (m *measured) print(database int64, child *os.ProcessState) {
	b := os.Stdout
	fmt.Fprintf(b, "\n%d workers, %d trials of %d epochs of %v, checkpoints of %d bytes; planned in %.1f s\n\n",
		load.workers, load.trials, load.epochs, load.epoch, load.state, m.planned.Seconds())
	fmt.Fprintln(b, "| request | number | median (ms) | 99 % (ms) | longest (ms) |\n| --- | --: | --: | --: | --: |")
	for _, l := range []*latencies{&m.join, &m.first, &m.claim, &m.epoch, &m.end, &m.beat} {
		fmt.Fprintf(b, "| %v |\n", l)
	}
	n, took := float64(m.epochs.Load()), m.took.Seconds()
	user, system := child.UserTime().Seconds(), child.SystemTime().Seconds()
	var own syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	fmt.Fprintf(b, "\n%.1f s (%.1f s at the least), %.1f epochs/s; "+
		"coordinator %.1f s of CPU (user %.1f, system %.1f), %.2f ms for each epoch, %.2f cores; "+
		"memory %d MiB; database %d MiB, with its log at most %d MiB; workers %.1f s of CPU\n",
		took, n*load.epoch.Seconds()/float64(load.workers), n/took,
		user+system, user, system, (user+system)/n*1000, (user+system)/took,
		child.SysUsage().(*syscall.Rusage).Maxrss>>10, database>>20, m.mostBytes.Load()>>20,
		float64(own.Utime.Nano()+own.Stime.Nano())/1e9)
}
