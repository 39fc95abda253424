package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/trainer/gpu"
)

// storedTrial is what the database holds of a trial. As a Reporter it compares a training with that, and ends the
// training at the first difference.
type storedTrial struct {
	job        search.Job
	trial      search.TrialState
	isas       []string // of the attempts that trained it
	checkpoint *search.Checkpoint

	at         int // epochs compared
	weights    bool
	difference string
}

// errCompared ends a training once enough is known.
var errCompared = errors.New("compared")

func readStored(ctx context.Context, o verifyOptions) (*storedTrial, error) {
	db, err := openReader(ctx, o.db)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	r, err := readResults(ctx, db, o.study, store.Histories, store.Attempts)
	if err != nil {
		return nil, err
	}
	v := &storedTrial{}
	key, err := o.trial.key(r.Study)
	if err != nil {
		return nil, err
	}
	v.job = job(r.Study, key)
	i := slices.IndexFunc(r.Trials, func(t search.TrialState) bool { return t.Key == v.job.Key })
	if i < 0 {
		return nil, fmt.Errorf("%s: the study has no such trial: look at: igcsearch status %s", v, quote(r.Study.Name))
	}
	v.trial = r.Trials[i]
	if len(v.trial.History) == 0 && v.trial.Status != search.Diverged {
		return nil, fmt.Errorf("%s: no epoch of it is stored: run the study first", v)
	}
	for _, a := range r.Attempts {
		if a.Key == v.job.Key {
			v.isas = slices.Compact(append(v.isas, strings.Split(a.ISA, ", ")...))
		}
	}
	v.checkpoint, err = db.Checkpoint(ctx, r.Study.Name, v.job.Key)
	return v, err
}

// able are the GPUs with the bits that are stored.
func (v *storedTrial) able(gpus []gpu.Info) (list []gpu.Info) {
	s := v.job.Study
	for _, g := range gpus {
		if g.Has(s.Precision) && slices.Contains(v.isas, s.Arithmetic(g.Arithmetic())) {
			list = append(list, g)
		}
	}
	return list
}

// checkArithmetic refuses to compare a training whose bits differ by its arithmetic.
func (v *storedTrial) checkArithmetic(ours string) error {
	if search.Bfloat16(v.job.Study.Precision) { // it has the same bits everywhere
		return nil
	}
	isOurs := func(isa string) bool { return slices.Contains(v.isas, isa) }
	if len(v.isas) == 0 || slices.ContainsFunc(strings.Split(ours, ", "), isOurs) {
		return nil
	}
	if !slices.ContainsFunc(v.isas, func(isa string) bool { return isa != "" }) {
		return fmt.Errorf("%s: it was imported, and an export does not say which arithmetic its results have:"+
			" verify it where it was trained", v)
	}
	return fmt.Errorf("%s: it ran on %s, and %s would give other bits: choose the same by --device or by IGC_ISA",
		v, strings.Join(v.isas, ", "), ours)
}

// judge says what differs between what is stored and a training that returned err.
func (v *storedTrial) judge(err error) error {
	diverged := errors.Is(err, search.ErrDiverged)
	switch {
	case errors.Is(err, errCompared):
	case diverged && v.trial.Status == search.Diverged && v.at == len(v.trial.History):
	case diverged:
		return fmt.Errorf("%s: it diverges now, but the stored training did not: %w", v, err)
	case err != nil:
		return err
	case v.trial.Status == search.Diverged:
		return fmt.Errorf("%s: it is stored as diverged (%s), but does not diverge now", v, v.trial.Error)
	}
	if v.difference != "" {
		return fmt.Errorf("%s: first difference: %s", v, v.difference)
	}
	return nil
}

// epochs says how many epochs are stored, and of how many if some before the last are not.
func (v *storedTrial) epochs() string {
	n := len(v.trial.History)
	if n > 0 && v.trial.History[n-1].Number > n {
		return fmt.Sprintf("%d of %d epochs (the others are not stored)", n, v.trial.History[n-1].Number)
	}
	return report.Count(n, "epoch")
}

func (v *storedTrial) String() string {
	return fmt.Sprintf("verify %s: %v", v.job.Study.Name, v.job.Key)
}

// Step implements search.Reporter.
func (v *storedTrial) Step(_, _, _ int) {}

// Epoch implements search.Reporter.
func (v *storedTrial) Epoch(e search.Epoch, c search.Checkpoint) error {
	if v.at == len(v.trial.History) {
		return errCompared // the stored trial diverged here, but this training continues
	}
	if e.Number < v.trial.History[v.at].Number {
		return nil // an import may have brought the last epoch only
	}
	v.difference = cmp.Or(epochDifference(v.trial.History[v.at], e), v.compareWeights(c))
	v.at++
	if v.difference != "" || v.at == len(v.trial.History) && v.trial.Status != search.Diverged {
		return errCompared
	}
	return nil
}

func (v *storedTrial) compareWeights(c search.Checkpoint) string {
	if v.checkpoint == nil || v.checkpoint.Epoch != c.Epoch {
		return ""
	}
	v.weights = true
	if bytes.Equal(v.checkpoint.State, c.State) {
		return ""
	}
	return fmt.Sprintf("epoch %d: its metrics agree, but the weights in its checkpoint do not", c.Epoch)
}

// epochDifference is empty if all values but the times agree in every bit. An optional value that was not stored
// agrees with any other.
func epochDifference(stored, now search.Epoch) string {
	ours := now.Values()
	for i, v := range stored.Values() {
		differs := func(format string, a, b any) string {
			return fmt.Sprintf("epoch %d: %s is "+format+", stored is "+format, stored.Number, v.Name, b, a)
		}
		switch a := v.At.(type) {
		case *int:
			if b := *ours[i].At.(*int); *a != b {
				return differs("%d", *a, b)
			}
		case *float64:
			b := *ours[i].At.(*float64)
			if v.Time || v.Optional && *a == 0 || math.IsNaN(*a) && math.IsNaN(b) {
				continue
			}
			if math.Float64bits(*a) != math.Float64bits(b) {
				return differs("%.17g", *a, b)
			}
		}
	}
	return ""
}
