package fleet_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
	"igcsearch/store/fleet"
)

// small returns a study of so many trials of three epochs.
func small(t testing.TB, trials int) (search.Study, []search.Trial) {
	t.Helper()
	s := search.Default()
	s.Name, s.Dataset, s.DataSum = "small", "synthetic", "the pictures"
	s.Pairs, s.Seeds, s.Epochs = []string{"4x2"}, search.FirstSeeds(trials), 3
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return s, s.Trials(space.Shape{C: 3, H: 8, W: 8}, 10)
}

// trainer trains nothing: what an epoch measures is a function of the seed and of the state that
// the epoch before left.
type trainer struct {
	pause time.Duration         // the time that an epoch takes
	after func(search.Job, int) // called after each epoch
}

func (tr trainer) Train(ctx context.Context, job search.Job, r search.Reporter) error {
	at, state := 0, uint64(job.Seed)
	if job.From != nil {
		at, state = job.From.Epoch, binary.LittleEndian.Uint64(job.From.State)
	}
	for n := at + 1; n <= job.Until; n++ {
		select {
		case <-ctx.Done():
		case <-time.After(tr.pause):
		}
		if ctx.Err() != nil {
			return fmt.Errorf("epoch %d: %w", n, ctx.Err())
		}
		state = state*6364136223846793005 + uint64(n)
		loss := float64(state%1000) / 7
		if job.Seed == 1 && n == 2 {
			loss = math.Inf(1)
		}
		e := search.Epoch{Number: n, LearningRate: 0.1 / float64(n), TrainSeconds: 1,
			TrainLoss: loss, TrainCorrect: int(state % 9), TrainTotal: 9,
			TestLoss: 1 / (1 + float64(state%11)), TestCorrect: int(state % 7), TestTotal: 7}
		c := search.Checkpoint{Epoch: n, State: binary.LittleEndian.AppendUint64(nil, state)}
		if err := r.Epoch(e, c); err != nil {
			return err
		}
		if tr.after != nil {
			tr.after(job, n)
		}
	}
	return nil
}

// watched is a trainer that tells when a training has ended.
type watched struct {
	trainer
	ended func()
}

func (w watched) Train(ctx context.Context, job search.Job, r search.Reporter) error {
	defer w.ended()
	return w.trainer.Train(ctx, job, r)
}

// site is a database with a coordinator, which can end and start again.
type site struct {
	t            testing.TB
	dir          string
	db           *store.DB
	coordinator  *fleet.Coordinator
	server       *httptest.Server
	stop         func()
	middle       func(http.Handler) http.Handler
	access       string
	notes        *lines
	program      string
	advertise    string // the address in the access file; "" is the server's
	databasePath string
}

// lines collects what is noted.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, s)
}

func (l *lines) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(strings.Join(l.all, "\n"), part)
}

func newSite(t testing.TB) *site {
	s := &site{t: t, dir: t.TempDir(), notes: &lines{}, program: "v1", stop: func() {}}
	s.access, s.databasePath = filepath.Join(s.dir, "small.access"), filepath.Join(s.dir, "a.db")
	t.Cleanup(func() { s.stop() })
	return s
}

// start starts a coordinator, which goes on with what is stored.
func (s *site) start() *fleet.Coordinator {
	s.t.Helper()
	db, err := store.Open(s.t.Context(), s.databasePath)
	if err != nil {
		s.t.Fatal(err)
	}
	token, err := fleet.TokenOf(s.access)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := fleet.NewCoordinator(s.t.Context(), fleet.Options{DB: db, Access: s.access, Token: token,
		Program: s.program, Wait: 5 * time.Millisecond, Note: s.notes.add})
	if err != nil {
		s.t.Fatal(err)
	}
	mux := http.NewServeMux()
	c.Register(mux)
	var handler http.Handler = mux
	if s.middle != nil {
		handler = s.middle(mux)
	}
	s.server = httptest.NewServer(handler)
	address := s.server.URL
	if s.advertise != "" {
		address = s.advertise
	}
	if err := (fleet.Access{Address: address, Token: token}).Write(s.access); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.Keep(ctx) })
	s.db, s.coordinator = db, c
	s.stop = func() {
		s.server.CloseClientConnections()
		s.server.Close()
		cancel()
		wg.Wait()
		db.Close()
		s.stop = func() {}
	}
	return c
}

