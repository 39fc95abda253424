package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/store"
	"igcsearch/studies"
)

// openStudy opens a database that exists, to change a stored study.
func openStudy(ctx context.Context, path, nameOrFile string) (*store.DB, store.Results, error) {
	if err := existing(ctx, path); err != nil {
		return nil, store.Results{}, err
	}
	db, err := openWriter(ctx, path)
	if err != nil {
		return nil, store.Results{}, err
	}
	found, err := findStudy(ctx, db, nameOrFile)
	if err != nil {
		db.Close()
		return nil, found, err
	}
	return db, found, nil
}

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

// readShown reads a study as commands show it with --split; split is "" without the flag.
func readShown(
	ctx context.Context, db *store.DB, nameOrFile, split string, parts ...store.Part,
) (report.Results, error) {
	r, err := readResults(ctx, db, nameOrFile, parts...)
	if err != nil {
		return r, err
	}
	if r, err = r.Showing(split); err != nil {
		err = fmt.Errorf("--split %s: %w", split, err)
	}
	return r, err
}

// readResults reads a study as commands show it.
func readResults(
	ctx context.Context, db *store.DB, nameOrFile string, parts ...store.Part,
) (report.Results, error) {
	found, err := findStudy(ctx, db, nameOrFile, parts...)
	return report.From(found), err
}
