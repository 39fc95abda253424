package fleet

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"igcsearch/search"
)

// Client is what a worker has of its coordinator: the Desk of a search.Runner. Its methods may
// be called concurrently.
type Client struct {
	o    ClientOptions
	join joinRequest
	// again is how long reports go straight to the outbox after the coordinator did not
	// answer. longest is the longest pause between two tries of a request that has to wait
	// for the coordinator.
	again, longest time.Duration

	// delivering keeps the reports of a worker in their order. It guards out and down.
	delivering sync.Mutex
	out        outbox
	down       time.Time // when the coordinator last did not answer; zero if it has answered since

	mu     sync.Mutex   // guards what follows
	access Access       // as it was last read
	reach  *http.Client // connects to access
	since  time.Time    // when people were told that the coordinator is out of reach; zero if it is not
	data   map[string]string
	over   string
	joined bool
}

// ClientOptions say who works and for whom.
type ClientOptions struct {
	Access  string         // the access file
	Program string         // version and commit
	Study   string         // the only study to work on; "" is any
	Attempt search.Attempt // the template of every attempt
	// Load reads the pictures of a study and returns their DataSum.
	Load func(ctx context.Context, s search.Study) (sum string, err error)
	// Outbox is the folder for reports that cannot be delivered. "" is a folder beside the
	// access file, where the coordinator finds the reports if the worker is gone.
	Outbox string
	// Note hears one line at a time, for people; it may be nil.
	Note func(string)
}

var _ search.Desk = (*Client)(nil)

// NewClient returns the client of a new worker. It sends nothing yet.
func NewClient(o ClientOptions) *Client {
	var random [8]byte
	crand.Read(random[:]) // never fails
	id := int64(binary.LittleEndian.Uint64(random[:])>>2) + 1
	if o.Note == nil {
		o.Note = func(string) {}
	}
	if o.Outbox == "" {
		o.Outbox = outboxes(o.Access)
	}
	c := &Client{o: o, again: 10 * time.Second, longest: 20 * time.Second, data: map[string]string{},
		out: outbox{dir: filepath.Join(o.Outbox, strconv.FormatInt(id, 36))}}
	c.join = joinRequest{Protocol: protocol, Program: o.Program, Study: o.Study,
		Worker: worker{ID: id, Host: o.Attempt.Host, PID: o.Attempt.PID, Job: o.Attempt.Job}}
	return c
}

// reach returns an HTTP client that also trusts the certificate of an access file. It uses no
// proxy of the environment, which is for the web: the coordinator is near.
func reach(certificate string) *http.Client {
	transport := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   4,
	}
	if certificate != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		roots.AppendCertsFromPEM([]byte(certificate))
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	return &http.Client{Transport: transport}
}

// unreachable marks the error of a request that may succeed later.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

// temporary reports whether a request that failed may succeed later.
func temporary(err error) bool {
	var r refusal
	if errors.As(err, &r) {
		return r.kind == kindTrouble || r.kind == kindToken || r.kind == kindStranger
	}
	return err != nil && errors.As(err, new(unreachable)) || kindOf(err) == kindTrouble
}