// lose makes all workers lost, as the end of their leases does.
func (s *site) lose() {
	s.t.Helper()
	pool, err := sql.Open("sqlite3", s.databasePath+"?_busy_timeout=10000&_txlock=immediate")
	if err != nil {
		s.t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(`UPDATE trial SET status = 'pending', changed = (SELECT changes + 1 FROM study)
			WHERE id IN (SELECT trial FROM attempt WHERE ended IS NULL);
		UPDATE attempt SET ended = started, outcome = 'lost', failure = 'lost', worker = NULL WHERE ended IS NULL;
		DELETE FROM worker WHERE remote; UPDATE study SET changes = changes + 1`); err != nil {
		s.t.Fatal(err)
	}
}

// plan makes the coordinator give out a study of so many trials.
func (s *site) plan(trials int) search.Study {
	s.t.Helper()
	study, list := small(s.t, trials)
	planned, err := fleet.Tell(s.t.Context(), s.access, s.program, study, list)
	if err != nil || len(planned) != trials || planned[0].ID == 0 {
		s.t.Fatalf("%v, %v", planned, err)
	}
	return study
}

func (s *site) client(o fleet.ClientOptions) *fleet.Client {
	o.Access = s.access
	if o.Program == "" {
		o.Program = s.program
	}
	if o.Load == nil {
		o.Load = func(context.Context, search.Study) (string, error) { return "the pictures", nil }
	}
	o.Attempt.Host, o.Attempt.ISA, o.Note = "node1", "test", s.notes.add
	c := fleet.NewClient(o)
	c.Hurry()
	return c
}

// work runs a worker to its end.
func (s *site) work(ctx context.Context, o fleet.ClientOptions, r search.Runner) error {
	c := s.client(o)
	if _, err := c.Join(ctx); err != nil {
		return err
	}
	err := r.Work(ctx, c)
	c.Leave(context.WithoutCancel(ctx))
	return err
}

// check checks that the database holds what a run in one process stores, and that every trial
// was done once.
func (s *site) check(study search.Study) {
	s.t.Helper()
	alone, err := store.Open(s.t.Context(), filepath.Join(s.t.TempDir(), "alone.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer alone.Close()
	_, trials := small(s.t, len(study.Seeds))
	r := search.Runner{Store: alone, Trainer: trainer{}, Workers: 3}
	if _, err := r.Run(s.t.Context(), study, strategyOf(study), trials); err != nil {
		s.t.Fatal(err)
	}
	want, err := alone.Read(s.t.Context(), study.Name, store.Histories)
	if err != nil {
		s.t.Fatal(err)
	}
	db, err := store.OpenReadOnly(s.t.Context(), s.databasePath)
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	got, err := db.Read(s.t.Context(), study.Name, store.Histories, store.Attempts)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, trial := range got.Trials {
		if want := want.Trials[i].History; len(want) == 0 || fmt.Sprint(trial.History) != fmt.Sprint(want) {
			s.t.Errorf("%v\nwant\n%v", trial.History, want)
		}
	}
	done := map[int]int{}
	for _, a := range got.Attempts {
		switch a.Ending {
		case "done":
			done[a.Seed]++
		case "interrupted", "lost", "paused":
		default:
			s.t.Errorf("an attempt at seed %d ended %s: %s", a.Seed, a.Ending, a.Message)
		}
	}
	for _, seed := range study.Seeds {
		if done[seed] != 1 {
			s.t.Errorf("seed %d was done %d times", seed, done[seed])
		}
	}
}

// TestFleet works on a study in several ways. The results are always those of a run in one
// process.
func TestFleet(t *testing.T) {
	t.Parallel()
	t.Run("three workers", threeWorkers)
	t.Run("the study grows while a worker trains it, and does not shrink", growsMeanwhile)
	t.Run("the coordinator is killed and started again, at another address", coordinatorKilled)
	t.Run("a copy of a claim that comes when its trial has ended takes no other", lateCopy)
	t.Run("a worker that leaves while nobody answers leaves its reports behind", leavesReports)
	t.Run("a worker that is out of reach for so long that it is taken for lost", outOfReach)
	t.Run("over a network that loses and repeats", lossyNetwork)
}

func threeWorkers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	study := s.plan(12)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			r := search.Runner{Trainer: trainer{pause: time.Millisecond}, Workers: 2}
			if err := s.work(t.Context(), fleet.ClientOptions{}, r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s.check(study)
	if list, err := s.db.Workers(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("still there: %v, %v", list, err)
	}
}

func growsMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	s.plan(2)
	var once sync.Once
	tr := trainer{after: func(search.Job, int) {
		once.Do(func() {
			fewer, list := small(t, 1)
			_, err := fleet.Tell(t.Context(), s.access, s.program, fewer, list)
			if err == nil || !strings.Contains(err.Error(), "trains trials of it now") {
				t.Errorf("fewer seeds while a worker trains: %v", err)
			}
			s.plan(4)
		})
	}}
	if err := s.work(t.Context(), fleet.ClientOptions{}, search.Runner{Trainer: tr}); err != nil {
		t.Fatal(err)
	}
	if !s.notes.has("study small is given out, 4 trials; seeds: 2 there, 4 here") {
		t.Error("the coordinator did not say how the study changed")
	}
	study, _ := small(t, 4)
	s.check(study)
}

func coordinatorKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	study := s.plan(6)
	ctx, fail := context.WithCancel(t.Context())
	defer fail()
	var wg sync.WaitGroup
	var first sync.Once
	trained := make(chan struct{}) // closed when the training ends that met the end of the coordinator
	for range 2 {
		wg.Go(func() {
			met := false
			tr := watched{trainer{pause: 20 * time.Millisecond, after: func(search.Job, int) {
				first.Do(func() { // after the first epoch of a trial, which has two more
					s.stop()
					met = true
				})
			}}, func() {
				if met {
					close(trained)
					met = false
				}
			}}
			if err := s.work(ctx, fleet.ClientOptions{}, search.Runner{Trainer: tr}); err != nil {
				t.Error(err)
				fail() // the other worker would wait for ever
			}
		})
	}
	select { // the training goes on, and its reports wait
	case <-trained:
	case <-ctx.Done():
	}
	s.start()
	wg.Wait()
	s.check(study)
	if !s.notes.has("cannot reach the coordinator") || !s.notes.has("the coordinator is back") {
		t.Errorf("%q", s.notes.all)
	}
	if _, err := os.Stat(s.access + ".outbox"); err == nil {
		t.Error("the outbox is still there")
	}
}

func lateCopy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var last []byte         // body of the last claim
	ended, late := false, 0 // late is the answer to its copy
	s.middle = func(inner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			switch r.URL.Path { // of one worker, one after the other
			case "/v1/end":
				ended = true
			case "/v1/claim":
				if ended && late == 0 {
					again := r.Clone(r.Context())
					again.Body = io.NopCloser(bytes.NewReader(last))
					answer := httptest.NewRecorder()
					inner.ServeHTTP(answer, again)
					late = answer.Code
				}
				last = body
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			inner.ServeHTTP(w, r)
		})
	}
	s.start()
	study := s.plan(2)
	if err := s.work(t.Context(), fleet.ClientOptions{}, search.Runner{Trainer: trainer{}}); err != nil {
		t.Fatal(err)
	}
	if late != http.StatusConflict {
		t.Errorf("the copy is answered with %d", late)
	}
	s.check(study)
}

