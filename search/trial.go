package search

import (
	"context"
	"errors"
	"fmt"
	"time"

	"igcsearch/space"
)

// Status is the state of a trial.
type Status string

const (
	// Pending means that the trial waits for a worker, or that the study's Strategy does not want
	// it yet. Its Epoch is above 0 if it was interrupted, or was trained up to an epoch before the
	// last.
	Pending Status = "pending"
	// Running means that a worker of this or another process trains the trial, or did so until the
	// process was killed.
	Running Status = "running"
	// Done means that all epochs of the trial are stored.
	Done Status = "done"
	// Diverged means that the loss was not finite. This is a result and not a failure.
	Diverged Status = "diverged"
	// Failed means that attempts at the trial ended with an error, and that no retry is left.
	Failed Status = "failed"
)

// Finished reports whether a trial in this status has its result.
func (s Status) Finished() bool { return s == Done || s == Diverged }

// Failure says why an attempt ended before its last epoch.
type Failure string

const (
	// FailedDiverged means that the loss is not finite. The trial is not tried again, because it
	// would diverge again.
	FailedDiverged Failure = "diverged"
	// FailedMemory means that the device did not have enough memory.
	FailedMemory Failure = "out of memory"
	// FailedTimeout means that the attempt took longer than Study.TrialTimeLimit.
	FailedTimeout Failure = "timeout"
	// FailedCrashed means that the trainer returned another error, or that it panicked.
	FailedCrashed Failure = "crashed"
	// FailedLost means that the process died or stood still, or that its device failed. It uses up
	// no retry.
	FailedLost Failure = "lost"
	// FailedInterrupted means that a user or a budget stopped the run. It uses up no retry.
	FailedInterrupted Failure = "interrupted"
)

// ErrDiverged is the error that a Trainer returns if the loss is not finite.
var ErrDiverged = errors.New("the loss is not finite")

// ErrNoMemory is the error that a Trainer returns if the device does not have enough memory for a
// training. The memory may be enough if fewer trainings run at once.
var ErrNoMemory = errors.New("not enough memory")

// ErrDevice is the error that a Trainer returns (wrapped) if the device failed that it trained on.
// The trial is put back, and may be trained on another device.
var ErrDevice = errors.New("the device failed")

// ErrNoDevice is the error that a Trainer returns (wrapped) if no device is left that it can train
// on. The trial is put back, and the run ends.
var ErrNoDevice = errors.New("no device is left to train on")

// ErrTaken is the error that Beginner.Begin returns (wrapped) if the trial is not pending, because
// another worker has begun or finished it.
var ErrTaken = errors.New("another worker has begun the trial")

// ErrSuperseded is the error that the methods of a Handle return (wrapped) if the worker comes too
// late: its attempt was taken for lost, and another process has continued the trial.
var ErrSuperseded = errors.New("another process has continued the trial")

// ErrGone is the error that a Store returns (wrapped) if what it has opened was removed, replaced
// or overwritten. Nothing more can be stored, so the run ends at once.
var ErrGone = errors.New("the store is gone")

// Key identifies a trial within its study by the network, the point on the study's axes, and the
// seed.
type Key struct {
	System space.System
	At     Point // "" if the study has no axes
	Seed   int
}

// String returns the name of the trial in messages, for example "L40M2 seed 3", or "L40M2
// learning_rate 0.05 seed 3".
func (k Key) String() string { return fmt.Sprintf("%s seed %d", k.Label(), k.Seed) }

// Label names the network and the point, for example "L40M2 learning_rate 0.05".
func (k Key) Label() string {
	if k.At == "" {
		return k.System.Label()
	}
	return fmt.Sprintf("%s %v", k.System.Label(), k.At)
}

// Trial trains one network at one point of the study's axes from one seed.
type Trial struct {
	ID int64 // the store chooses it
	Key
	Status Status
	Epoch  int // the number of epochs that are finished and stored
	Epochs int // the number of epochs of the whole training
	// MultiplyAdds is the number of multiply–adds in the forward pass of one picture.
	MultiplyAdds int64
	// Params is the number of parameters of the network, as space.Network counts them. It is 0 if
	// an older igcsearch stored the trial.
	Params int
	// Error says on one line why the trial failed, diverged or was put back, and Failure is the
	// kind of this failure. Otherwise both are empty.
	Error   string
	Failure Failure
	// Last holds the measurements of the epoch Epoch. It is zero if Epoch is 0.
	Last Epoch
}

// Checkpoint is the state of a training after an epoch.
type Checkpoint struct {
	Epoch int // the number of epochs that are finished
	// State is the trainer's encoding of everything that the next epoch needs.
	State []byte
}

// Job tells a Trainer what to train.
type Job struct {
	// Study is normalised and has no axes: Study.At gives it the values of the trial.
	Study Study
	Key
	From *Checkpoint // the training continues here; nil means that it begins anew
	// Until is the last epoch of this attempt; 0 means Study.Epochs. The schedule of the learning
	// rate always covers Study.Epochs.
	Until int
}

