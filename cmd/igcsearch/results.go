package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
	"igcsearch/studies"
)

// What many commands use of package report.
var (
	count     = report.Count
	newTable  = report.NewTable
	percent   = report.Percent
	printJSON = report.JSON
)

// part is a part of report.Results that is costly to read.
type part int

const (
	curves   part = iota + 1 // the History of the trials
	attempts                 // all attempts at the trials
)

// findStudy returns the stored study that nameOrFile means: the one of this name in the database, else the one whose
// name is in this file.
func findStudy(ctx context.Context, db *store.DB, nameOrFile string) (search.Study, error) {
	s, err := db.Study(ctx, nameOrFile)
	if !errors.Is(err, store.ErrNoStudy) {
		return s, err
	}
	if _, e := os.Stat(nameOrFile); e != nil {
		return s, err
	}
	file, e := studies.Load(nameOrFile, nil)
	if e != nil {
		return s, e
	}
	return db.Study(ctx, file.Name)
}

func readResults(ctx context.Context, db *store.DB, nameOrFile string, parts ...part) (report.Results, error) {
	study, err := findStudy(ctx, db, nameOrFile)
	if err != nil {
		return report.Results{}, err
	}
	return resultsOf(ctx, db, study, parts...)
}

// resultsOf reads the results of a study that was found.
func resultsOf(ctx context.Context, db *store.DB, study search.Study, parts ...part) (report.Results, error) {
	r := report.Results{Study: study}
	list, err := db.Trials(ctx, study.Name)
	if err != nil {
		return r, err
	}
	var epochs []store.TrialEpoch
	if slices.Contains(parts, curves) {
		if epochs, err = db.Epochs(ctx, study.Name); err != nil {
			return r, err
		}
	}
	history := map[search.Key][]search.Epoch{}
	for _, e := range epochs {
		k := search.Key{System: e.System, Seed: e.Seed}
		history[k] = append(history[k], e.Epoch)
	}
	for _, t := range list {
		r.Planned = append(r.Planned, search.TrialState{Trial: t, History: history[t.Key]})
	}
	r.Trials = slices.Clone(r.Planned)
	order := map[space.System]int{}
	for i, system := range study.SystemList() {
		order[system] = i
	}
	slices.SortFunc(r.Trials, func(a, b search.TrialState) int {
		return cmp.Or(cmp.Compare(order[a.System], order[b.System]), cmp.Compare(a.Seed, b.Seed))
	})
	isas, models, dead, err := db.Workings(ctx, study.Name)
	if err != nil {
		return r, err
	}
	r.Models = models
	for _, list := range isas {
		for isa := range strings.SplitSeq(list, ", ") {
			if isa != "" && !slices.Contains(r.ISAs, isa) {
				r.ISAs = append(r.ISAs, isa)
			}
		}
	}
	for i, t := range r.Trials {
		if t.Status == search.Running && dead[t.ID] {
			r.Trials[i].Status = report.Interrupted
		}
	}
	if slices.Contains(parts, attempts) {
		if r.Attempts, err = db.Attempts(ctx, study.Name); err != nil {
			return r, err
		}
	}
	r.Updated, err = db.Updated(ctx, study.Name)
	return r, err
}
