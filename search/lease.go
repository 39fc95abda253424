package search

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Lease is the longest time that a worker may stand still before another one takes its trials over.
const Lease = time.Minute

// Unanswered is for how many leases more a worker that stands still keeps its trials if its
// scheduler cannot be asked whether its job still runs. The scheduler is asked three times in each.
const Unanswered = 1

// HeartbeatWatch watches the heartbeat of another worker. The zero value has not seen it yet.
type HeartbeatWatch struct {
	seen  bool
	beat  int64
	last  time.Time     // the time of the last look, by the monotonic clock
	still time.Duration // the time during which the beat did not change
	// asked is how much of still had passed when the scheduler last answered, or was first asked.
	asked time.Duration
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

// Asked takes in what came of asking the scheduler about the job of a worker that Stands. err says
// why the scheduler could not be asked. Asked reports whether that has been so for Unanswered
// leases more, so that the heartbeat alone decides.
func (w *HeartbeatWatch) Asked(err error, lease time.Duration) bool {
	if err == nil || w.asked == 0 {
		w.asked = w.still
	}
	return err != nil && w.still-w.asked > Unanswered*lease
}

// Waiting tells people that a worker is silent, that its scheduler cannot be asked whether its job
// still runs, and which trials wait for that.
func Waiting(job, host, why string, trials []string, lease time.Duration) string {
	const most = 3
	if n := len(trials) - most; n > 1 {
		trials = append(trials[:most:most], fmt.Sprintf("%d more", n))
	}
	return fmt.Sprintf("nothing is heard of %s on %s, and its scheduler cannot be asked about it: %s; "+
		"if that does not change, others take over %s after %v", job, host, why, strings.Join(trials, ", "),
		(Unanswered * lease).Round(time.Second))
}

// Requeued reports whether a scheduler has started a job again: whether both names are of the same
// job, and the restart of the second, the number after " restart ", is a later one.
func Requeued(before, after string) bool {
	job, old, _ := strings.Cut(before, " restart ")
	again, now, _ := strings.Cut(after, " restart ")
	n, _ := strconv.Atoi(old) // "" is 0
	m, _ := strconv.Atoi(now)
	return job != "" && job == again && m > n
}
