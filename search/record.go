package search

import "time"

// Ending says how an attempt ended. It is "" while the attempt runs.
type Ending string

const (
	EndedDone        Ending = "done"
	EndedDiverged    Ending = "diverged"
	EndedFailed      Ending = "failed"
	EndedInterrupted Ending = "interrupted" // a user or a budget stopped it
	EndedPaused      Ending = "paused"      // it reached its last epoch before the end of the training
	EndedLost        Ending = "lost"        // its process died or stood still
)

// Ending returns the ending of an attempt with this outcome.
func (o Outcome) Ending() Ending {
	switch {
	case o.Status != Pending:
		return Ending(o.Status)
	case o.Failure == "":
		return EndedPaused
	}
	return EndedInterrupted
}

// PastAttempt is a stored attempt, which may still run.
type PastAttempt struct {
	Attempt
	Token   []byte    // 16 random bytes that identify the attempt; nil for imported results
	Ended   time.Time // zero while the attempt runs
	Ending  Ending
	Failure Failure
	Message string // up to 4000 characters
}

// Record is a trial with everything that is stored about it.
type Record struct {
	TrialState
	Until int // the last epoch of the newest attempt; 0 before the first attempt
	// Attempts are all attempts at the trial, the oldest first. By has the index of the attempt
	// that measured each epoch of History.
	Attempts []PastAttempt
	By       []int
	// Failures counts the attempts that failed in each way since the trial was planned, or since a
	// user asked to try it again.
	Failures map[Failure]int
	// Checkpoints are the undamaged checkpoints of the last epochs, the newest first. Best is that
	// of the epoch with the best validation accuracy, or nil if it is not kept.
	Checkpoints []Checkpoint
	Best        *Checkpoint
}
