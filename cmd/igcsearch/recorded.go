package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"igcsearch/search"
	"igcsearch/search/regular"
	"igcsearch/store"
	"igcsearch/store/table"
)

// readRecorded reads a study with all its epochs, from the database or from an exported file.
func readRecorded(ctx context.Context, study, path string) (search.Study, []search.TrialState, error) {
	if ext := filepath.Ext(study); ext == ".csv" || ext == ".json" {
		file, err := readExported("replay", study)
		if err != nil {
			return search.Study{}, nil, err
		}
		s, trials, err := file.Recorded(strings.TrimSuffix(filepath.Base(study), ext))
		if err != nil {
			err = fmt.Errorf("replay %s: %w", study, err)
		}
		return s, trials, err
	}
	db, err := openReader(ctx, path)
	if err != nil {
		return search.Study{}, nil, err
	}
	defer db.Close()
	r, err := readResults(ctx, db, study, store.Histories)
	return r.Study, r.Planned, err
}

// maxExported is the largest file that is imported, in bytes. A csv of 200,000 epochs has 60 MB.
const maxExported = 1 << 30

// readExported reads a file that export wrote as csv or json, for a command that errors name.
func readExported(command, path string) (table.File, error) {
	text, err := regular.ReadGiven(path, maxExported)
	if err != nil {
		return table.File{}, fmt.Errorf("%s: %w", command, err)
	}
	file, err := table.Read(text)
	if err != nil {
		return file, fmt.Errorf("%s %s: %w: want a file that igcsearch export wrote as csv or json", command, path, err)
	}
	return file, nil
}

// importRecords stores the results of a file and returns how many trials have other results now.
func importRecords(
	ctx context.Context, db *store.DB, study search.Study, trials []search.Trial, results []search.TrialState,
	file string,
) (n int, err error) {
	byKey := map[search.Key]search.TrialState{}
	for _, r := range results {
		byKey[r.Key] = r
	}
	load := func(i int, _ bool) (search.Record, error) {
		r, ok := byKey[trials[i].Key]
		if !ok {
			return search.Record{TrialState: search.TrialState{Trial: trials[i]}}, nil
		}
		return imported(r, file), nil
	}
	list, err := db.Bring(ctx, store.Source{Study: study, Trials: trials, Load: load, Whole: true})
	for _, b := range list {
		if b.Taken {
			n++
		}
	}
	return n, err
}

// imported returns an exported trial as a record with one attempt. The message of the attempt names the file. An
// unfinished trial counts as interrupted.
func imported(r search.TrialState, file string) search.Record {
	record := search.Record{TrialState: r, By: make([]int, len(r.History))}
	if len(r.History) == 0 && r.Status == search.Pending {
		return record
	}
	now := time.Now()
	a := search.PastAttempt{Attempt: search.Attempt{Started: now}, Ended: now, Failure: r.Failure,
		Ending: search.Ending(r.Status)}
	if r.Status == search.Pending {
		a.Ending, a.Failure = search.EndedInterrupted, search.FailedInterrupted
	}
	a.Message = strings.TrimSpace("imported from " + file + "\n" + r.Error)
	record.Attempts = []search.PastAttempt{a}
	return record
}
