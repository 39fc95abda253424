package spool

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"igcsearch/search"
	"igcsearch/space"
)

// ownAttempt is an open one of this process.
type ownAttempt struct {
	t      *trial
	n      int
	epoch  int // the last that is stored
	epochs int // of the whole training
}

// attemptID is Claim.ID of attempt n.
func attemptID(trial int64, n int) int64 { return trial<<20 | int64(n) }

// Begin implements search.Store. A checkpoint that is not what was stored is left
// out, with all that was recorded after the one before; the Claim says so.
func (f *Folder) Begin(_ context.Context, id int64, until int, a search.Attempt) (search.Claim, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fail := func(err error) (search.Claim, error) {
		if errors.Is(err, search.ErrTaken) {
			return search.Claim{}, fmt.Errorf("begin trial %d in spool %s: %w", id, f.dir, err)
		}
		return search.Claim{}, explain(fmt.Sprintf("begin trial %d in", id), f.dir, err)
	}
	if id < 1 || id > int64(len(f.trials)) {
		return search.Claim{}, fmt.Errorf("begin trial %d in spool %s: there is no such trial", id, f.dir)
	}
	if err := f.join(); err != nil {
		return fail(err)
	}
	t := f.trials[id-1]
	if err := os.Mkdir(t.dir, 0o777); err == nil {
		err = syncFolder(filepath.Dir(t.dir))
		if err != nil {
			return fail(err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return fail(err)
	}
	if err := t.list(); err != nil {
		return fail(err)
	}
	pending := func() error {
		if s := t.look(f.lost).Status; s != search.Pending {
			return fmt.Errorf("it is %s, want %s: %w", s, search.Pending, search.ErrTaken)
		}
		return nil
	}
	if err := pending(); err != nil {
		return fail(err)
	}
	n := t.newest + 1
	if err := os.Mkdir(filepath.Join(t.dir, number(n)), 0o777); errors.Is(err, fs.ErrExist) {
		return fail(fmt.Errorf("it is %s, want %s: %w", search.Running, search.Pending, search.ErrTaken))
	} else if err != nil {
		return fail(err)
	}
	// Claimed; what was reported until now counts, and nothing later does.
	if err := t.list(); err != nil {
		return fail(err)
	}
	if t.newest > n {
		return fail(fmt.Errorf("another worker was faster: %w", search.ErrTaken))
	}
	before, lost := t.current(), ""
	if before > 0 {
		switch u := t.attempts[before]; {
		case u.end == nil:
			lost = cmp.Or(f.lost[u.begin.Worker], "another worker went on with the trial")
		case u.end.Stands != search.Pending && t.look(nil).Status == u.end.Stands:
			return fail(fmt.Errorf("it is %s, want %s: %w", u.end.Stands, search.Pending, search.ErrTaken))
		}
	}
	from, note, err := t.sound(before)
	if err != nil {
		return fail(err)
	}
	_, by, _ := t.curve(before)
	if from != nil {
		for _, k := range by[:from.Epoch] {
			if isa := t.attempts[k].begin.ISA; isa != "" && a.ISA != "" && isa != a.ISA {
				from, note = nil, fmt.Sprintf("its epochs are of %s, this is %s, with other bits: it starts anew", isa, a.ISA)
				break
			}
		}
	}
	b := beginFile{Worker: f.id, Until: min(until, t.state.Epochs), From: []segment{}, Note: note, Lost: lost, Started: a.Started, Commit: a.Commit, Go: a.GoVersion,
		CPU: a.CPU, ISA: a.ISA, Device: a.Device, Host: a.Host, PID: a.PID, Args: append([]string{}, a.Args...), Job: a.Job}
	if b.Started.IsZero() {
		b.Started = time.Now()
	}
	if from != nil {
		b.From = segments(by[:from.Epoch])
	}
	token := make([]byte, 16)
	crand.Read(token) // never fails
	b.Token = hex.EncodeToString(token)
	content, err := seal(b)
	if err != nil {
		return fail(err)
	}
	if err = put(t.file(n, "begin.json"), content); err == nil {
		err = syncFolder(t.dir)
	}
	if e := t.list(); err == nil {
		err = e
	}
	if t.newest > n { // this process stood still for a lease; then also what it wrote may be gone
		return fail(fmt.Errorf("another worker was faster: %w", search.ErrTaken))
	}
	if err != nil {
		return fail(err)
	}
	tidy(t)
	own := &ownAttempt{t: t, n: n, epochs: t.state.Epochs}
	if from != nil {
		own.epoch = from.Epoch
	}
	f.own[attemptID(id, n)] = own
	return search.Claim{Handle: handle{f, attemptID(id, n)}, ID: attemptID(id, n), From: from, Note: note}, nil
}

// tidy removes the temporary files of workers that were killed while they wrote. A worker that
// lives may lose one too: it is superseded, and finds that out when it cannot rename the file.
func tidy(t *trial) {
	entries, _ := os.ReadDir(t.dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			os.Remove(filepath.Join(t.dir, e.Name()))
		}
	}
}

// find returns an open attempt of this process. f.mu is held.
func (f *Folder) find(id int64) (*ownAttempt, error) {
	own := f.own[id]
	if own == nil {
		return nil, fmt.Errorf("attempt %d is no open one of this process", id)
	}
	return own, nil
}

// superseded looks for a newer claim, and keeps err if there is none.
func (f *Folder) superseded(own *ownAttempt, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := own.t.list(); e != nil && err == nil {
		return e
	}
	if own.t.newest > own.n {
		return fmt.Errorf("attempt %d has begun: %w", own.t.newest, search.ErrSuperseded)
	}
	return err
}

// handle is the search.Handle of an attempt of this process.
type handle struct {
	f  *Folder
	id int64
}

// Record implements search.Handle. The epoch must follow the last one stored. It
// returns when the data are on the disk.
func (h handle) Record(_ context.Context, e search.Epoch, c search.Checkpoint) error {
	f, id := h.f, h.id
	fail := func(err error) error {
		if errors.Is(err, search.ErrSuperseded) {
			return fmt.Errorf("record epoch %d of attempt %d in spool %s: %w", e.Number, id, f.dir, err)
		}
		return explain(fmt.Sprintf("record epoch %d of attempt %d in", e.Number, id), f.dir, err)
	}
	f.mu.Lock()
	own, err := f.find(id)
	if err == nil {
		switch {
		case e.Number != own.epoch+1:
			err = fmt.Errorf("want epoch %d, the one after the last stored", own.epoch+1)
		case e.Number > own.epochs:
			err = fmt.Errorf("the training has %d epochs", own.epochs)
		case c.Epoch != e.Number:
			err = fmt.Errorf("its checkpoint is of epoch %d", c.Epoch)
		}
	}
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("record epoch %d of attempt %d in spool %s: %w", e.Number, id, f.dir, err)
	}
	t := own.t
	content, err := seal(newEpochFile(e, c.State))
	if err == nil {
		err = put(t.file(own.n, state(e.Number)), c.State)
	}
	if err == nil { // the epoch says what the state is: behind it
		err = put(t.file(own.n, "epoch-"+number(e.Number)+".json"), content)
	}
	if err == nil {
		err = syncFolder(t.dir)
	}
	if err := f.superseded(own, err); err != nil {
		return fail(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	own.epoch = e.Number
	keep := []int{e.Number, e.Number - 1}
	if f.study.KeepBest {
		epochs, _, _ := t.curve(own.n)
		keep = append(keep, best(epochs))
	}
	f.prune(own, keep)
	return nil
}

// prune takes the states of a curve away but those of some epochs, and those that
// older attempts left. An error does not matter: they only take room. f.mu is
// held.
func (f *Folder) prune(own *ownAttempt, keep []int) {
	_, by, _ := own.t.curve(own.n)
	for n, u := range own.t.attempts {
		for epoch := range u.states {
			if n > own.n || slices.Contains(keep, epoch) && epoch <= len(by) && by[epoch-1] == n {
				continue
			}
			os.Remove(own.t.file(n, state(epoch)))
		}
	}
}

// End implements search.Handle. Done needs all epochs stored. Of a message longer
// than 4000 characters the middle is left out.
func (h handle) End(_ context.Context, o search.Outcome) (search.Status, error) {
	f, id := h.f, h.id
	fail := func(err error) (search.Status, error) {
		if errors.Is(err, search.ErrSuperseded) {
			return "", fmt.Errorf("end attempt %d in spool %s: %w", id, f.dir, err)
		}
		return "", explain(fmt.Sprintf("end attempt %d in", id), f.dir, err)
	}
	f.mu.Lock()
	own, err := f.find(id)
	if err == nil {
		switch o.Status {
		case search.Done:
			if own.epoch < own.epochs {
				err = fmt.Errorf("the trial has %d of %d epochs", own.epoch, own.epochs)
			}
		case search.Diverged, search.Failed, search.Pending:
		default:
			err = fmt.Errorf("no attempt ends as %q", o.Status)
		}
	}
	f.mu.Unlock()
	if err != nil {
		return "", fmt.Errorf("end attempt %d in spool %s: %w", id, f.dir, err)
	}
	if err := f.superseded(own, nil); err != nil {
		return fail(err)
	}
	t := own.t
	end := endFile{Status: o.Status, Stands: o.Status, Failure: o.Failure, Message: search.Bounded(o.Message), Time: time.Now()}
	f.mu.Lock()
	if o.Failure != "" && o.Status == search.Failed && t.failures(o.Failure)+1 <= o.Retries {
		end.Stands = search.Pending
	}
	f.mu.Unlock()
	content, err := seal(end)
	if err == nil {
		err = put(t.file(own.n, "end.json"), content)
	}
	if err == nil {
		err = syncFolder(t.dir)
	}
	// One that is pending again may have been claimed by now, as it should.
	if err != nil || end.Stands != search.Pending {
		if err := f.superseded(own, err); err != nil {
			return fail(err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.own, id)
	if end.Stands.Finished() && !f.study.KeepCheckpoints {
		var keep []int
		if f.study.KeepBest {
			epochs, _, _ := t.curve(own.n)
			keep = append(keep, best(epochs))
		}
		f.prune(own, keep)
	}
	return end.Stands, nil
}

// Retry makes planned trials pending again that have one of the statuses, Failed
// or Diverged, and that match, and forgets how often they failed. It returns
// them as they stood. Workers that have seen a trial diverge leave it to those
// that start later.
func (f *Folder) Retry(_ context.Context, statuses []search.Status, match func(space.System, int) bool) (again []search.Trial, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.trials {
		if err := t.list(); err != nil {
			return again, explain("retry trials of", f.dir, err)
		}
		s := t.look(f.lost)
		if s.Status != search.Failed && s.Status != search.Diverged || !slices.Contains(statuses, s.Status) || !match(s.System, s.Seed) {
			continue
		}
		// An attempt that trains nothing; it ends before it can be lost.
		n, before := t.newest+1, t.current()
		b := beginFile{Worker: f.id, Retry: true, Until: len(s.History), From: []segment{}, Started: time.Now(), Args: []string{}}
		if _, by, _ := t.curve(before); s.Status == search.Failed {
			b.From = segments(by)
		}
		begin, err1 := seal(b)
		end, err2 := seal(endFile{Status: search.Pending, Stands: search.Pending, Time: time.Now()})
		err := errors.Join(err1, err2, os.Mkdir(filepath.Join(t.dir, number(n)), 0o777))
		if errors.Is(err, fs.ErrExist) { // by another who asks the same
			continue
		}
		if err == nil {
			err = put(t.file(n, "end.json"), end)
		}
		if err == nil {
			err = put(t.file(n, "begin.json"), begin)
		}
		if err == nil {
			err = syncFolder(t.dir)
		}
		if err != nil {
			return again, explain("retry trials of", f.dir, err)
		}
		again = append(again, s.Trial)
	}
	return again, nil
}

// Poll implements search.Store.
func (f *Folder) Poll(ctx context.Context, study string, since int64) (changed []search.TrialState, moment int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if study != f.study.Name {
		return nil, since, fmt.Errorf("read study %q in spool %s: it is not planned", study, f.dir)
	}
	if err := f.join(); err != nil {
		return nil, since, explain("join", f.dir, err)
	}
	if err := f.update(ctx); err != nil {
		return nil, since, explain("read", f.dir, err)
	}
	for _, t := range f.trials {
		if t.changed > since || since == 0 {
			s := t.state
			s.History = slices.Clone(s.History)
			changed = append(changed, s)
		}
	}
	return changed, f.moment, nil
}

// update reads what is new. Trials that nobody began have no folder, and those
// that have their result are not looked at again. f.mu is held.
func (f *Folder) update(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(f.dir, "trials"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil || id < 1 || id > len(f.trials) {
			continue
		}
		if t := f.trials[id-1]; !t.final {
			if err := t.list(); err != nil {
				return err
			}
		}
	}
	if err := f.watch(); err != nil {
		return err
	}
	f.moment = max(f.moment, 1) // 0 asks for all
	moved := false
	for _, t := range f.trials {
		if t.final || t.newest == 0 {
			continue
		}
		s := t.look(f.lost)
		if s.Status != t.state.Status || s.Epoch != t.state.Epoch || s.Error != t.state.Error || s.Failure != t.state.Failure ||
			s.Last != t.state.Last && s.Last.TrainLoss == s.Last.TrainLoss {
			if !moved {
				moved = true
				f.moment++
			}
			t.changed = f.moment
		}
		t.state, t.final = s, s.Status.Finished()
	}
	return nil
}