func leavesReports(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	study, _ := s.leave()
	coordinator := s.start()
	if err := coordinator.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored, err := s.db.Read(t.Context(), study.Name)
	if err != nil || stored.Trials[0].Epoch != 2 || stored.Trials[0].Status != search.Pending {
		t.Fatalf("%+v, %v", stored, err)
	}
	if err := s.work(t.Context(), fleet.ClientOptions{}, search.Runner{Trainer: trainer{}}); err != nil {
		t.Fatal(err)
	}
	s.check(study)
}

// leave lets a worker train one epoch, stops the coordinator, and lets the worker train another epoch and leave. The
// outbox has an epoch and an end.
func (s *site) leave() (study search.Study, outbox string) {
	t := s.t
	t.Helper()
	s.start()
	study = s.plan(1)
	ctx, cancel := context.WithCancel(t.Context())
	c := s.client(fleet.ClientOptions{})
	if _, err := c.Join(ctx); err != nil {
		t.Fatal(err)
	}
	tr := trainer{after: func(_ search.Job, n int) {
		switch n {
		case 1:
			s.stop()
		case 2:
			cancel()
		}
	}}
	if err := (&search.Runner{Trainer: tr}).Work(ctx, c); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	left := c.Leave(short)
	if files, err := os.ReadDir(left); err != nil || len(files) < 3 {
		t.Fatalf("in %q: %v, %v", left, files, err)
	}
	return study, left
}

