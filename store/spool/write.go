package spool

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"igcsearch/search"
	"igcsearch/space"
)

// ownAttempt is an attempt of this process that is open.
type ownAttempt struct {
	t      *trial
	n      int
	epoch  int // the last epoch that is stored
	epochs int // of the whole training
}

// attemptID returns the Claim.ID of attempt n at a trial.
func attemptID(trial int64, n int) int64 { return trial<<20 | int64(n) }

// Begin implements search.Store. It leaves out a checkpoint whose checksum does not fit, with
// all that was recorded after the checkpoint before it. Claim.Note says so.
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
	n, err := f.claim(t)
	if err != nil {
		return fail(err)
	}
	b, from, err := f.beginning(t, a)
	if err != nil {
		return fail(err)
	}
	b.Until = min(until, t.state.Epochs)
	path := t.file(n, "begin.json")
	content, err := seal(path, b)
	if err != nil {
		return fail(err)
	}
	if err = put(path, content); err == nil {
		err = syncFolder(t.dir)
	}
	if e := t.list(); err == nil {
		err = e
	}
	// A newer claim means that this process stood still for a lease. Then what it wrote may be
	// gone too, so this error comes first.
	if t.newest > n {
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
	return search.Claim{Handle: handle{f, attemptID(id, n)}, ID: attemptID(id, n), From: from, Note: b.Note}, nil
}

// claim makes the claim of the next attempt at a trial and returns the attempt's number. It
// returns ErrTaken (wrapped) if the trial is not pending. f.mu is held.
func (f *Folder) claim(t *trial) (n int, err error) {
	if err := os.Mkdir(t.dir, 0o777); err == nil {
		if err := syncFolder(filepath.Dir(t.dir)); err != nil {
			return 0, err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return 0, err
	}
	if err := t.list(); err != nil {
		return 0, err
	}
	if s := f.stand(t).Status; s != search.Pending {
		return 0, fmt.Errorf("it is %s, want %s: %w", s, search.Pending, search.ErrTaken)
	}
	n = t.newest + 1
	if err := os.Mkdir(filepath.Join(t.dir, number(n)), 0o777); errors.Is(err, fs.ErrExist) {
		return 0, fmt.Errorf("it is %s, want %s: %w", search.Running, search.Pending, search.ErrTaken)
	} else if err != nil {
		return 0, err
	}
	// What was reported until now counts, and nothing that is reported later.
	if err := t.list(); err != nil {
		return 0, err
	}
	if t.newest > n {
		return 0, fmt.Errorf("another worker was faster: %w", search.ErrTaken)
	}
	return n, nil
}

// beginning works out what an attempt goes on from, once its claim is made. It returns the
// attempt's begin.json, without Until, and the checkpoint. f.mu is held.
func (f *Folder) beginning(t *trial, a search.Attempt) (b beginFile, from *search.Checkpoint, err error) {
	before := t.current()
	if before > 0 {
		switch u := t.attempts[before]; {
		case u.end == nil:
			b.Lost = cmp.Or(f.lost[u.begin.Worker], "another worker went on with the trial")
		case u.end.Stands != search.Pending && t.look(nil).Status == u.end.Stands:
			return b, nil, fmt.Errorf("it is %s, want %s: %w", u.end.Stands, search.Pending, search.ErrTaken)
		}
	}
	from, b.Note, err = t.sound(before)
	if err != nil {
		return b, nil, err
	}
	_, by, _ := t.history(before)
	if from != nil {
		for _, k := range by[:from.Epoch] {
			if isa := t.attempts[k].begin.ISA; isa != "" && a.ISA != "" && isa != a.ISA {
				from = nil
				b.Note = fmt.Sprintf("its epochs are of %s, this is %s, with other bits: it starts anew", isa, a.ISA)
				break
			}
		}
	}
	b.From = []segment{}
	if from != nil {
		b.From = segments(by[:from.Epoch])
	}
	token := make([]byte, 16)
	crand.Read(token) // never fails
	b.Worker, b.Token, b.Started = f.id, hex.EncodeToString(token), a.Started
	if b.Started.IsZero() {
		b.Started = time.Now()
	}
	b.Commit, b.Go, b.CPU, b.ISA, b.Device = a.Commit, a.GoVersion, a.CPU, a.ISA, a.Device
	b.Host, b.PID, b.Args, b.Job = a.Host, a.PID, append([]string{}, a.Args...), a.Job
	return b, from, nil
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
		return nil, fmt.Errorf("attempt %d is not open in this process", id)
	}
	return own, nil
}

// superseded returns ErrSuperseded (wrapped) if there is a newer claim, and else err.
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

// Record implements search.Handle. The epoch must follow the last one that is stored. Record
// returns once the data are on the disk.
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
	path := t.file(own.n, "epoch-"+number(e.Number)+".json")
	content, err := seal(path, newEpochFile(e, c.State))
	if err == nil { // without it nobody can read what is written here
		_, err = os.Stat(filepath.Join(f.dir, "study.json"))
	}
	if err == nil {
		err = put(t.file(own.n, state(e.Number)), c.State)
	}
	if err == nil { // after the state, because it holds the state's checksum
		err = put(path, content)
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
		epochs, _, _ := t.history(own.n)
		keep = append(keep, best(epochs))
	}
	f.prune(own, keep)
	return nil
}

// prune removes the states of an attempt's history, except those after the epochs to keep, and
// the states that older attempts left. It ignores errors, because a state that stays only
// takes room. f.mu is held.
func (f *Folder) prune(own *ownAttempt, keep []int) {
	_, by, _ := own.t.history(own.n)
	for n, u := range own.t.attempts {
		for epoch := range u.states {
			if n > own.n || slices.Contains(keep, epoch) && epoch <= len(by) && by[epoch-1] == n {
				continue
			}
			os.Remove(own.t.file(n, state(epoch)))
		}
	}
}

