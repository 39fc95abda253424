// Package table is the one form in which the trials of a study are exported and imported: CSV, or JSON with the
// settings of the study. A row is one trial at one of its epochs. One list of columns describes both forms, so that
// writing and reading agree.
package table

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	"igcsearch/search"
	"igcsearch/space"
)

// Interrupted is the status that rows show of a running trial whose process is gone. The next run continues it.
const Interrupted search.Status = "interrupted"

// Row is one trial at one of its epochs.
type Row struct {
	// Pair names the network in a study of pairs. In another study JSON names it by System, and CSV by Network, which
	// is System without the depth, and Depth.
	Pair            space.Pair
	System, Network string
	Depth           int
	Width           int // L·M of the pair
	Params          int // of a block in a study of pairs, else of the network

	At      search.Point // where the trial lies on the axes of its study; a column for each axis
	Seed    int
	Status  search.Status
	Epochs  int // of the whole training
	Error   string
	Failure search.Failure // CSV does not have it
	// Precision and Fingerprint are of the study, and DataSum its checksum of the pictures. Only rows of a CSV that was
	// read have them, and they are "" if the CSV does not say them.
	Precision, Fingerprint, DataSum string
	// Epoch.Number is 0 before the first epoch.
	search.Epoch
}

// NewRow returns the row of a trial at an epoch.
func NewRow(s search.Study, t search.Trial, e search.Epoch) Row {
	pair := t.System.Pair()
	r := Row{Pair: pair, Width: pair.Width(), Params: t.Params, At: t.At, Seed: t.Seed, Status: t.Status,
		Epochs: t.Epochs, Error: t.Error, Failure: t.Failure, Epoch: e}
	if s.OfPairs() {
		r.Params = t.System.BlockParams()
		return r
	}
	r.System, r.Depth = t.System.String(), s.Plan(space.Shape{}, 0).DepthOf(t.System)
	t.System.Depth = 0
	r.Network = t.System.String()
	return r
}

// LastRows are a row of each trial, at its last epoch. A row is made when it is asked for, because rows take several
// times the memory of the epochs.
func LastRows(s search.Study, trials []search.TrialState) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for _, t := range trials {
			if !yield(NewRow(s, t.Trial, t.Last)) {
				return
			}
		}
	}
}

// AllRows are a row of each epoch of each trial, made like those of LastRows. A trial that ended before its first epoch
// has one row, of epoch 0.
func AllRows(s search.Study, trials []search.TrialState) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for _, t := range trials {
			epochs := t.History
			if len(epochs) == 0 && (t.Status.Finished() || t.Status == search.Failed) {
				epochs = []search.Epoch{{}}
			}
			for _, e := range epochs {
				if !yield(NewRow(s, t.Trial, e)) {
					return
				}
			}
		}
	}
}

// name is what tells a row's trial from the others of its file.
type name struct {
	pair            space.Pair
	system, network string
	at              search.Point
	depth, seed     int
}

func (r Row) name() name {
	switch {
	case r.System != "":
		return name{system: r.System, at: r.At, seed: r.Seed}
	case r.Network != "":
		return name{network: r.Network, depth: r.Depth, at: r.At, seed: r.Seed}
	}
	return name{pair: r.Pair, at: r.At, seed: r.Seed}
}

func (n name) String() string {
	which := n.pair.String()
	switch {
	case n.system != "":
		which = n.system
	case n.network != "":
		which = fmt.Sprintf("%s of depth %d", n.network, n.depth)
	}
	if n.at != "" {
		which = fmt.Sprintf("%s %v", which, n.at)
	}
	return fmt.Sprintf("%s seed %d", which, n.seed)
}

// Trial is what the rows of one trial say.
type Trial struct {
	Row     // the last one
	History []search.Epoch
}

