package search

import (
	"context"
	"errors"
	"fmt"
	"time"

	"igcsearch/space"
)

// Status is where a trial stands.
type Status string

const (
	// Pending trials wait for a worker, if the study's Strategy wants them; Epoch
	// > 0 if they were interrupted, or trained to an epoch before the last.
	Pending Status = "pending"
	// Running trials have a worker now, in this process or in another, or had one
	// that was killed.
	Running Status = "running"
	// Done trials have all their epochs.
	Done Status = "done"
	// Diverged trials met a loss that is not finite: a result, not a failure.
	Diverged Status = "diverged"
	// Failed trials ended with an error as often as their study tolerates.
	Failed Status = "failed"
)

// Finished reports whether a trial in this status has its result.
func (s Status) Finished() bool { return s == Done || s == Diverged }

// Failure says in which way an attempt ended before its epoch.
type Failure string

const (
	// FailedDiverged: the loss is not finite. It is a result, and never tried
	// again: it would be the same.
	FailedDiverged Failure = "diverged"
	// FailedMemory: the device's memory was short.
	FailedMemory Failure = "out of memory"
	// FailedTimeout: the attempt took longer than Study.TrialTimeLimit.
	FailedTimeout Failure = "timeout"
	// FailedCrashed: any other error or panic of the trainer.
	FailedCrashed Failure = "crashed"
	// FailedLost: the process died or stood still. It costs no retry.
	FailedLost Failure = "lost"
	// FailedInterrupted: people or a budget stopped the run. It costs no retry.
	FailedInterrupted Failure = "interrupted"
)

// ErrDiverged is what a Trainer returns for a loss that is not finite.
var ErrDiverged = errors.New("the loss is not finite")

// ErrNoMemory is what a Trainer returns if the device has not the memory for a
// training; beside fewer others it may have.
var ErrNoMemory = errors.New("not enough memory")

// ErrTaken is what Store.Begin returns (wrapped) for a trial that another worker
// has, or that is finished.
var ErrTaken = errors.New("another worker has the trial, or had")

// ErrSuperseded is what the methods of a Handle return (wrapped) to a worker
// that came too late: its trial was taken for lost, and another went on with it.
var ErrSuperseded = errors.New("another process went on with the trial")

// Key names a trial within its study: a network, and the seed it is trained from.
type Key struct {
	System space.System
	Seed   int
}

// String is how messages name the trial, "L40M2 seed 3".
func (k Key) String() string { return fmt.Sprintf("%v seed %d", k.System.Label(), k.Seed) }

// Trial trains one network from one seed.
type Trial struct {
	ID int64 // given by the store
	Key
	Status Status
	Epoch  int // epochs finished and stored
	Epochs int // epochs of the whole training
	// MultiplyAdds of the forward pass of one picture.
	MultiplyAdds int64
	// Params of the network, as space.Network counts them; 0 if an older
	// igcsearch stored the trial.
	Params int
	// Error says on one line why a trial failed, diverged or was put back, else
	// empty; Failure says in which way.
	Error   string
	Failure Failure
	// Last holds the metrics of epoch Epoch; zero if Epoch is 0.
	Last Epoch
}

// Checkpoint is the state of a training after an epoch. State is the
// trainer's own encoding of weights, momentum, running statistics and the
// position of the random numbers.
type Checkpoint struct {
	Epoch int // epochs finished
	State []byte
}

// Job is one trial as a Trainer sees it.
type Job struct {
	Study Study // normalised
	Key
	From *Checkpoint // nil: from the start
	// Until is the last epoch of this attempt; 0 is Study.Epochs, of which the
	// schedule is in either case.
	Until int
}

// Reporter hears of a training as it goes on. Its methods are called from the
// goroutine that called Train.
type Reporter interface {
	// Step follows each mini-batch: done of the epoch's total steps.
	Step(epoch, done, total int)
	// Epoch follows each epoch, evaluation included. An error ends the
	// training and is returned by Train.
	Epoch(Epoch, Checkpoint) error
}

