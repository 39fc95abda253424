package spool

import (
	"time"

	"igcsearch/search"
)

// SetLease shortens the lease of this worker. Call it before the worker joins.
func (f *Folder) SetLease(d time.Duration) { f.lease = d }

// Attempt returns the handle of an attempt of this process.
func (f *Folder) Attempt(id int64) search.Handle { return handle{f, id} }