// post sends a request once and reads the answer into out.
func post(ctx context.Context, client *http.Client, a Access, path string, in, out any) error {
	var state []byte
	if e, ok := in.(epochRequest); ok {
		state, e.Checkpoint.State = e.Checkpoint.State, nil
		in = e
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if len(state) > 0 {
		body = slices.Concat(body, []byte("\n"), state)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.Address+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	return exchange(client, a, r, func(answer io.Reader) error { return json.NewDecoder(answer).Decode(out) })
}

// exchange sends a request with the token of the access file. It passes the answer to read, or
// returns the error that the coordinator answered with.
func exchange(client *http.Client, a Access, r *http.Request, read func(io.Reader) error) error {
	r.Header.Set("Authorization", "Bearer "+a.Token)
	answer, err := client.Do(r)
	if err != nil {
		return unreachable{err}
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusOK {
		if err := read(answer.Body); err != nil {
			return unreachable{fmt.Errorf("the answer of %s broke off: %w", a.Address, err)}
		}
		return nil
	}
	var p problem
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxBody)).Decode(&p); err != nil || p.Kind == "" {
		return unreachable{fmt.Errorf("%s answers %s", a.Address, answer.Status)} // it is no coordinator: a proxy
	}
	err = errors.New(p.Error)
	if p.Kind == kindSuperseded {
		return fmt.Errorf("%w (%w)", search.ErrSuperseded, err)
	}
	return refusal{p.Kind, err}
}

// once sends a request once: to the address that it knows, and if that does not answer, to the
// address in the access file. It joins again if the coordinator does not know this worker any
// more.
func (c *Client) once(ctx context.Context, path string, in, out any) error {
	c.mu.Lock()
	a, client := c.access, c.reach
	c.mu.Unlock()
	err := error(unreachable{errors.New("it has no address yet")})
	if a.Address != "" {
		err = post(ctx, client, a, path, in, out)
	}
	if temporary(err) && ctx.Err() == nil {
		now, e := ReadAccess(c.o.Access)
		if e != nil {
			return unreachable{e}
		}
		if now.Over != "" {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.over = now.Over
			return fmt.Errorf("%w: %s", search.ErrOver, now.Over)
		}
		if now != a {
			if client != nil {
				client.CloseIdleConnections()
			}
			a, client = now, reach(now.Certificate)
			c.mu.Lock()
			c.access, c.reach = a, client
			c.mu.Unlock()
			err = post(ctx, client, a, path, in, out)
		}
	}
	if r := (refusal{}); errors.As(err, &r) && r.kind == kindStranger && path != pathJoin {
		var joined joinAnswer
		if err := post(ctx, client, a, pathJoin, c.join, &joined); err != nil {
			return err
		}
		err = post(ctx, client, a, path, in, out)
	}
	return err
}

// insist sends a request until it is answered or refused for good, or until ctx ends.
func (c *Client) insist(ctx context.Context, path string, in, out any) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, c.longest) {
		err := c.once(ctx, path, in, out)
		c.tell(err)
		if err == nil || !temporary(err) {
			return err
		}
		// The random pause keeps many workers from coming back at the same moment.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(float64(pause) * (0.5 + rand.Float64()))):
		}
	}
}

// tell tells people when the coordinator is out of reach, and when it is back.
func (c *Client) tell(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil && temporary(err) && !errors.Is(err, context.Canceled):
		if c.since.IsZero() {
			c.since = time.Now()
			c.o.Note(fmt.Sprintf("cannot reach the coordinator of %s: %v; going on, and trying again",
				c.o.Access, err))
		}
	case !c.since.IsZero() && err == nil:
		c.o.Note(fmt.Sprintf("the coordinator is back after %v", time.Since(c.since).Round(time.Second)))
		c.since = time.Time{}
	}
}

// Join waits for the coordinator. It returns the studies of which this worker may get trials.
func (c *Client) Join(ctx context.Context) (studies []search.Study, err error) {
	var joined joinAnswer
	if err := c.insist(ctx, pathJoin, c.join, &joined); err != nil {
		return nil, c.refused(err)
	}
	c.mu.Lock()
	c.joined = true
	c.mu.Unlock()
	for _, sent := range joined.Studies {
		s, err := sent.received()
		if err != nil {
			return nil, err
		}
		studies = append(studies, s)
	}
	return studies, nil
}

// refused says so if the coordinator has refused this worker.
func (c *Client) refused(err error) error {
	if r := (refusal{}); errors.As(err, &r) {
		return fmt.Errorf("the coordinator of %s refuses this worker: %w", c.o.Access, err)
	}
	return err
}

// Reason says why there is nothing to do any more. It is "" as long as there may be something.
func (c *Client) Reason() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// Loaded notes which pictures this worker has for a study.
func (c *Client) Loaded(study, sum string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data[study] = sum
}

