package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/studies"
)

// loadStudy is studies.Load for --set.
func loadStudy(nameOrFile string, set []string) (search.Study, error) {
	study, err := studies.Load(nameOrFile, set)
	return study, namingSet(err)
}

// studyToTrain returns the study that a command trains. A name that a database
// has means the stored study with its settings, also if a shipped study of this
// name has others. A file means what it says. --set is on top of either. How the
// study is run is not stored, but for its checkpoints.
func studyToTrain(
	ctx context.Context, nameOrFile string, set []string, path string, stderr io.Writer,
) (search.Study, error) {
	isShipped := slices.Contains(studies.Names(), nameOrFile)
	if info, err := os.Stat(nameOrFile); err == nil && !info.IsDir() && !isShipped {
		return loadStudy(nameOrFile, set)
	}
	stored, err := storedStudy(ctx, nameOrFile, path)
	if err != nil || stored == nil {
		study, e := loadStudy(nameOrFile, set)
		unknown := errors.As(e, new(*studies.UnknownError))
		_, missing := os.Stat(path)
		switch {
		case unknown && err != nil:
			e = err // the study may be in this database, which cannot be read
		case unknown && missing == nil:
			e = fmt.Errorf("%w, and %s has no such study", e, path)
		}
		return study, e
	}
	study, run := *stored, search.Default().Execution
	if isShipped {
		shipped, err := studies.Load(nameOrFile, nil)
		if err != nil {
			return study, err
		}
		run = shipped.Execution
		shipped.DataSum, shipped.Unreadable = study.DataSum, study.Unreadable
		keys := slices.Concat(search.Diff(study, shipped), search.Changes(study, shipped))
		for i, line := range keys {
			keys[i], _, _ = strings.Cut(line, ":")
		}
		if len(keys) > 0 {
			fmt.Fprintf(stderr, "%s: it goes on with the settings that are stored in %s; "+
				"the shipped study differs in %s\n", study.Name, path, strings.Join(keys, ", "))
		}
	}
	run.KeepCheckpoints, run.KeepBest, run.CheckpointQuota = study.KeepCheckpoints, study.KeepBest, study.CheckpointQuota
	study.Execution = run
	study, err = studies.Change(study, set)
	return study, namingSet(err)
}

// storedStudy returns the study of a name in a database, or nil if it is not
// there. path may also be the access file of a coordinator.
func storedStudy(ctx context.Context, name, path string) (*search.Study, error) {
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return nil, nil
	}
	db, err := openReader(ctx, path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	found, err := db.Read(ctx, name)
	if errors.Is(err, store.ErrNoStudy) {
		return nil, nil
	}
	return &found.Study, err
}

// changeOf says on one line how a plan changes the extent of a stored study, and
// what else of it that changes no result. It is "" if nothing changes.
func changeOf(stored store.Results, study search.Study, trials []search.Trial) string {
	lines := search.Changes(stored.Study, study)
	if len(lines) == 0 {
		return ""
	}
	there, kept := map[search.Key]bool{}, map[search.Key]bool{}
	for _, t := range stored.Trials {
		there[stored.Study.KeyAlong(t.Key, study.Axes)] = true
	}
	for _, t := range stored.Outside {
		kept[stored.Study.KeyAlong(t.Key, study.Axes)] = true
	}
	added, back := 0, 0
	for _, t := range trials {
		switch {
		case there[t.Key]:
			delete(there, t.Key)
		case kept[t.Key]:
			back++
		default:
			added++
		}
	}
	var counts []string
	if added > 0 {
		counts = append(counts, report.Count(added, "trial")+" added")
	}
	if back > 0 {
		counts = append(counts, report.Count(back, "trial")+" back with what is stored of them")
	}
	if n := len(there); n > 0 {
		counts = append(counts, report.Count(n, "trial")+" left out, what is stored of them is kept")
	}
	text := strings.Join(lines, "; ")
	if len(counts) > 0 {
		text += ": " + strings.Join(counts, ", ")
	}
	return text
}
