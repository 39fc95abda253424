package spool

import (
	"time"

	"igcsearch/search"
)

// SetLease shortens the lease of this worker. Call it before the worker joins.
func (f *Folder) SetLease(d time.Duration) { f.lease = d }

// Attempt returns the handle of an attempt of this process.
func (f *Folder) Attempt(id int64) search.Handle { return handle{f, id} }

// Sealed returns the content of the JSON file at a path of a spool.
func Sealed(path, body string) []byte {
	text := `{"sha256":"` + sum(path, []byte(body)) + `","body":` + body + "}\n"
	return []byte(text)
}