// Reporter receives the progress of a training. Its methods are called from the goroutine that
// called Train.
type Reporter interface {
	// Step is called after each mini-batch. done of the epoch's total steps are finished.
	Step(epoch, done, total int)
	// Epoch is called after each epoch and its evaluation. An error ends the training; Train
	// returns this error.
	Epoch(Epoch, Checkpoint) error
}

// Trainer trains networks. Several goroutines may call Train at once.
type Trainer interface {
	// Train runs the job up to the epoch Until. Its results depend only on the job and the device's
	// arithmetic. It returns ErrDiverged (wrapped, with the epoch and step) if the loss is not
	// finite, ErrNoMemory (wrapped) if the device does not have enough memory, ErrDevice or
	// ErrNoDevice (wrapped) if the device failed or none is left, and ctx.Err() (wrapped) at the
	// next batch after ctx ends. Epochs that it has reported remain valid.
	Train(ctx context.Context, job Job, r Reporter) error
}

// Attempt describes one worker's try at a trial. A Store records it.
type Attempt struct {
	Started   time.Time
	Commit    string // the git commit of the program, or "" if unknown
	GoVersion string
	CPU       string // the name of the model
	// ISA is the arithmetic, on which the bits of the results depend: "avx512", "avx2", "portable",
	// "bf16", "bf16-amx" or "cuda sm_90 (ptxas 11.8)". A run on several kinds of devices lists all of
	// them, separated by ", ".
	ISA    string
	Device string // "cpu", or the names of the run's GPUs, separated by ", "
	Host   string
	PID    int
	Args   []string
	Job    string // the scheduler's job that started the process, like "slurm 12_3", or ""
}

// Claim is an attempt that has begun, in the hands of its worker. A Store sets the fields above
// Study, and a Dispatch sets the others.
type Claim struct {
	// Handle receives the results of the attempt.
	Handle
	ID   int64       // the number of the attempt
	From *Checkpoint // the trial continues here; nil means that it begins anew
	// Note is one line for people to read, or "": it says that a damaged checkpoint was left out.
	Note string

	Study Study // normalised
	Trial Trial // running; it continues after Trial.Epoch
	Until int   // the last epoch of the attempt
	// Company reports whether other processes train too, perhaps on the same device.
	Company bool
	// Most is how many trainings may run at once, including this one, if the trial was put back
	// because memory was short. Otherwise it is 0.
	Most int
}

// Handle receives the results of an attempt that has begun. Its methods return ErrSuperseded
// (wrapped) if another process has continued the trial.
type Handle interface {
	// Record stores the measurements of an epoch together with the checkpoint after it. The Handle
	// of a Dispatch returns ErrStop (wrapped) if the attempt must end after this epoch; the epoch
	// is stored then.
	Record(ctx context.Context, e Epoch, c Checkpoint) error
	// End closes the attempt and returns the new status of its trial.
	End(ctx context.Context, o Outcome) (Status, error)
}

// Outcome says how an attempt ended.
type Outcome struct {
	// Status is Done, Diverged or Failed. It is Pending if the attempt was interrupted, or reached
	// its last epoch before the end of the training.
	Status Status
	// Failure is "" if the attempt reached its last epoch.
	Failure Failure
	Message string
	// Retries is how often the trial may fail in this way and become pending again instead of
	// Failed.
	Retries int
	// Most is set after a failure for lack of memory: it is how many trainings, including this one,
	// may run at once when the trial is tried again. Otherwise it is 0.
	Most int
}

// Beginner begins attempts. A Store is one, for the workers of its process.
type Beginner interface {
	// Begin marks a pending trial as running up to the epoch until, and returns the claim with its
	// Handle. It returns ErrTaken (wrapped) if the trial is not pending any more.
	Begin(ctx context.Context, trial int64, until int, a Attempt) (Claim, error)
}

// Store keeps studies, trials, epochs and checkpoints. Each method is one transaction. Several
// goroutines may call the methods at once, and several processes may share what is stored.
//
// A process has a lease on the trials that it runs, and Beat extends this lease. Other processes
// take over its trials if the process is dead, or if it did not call Beat during the whole lease.
type Store interface {
	Beginner
	// Plan stores the study and its trials, as pending, unless they are stored already. It returns
	// the stored trials in the order given. It returns an error that lists the differences if the
	// name belongs to a study with other settings.
	Plan(ctx context.Context, s Study, trials []Trial) ([]Trial, error)
	// Poll returns the trials of a study that changed after the moment since. This is the moment
	// that an earlier call returned, or 0 for all trials. Before that, Poll makes trials pending
	// whose process is gone.
	Poll(ctx context.Context, study string, since int64) (changed []TrialState, moment int64, err error)
	// Beat extends the lease of this process. next is how long to wait before the next call.
	Beat(ctx context.Context) (next time.Duration, err error)
}
