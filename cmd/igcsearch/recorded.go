package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/store/table"
)

// readRecorded reads a study with all its epochs, from the database or from an exported file.
func readRecorded(ctx context.Context, study, path string) (search.Study, []search.TrialState, error) {
	if ext := filepath.Ext(study); ext == ".csv" || ext == ".json" {
		file, err := readExported(study)
		if err != nil {
			return search.Study{}, nil, fmt.Errorf("replay %w", err)
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

// readExported reads a file that export wrote as csv or json.
func readExported(path string) (table.File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return table.File{}, err
	}
	file, err := table.Read(text)
	if err != nil {
		return file, fmt.Errorf("%s: %w: want a file that igcsearch export wrote as csv or json", path, err)
	}
	return file, nil
}
