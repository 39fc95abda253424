package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"igcsearch/cmd/igcsearch/fleet"
	"igcsearch/store"
)

// openReader opens a database for reading; of an access file, a copy of the
// database that its coordinator has open, perhaps on another machine.
func openReader(ctx context.Context, path string) (*store.DB, error) {
	if !fleet.IsAccess(path) {
		return store.OpenReadOnly(ctx, path)
	}
	dir, err := os.MkdirTemp("", "igcsearch-")
	if err != nil {
		return nil, fmt.Errorf("copy the database of the coordinator of %s: %w: set TMPDIR to a folder that can be written", path, err)
	}
	file := filepath.Join(dir, "snapshot.db")
	if err := fleet.Snapshot(ctx, path, file); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return store.OpenCopy(ctx, file, path)
}
