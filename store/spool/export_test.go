package spool

import "time"

// SetLease shortens the lease of this worker; before it joins.
func (f *Folder) SetLease(d time.Duration) { f.lease = d }
