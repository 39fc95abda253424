package search

import "time"

// Ending says how an attempt ended; "" while it is open.
type Ending string

const (
	EndedDone        Ending = "done"
	EndedDiverged    Ending = "diverged"
	EndedFailed      Ending = "failed"
	EndedInterrupted Ending = "interrupted" // people or a budget stopped it
	EndedPaused      Ending = "paused"      // it reached the epoch that it was for
	EndedLost        Ending = "lost"        // its process died or stood still
)

// Ending is how an attempt with this outcome ended.
func (o Outcome) Ending() Ending {
	switch {
	case o.Status != Pending:
		return Ending(o.Status)
	case o.Failure == "":
		return EndedPaused
	}
	return EndedInterrupted
}

// PastAttempt is what is stored of an attempt, which may still be open.
type PastAttempt struct {
	Attempt
	Token   []byte    // 16 random bytes of this attempt alone; nil of imported results
	Ended   time.Time // zero while it is open
	Ending  Ending
	Failure Failure
	Message string // up to 4000 characters
}

// Record is a trial with all that is stored of it.
type Record struct {
	TrialState
	Until int // epoch that the newest attempt trains to, 0 before the first
	// Attempts are all attempts at the trial, the oldest first. By has the index of the attempt that measured each
	// epoch of History.
	Attempts []PastAttempt
	By       []int
	// Failures counts the attempts that failed in each way since the trial was planned, or since people asked to try
	// it again.
	Failures map[Failure]int
	// Checkpoints are the sound states after the last epochs, the newest first, and Best is the state of the best
	// validation accuracy, nil if it is not kept.
	Checkpoints []Checkpoint
	Best        *Checkpoint
}