// TestOdd puts odd things into the outbox of a worker that has left, beside it, and in place of the access file. The
// reports are delivered, and people are told of the rest.
func TestOdd(t *testing.T) {
	t.Parallel()
	for name, odd := range map[string]func(path string) error{
		"a pipe":              func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a link to /dev/zero": func(path string) error { return os.Symlink("/dev/zero", path) },
		"a link to itself":    func(path string) error { return os.Symlink(path, path) },
		"a folder":            func(path string) error { return os.Mkdir(path, 0o700) },
		"an empty file":       func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"no JSON":             func(path string) error { return os.WriteFile(path, []byte(`{"path":`), 0o600) },
		"an odd number":       func(path string) error { return os.WriteFile(path, []byte("1e999"), 0o600) },
		"a hole of a terabyte": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40))
		},
		"a request to another path": func(path string) error {
			return os.WriteFile(path, []byte(`{"path":"/v1/plan"}`), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			study, left := s.leave()
			place := func(names ...string) string {
				return filepath.Join(append([]string{s.access + ".outbox"}, names...)...)
			}
			letter := func(n int) string { return filepath.Join(left, fmt.Sprintf("%06d.json", n)) }
			if err := errors.Join(os.Rename(letter(2), letter(3)), os.Rename(letter(1), letter(2)), odd(letter(1)),
				odd(filepath.Join(left, "7.json")), odd(place("0000")), os.Mkdir(place("0001"), 0o700),
				odd(place("0001", "worker.json"))); err != nil {
				t.Fatal(err)
			}
			coordinator := s.start()
			if err := coordinator.Sweep(t.Context()); err == nil || strings.Contains(err.Error(), left) {
				t.Errorf("sweep: %v", err)
			}
			stored, err := s.db.Read(t.Context(), study.Name)
			if err != nil || stored.Trials[0].Epoch != 2 {
				t.Errorf("%+v, %v; notes %q", stored.Trials, err, s.notes.all)
			}
			if !s.notes.has("000001.json is no report, so it is not delivered: ") &&
				!s.notes.has("1 reports were refused") {
				t.Errorf("nobody heard of it: %q", s.notes.all)
			}
			path := filepath.Join(s.dir, "odd.access")
			if err := odd(path); err != nil {
				t.Fatal(err)
			}
			if a, err := fleet.ReadAccess(path); err == nil {
				t.Errorf("it is access %+v", a)
			}
			if _, err := fleet.TokenOf(path); err == nil {
				t.Error("it has a token")
			}
		})
	}
}