// Trials joins the rows of each trial, in the order in which the trials appear. It returns an error for a row that
// contradicts an earlier one.
func Trials(rows []Row) ([]Trial, error) {
	var list []Trial
	at := map[name]int{}
	for i, r := range rows {
		bad := func(format string, args ...any) ([]Trial, error) {
			return nil, fmt.Errorf("row %d: %v: %s", i+1, r.name(), fmt.Sprintf(format, args...))
		}
		if !slices.Contains(statuses, r.Status) {
			return bad("status %q is unknown", r.Status)
		}
		if r.Failure != "" && !slices.Contains(failures, r.Failure) {
			return bad("failure %q is unknown", r.Failure)
		}
		if r.Number < 0 || r.Number > r.Epochs {
			return bad("epoch %d is not one of %d", r.Number, r.Epochs)
		}
		k, known := at[r.name()]
		if !known {
			k = len(list)
			at[r.name()] = k
			list = append(list, Trial{Row: r})
		}
		t := &list[k]
		switch {
		case known && r.Number == t.Number && r.Number > 0:
			return bad("epoch %d is there twice, and may be there once", r.Number)
		case known && r.Number != t.Number+1:
			return bad("epoch %d follows epoch %d, want epoch %d", r.Number, t.Number, t.Number+1)
		case known && t.Number == 0:
			return bad("epoch 1 follows epoch 0, which is the row of a trial without epochs")
		case r.Number == 0 && r.Epoch != search.Epoch{}:
			return bad("epoch 0 has results: want epochs from 1")
		case r.Status != t.Status || r.Epochs != t.Epochs:
			return bad("%s of %d epochs here, %s of %d before", r.Status, r.Epochs, t.Status, t.Epochs)
		}
		t.Row = r
		if r.Number > 0 {
			t.History = append(t.History, r.Epoch)
		}
	}
	for i := range list {
		if err := list[i].complete(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// complete returns an error if the rows of a trial do not have what its status says. A file has all epochs of a trial
// or only its last one.
func (t *Trial) complete() error {
	first := t.Number // 0 without epochs
	if len(t.History) > 0 {
		first = t.History[0].Number
	}
	switch {
	case len(t.History) > 1 && first > 1:
		return fmt.Errorf("%v: epoch %d is missing: want all epochs, or only the last", t.name(), first-1)
	case t.Status == search.Done && t.Number < t.Epochs:
		return fmt.Errorf("%v is done, but its last epoch, %d, is missing", t.name(), t.Epochs)
	case t.Status == search.Diverged && t.Number == t.Epochs:
		return fmt.Errorf("%v diverged, but has its last epoch, %d", t.name(), t.Epochs)
	}
	return nil
}

var (
	statuses = []search.Status{search.Pending, search.Running, search.Done, search.Diverged, search.Failed, Interrupted}
	failures = []search.Failure{search.FailedDiverged, search.FailedMemory, search.FailedTimeout, search.FailedCrashed,
		search.FailedLost, search.FailedInterrupted}
)

// Match joins the rows of each trial and finds the trial of the study that they name.
func Match(s search.Study, trials []search.Trial, rows []Row) ([]search.TrialState, error) {
	found, err := Trials(rows)
	if err != nil {
		return nil, err
	}
	of := map[name]search.Trial{}
	for _, t := range trials {
		r := NewRow(s, t, search.Epoch{})
		if r.System == "" {
			of[r.name()] = t
			continue
		}
		of[name{system: r.System, at: r.At, seed: r.Seed}] = t
		of[name{network: r.Network, depth: r.Depth, at: r.At, seed: r.Seed}] = t
	}
	var list []search.TrialState
	for _, r := range found {
		t, ok := of[r.name()]
		if !ok {
			return nil, fmt.Errorf("%v is not a trial of study %s", r.name(), s.Name)
		}
		if r.Epochs != t.Epochs {
			return nil, fmt.Errorf("%v has %d epochs, but study %s has %d", r.name(), r.Epochs, s.Name, t.Epochs)
		}
		want := NewRow(s, t, search.Epoch{})
		unknown := want.Params == 0 || r.Params == 0 && !s.OfPairs() // of a trial that an older igcsearch stored
		if r.Params != want.Params && !unknown {
			return nil, fmt.Errorf("%v has params %d, but in study %s it has %d", r.name(), r.Params, s.Name, want.Params)
		}
		if r.Width != want.Width && r.Width != 0 { // 0: the file does not say it
			return nil, fmt.Errorf("%v has width %d, want %d", r.name(), r.Width, want.Width)
		}
		list = append(list, r.State(t))
	}
	return list, nil
}

// State returns a trial of the study as the rows say that it stands. A trial that was running becomes pending. The
// parameters are those of the rows where the trial does not know its own.
func (r Trial) State(t search.Trial) search.TrialState {
	t.Status, t.Error, t.Failure, t.Epoch, t.Last = r.Status, r.Error, r.Failure, r.Number, r.Epoch
	t.Params = cmp.Or(t.Params, r.Params)
	switch t.Status {
	case search.Running, Interrupted:
		t.Status = search.Pending
	case search.Diverged:
		t.Failure = search.FailedDiverged
	case search.Failed:
		t.Failure = cmp.Or(t.Failure, search.FailedCrashed)
	}
	return search.TrialState{Trial: t, History: r.History}
}

// Key returns the network, the point and the seed that the row names, without a study that says more of the network.
func (r Row) Key() (search.Key, error) {
	k := search.Key{System: space.PairSystem(r.Pair), At: r.At, Seed: r.Seed}
	text := cmp.Or(r.System, r.Network)
	if text == "" {
		return k, nil
	}
	var err error
	if k.System, err = space.ParseSystem(text); err == nil && r.System == "" {
		k.System.Depth = r.Depth
	}
	return k, err
}