// Claim implements search.Desk. It waits as long as the coordinator is out of reach.
func (c *Client) Claim(ctx context.Context, ask search.Ask) (*search.Claim, time.Duration, error) {
	if err := c.flush(ctx, true); err != nil {
		return nil, 0, err
	}
	a := c.o.Attempt
	in := claimRequest{Worker: c.join.Worker.ID, Token: make([]byte, 16), Study: c.o.Study,
		Beside: ask.Beside, Left: ask.Left.Seconds(), Attempt: attempt{Commit: a.Commit, GoVersion: a.GoVersion,
			CPU: a.CPU, ISA: a.ISA, Device: a.Device, Args: a.Args}}
	crand.Read(in.Token) // never fails
	for {
		c.mu.Lock()
		in.Data = map[string]string{}
		for name, sum := range c.data {
			in.Data[name] = sum
		}
		c.mu.Unlock()
		var out claimAnswer
		err := c.insist(ctx, pathClaim, in, &out)
		if errors.Is(err, search.ErrSuperseded) {
			// The claim began, but its answer was so late that others have the trial now.
			crand.Read(in.Token)
			continue
		}
		if err != nil {
			return nil, 0, c.refused(err)
		}
		switch {
		case out.Attempt > 0 && out.Trial != nil:
			return c.began(out, in.Token)
		case out.Load:
			s, err := out.Study.received()
			if err != nil {
				return nil, 0, err
			}
			sum, err := c.o.Load(ctx, s)
			if err != nil {
				return nil, 0, err
			}
			c.Loaded(s.Name, sum)
		case out.Over != "":
			c.mu.Lock()
			defer c.mu.Unlock()
			c.over = out.Over
			return nil, 0, fmt.Errorf("%w: %s", search.ErrOver, out.Over)
		default:
			// The random wait keeps many workers from asking at the same moment.
			return nil, time.Duration(out.Wait * (0.5 + rand.Float64()) * float64(time.Second)), nil
		}
	}
}

// began returns the claim that an answer holds.
func (c *Client) began(out claimAnswer, token []byte) (claim *search.Claim, wait time.Duration, err error) {
	claim = &search.Claim{ID: out.Attempt, Note: out.Note, Until: out.Until, Company: out.Company, Most: out.Most}
	if claim.Study, err = out.Study.received(); err != nil {
		return nil, 0, err
	}
	if claim.Trial, err = out.Trial.received(); err != nil {
		return nil, 0, err
	}
	if out.From != nil {
		claim.From = &search.Checkpoint{Epoch: out.From.Epoch, State: out.From.State}
	}
	claim.Handle = attemptThere{c, report{c.join.Worker.ID, claim.Study.Name, claim.Trial.ID, claim.ID, token}}
	return claim, 0, nil
}

// attemptThere is the search.Handle of an attempt that the coordinator began.
type attemptThere struct {
	c *Client
	report
}

// Record implements search.Handle. An epoch that cannot be delivered now waits in the outbox,
// and the training goes on.
func (h attemptThere) Record(ctx context.Context, e search.Epoch, state search.Checkpoint) error {
	var out epochAnswer
	in := epochRequest{h.report, e, checkpoint{state.Epoch, state.State}}
	if err := h.c.bring(ctx, pathEpoch, in, &out); err != nil {
		return err
	}
	if out.Stop != "" {
		return fmt.Errorf("%w: %s", search.ErrStop, out.Stop)
	}
	return nil
}

// End implements search.Handle. If the end has to wait in the outbox, the status is the one
// that the worker reports.
func (h attemptThere) End(ctx context.Context, o search.Outcome) (search.Status, error) {
	out := endAnswer{Status: o.Status}
	err := h.c.bring(ctx, pathEnd, endRequest{h.report, o.Status, o.Failure, o.Message, o.Retries, o.Most}, &out)
	return out.Status, err
}

// bring delivers a report after those that wait in the outbox, or lets it wait there.
func (c *Client) bring(ctx context.Context, path string, in, out any) error {
	c.delivering.Lock()
	defer c.delivering.Unlock()
	if c.out.next > 0 || !c.down.IsZero() {
		c.flushLocked(ctx) // an error does not matter: c.out.next and c.down say whether reports still wait
	}
	if c.out.next == 0 && c.down.IsZero() {
		send, cancel := context.WithTimeout(ctx, patience)
		err := c.once(send, path, in, out)
		cancel()
		c.tell(err)
		if !temporary(err) {
			return err
		}
		c.down = time.Now()
	}
	return c.out.put(path, in, c.join)
}

// patience is how long a training waits for an epoch to be delivered.
const patience = time.Minute

// flush delivers the reports that wait in the outbox. If it must, it tries until all are
// delivered or ctx ends.
func (c *Client) flush(ctx context.Context, must bool) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, c.longest) {
		c.delivering.Lock()
		if must {
			c.down = time.Time{}
		}
		err := c.flushLocked(ctx)
		c.delivering.Unlock()
		if err == nil || !must {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(float64(pause) * (0.5 + rand.Float64()))):
		}
	}
}

