package search

import "time"

// Lease is how long a worker may stand still before another takes its trials.
const Lease = time.Minute

// HeartbeatWatch is what this process has seen of another worker's heartbeat. The zero value has seen nothing.
type HeartbeatWatch struct {
	seen  bool
	beat  int64
	last  time.Time     // when it was looked at, by the monotonic clock
	still time.Duration // how long the beat was seen not to move
}

// Stands reports whether the heartbeat was seen to stand still for a whole lease. beat is the count that was read now,
// and own is when this process last wrote its own heartbeat, by the monotonic clock.
//
// Of the time between two looks at most half a lease counts, because whatever stopped this process may have stopped the
// other one too. None counts while this process cannot write its own heartbeat, because then nobody can.
func (w *HeartbeatWatch) Stands(beat int64, lease time.Duration, own time.Time) bool {
	now := time.Now()
	if !w.seen || w.beat != beat {
		*w = HeartbeatWatch{seen: true, beat: beat, last: now}
		return false
	}
	if now.Sub(own) < lease/2 {
		w.still += min(now.Sub(w.last), lease/2)
	}
	w.last = now
	return w.still > lease
}
