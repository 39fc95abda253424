package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"igcsearch/cmd/igcsearch/cluster"
	"igcsearch/store"
	"igcsearch/store/fleet"
)

// openReader opens a database for reading. If path is an access file, it opens a
// copy of the database that the coordinator has open, perhaps on another machine.
func openReader(ctx context.Context, path string) (*store.DB, error) {
	if !fleet.IsAccess(path) {
		return store.OpenReadOnly(ctx, path)
	}
	// The copy is removed when the database is closed. If who reads the output goes away, as in "export … | head", the
	// program has to live on until then: with this it meets an error in place of the end.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return store.OpenCopy(ctx, path, func(file string) error { return fleet.Snapshot(ctx, path, file) })
}

// openWriter opens a database for writing, and creates it if it is not there.
func openWriter(ctx context.Context, path string) (*store.DB, error) {
	if err := notAccess(path); err != nil {
		return nil, err
	}
	return store.Open(ctx, path)
}

// openRunner is openWriter for a process that trains or gives out trials.
func openRunner(ctx context.Context, path string) (*store.DB, error) {
	db, err := openWriter(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := db.Join(ctx); err != nil {
		db.Close()
		return nil, err
	}
	db.SetGone(new(cluster.Jobs).Gone, nil) // a coordinator of this database may have workers in Slurm
	return db, nil
}

// notAccess refuses an access file where a database is needed.
func notAccess(path string) error {
	if fleet.IsAccess(path) {
		return fmt.Errorf("%s is the access file of a coordinator, by which others can only read: "+
			"give the --db of its database, on its machine", path)
	}
	return nil
}