// End implements search.Handle. An attempt ends as Done only if all epochs are stored. End cuts
// the message by search.Bounded.
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
	end := endFile{Status: o.Status, Stands: o.Status, Failure: o.Failure,
		Message: search.Bounded(o.Message), Time: time.Now()}
	f.mu.Lock()
	if o.Failure != "" && o.Status == search.Failed && t.failures(o.Failure)+1 <= o.Retries {
		end.Stands = search.Pending
	}
	f.mu.Unlock()
	path := t.file(own.n, "end.json")
	content, err := seal(path, end)
	if err == nil {
		err = put(path, content)
	}
	if err == nil {
		err = syncFolder(t.dir)
	}
	// A newer claim is an error, unless the trial is pending again: then others may claim it.
	if err != nil || end.Stands != search.Pending {
		if err := f.superseded(own, err); err != nil {
			return fail(err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.own, id)
	if end.Stands.Finished() {
		var keep []int
		if f.study.KeepCheckpoints {
			keep = append(keep, own.epoch)
		}
		if f.study.KeepBest {
			epochs, _, _ := t.history(own.n)
			keep = append(keep, best(epochs))
		}
		f.prune(own, keep)
		f.makeRoom(own.t)
	}
	return end.Stands, nil
}

// makeRoom removes states of finished trials, from the first trial of the plan on, until those
// that are left are within the quota. The states of last, which has just ended, stay. It ignores
// errors as prune does. f.mu is held.
func (f *Folder) makeRoom(last *trial) {
	type kept struct {
		of    *attempt
		epoch int
		file  string
	}
	var list []kept // that may go
	total := int64(0)
	for _, t := range f.trials {
		if f.quota == 0 || !t.final && t != last {
			continue
		}
		for _, n := range slices.Sorted(maps.Keys(t.attempts)) {
			for epoch := range t.attempts[n].states {
				k := kept{t.attempts[n], epoch, t.file(n, state(epoch))}
				if _, known := f.sizes[k.file]; !known || t == last {
					f.sizes[k.file] = 0
					if info, err := os.Stat(k.file); err == nil {
						f.sizes[k.file] = info.Size()
					}
				}
				if total += f.sizes[k.file]; t != last {
					list = append(list, k)
				}
			}
		}
	}
	for _, k := range list {
		if total <= f.quota {
			return
		}
		os.Remove(k.file)
		total -= f.sizes[k.file]
		delete(f.sizes, k.file)
		delete(k.of.states, k.epoch)
	}
}

// Retry makes planned trials pending again and forgets how often they failed. It takes the
// trials that match and that have one of the statuses, Failed or Diverged, and returns them as
// they stood before. A worker that has seen a trial diverge does not look at the trial again:
// only workers that start later train it.
func (f *Folder) Retry(_ context.Context, statuses []search.Status, match func(space.System, int) bool) (
	again []search.Trial, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.trials {
		if err := t.list(); err != nil {
			return again, explain("retry trials of", f.dir, err)
		}
		s := f.stand(t)
		if t.broken != "" || s.Status != search.Failed && s.Status != search.Diverged ||
			!slices.Contains(statuses, s.Status) || !match(s.System, s.Seed) {
			continue
		}
		// This attempt trains nothing. Its end is written first, so it cannot be lost.
		n, before := t.newest+1, t.current()
		b := beginFile{Worker: f.id, Retry: true, Until: len(s.History), From: []segment{},
			Started: time.Now(), Args: []string{}}
		if _, by, _ := t.history(before); s.Status == search.Failed {
			b.From = segments(by)
		}
		begin, err1 := seal(t.file(n, "begin.json"), b)
		end, err2 := seal(t.file(n, "end.json"),
			endFile{Status: search.Pending, Stands: search.Pending, Time: time.Now()})
		err := errors.Join(err1, err2, os.Mkdir(filepath.Join(t.dir, number(n)), 0o777))
		if errors.Is(err, fs.ErrExist) { // another process retries the trial
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

// stand returns how a trial stands. A trial whose folder cannot be used has failed, as long as
// that is so. f.mu is held.
func (f *Folder) stand(t *trial) search.TrialState {
	s := t.look(f.lost)
	if t.broken != "" {
		s.Status, s.Failure, s.Error = search.Failed, search.FailedCrashed, t.broken
	}
	return s
}

// Poll implements search.Store.
func (f *Folder) Poll(ctx context.Context, study string, since int64) (
	changed []search.TrialState, moment int64, err error) {
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

// update reads what is new in the folder. A trial that nobody began has no folder, and a trial
// that has its result is not read again. f.mu is held.
func (f *Folder) update(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(f.dir, "trials"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, ok := parseNumber(e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if !ok || id > len(f.trials) {
			f.notes.leftOut(filepath.Join(f.dir, "trials", e.Name()), errName)
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
	f.moment = max(f.moment, 1) // Poll takes 0 as a request for all trials
	moved := false
	for _, t := range f.trials {
		if t.final || t.newest == 0 && t.broken == "" && t.state.Status == search.Pending {
			continue
		}
		s := f.stand(t)
		old := t.state
		if s.Status != old.Status || s.Epoch != old.Epoch || s.Error != old.Error || s.Failure != old.Failure ||
			s.Last != old.Last && s.Last.TrainLoss == s.Last.TrainLoss { // a NaN is not a change
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