func outOfReach(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	study := s.plan(1)
	tr := trainer{after: func(_ search.Job, n int) {
		switch n {
		case 1: // a coordinator that this worker cannot reach
			s.stop()
			s.advertise = "http://127.0.0.1:1"
			s.start()
		case 2:
			s.lose()
			// A damaged outbox of another worker does not hold up this one.
			bad := filepath.Join(s.access+".outbox", "0000")
			half := filepath.Join(bad, "worker.json")
			if err := errors.Join(os.Mkdir(bad, 0o700), os.WriteFile(half, []byte("{"), 0o600)); err != nil {
				t.Error(err)
			}
			if err := s.coordinator.Sweep(t.Context()); err == nil || !strings.Contains(err.Error(), bad) {
				t.Errorf("a damaged outbox: %v", err)
			}
			os.RemoveAll(bad)
			// Keep may be about to deliver the outbox: then Sweep leaves it alone.
			for epoch := 0; epoch < 2; time.Sleep(time.Millisecond) {
				stored, err := s.db.Read(t.Context(), study.Name)
				if err != nil {
					t.Error(err)
					break
				}
				epoch = stored.Trials[0].Epoch
			}
		case 3: // in reach again
			a, err := fleet.ReadAccess(s.access)
			a.Address = s.server.URL
			if err := errors.Join(err, a.Write(s.access)); err != nil {
				t.Error(err)
			}
		}
	}}
	if err := s.work(t.Context(), fleet.ClientOptions{}, search.Runner{Trainer: tr}); err != nil {
		t.Error(err)
	}
	s.check(study)
}

func lossyNetwork(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var n atomic.Int64
	s.middle = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			again := func() *http.Request {
				r := r.Clone(context.Background())
				r.Body = io.NopCloser(bytes.NewReader(body))
				return r
			}
			k := n.Add(1)
			switch {
			case r.URL.Path == "/v1/plan":
				h.ServeHTTP(w, again())
			case k%3 == 0: // the request is lost
				panic(http.ErrAbortHandler)
			case k%3 == 1: // the answer is lost
				h.ServeHTTP(deaf{httptest.NewRecorder()}, again())
				panic(http.ErrAbortHandler)
			default: // it comes twice
				h.ServeHTTP(deaf{httptest.NewRecorder()}, again())
				h.ServeHTTP(w, again())
			}
		})
	}
	s.start()
	study := s.plan(4)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if err := s.work(t.Context(), fleet.ClientOptions{}, search.Runner{Trainer: trainer{}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s.check(study)
}

// deaf is a ResponseWriter whose answer nobody gets.
type deaf struct{ *httptest.ResponseRecorder }

func (deaf) SetReadDeadline(time.Time) error  { return nil }
func (deaf) SetWriteDeadline(time.Time) error { return nil }

// TestRefused checks that a coordinator refuses workers that do not fit, and requests without
// the token.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start()
	study := s.plan(2)
	others := func(context.Context, search.Study) (string, error) { return "others", nil }
	for name, c := range map[string]struct {
		o    fleet.ClientOptions
		want string
		is   error // that it wraps; nil for none of those below
	}{
		"another version": {fleet.ClientOptions{Program: "v2"},
			"it is another version, v2, and the coordinator is v1", nil},
		"other pictures": {fleet.ClientOptions{Load: others},
			"its pictures are others than those of study small (checksum others, want the pictures)",
			fleet.ErrPictures},
		"another study": {fleet.ClientOptions{Study: "large"},
			`study "large" is not given out here; there are: small`, fleet.ErrNoStudy},
	} {
		err := s.work(t.Context(), c.o, search.Runner{Trainer: trainer{}})
		if err == nil || !strings.Contains(err.Error(), "refuses this worker") ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		for _, is := range []error{fleet.ErrPictures, fleet.ErrNoStudy} {
			if errors.Is(err, is) != (c.is == is) {
				t.Errorf("%s: is it %q? %v, want %v", name, is, c.is != is, c.is == is)
			}
		}
	}
	if stored, err := s.db.Read(t.Context(), study.Name); err != nil || stored.Trials[0].Status != search.Pending {
		t.Errorf("%v, %v", stored, err)
	}

	other := study
	other.Epochs++
	_, list := small(t, 2)
	if _, err := fleet.Tell(t.Context(), s.access, s.program, other, list); err == nil ||
		!strings.Contains(err.Error(), "epochs: 3 there, 4 here") {
		t.Errorf("a study of the same name: %v", err)
	}
	refusedRequests(t, s)

	path := filepath.Join(t.TempDir(), "copy.db")
	if err := fleet.Snapshot(t.Context(), s.access, path); err != nil {
		t.Fatal(err)
	}
	db, err := store.OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if infos, err := db.Studies(t.Context()); err != nil || len(infos) != 1 {
		t.Errorf("%v, %v", infos, err)
	}
}

