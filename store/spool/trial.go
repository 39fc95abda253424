package spool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"igcsearch/search"
	"igcsearch/search/regular"
)

// trial is what this process knows of a trial's folder.
type trial struct {
	dir      string
	files    map[string]bool  // names of the files that were read; states are not
	attempts map[int]*attempt // by number
	newest   int              // number of the newest claim
	final    bool             // the trial has its result: nothing that is written later matters
	broken   string           // why its folder cannot be used, "" if it can
	notes    *notes
	changed  int64 // moment of the last change
	state    search.TrialState
}

// attempt is what this process knows of an attempt.
type attempt struct {
	begin  *beginFile         // nil if begin.json is missing or damaged
	epochs map[int]*epochFile // by number; damaged ones are left out
	most   int                // the last epoch that was written, even if it is damaged
	states map[int]bool       // by epoch: whether there is a state after it
	end    *endFile           // nil as long as the attempt is open
}

// list reads what is new in the folder of a trial. The folder may be missing. What does not fit
// is left out, with a note.
func (t *trial) list() error {
	entries, err := os.ReadDir(t.dir)
	t.broken = ""
	if errors.Is(err, fs.ErrNotExist) {
		if _, there := os.Lstat(t.dir); there == nil {
			err = errContent // a link that leads nowhere
		} else {
			return nil
		}
	}
	if err != nil && unfit(err) {
		t.broken = fmt.Sprintf("the folder %s cannot be used (%v): remove what lies there", shown(t.dir), reason(err))
		return nil
	}
	if err != nil {
		return err
	}
	for _, u := range t.attempts {
		clear(u.states)
	}
	for n, files := range t.fitting(entries) {
		u := t.attempts[n]
		if u == nil {
			u = &attempt{epochs: map[int]*epochFile{}, states: map[int]bool{}}
			t.attempts[n] = u
		}
		for _, e := range files {
			if err := t.take(n, u, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// fitting groups the files of a trial by their attempts, and counts the claims that follow the
// newest one without a gap. A listing may lack a file that is there, so it asks for the claims
// that a later one seems to follow.
func (t *trial) fitting(entries []os.DirEntry) map[int][]os.DirEntry {
	by, most := map[int][]os.DirEntry{}, 0
	for _, e := range entries {
		head, _, _ := strings.Cut(e.Name(), ".")
		n, ok := parseNumber(head)
		if ok {
			by[n], most = append(by[n], e), max(most, n)
		} else if head != "" { // temporary files begin with a dot
			t.notes.leftOut(filepath.Join(t.dir, e.Name()), errName)
		}
	}
	for t.newest < most {
		next := t.newest + 1
		if _, err := os.Lstat(t.claimPath(next)); by[next] == nil && err != nil {
			break
		}
		t.newest = next
	}
	for n, files := range by {
		if n > t.newest {
			t.notes.leftOut(filepath.Join(t.dir, files[0].Name()),
				fmt.Errorf("the newest attempt is %d, and its number does not follow", t.newest))
			delete(by, n)
		}
	}
	return by
}

var errName = errors.New("no file of a spool has such a name")

// take reads a file of an attempt if it is new, and leaves it out if it does not fit.
func (t *trial) take(n int, u *attempt, e os.DirEntry) error {
	name, path := e.Name(), filepath.Join(t.dir, e.Name())
	_, kind, _ := strings.Cut(name, ".")
	if of, ok := strings.CutPrefix(kind, "state-"); ok {
		epoch, ok := parseNumber(of)
		switch {
		case !ok || epoch > t.state.Epochs:
			t.notes.leftOut(path, errName)
		case !e.Type().IsRegular():
			t.notes.leftOut(path, regular.ErrKind)
		default:
			u.states[epoch] = true
		}
		return nil
	}
	if t.files[name] {
		return nil
	}
	err := t.read(n, u, path, kind)
	switch {
	case err == nil:
		t.files[name] = true
	case errors.Is(err, fs.ErrNotExist): // another process has removed it since
	case unfit(err):
		t.notes.leftOut(path, err)
		// What can be read now will not change, because nothing is replaced.
		t.files[name] = errors.Is(err, errContent) || errors.Is(err, ErrDamaged)
	default:
		return err
	}
	return nil
}

// read reads a file of attempt n.
func (t *trial) read(n int, u *attempt, path, kind string) error {
	of, isEpoch := strings.CutPrefix(strings.TrimSuffix(kind, ".json"), "epoch-")
	switch {
	case kind == "": // the claim
		return nil
	case kind == "begin.json":
		var b beginFile
		err := readSealed(path, maxFile, &b)
		if err == nil {
			err = b.check(n, t.state.Epochs)
		}
		for k, other := range t.attempts {
			if err == nil && !b.Retry && k != n && other.begin != nil && other.begin.Token == b.Token {
				err = fmt.Errorf("%w: it has the token of attempt %d", errContent, k)
			}
		}
		if err == nil {
			u.begin = &b
		}
		return err
	case kind == "end.json":
		var end endFile
		err := readSealed(path, maxFile, &end)
		if err == nil {
			err = end.check()
		}
		if errors.Is(err, ErrDamaged) || errors.Is(err, errContent) { // it has ended, but nobody knows how
			end = endFile{Status: search.Pending, Stands: search.Pending, Failure: search.FailedInterrupted,
				Message: fmt.Sprintf("its end.json is damaged (%v)", err)}
		} else if err != nil {
			return err
		}
		u.end = &end
		return err
	case isEpoch && strings.HasSuffix(kind, ".json"):
		epoch, ok := parseNumber(of)
		if !ok || epoch > t.state.Epochs {
			return fmt.Errorf("%w: %w", errContent, errName)
		}
		u.most = max(u.most, epoch)
		var e epochFile
		err := readSealed(path, maxFile, &e)
		if err == nil {
			err = e.check(t.state.Epochs)
		}
		if err == nil && e.Epoch.Number != epoch {
			err = fmt.Errorf("%w: it is of epoch %d", errContent, e.Epoch.Number)
		}
		if err == nil {
			u.epochs[epoch] = &e
		}
		return err
	}
	return fmt.Errorf("%w: %w", errContent, errName)
}

// current returns the number of the newest attempt with a begin.json, or 0 if there is none.
func (t *trial) current() int {
	for n := t.newest; n > 0; n-- {
		if u := t.attempts[n]; u != nil && u.begin != nil {
			return n
		}
	}
	return 0
}

// history returns the epochs of an attempt's history up to the first that is missing or
// damaged. by says which attempt measured each, and last is the number of the last epoch that
// should be there.
func (t *trial) history(n int) (epochs []*epochFile, by []int, last int) {
	u := t.attempts[n]
	if u == nil || u.begin == nil {
		return nil, nil, 0
	}
	holder := func(epoch int) int {
		for _, s := range u.begin.From {
			if epoch <= s.Until {
				return s.Attempt
			}
		}
		return n
	}
	if k := len(u.begin.From); k > 0 {
		last = u.begin.From[k-1].Until
	}
	last = max(last, u.most)
	for i := 1; i <= last; i++ {
		h := t.attempts[holder(i)]
		if h == nil || h.begin == nil || h.epochs[i] == nil {
			break
		}
		epochs, by = append(epochs, h.epochs[i]), append(by, holder(i))
	}
	return epochs, by, last
}

// look works out how the trial stands. lost names the workers and claims that are lost.
func (t *trial) look(lost map[string]string) search.TrialState {
	s := search.TrialState{Trial: t.state.Trial}
	s.Status, s.Error, s.Failure, s.Epoch, s.Last = search.Pending, "", "", 0, search.Epoch{}
	n := t.current()
	epochs, _, _ := t.history(n)
	for _, e := range epochs {
		s.History = append(s.History, e.Epoch)
	}
	if k := len(s.History); k > 0 {
		s.Last, s.Epoch = s.History[k-1], k
	}
	running := false
	if n > 0 {
		switch u := t.attempts[n]; {
		case u.end == nil:
			running = t.newest == n && lost[u.begin.Worker] == ""
		case u.end.Stands == search.Done && len(s.History) < s.Epochs:
			// An epoch is damaged, so the trial is pending and trains it again.
		default:
			s.Status = u.end.Stands
			if s.Status == search.Failed || s.Status == search.Diverged {
				s.Failure, s.Error = u.end.Failure, search.LastLine(u.end.Message)
			}
		}
	}
	if t.newest > n && s.Status == search.Pending {
		running = lost[t.claim()] == "" // somebody claimed it a moment ago
	}
	if running {
		s.Status = search.Running
		if u := t.attempts[t.newest]; u != nil && u.begin != nil { // else it was claimed a moment ago
			s.Until = u.begin.Until
		}
	}
	return s
}

// claim returns the name of the newest claim as Folder.lost has it.
func (t *trial) claim() string { return filepath.Base(t.dir) + "/" + number(t.newest) }

// ended returns how an attempt ended. It returns nil if the attempt did not end before another
// took its place, and then why it was taken for lost.
func (t *trial) ended(n int) (end *endFile, lost string) {
	for next := n + 1; next <= t.newest; next++ {
		if u := t.attempts[next]; u != nil && u.begin != nil {
			if u.begin.Lost != "" {
				return nil, u.begin.Lost // an end that its worker wrote later does not count
			}
			break
		}
	}
	return t.attempts[n].end, ""
}

// counted returns the last of an attempt's epochs that the next attempt goes on from. Without a
// next attempt all epochs count.
func (t *trial) counted(n int) (until int) {
	for next := n + 1; next <= t.newest; next++ {
		if u := t.attempts[next]; u != nil && u.begin != nil {
			for _, s := range u.begin.From {
				if s.Attempt == n {
					until = s.Until
				}
			}
			return until
		}
	}
	return t.state.Epochs
}

// failures counts how often the trial failed in one way since people last asked for another
// try.
func (t *trial) failures(kind search.Failure) (n int) {
	for k := t.newest; k > 0; k-- {
		u := t.attempts[k]
		if u == nil || u.begin == nil {
			continue
		}
		if u.begin.Retry {
			break
		}
		if end, _ := t.ended(k); end != nil && end.Failure == kind {
			n++
		}
	}
	return n
}

// sound returns the newest checkpoint of an attempt's history that is not damaged, or nil. note
// tells people what was left out, in the words of package store.
func (t *trial) sound(n int) (from *search.Checkpoint, note string, err error) {
	epochs, by, last := t.history(n)
	why := fmt.Sprintf("it has no checkpoint after epoch %d", last)
	if len(epochs) < last {
		why = fmt.Sprintf("it has %d of %d epochs", len(epochs), last)
	}
	for i := len(epochs); i > 0 && from == nil; i-- {
		c, damaged, err := t.checkpoint(epochs[i-1], by[i-1])
		if err != nil {
			return nil, "", err
		}
		if damaged && i == last {
			why = fmt.Sprintf("its checkpoint after epoch %d is damaged (the checksum does not fit)", i)
		}
		from = c
	}
	switch {
	case from == nil && last == 0:
		return nil, "", nil
	case from == nil:
		return nil, why + ": it starts anew", nil
	case from.Epoch == last:
		return from, "", nil
	}
	return from, fmt.Sprintf("%s: it goes on after epoch %d", why, from.Epoch), nil
}

// checkpoint reads the state after an epoch. It returns nil if the state is damaged or missing.
func (t *trial) checkpoint(e *epochFile, by int) (c *search.Checkpoint, damaged bool, err error) {
	if !t.attempts[by].states[e.Epoch.Number] {
		return nil, false, nil
	}
	content, err := read(t.file(by, state(e.Epoch.Number)), maxState)
	if errors.Is(err, fs.ErrNotExist) { // its worker has gone on and removed it
		return nil, false, nil
	}
	if err != nil && unfit(err) {
		t.notes.leftOut(t.file(by, state(e.Epoch.Number)), err)
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != e.State {
		return nil, true, nil
	}
	return &search.Checkpoint{Epoch: e.Epoch.Number, State: content}, false, nil
}

// file returns the path of a file of an attempt. kind is "begin.json", "end.json",
// "epoch-0001.json" or "state-0001".
func (t *trial) file(attempt int, kind string) string {
	return filepath.Join(t.dir, number(attempt)+"."+kind)
}

// state returns the kind of the file that holds the state after an epoch.
func state(epoch int) string { return "state-" + number(epoch) }

// best returns the number of the epoch with the best validation accuracy, the first of several;
// 0 if no epoch has one.
func best(epochs []*epochFile) (number int) {
	most := -1
	for _, e := range epochs {
		if e.Epoch.ValidationTotal > 0 && e.Epoch.ValidationCorrect > most {
			number, most = e.Epoch.Number, e.Epoch.ValidationCorrect
		}
	}
	return number
}

// segments returns the segments of a history. by says which attempt measured each epoch.
func segments(by []int) (list []segment) {
	for i, n := range by {
		if k := len(list); k > 0 && list[k-1].Attempt == n {
			list[k-1].Until = i + 1
			continue
		}
		list = append(list, segment{Attempt: n, Until: i + 1})
	}
	return list
}

// Snapshot is a spool that was opened for reading.
type Snapshot struct {
	Study  search.Study
	Trials []search.Trial // as planned, in the order of the plan
	dir    string
	trials []*trial
}

// Read opens a spool for reading only. Workers may go on writing into it. note hears, once each,
// what is left out; it may be nil.
func Read(dir string, note func(string)) (*Snapshot, error) {
	file, err := readStudy(dir)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{dir: dir}
	if s.Study, err = file.read(dir); err != nil {
		return nil, err
	}
	left := newNotes(note)
	for i, f := range file.Trials {
		t, err := newTrial(dir, i, f, left)
		if err != nil {
			return nil, fmt.Errorf("read spool %s: %w", dir, err)
		}
		s.trials, s.Trials = append(s.trials, t), append(s.Trials, t.state.Trial)
	}
	return s, nil
}

// Load reads trial i of the plan as it stands now, with its checkpoints if states is set.
func (s *Snapshot) Load(i int, states bool) (search.Record, error) {
	t := s.trials[i]
	for try := range 10 {
		if err := t.list(); err != nil {
			return search.Record{}, explain("read", s.dir, err)
		}
		if t.broken != "" {
			t.notes.leftOut(t.dir, errors.New(t.broken))
		}
		l, n := t.load()
		epochs, by, last := t.history(n)
		// The listing of a folder that a worker writes to may lack a file and have a later one.
		// Look again; a damaged file stays damaged.
		moved := len(epochs) < last && try < 2
		if !moved && (!states || len(epochs) == 0) {
			return l, nil
		}
		for k := len(epochs); k > max(0, len(epochs)-2); k-- {
			there := t.attempts[by[k-1]].states[k]
			c, damaged, err := t.checkpoint(epochs[k-1], by[k-1])
			if err != nil {
				return search.Record{}, explain("read", s.dir, err)
			}
			if c != nil {
				l.Checkpoints = append(l.Checkpoints, *c)
			}
			moved = moved || there && c == nil && !damaged
		}
		if k := best(epochs); k > 0 {
			var err error
			if l.Best, _, err = t.checkpoint(epochs[k-1], by[k-1]); err != nil {
				return search.Record{}, explain("read", s.dir, err)
			}
		}
		if !moved { // else its worker removed a state after it was listed
			return l, nil
		}
	}
	return search.Record{}, fmt.Errorf("read spool %s: trial %s changes faster than it can be read: try again",
		s.dir, filepath.Base(t.dir))
}

// load puts together what list read; n is the number of the newest attempt.
func (t *trial) load() (l search.Record, n int) {
	l.TrialState, l.Failures = t.look(nil), map[search.Failure]int{}
	n = t.current()
	at := map[int]int{}
	for _, k := range slices.Sorted(maps.Keys(t.attempts)) {
		u := t.attempts[k]
		if u.begin == nil || u.begin.Retry || k > n {
			continue
		}
		a := search.PastAttempt{Attempt: u.begin.attempt(), Ended: u.begin.Started, Message: u.begin.Note}
		a.Token, _ = hex.DecodeString(u.begin.Token)
		until := t.counted(k)
		for _, e := range u.epochs {
			if e.Epoch.Number <= until && e.Time.After(a.Ended) {
				a.Ended = e.Time
			}
		}
		switch end, lost := t.ended(k); {
		case lost != "":
			a.Ending, a.Failure = search.EndedLost, search.FailedLost
			a.Message = strings.TrimSpace(u.begin.Note + "\n" + lost)
		case end != nil:
			a.Ended, a.Failure = end.Time, end.Failure
			a.Message = strings.TrimSpace(u.begin.Note + "\n" + end.Message)
			a.Ending = search.Outcome{Status: end.Status, Failure: end.Failure}.Ending()
		}
		at[k] = len(l.Attempts)
		l.Attempts = append(l.Attempts, a)
		if n := t.failures(a.Failure); a.Failure != "" && n > 0 {
			l.Failures[a.Failure] = n
		}
		l.Until = u.begin.Until
	}
	_, by, _ := t.history(n)
	for _, k := range by {
		l.By = append(l.By, at[k])
	}
	return l, n
}
