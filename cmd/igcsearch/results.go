package main

import (
	"context"
	"errors"
	"os"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/store"
	"igcsearch/studies"
)

// findStudy reads the stored study that nameOrFile means: the one of this name in the database, else the one whose
// name is in this file.
func findStudy(ctx context.Context, db *store.DB, nameOrFile string, parts ...store.Part) (store.Results, error) {
	found, err := db.Read(ctx, nameOrFile, parts...)
	if !errors.Is(err, store.ErrNoStudy) {
		return found, err
	}
	if _, e := os.Stat(nameOrFile); e != nil {
		return found, err
	}
	file, e := studies.Load(nameOrFile, nil)
	if e != nil {
		return found, e
	}
	return db.Read(ctx, file.Name, parts...)
}

// readResults reads a study as commands show it.
func readResults(
	ctx context.Context, db *store.DB, nameOrFile string, parts ...store.Part,
) (report.Results, error) {
	found, err := findStudy(ctx, db, nameOrFile, parts...)
	return report.From(found), err
}
