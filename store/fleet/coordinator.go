package fleet

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-sqlite3"

	"igcsearch/search"
	"igcsearch/search/regular"
	"igcsearch/search/strategy"
	"igcsearch/store"
	"igcsearch/store/download"
)

// Coordinator gives the trials of a database's studies to workers on other machines, and
// stores what they report. All that matters is in the database, so that another Coordinator
// can go on where this one ended.
type Coordinator struct {
	db      *store.DB
	token   string
	program string
	access  string // its file
	wait    time.Duration
	note    func(string)
	copies  *download.Sender // of the database

	ending atomic.Bool // set by End: the database may be closed while a request uses it

	claiming sync.Mutex // lets one claim in at a time: one that was sent twice must not get two trials
	mu       sync.Mutex // guards what follows
	studies  []*search.Dispatch
}

// Options of a Coordinator.
type Options struct {
	DB      *store.DB
	Access  string // the access file; the outboxes of workers are beside it
	Token   string // the token in the access file
	Program string // version and commit; workers of another program are refused
	// Wait is how long a worker waits before it asks again; 0 is two seconds.
	Wait time.Duration
	// Note hears one line at a time, for people; it may be nil.
	Note func(string)
}

// These bound the commands that read through an access file at once, and the different copies of
// the database that they receive.
const mostReaders, mostCopies = 200, 20

