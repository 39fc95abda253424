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
	"strconv"
	"strings"
	"time"

	"igcsearch/search"
)

// trial is what is known of a trial's folder.
type trial struct {
	dir      string
	files    map[string]bool  // that were seen; all but states were read
	attempts map[int]*attempt // by number
	newest   int              // claim
	final    bool             // it has its result: nothing that comes matters
	changed  int64            // moment of the last change
	state    search.TrialState
}

// attempt is what is known of an attempt.
type attempt struct {
	begin  *beginFile         // nil: not there, or damaged
	epochs map[int]*epochFile // sound ones
	most   int                // the last that was written, sound or not
	states map[int]bool
	end    *endFile // nil: open
}

// list reads what is new in the folder of a trial. A folder that is missing has
// nothing.
func (t *trial) list() error {
	entries, err := os.ReadDir(t.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, u := range t.attempts {
		clear(u.states)
	}
	for _, e := range entries {
		name := e.Name()
		head, rest, _ := strings.Cut(name, ".")
		n, err := strconv.Atoi(head)
		if err != nil || n < 1 {
			continue // a temporary one
		}
		u := t.attempts[n]
		if u == nil {
			u = &attempt{epochs: map[int]*epochFile{}, states: map[int]bool{}}
			t.attempts[n] = u
			t.newest = max(t.newest, n)
		}
		if of, ok := strings.CutPrefix(rest, "state-"); ok {
			if epoch, err := strconv.Atoi(of); err == nil {
				u.states[epoch] = true
			}
			continue
		}
		if t.files[name] {
			continue
		}
		if err := u.read(filepath.Join(t.dir, name), rest); err != nil {
			return err
		}
		t.files[name] = true
	}
	return nil
}

// read takes one file in; one that is damaged is left out.
func (u *attempt) read(path, kind string) error {
	switch {
	case kind == "begin.json":
		var b beginFile
		damaged, err := readSealed(path, &b)
		if err == nil && !damaged {
			u.begin = &b
		}
		return err
	case kind == "end.json":
		e := endFile{}
		damaged, err := readSealed(path, &e)
		if damaged { // it ended, nobody knows how
			e = endFile{Status: search.Pending, Stands: search.Pending, Failure: search.FailedInterrupted, Message: "its end.json is damaged (the checksum does not fit)"}
		}
		if err == nil {
			u.end = &e
		}
		return err
	case strings.HasPrefix(kind, "epoch-"):
		if n, err := strconv.Atoi(strings.TrimSuffix(kind[len("epoch-"):], ".json")); err == nil {
			u.most = max(u.most, n)
		}
		var e epochFile
		damaged, err := readSealed(path, &e)
		if err == nil && !damaged && kind == "epoch-"+number(e.Epoch.Number)+".json" {
			u.epochs[e.Epoch.Number] = &e
		}
		return err
	}
	return nil
}

// current is the newest attempt with a begin.json, 0 if there is none.
func (t *trial) current() int {
	for n := t.newest; n > 0; n-- {
		if u := t.attempts[n]; u != nil && u.begin != nil {
			return n
		}
	}
	return 0
}

// curve returns the epochs of an attempt as far as all are sound, whose they are,
// and how many there should be.
func (t *trial) curve(n int) (epochs []*epochFile, by []int, last int) {
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
		if h == nil || h.epochs[i] == nil {
			break
		}
		epochs, by = append(epochs, h.epochs[i]), append(by, holder(i))
	}
	return epochs, by, last
}

// look works out how the trial stands; lost says which workers and claims are.
func (t *trial) look(lost map[string]string) search.TrialState {
	s := search.TrialState{Trial: t.state.Trial}
	s.Status, s.Error, s.Failure, s.Epoch, s.Last = search.Pending, "", "", 0, search.Epoch{}
	n := t.current()
	epochs, _, _ := t.curve(n)
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
			// An epoch is damaged: it is trained again.
		default:
			s.Status = u.end.Stands
			if s.Status == search.Failed || s.Status == search.Diverged {
				s.Failure, s.Error = u.end.Failure, lastLine(u.end.Message)
			}
		}
	}
	if t.newest > n && s.Status == search.Pending {
		running = lost[t.claim()] == "" // claimed a moment ago
	}
	if running {
		s.Status = search.Running
	}
	return s
}