// Trainer trains one network at a time per call; calls run concurrently.
type Trainer interface {
	// Train runs the job to epoch Until. The result is a pure function of
	// the job and the device's arithmetic. It returns ErrDiverged (wrapped,
	// with the epoch and step) at a loss that is not finite, ErrNoMemory
	// (wrapped) if the device's memory is short, and ctx.Err() (wrapped) at the
	// next batch after ctx is done; the epochs reported until then stand.
	Train(ctx context.Context, job Job, r Reporter) error
}

// Attempt is what is recorded of one worker's try at a trial.
type Attempt struct {
	Started   time.Time
	Commit    string // git commit of the program, "" if unknown
	GoVersion string
	CPU       string // model name
	// ISA is the arithmetic, whose bits the results are: "avx512", "avx2",
	// "portable", "cuda sm_90"; of a run on several kinds all of them, ", " between.
	ISA    string
	Device string // "cpu", or the names of the run's GPUs in the same way
	Host   string
	PID    int
	Args   []string
	Job    string // of the scheduler that started the process, "slurm 12_3"; "" outside one
}

// Claim is an attempt that has begun, in the hands of its worker. A Store fills
// in what stands above Study, a Dispatch the rest.
type Claim struct {
	// Handle takes the results of the attempt.
	Handle
	ID   int64       // of the attempt
	From *Checkpoint // where the trial goes on; nil if it starts anew
	// Note tells on one line what people should know, "" if there is nothing: a
	// damaged checkpoint was found and left out.
	Note string

	Study Study // normalised
	Trial Trial // running; Trial.Epoch is where it goes on from
	Until int   // last epoch of the attempt
	// Company reports whether others run elsewhere, perhaps on the same device.
	Company bool
	// Most is how many may train at once beside it, itself too, if it was put
	// back for want of memory; else 0.
	Most int
}

// Handle takes the results of an attempt that has begun. Its methods return
// ErrSuperseded (wrapped) if another process went on with the trial.
type Handle interface {
	// Record stores the metrics of an epoch together with the checkpoint that
	// follows it. The handle of a Dispatch also returns ErrStop (wrapped), with
	// the epoch stored, if the attempt is to end there.
	Record(ctx context.Context, e Epoch, c Checkpoint) error
	// End closes the attempt and returns how its trial stands then.
	End(ctx context.Context, o Outcome) (Status, error)
}

// Outcome is how an attempt ended.
type Outcome struct {
	// Status is Done, Diverged, Failed, or Pending if it was interrupted or has
	// reached the epoch of its turn.
	Status Status
	// Failure is "" of an attempt that reached its epoch.
	Failure Failure
	Message string
	// Retries is how often a trial may fail in this way and become pending
	// again, instead of Failed.
	Retries int
	// Most, of a trial that the device's memory was too small for, is how many
	// may train at once when it is tried again, itself too; else 0.
	Most int
}

// Beginner begins attempts: a Store does, for the workers of its process.
type Beginner interface {
	// Begin marks a pending trial running, to be trained until an epoch, and
	// returns the claim with its handle. It returns ErrTaken (wrapped) if the
	// trial is not pending any more.
	Begin(ctx context.Context, trial int64, until int, a Attempt) (Claim, error)
}

// Store keeps studies, trials, epochs and checkpoints. Each method is one
// transaction; methods may be called concurrently, and several processes may
// share what is stored.
//
// A process has a lease on the trials that it runs, which Beat extends. Another
// process takes over the trials of one that is dead, or that did not call Beat
// for the whole of its lease.
type Store interface {
	Beginner
	// Plan makes sure that the study and all its trials are stored, trials
	// as pending, and returns them as they stand, in the order given. It
	// refuses, with the differences, a study whose name is taken by other
	// settings.
	Plan(ctx context.Context, s Study, trials []Trial) ([]Trial, error)
	// Poll returns the trials of a study that changed after the moment since,
	// which is the moment of an earlier call, or 0 for all of them. Trials whose
	// process is gone are made pending before.
	Poll(ctx context.Context, study string, since int64) (changed []TrialState, moment int64, err error)
	// Beat extends the lease of this process and says when to call it again.
	Beat(ctx context.Context) (next time.Duration, err error)
}