// NewCoordinator returns a coordinator that gives out the studies that the database names as
// given out.
func NewCoordinator(ctx context.Context, o Options) (*Coordinator, error) {
	c := &Coordinator{db: o.DB, token: o.Token, program: o.Program, access: o.Access, wait: o.Wait, note: o.Note,
		copies: download.NewSender(mostReaders, mostCopies)}
	if c.wait == 0 {
		c.wait = 2 * time.Second
	}
	if c.note == nil {
		c.note = func(string) {}
	}
	studies, err := c.db.GivenOut(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range studies {
		stored, err := c.db.Read(ctx, s.Name)
		if err != nil {
			return nil, err
		}
		trials := make([]search.Trial, len(stored.Trials))
		for i, t := range stored.Trials {
			trials[i] = t.Trial
		}
		if _, err := c.give(ctx, s, trials); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Plan stores a study and gives out its trials from now on, after a restart too.
func (c *Coordinator) Plan(ctx context.Context, s search.Study, trials []search.Trial) ([]search.Trial, error) {
	planned, err := c.give(ctx, s, trials)
	if err == nil {
		err = c.db.GiveOut(ctx, s.Name, s.Run())
	}
	return planned, err
}

// give plans a study and gives out its trials until this Coordinator ends.
func (c *Coordinator) give(ctx context.Context, s search.Study, trials []search.Trial) (
	planned []search.Trial, err error) {
	decides, err := strategy.New(s)
	if err != nil {
		return nil, err
	}
	d, err := search.NewDispatch(ctx, c.db, s, decides, trials, func(e search.Event) {
		if e.Kind == search.Planned {
			planned = e.Trials
		}
	})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.IndexFunc(c.studies, func(d *search.Dispatch) bool { return d.Study().Name == s.Name }); i >= 0 {
		c.studies[i] = d
	} else {
		c.studies = append(c.studies, d)
	}
	return planned, nil
}

// dispatches returns the Dispatch of a study as a list, which is empty if the study is not
// given out. It returns those of all studies for "".
func (c *Coordinator) dispatches(name string) (list []*search.Dispatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.studies {
		if name == "" || d.Study().Name == name {
			list = append(list, d)
		}
	}
	return list
}

// Over reports whether all studies are over and all workers have left. Then failed is the
// number of trials that failed, and reasons says of each study why it is over.
func (c *Coordinator) Over(ctx context.Context) (over bool, failed int, reasons []string, err error) {
	for _, d := range c.dispatches("") {
		over, reason, err := d.Over(ctx)
		if !over || err != nil {
			return false, 0, nil, err
		}
		reasons = append(reasons, d.Study().Name+": "+reason)
		failed += d.Summary().Failed
	}
	there, err := c.Manned(ctx)
	return err == nil && !there, failed, reasons, err
}

// Manned reports whether the coordinator has a worker.
func (c *Coordinator) Manned(ctx context.Context) (bool, error) {
	workers, err := c.db.Workers(ctx)
	return slices.ContainsFunc(workers, func(w store.WorkerTrial) bool { return w.Remote }), err
}

// End answers all requests from now on with kindTrouble, those under way too. The workers
// send them again, to the coordinator that is there then.
func (c *Coordinator) End() { c.ending.Store(true) }

// Keep extends the leases of the workers and delivers what lies in the outboxes of workers
// that are gone, until ctx ends. It returns an error if the database is not any more what was
// opened, or if a study that is given out was renamed or deleted: then nothing can be stored.
func (c *Coordinator) Keep(ctx context.Context) error {
	last := ""
	for ctx.Err() == nil {
		next, err := c.db.Beat(ctx)
		if errors.Is(err, search.ErrGone) {
			return err
		}
		if err := c.missing(ctx); err != nil {
			return err
		}
		if err == nil {
			err = c.Sweep(ctx)
		}
		text := ""
		if err != nil && ctx.Err() == nil {
			text = err.Error()
		}
		if text != last && text != "" {
			c.note(text)
		}
		last = text
		select {
		case <-ctx.Done():
		case <-time.After(max(next, time.Millisecond)):
		}
	}
	return nil
}

// missing returns an error if a study that is given out is not stored any more.
func (c *Coordinator) missing(ctx context.Context) error {
	for _, d := range c.dispatches("") {
		name := d.Study().Name
		if _, _, err := c.db.Poll(ctx, name, math.MaxInt64); errors.Is(err, store.ErrNoStudy) {
			return fmt.Errorf("study %q was renamed or deleted while it was given out", name)
		}
	}
	return nil
}

// Sweep stores the reports that lie in the outboxes of workers that are gone.
func (c *Coordinator) Sweep(ctx context.Context) error {
	dirs, err := os.ReadDir(outboxes(c.access))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error // a damaged outbox does not hold up the others
	for _, d := range dirs {
		dir := filepath.Join(outboxes(c.access), d.Name())
		if err := c.sweep(ctx, dir); err != nil {
			errs = append(errs, fmt.Errorf("deliver the reports in %s: %w: fix or remove the folder", dir, err))
		}
	}
	return errors.Join(errs...)
}

// sweep stores the reports in one outbox, unless its worker is there to deliver them.
func (c *Coordinator) sweep(ctx context.Context, dir string) error {
	text, err := regular.ReadUnlinked(filepath.Join(dir, "worker.json"), maxBody)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the outbox is about to be made or removed
	}
	var w joinRequest
	if err == nil {
		err = json.Unmarshal(text, &w)
	}
	if err != nil {
		return err
	}
	_, err = os.Stat(filepath.Join(dir, "left"))
	left := err == nil
	if !left {
		if present, err := c.db.Present(ctx, w.Worker.ID); present || err != nil {
			return err // a worker that is there delivers its reports itself
		}
	}
	if w.Program != c.program {
		return fmt.Errorf("they are of a worker of version %s, and this is %s: start a coordinator of that version",
			w.Program, c.program)
	}
	if err := c.db.Admit(ctx, w.Worker.received()); err != nil {
		return err
	}
	n := 0
	err = deliver(dir, func(l letter) error {
		n++
		switch l.Path {
		case pathEpoch:
			var r epochRequest
			if err := json.Unmarshal(l.Body, &r); err != nil {
				return err
			}
			_, err := c.epoch(ctx, r)
			return err
		case pathEnd:
			var r endRequest
			if err := json.Unmarshal(l.Body, &r); err != nil {
				return err
			}
			_, err := c.end(ctx, r)
			return err
		}
		return fmt.Errorf("a request to %s does not belong into an outbox", l.Path)
	}, c.note)
	// A worker that did not say that it left may only be out of reach and still train. Its
	// attempt stays open for a lease, and is lost then if the worker does not come back.
	if left {
		if e := c.db.Dismiss(ctx, w.Worker.ID); err == nil {
			err = e
		}
	}
	if err == nil {
		(&outbox{dir: dir}).clear()
		c.note(fmt.Sprintf("delivered %d reports that the worker %s, process %d, had left in %s",
			n, w.Worker.Host, w.Worker.PID, dir))
	}
	return err
}

// Register adds the coordinator's paths to a server. The server limits how long an answer takes, as
// download.Steady does.
func (c *Coordinator) Register(mux *http.ServeMux) {
	mux.Handle("POST "+pathPlan, handle(c, maxPlanBody, finished(c.plan)))
	mux.Handle("POST "+pathJoin, handle(c, maxBody, finished(c.join)))
	mux.Handle("POST "+pathBeat, handle(c, maxBody, finished(c.beat)))
	mux.Handle("POST "+pathClaim, handle(c, maxBody, c.claim))
	mux.Handle("POST "+pathEpoch, handle(c, maxEpochBody, finished(c.epoch)))
	mux.Handle("POST "+pathEnd, handle(c, maxBody, finished(c.end)))
	mux.Handle("POST "+pathLeave, handle(c, maxBody, finished(c.leave)))
	mux.HandleFunc("GET "+pathSnapshot, c.snapshot)
}

// PageKey returns the key that a browser gets once it has shown the token. The key opens the
// page and nothing else.
func (c *Coordinator) PageKey() string {
	mac := hmac.New(sha256.New, []byte(c.token))
	mac.Write([]byte("page"))
	return hex.EncodeToString(mac.Sum(nil))
}

// Admits reports whether a text is the token. It takes the same time for any text.
func (c *Coordinator) Admits(token string) bool {
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(c.token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// authorised returns an error if a request does not have the token.
func (c *Coordinator) authorised(r *http.Request) error {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || !c.Admits(token) {
		return refusal{kindToken, errors.New("the token is not that of the access file")}
	}
	return nil
}

// refusal is an error with its kind, one of the constants kind….
type refusal struct {
	kind string
	error
}

func (r refusal) Unwrap() error { return r.error }

// These errors say why a coordinator refuses a worker.
var (
	ErrNoStudy  = errors.New("the coordinator does not give out the study")
	ErrPictures = errors.New("the worker has other pictures than the study")
)

// Is reports whether the kind of a refusal is that of an error above.
func (r refusal) Is(target error) bool {
	return r.kind == kindNoStudy && target == ErrNoStudy || r.kind == kindPictures && target == ErrPictures
}

// statusOf maps the kinds of errors to HTTP codes.
var statusOf = map[string]int{
	kindToken:      http.StatusUnauthorized,
	kindStranger:   http.StatusGone,
	kindRefused:    http.StatusForbidden,
	kindNoStudy:    http.StatusForbidden,
	kindPictures:   http.StatusForbidden,
	kindSuperseded: http.StatusConflict,
	kindInvalid:    http.StatusUnprocessableEntity,
	kindTrouble:    http.StatusServiceUnavailable,
}

// kindOf returns the kind of an error of the store or of a Dispatch.
func kindOf(err error) string {
	var r refusal
	switch {
	case errors.As(err, &r):
		return r.kind
	case errors.Is(err, search.ErrSuperseded):
		return kindSuperseded
	case errors.As(err, new(sqlite3.Error)), errors.As(err, new(*fs.PathError)),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return kindTrouble
	}
	return kindInvalid
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	kind := kindOf(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf[kind])
	json.NewEncoder(w).Encode(problem{kind, err.Error()}) // an error means that nobody waits for the answer
}

var errEnding = errors.New("the coordinator is ending")

const (
	transfer = 5 * time.Minute  // the longest time that a body may take to come in
	unknown  = 10 * time.Second // the longest time that a request without the token holds a connection
)

// handle serves one path: it reads a JSON body of at most so many bytes, calls f, and writes
// what f returns as JSON. The context of f ends when nobody waits for the answer any more.
func handle[In, Out any](c *Coordinator, most int64, f func(context.Context, In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		control.SetReadDeadline(time.Now().Add(unknown)) // the server also waits for bodies that it refuses
		if err := c.authorised(r); err != nil {
			refuse(w, err)
			return
		}
		control.SetReadDeadline(time.Now().Add(transfer)) // an error is impossible: our servers have deadlines
		var in In
		err := read(http.MaxBytesReader(w, r.Body, most), &in)
		if err != nil {
			refuse(w, refusal{kindInvalid, fmt.Errorf("the request's body: %w", err)})
			return
		}
		var out Out
		if err = errEnding; !c.ending.Load() {
			out, err = f(r.Context(), in)
		}
		if err != nil && c.ending.Load() {
			err = refusal{kindTrouble, err}
		}
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(out)
	})
}

// read reads the JSON of a request, and the bytes of a checkpoint that may follow an epoch.
func read(body io.Reader, in any) error {
	d := json.NewDecoder(body)
	if err := d.Decode(in); err != nil {
		return err
	}
	e, isEpoch := in.(*epochRequest)
	if !isEpoch {
		_, err := io.Copy(io.Discard, body)
		return err
	}
	var rest bytes.Buffer
	_, err := rest.ReadFrom(io.MultiReader(d.Buffered(), body))
	if err == nil && rest.Len() > 1 {
		e.Checkpoint.State = rest.Bytes()[1:] // after the newline
	}
	return err
}

// finished returns f with a context that does not end: what f has begun is finished even if
// nobody waits for the answer any more.
func finished[In, Out any](f func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	return func(ctx context.Context, in In) (Out, error) { return f(context.WithoutCancel(ctx), in) }
}

// ofThisProgram refuses a program of another version than the coordinator's.
func (c *Coordinator) ofThisProgram(program string) error {
	if program != c.program {
		return refusal{kindRefused, fmt.Errorf("it is another version, %s, and the coordinator is %s: "+
			"results would not be comparable: use the same program for both", program, c.program)}
	}
	return nil
}

func (c *Coordinator) plan(ctx context.Context, in planRequest) (out planAnswer, err error) {
	if err := c.ofThisProgram(in.Program); err != nil {
		return out, err
	}
	s, err := in.Study.received()
	if err != nil {
		return out, err
	}
	var trials []search.Trial
	for _, sent := range in.Trials {
		t, err := sent.received()
		if err != nil {
			return out, err
		}
		trials = append(trials, t)
	}
	var changes []string
	if stored, err := c.db.Read(ctx, s.Name); err == nil {
		changes = search.Changes(stored.Study, s)
	}
	planned, err := c.Plan(ctx, s, trials)
	if errors.As(err, new(*store.ConflictError)) || errors.As(err, new(*store.BusyError)) {
		return out, refusal{kindRefused, err}
	}
	for _, t := range planned {
		out.Trials = append(out.Trials, sentTrial(t))
	}
	if err == nil {
		c.note(strings.Join(append([]string{fmt.Sprintf("study %s is given out, %d trials", s.Name, len(planned))},
			changes...), "; "))
	}
	return out, err
}

func (c *Coordinator) join(ctx context.Context, in joinRequest) (out joinAnswer, err error) {
	if in.Protocol != protocol {
		return out, refusal{kindRefused, fmt.Errorf("it speaks protocol %d, and the coordinator speaks %d: "+
			"use the same program for both", in.Protocol, protocol)}
	}
	if err := c.ofThisProgram(in.Program); err != nil {
		return out, err
	}
	list := c.dispatches(in.Study)
	if in.Study != "" && len(list) == 0 {
		var names []string
		for _, d := range c.dispatches("") {
			names = append(names, d.Study().Name)
		}
		return out, refusal{kindNoStudy, fmt.Errorf("study %q is not given out here; there are: %s",
			in.Study, strings.Join(names, ", "))}
	}
	if err := c.db.Admit(ctx, in.Worker.received()); err != nil {
		return out, err
	}
	out.Studies = []*study{}
	for _, d := range list {
		out.Studies = append(out.Studies, sentStudy(d.Study()))
	}
	return out, nil
}

// present notes that a worker is alive. It refuses one that has not joined.
func (c *Coordinator) present(id int64) error {
	if !c.db.Heard(id) {
		return refusal{kindStranger, errors.New("the coordinator does not know the worker")}
	}
	return nil
}

func (c *Coordinator) beat(_ context.Context, in beatRequest) (struct{}, error) {
	return struct{}{}, c.present(in.Worker)
}

func (c *Coordinator) claim(ctx context.Context, in claimRequest) (out claimAnswer, err error) {
	if err := c.present(in.Worker); err != nil {
		return out, err
	}
	if len(in.Token) != 16 {
		return out, refusal{kindInvalid, errors.New("the token of a claim has 16 bytes")}
	}
	c.claiming.Lock()
	defer c.claiming.Unlock()
	if err := ctx.Err(); err != nil { // the worker gave up, and has asked again
		return out, err
	}
	ctx = context.WithoutCancel(ctx)
	// This may be a copy of a claim that has begun: its answer may have been lost.
	name, begun, err := c.db.Begun(ctx, in.Worker, in.Token)
	if err != nil {
		return out, err
	}
	if begun.ID > 0 {
		for _, d := range c.dispatches(name) {
			begun.Study, begun.Company = d.Study(), true
			return claimed(&begun), nil
		}
	}
	by, err := c.db.Admitted(in.Worker)
	if err != nil {
		return out, err
	}
	a := in.Attempt
	w := search.Worker{Beginner: c.db.Beginner(in.Worker, in.Token), ISA: a.ISA, Attempt: search.Attempt{
		Commit: a.Commit, GoVersion: a.GoVersion, CPU: a.CPU, ISA: a.ISA, Device: a.Device, Args: a.Args,
		Host: by.Host, PID: by.PID, Job: by.Job,
	}}
	var reasons []string
	list := c.dispatches(in.Study)
	waiting := len(list) == 0 // without a study, the worker waits until one is planned
	for _, d := range list {
		s := d.Study()
		sum, loaded := in.Data[s.Name]
		if !loaded {
			if over, _, err := d.Over(ctx); err == nil && !over {
				return claimAnswer{Study: sentStudy(s), Load: true}, nil
			}
		} else if sum != s.DataSum {
			return out, refusal{kindPictures, fmt.Errorf("its pictures are others than those of study %s "+
				"(checksum %.12s, want %.12s)", s.Name, sum, s.DataSum)}
		}
		ask := search.Ask{Beside: in.Beside, Left: time.Duration(in.Left * float64(time.Second))}
		claim, _, err := d.Claim(ctx, w, ask)
		switch {
		case claim != nil:
			return claimed(claim), nil
		case errors.Is(err, search.ErrOver), errors.Is(err, search.ErrAlike):
			reasons = append(reasons, s.Name+": "+strings.TrimPrefix(err.Error(), search.ErrOver.Error()+": "))
		case err != nil:
			return out, err
		default:
			waiting = true
		}
	}
	if waiting {
		return claimAnswer{Wait: c.wait.Seconds()}, nil
	}
	return claimAnswer{Over: strings.Join(reasons, "; ")}, nil
}

// claimed returns the answer that holds a claim.
func claimed(c *search.Claim) claimAnswer {
	t := sentTrial(c.Trial)
	out := claimAnswer{Attempt: c.ID, Note: c.Note, Trial: &t, Until: c.Until, Company: c.Company, Most: c.Most,
		Study: sentStudy(c.Study)}
	if c.From != nil {
		out.From = &checkpoint{c.From.Epoch, c.From.State}
	}
	return out
}

// handle returns the handle of the attempt that a report is of.
func (c *Coordinator) handle(r report) (search.Handle, error) {
	if r.Study != "" {
		for _, d := range c.dispatches(r.Study) {
			return d.Handle(r.Trial, c.db.Handle(r.Worker, r.Token, r.Attempt)), nil
		}
	}
	return nil, refusal{kindInvalid, fmt.Errorf("study %q is not given out here", r.Study)}
}

func (c *Coordinator) epoch(ctx context.Context, in epochRequest) (out epochAnswer, err error) {
	if err := c.present(in.Worker); err != nil {
		return out, err
	}
	h, err := c.handle(in.report)
	if err != nil {
		return out, err
	}
	err = h.Record(ctx, in.Epoch, search.Checkpoint{Epoch: in.Checkpoint.Epoch, State: in.Checkpoint.State})
	if errors.Is(err, search.ErrStop) {
		return epochAnswer{Stop: err.Error()}, nil
	}
	return out, err
}

func (c *Coordinator) end(ctx context.Context, in endRequest) (out endAnswer, err error) {
	if err := c.present(in.Worker); err != nil {
		return out, err
	}
	h, err := c.handle(in.report)
	if err != nil {
		return out, err
	}
	out.Status, err = h.End(ctx, in.outcome())
	return out, err
}

func (c *Coordinator) leave(ctx context.Context, in beatRequest) (struct{}, error) {
	return struct{}{}, c.db.Dismiss(ctx, in.Worker)
}

// snapshot answers with a copy of the database without checkpoints, for commands that read it.
func (c *Coordinator) snapshot(w http.ResponseWriter, r *http.Request) {
	if err := c.authorised(r); err != nil {
		refuse(w, err)
		return
	}
	mark, err := c.db.Mark(r.Context())
	if err == nil {
		w.Header().Set("Content-Type", "application/vnd.sqlite3")
		err = c.copies.Send(w, r, mark, c.db.SnapshotResults)
	}
	if err != nil {
		refuse(w, refusal{kindTrouble, err})
	}
}
