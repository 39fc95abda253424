package search

import "time"

// Lease is the longest time that a worker may stand still before another one takes its trials over.
const Lease = time.Minute

// HeartbeatWatch watches the heartbeat of another worker. The zero value has not seen it yet.
type HeartbeatWatch struct {
	seen  bool
	beat  int64
	last  time.Time     // the time of the last look, by the monotonic clock
	still time.Duration // the time during which the beat did not change
}

// Stands reports whether the heartbeat has not changed for a whole lease. beat is the count that
// was read now. own is the time, by the monotonic clock, at which this process last wrote its own
// heartbeat.
//
// At most half a lease counts between two looks, because whatever stopped this process may have
// stopped the other one too. No time counts while this process cannot write its own heartbeat,
// because then probably no process can.
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