// claim names the newest claim among what may be lost.
func (t *trial) claim() string { return filepath.Base(t.dir) + "/" + number(t.newest) }

// ended returns how an attempt ended, nil if it did not before another took its
// place; then why it was taken for lost.
func (t *trial) ended(n int) (end *endFile, lost string) {
	for next := n + 1; next <= t.newest; next++ {
		if u := t.attempts[next]; u != nil && u.begin != nil {
			if u.begin.Lost != "" {
				return nil, u.begin.Lost // what its worker says later does not count
			}
			break
		}
	}
	return t.attempts[n].end, ""
}

// counted is the last epoch of an attempt that the next goes on from; all count
// if there is none.
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

// failures counts how often the trial failed in a way since people asked for
// another try.
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

// sound returns the newest state of a curve that is what was stored, the epochs
// of those that are newer and damaged, and the note for people, as package store
// does.
func (t *trial) sound(n int) (from *search.Checkpoint, note string, err error) {
	epochs, by, last := t.curve(n)
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

// checkpoint reads the state after an epoch; nil if it is damaged or not there.
func (t *trial) checkpoint(e *epochFile, by int) (c *search.Checkpoint, damaged bool, err error) {
	if !t.attempts[by].states[e.Epoch.Number] {
		return nil, false, nil
	}
	content, err := read(t.file(by, state(e.Epoch.Number)))
	if errors.Is(err, fs.ErrNotExist) { // its worker is past it
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != e.State {
		return nil, true, nil
	}
	return &search.Checkpoint{Epoch: e.Epoch.Number, State: content}, false, nil
}

// file is the path of a file of an attempt: "begin.json", "end.json", "epoch-0001.json", "state-0001".
func (t *trial) file(attempt int, kind string) string {
	return filepath.Join(t.dir, number(attempt)+"."+kind)
}

// state is the kind of the file that holds the state after an epoch.
func state(epoch int) string { return "state-" + number(epoch) }

// best is the epoch of the best validation accuracy, the first of several; 0 if
// none was evaluated.
func best(epochs []*epochFile) (number int) {
	most := -1
	for _, e := range epochs {
		if e.Epoch.ValidationTotal > 0 && e.Epoch.ValidationCorrect > most {
			number, most = e.Epoch.Number, e.Epoch.ValidationCorrect
		}
	}
	return number
}

// segments says whose the first epochs of a curve are.
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

func lastLine(message string) string {
	message = strings.TrimSpace(message)
	return strings.TrimSpace(message[strings.LastIndexByte(message, '\n')+1:])
}

// Attempt is one worker's try at a trial.
type Attempt struct {
	search.Attempt
	Token []byte // 16 random bytes, of this attempt alone
	// Ended is when, as its worker's clock said; of one that is running or lost
	// when it was heard of last.
	Ended time.Time
	// Outcome is "done", "diverged", "failed", "interrupted", "paused" (at the
	// last epoch that it was to train), "lost" (another attempt took its place), or "" while it
	// is open.
	Outcome string
	Failure search.Failure
	Message string
}

// Trial is a trial with all that its folder has.
type Trial struct {
	search.TrialState     // running: its newest attempt is open, whether or not its worker lives
	Until             int // epoch that the newest attempt trains to, 0 before the first
	Attempts          []Attempt
	By                []int // by Curve: index into Attempts
	// Checkpoints are the sound states of the last epochs, newest first, and Best
	// that of the best validation accuracy, nil if it is not kept.
	Checkpoints []search.Checkpoint
	Best        *search.Checkpoint
}

// Snapshot is a spool for reading.
type Snapshot struct {
	Study  search.Study
	Trials []search.Trial // as planned, in the order of the plan
	dir    string
	trials []*trial
}

// Read opens a spool for reading only. Workers may go on meanwhile.
func Read(dir string) (*Snapshot, error) {
	file, err := readStudy(dir)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{dir: dir}
	if s.Study, err = file.read(dir); err != nil {
		return nil, err
	}
	for i, f := range file.Trials {
		t, err := newTrial(dir, i, f)
		if err != nil {
			return nil, fmt.Errorf("read spool %s: %w", dir, err)
		}
		s.trials, s.Trials = append(s.trials, t), append(s.Trials, t.state.Trial)
	}
	return s, nil
}

// Load reads trial i of the plan as it stands now; its states too if they are
// wanted.
func (s *Snapshot) Load(i int, states bool) (Trial, error) {
	t := s.trials[i]
	for try := range 10 {
		if err := t.list(); err != nil {
			return Trial{}, explain("read", s.dir, err)
		}
		l, n := t.load()
		epochs, by, last := t.curve(n)
		// A folder that is written to while it is listed may show a later file and
		// not one before; what is damaged stays so.
		moved := len(epochs) < last && try < 2
		if !moved && (!states || len(epochs) == 0) {
			return l, nil
		}
		for k := len(epochs); k > max(0, len(epochs)-2); k-- {
			there := t.attempts[by[k-1]].states[k]
			c, damaged, err := t.checkpoint(epochs[k-1], by[k-1])
			if err != nil {
				return Trial{}, explain("read", s.dir, err)
			}
			if c != nil {
				l.Checkpoints = append(l.Checkpoints, *c)
			}
			moved = moved || there && c == nil && !damaged
		}
		if k := best(epochs); k > 0 {
			var err error
			if l.Best, _, err = t.checkpoint(epochs[k-1], by[k-1]); err != nil {
				return Trial{}, explain("read", s.dir, err)
			}
		}
		if !moved { // else its worker took a state away that was listed
			return l, nil
		}
	}
	return Trial{}, fmt.Errorf("read spool %s: trial %s moves on faster than it can be read: try again", s.dir, filepath.Base(t.dir))
}

// load puts together what was listed; n is the attempt that counts.
func (t *trial) load() (l Trial, n int) {
	l.TrialState = t.look(nil)
	n = t.current()
	at := map[int]int{}
	for _, k := range slices.Sorted(maps.Keys(t.attempts)) {
		u := t.attempts[k]
		if u.begin == nil || u.begin.Retry || k > n {
			continue
		}
		a := Attempt{Attempt: u.begin.attempt(), Ended: u.begin.Started, Message: u.begin.Note}
		a.Token, _ = hex.DecodeString(u.begin.Token)
		until := t.counted(k)
		for _, e := range u.epochs {
			if e.Epoch.Number <= until && e.Time.After(a.Ended) {
				a.Ended = e.Time
			}
		}
		switch end, lost := t.ended(k); {
		case lost != "":
			a.Outcome, a.Failure = "lost", search.FailedLost
			a.Message = strings.TrimSpace(u.begin.Note + "\n" + lost)
		case end != nil:
			a.Ended, a.Failure = end.Time, end.Failure
			a.Message = strings.TrimSpace(u.begin.Note + "\n" + end.Message)
			a.Outcome = string(end.Status)
			if end.Status == search.Pending {
				a.Outcome = "interrupted"
				if a.Failure == "" {
					a.Outcome = "paused"
				}
			}
		}
		at[k] = len(l.Attempts)
		l.Attempts = append(l.Attempts, a)
		l.Until = u.begin.Until
	}
	_, by, _ := t.curve(n)
	for _, k := range by {
		l.By = append(l.By, at[k])
	}
	return l, n
}