// refusedRequests sends requests to a coordinator that it refuses.
func refusedRequests(t *testing.T, s *site) {
	t.Helper()
	a, err := fleet.ReadAccess(s.access)
	if err != nil {
		t.Fatal(err)
	}
	send := func(method, path, token string, body io.Reader) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, a.Address+path, body)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	for _, name := range []string{"plan", "join", "beat", "claim", "epoch", "end", "leave"} {
		path := "/v1/" + name
		for _, token := range []string{"", strings.Repeat("0", 64), a.Token + "0"} {
			if code, _ := send("POST", path, token, strings.NewReader("{}")); code != http.StatusUnauthorized {
				t.Errorf("%s with token %q: %d", path, token, code)
			}
		}
		if code, text := send("POST", path, a.Token, strings.NewReader("{")); code != http.StatusUnprocessableEntity {
			t.Errorf("%s with half a body: %d, %s", path, code, text)
		}
	}
	if code, _ := send("GET", "/v1/snapshot", "", nil); code != http.StatusUnauthorized {
		t.Errorf("a snapshot without token: %d", code)
	}
	code, text := send("POST", "/v1/beat", a.Token, io.LimitReader(endless{}, 2<<20))
	if code != http.StatusUnprocessableEntity || !strings.Contains(text, "too large") {
		t.Errorf("a body of two megabytes: %d, %s", code, text)
	}
	if code, _ := send("POST", "/v1/beat", a.Token, strings.NewReader(`{"worker": 3}`)); code != http.StatusGone {
		t.Errorf("a stranger's beat: %d", code)
	}
}

// endless is a body of spaces.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestUnreachable joins a coordinator that takes connections and says nothing.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	path := filepath.Join(t.TempDir(), "a.access")
	c := fleet.NewClient(fleet.ClientOptions{Access: path, Program: "v1"})
	for _, address := range []string{"", "http://" + silent.Addr().String(), "http://127.0.0.1:1"} {
		if address != "" {
			if err := (fleet.Access{Address: address, Token: fleet.NewToken()}).Write(path); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := c.Join(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("at %q: %v", address, err)
		}
	}
}

// TestAccess checks that only the owner of an access file can read the token in it.
func TestAccess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.access")
	a := fleet.Access{Address: "http://node1:8080", Token: fleet.NewToken()}
	if err := a.Write(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if got, err := fleet.ReadAccess(path); err != nil || got != a {
		t.Errorf("%+v, %v", got, err)
	}
	if token, err := fleet.TokenOf(path); err != nil || token != a.Token {
		t.Errorf("%q, %v", token, err)
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := a.Write(path); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if after, err := os.Stat(path); err != nil || !after.ModTime().Equal(info.ModTime()) {
		t.Error("it was written again")
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if token, err := fleet.TokenOf(path); err != nil || token == a.Token {
		t.Errorf("everyone could read the token %q, and it is kept: %v", token, err)
	}
	if err := a.Write(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a file that everyone could read has mode %v now, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("%v, %v; want the access file alone", files, err)
	}
	notes := filepath.Join(t.TempDir(), "notes.txt")
	for _, text := range []string{"", "{}", "my notes", `{"address": "node1", "token": "0123456789abcdef"}`,
		`{"address": "http://node1", "token": ""}`} {
		if err := os.WriteFile(notes, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if a, err := fleet.ReadAccess(notes); err == nil {
			t.Errorf("%q is access %+v", text, a)
		}
	}
	if err := os.WriteFile(notes, []byte("my notes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fleet.TokenOf(notes); err == nil || !strings.Contains(err.Error(), "not replaced") {
		t.Errorf("a file of somebody: %v", err)
	}
}

// TestKeepMissing: a coordinator ends when nobody can get its study any more.
func TestKeepMissing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.start()
	study, trials := small(t, 1)
	if _, err := c.Plan(t.Context(), study, trials); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Rename(t.Context(), study.Name, "other"); err != nil {
		t.Fatal(err)
	}
	const want = `study "small" was renamed or deleted while it was given out`
	if err := c.Keep(t.Context()); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