// flushLocked is one try of flush. c.delivering is held.
func (c *Client) flushLocked(ctx context.Context) error {
	// Trainings do not wait again for a coordinator that did not answer a moment ago.
	if !c.down.IsZero() && time.Since(c.down) < c.again {
		return unreachable{errors.New("it did not answer just now")}
	}
	if c.out.next > 0 {
		err := deliver(c.out.dir, func(l letter) error {
			send, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			// Three tries: one request that the network loses must not hold up all others.
			err := c.once(send, l.Path, l.Body, new(struct{}))
			for try := 1; try < 3 && temporary(err) && send.Err() == nil; try++ {
				err = c.once(send, l.Path, l.Body, new(struct{}))
			}
			return err
		}, c.o.Note)
		c.tell(err)
		if err != nil {
			c.down = time.Now()
			return err
		}
		c.out.clear()
		c.out.next = 0
	}
	c.down = time.Time{}
	return nil
}

// Beat implements search.Desk. It also delivers the reports that wait.
func (c *Client) Beat(ctx context.Context) (time.Duration, error) {
	const every = 20 * time.Second // a third of a lease
	err := c.once(ctx, pathBeat, beatRequest{c.join.Worker.ID}, new(struct{}))
	c.tell(err)
	if err == nil {
		err = c.flush(ctx, false)
	}
	if temporary(err) {
		return c.again / 2, nil // tell has told people
	}
	return every, err
}

// Leave tells the coordinator that this worker ends, so that its trials go to others. It
// returns the folder of the outbox if reports stay there because they could not be delivered
// until ctx ended; else "".
func (c *Client) Leave(ctx context.Context) (left string) {
	c.mu.Lock()
	known := c.joined
	c.mu.Unlock()
	if !known {
		return ""
	}
	if c.flush(ctx, true) == nil {
		// All is delivered. Without this message others get the open trials a lease later.
		brief, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		c.insist(brief, pathLeave, beatRequest{c.join.Worker.ID}, new(struct{}))
		return ""
	}
	names, err := letters(c.out.dir)
	if err != nil || len(names) == 0 {
		return ""
	}
	if err := writeWhole(filepath.Join(c.out.dir, "left"), time.Now()); err != nil {
		c.o.Note(err.Error())
	}
	return c.out.dir
}

// running reads an access file. It returns an error if its coordinator has ended for good.
func running(access string) (Access, error) {
	a, err := ReadAccess(access)
	if err == nil && a.Over != "" {
		err = fmt.Errorf("the coordinator of %s has ended: %s", access, a.Over)
	}
	return a, err
}

// Answers reports whether a coordinator answers at the address and takes the token.
func Answers(ctx context.Context, a Access) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := post(ctx, reach(a.Certificate), a, pathBeat, beatRequest{}, new(struct{}))
	var r refusal
	return errors.As(err, &r) && r.kind == kindStranger
}

// Tell makes a coordinator plan a study and give out its trials. It returns all trials of the
// study, as the coordinator's database has them.
func Tell(ctx context.Context, access, program string, s search.Study, trials []search.Trial) ([]search.Trial, error) {
	a, err := running(access)
	if err != nil {
		return nil, err
	}
	in := planRequest{Program: program, Study: sentStudy(s)}
	for _, t := range trials {
		in.Trials = append(in.Trials, sentTrial(t))
	}
	var out planAnswer
	if err := post(ctx, reach(a.Certificate), a, pathPlan, in, &out); err != nil {
		return nil, fmt.Errorf("tell the coordinator of %s about study %s: %w", access, s.Name, err)
	}
	var planned []search.Trial
	for _, sent := range out.Trials {
		t, err := sent.received()
		if err != nil {
			return nil, err
		}
		planned = append(planned, t)
	}
	return planned, nil
}

// Snapshot writes a copy of a coordinator's database to a new file. The file is not synced, and
// an error leaves a part of it: callers make it in a temporary folder.
func Snapshot(ctx context.Context, access, path string) error {
	a, err := running(access)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.Address+pathSnapshot, nil)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	err = exchange(reach(a.Certificate), a, r, func(answer io.Reader) error {
		_, err := io.Copy(f, answer)
		return err
	})
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		err = fmt.Errorf("copy the database of the coordinator of %s: %w", access, err)
	}
	if errors.As(err, new(unreachable)) {
		err = fmt.Errorf("%w: is it running?", err)
	}
	return err
}
