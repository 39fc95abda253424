package table

import (
	"fmt"
	"slices"

	"igcsearch/search"
	"igcsearch/space"
)

// Recorded returns a complete study of a file, to be replayed. CSV has no settings: those that strategies ask for are
// taken from the rows, and the study gets the name. It returns an error if a trial is missing.
func (f File) Recorded(name string) (search.Study, []search.TrialState, error) {
	if f.Study == nil {
		return guessed(name, f.Rows)
	}
	trials, err := matched(*f.Study, f.Rows)
	if err == nil {
		err = complete(*f.Study, trials)
	}
	return *f.Study, trials, err
}

// matched returns the trials of a study with settings.
func matched(s search.Study, rows []Row) ([]search.TrialState, error) {
	var planned []search.Trial
	for _, system := range s.SystemList() {
		for _, p := range s.Axes.Points() {
			for _, seed := range s.Seeds {
				planned = append(planned, search.Trial{Key: search.Key{System: system, At: p, Seed: seed},
					Epochs: s.At(p).Epochs})
			}
		}
	}
	return Match(s, planned, rows)
}

// guessed returns the trials of rows without settings, and a study with the settings that they show, its axes too.
func guessed(name string, rows []Row) (search.Study, []search.TrialState, error) {
	s := search.Default()
	s.Name, s.Dataset, s.Seeds, s.Epochs, s.EvaluateEvery = name, "synthetic", nil, 0, 0
	s.Pairs = []string{"1x1"} // no strategy asks which networks the study lists
	found, err := Trials(rows)
	if err != nil {
		return s, nil, err
	}
	for _, r := range rows {
		for _, key := range search.AxisSettings() {
			if x, ok := r.At.Value(key); ok {
				s.Axes = s.Axes.Including(key, x)
			}
		}
	}
	deep := slices.ContainsFunc(rows, func(r Row) bool { return r.Depth != rows[0].Depth })
	var trials []search.TrialState
	for _, r := range found {
		t := search.Trial{Epochs: r.Epochs, Params: r.Params}
		if t.Key, err = r.Key(); err != nil {
			return s, nil, err
		}
		if !deep {
			t.System.Depth = 0
		}
		trials = append(trials, r.State(t))
		if s.Epochs = max(s.Epochs, r.Epochs); !slices.Contains(s.Seeds, r.Seed) {
			s.Seeds = append(s.Seeds, r.Seed)
		}
		before := 0 // epoch of the last evaluation
		for _, e := range r.History {
			s.Validation = max(s.Validation, e.ValidationTotal)
			if e.ValidationTotal+e.TestTotal > 0 {
				// The last evaluation may come early, so the longest gap is the rule.
				s.EvaluateEvery, before = max(s.EvaluateEvery, e.Number-before), e.Number
			}
		}
	}
	if err := complete(s, trials); err != nil {
		return s, nil, err
	}
	s, err = s.Normalize()
	return s, trials, err
}

// complete returns an error if a trial of the study is missing.
func complete(s search.Study, trials []search.TrialState) error {
	type cell struct {
		system space.System
		at     search.Point
	}
	seeds := map[cell]int{}
	for _, t := range trials {
		if !slices.Contains(s.Seeds, t.Seed) {
			return fmt.Errorf("%v: the study has other seeds (%v)", t.Key, s.Seeds)
		}
		seeds[cell{t.System, t.At}]++
	}
	for _, t := range trials {
		if n := seeds[cell{t.System, t.At}]; n != len(s.Seeds) {
			return fmt.Errorf("%s has %d of %d seeds: every trial of the study is needed", t.Key.Label(), n,
				len(s.Seeds))
		}
	}
	return nil
}
