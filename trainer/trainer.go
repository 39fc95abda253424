// Package trainer trains the network of one trial: schedule, optimiser,
// epochs, evaluation and checkpoint. It implements search.Trainer.
//
// The protocol is that of the paper (Section 5.2): SGD with Nesterov momentum,
// weight decay, and a learning rate that falls to a tenth at given fractions of
// the training. Where the paper says nothing, we follow its authors' code: every
// parameter decays, convolutions start with variance 2/fan_in, the linear layer
// is uniform within ±sqrt(1/fan_in). A study may choose other schedules, and may
// evaluate averages of the weights by precise statistics.
//
// A result is a pure function of the study's settings, the network, the seed and
// the arithmetic: an instruction set, or a kind of GPU. Every random number
// derives from (seed, purpose, epoch, picture). So a checkpoint only needs the
// number of the next epoch, and an interrupted training ends with the same bits.
//
// Trainer.Train in this file is a training from top to bottom. The numbers of its
// recipe are in recipe.go, what it runs on in engine.go and device.go.
package trainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"igcsearch/search"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/graph"
)

// Options say where the pictures are and what trains.
type Options struct {
	// DataDir holds the files of the data set, as dataset.Options.Dir; "" if
	// there are none.
	DataDir string
	// Threads of one training on the processor; 0 means 1. The number changes no
	// bit of a result.
	Threads int
	// Devices train; if there are none, the processor trains.
	Devices []Device
}

// Trainer trains networks. It is safe for concurrent use: trainings share only
// the pictures, which do not change, and the devices. Each training takes the
// device with the fewest others.
type Trainer struct {
	dataDir string
	devices []*device
	mu      sync.Mutex    // guards the fields below and those of the devices
	changed chan struct{} // closed and replaced when a device has been reset
	failed  map[trial]int // how often the device failed on which a trial was trained
	sets    map[dataset.Options]*dataset.Set
}

// trial names a trial.
type trial struct {
	study string
	search.Key
}

var _ search.Trainer = (*Trainer)(nil)

// New returns a Trainer.
func New(o Options) *Trainer {
	return &Trainer{dataDir: o.DataDir, devices: devices(o), changed: make(chan struct{}), failed: map[trial]int{},
		sets: map[dataset.Options]*dataset.Set{}}
}

// Train implements search.Trainer.
func (t *Trainer) Train(ctx context.Context, job search.Job, r search.Reporter) (err error) {
	defer func() { err = memory(err) }()
	defer func() { err = t.blame(job, err) }()
	tr, err := t.start(ctx, job)
	if err != nil {
		return err
	}
	defer func() { err = tr.end(err) }()
	first := 1
	if job.From != nil {
		if err := restore(tr, job, job.From); err != nil {
			return err
		}
		first = job.From.Epoch + 1
	}
	for epoch := first; epoch <= cmp.Or(job.Until, job.Study.Epochs); epoch++ {
		m := search.Epoch{Number: epoch}
		if err := tr.train(ctx, &m, r); err != nil {
			return err
		}
		if job.Study.Evaluates(epoch) {
			if err := tr.evaluate(ctx, &m); err != nil {
				return fmt.Errorf("evaluation: %w", err)
			}
		}
		state, err := state(tr, job, epoch)
		if err != nil {
			return fmt.Errorf("checkpoint after epoch %d: %w", epoch, err)
		}
		if err := r.Epoch(m, search.Checkpoint{Epoch: epoch, State: state}); err != nil {
			return err
		}
	}
	return nil
}

// training is one Train or Trace in progress.
type training struct {
	Engine
	job   search.Job
	set   *dataset.Set
	batch int // pictures of a step
	steps int // of an epoch
	// end closes the engine and gives its device back. It returns what became of the
	// training's error.
	end func(error) error
}

// start loads the pictures, takes a device, and builds the job's network on it
// with its first weights.
func (t *Trainer) start(ctx context.Context, job search.Job) (*training, error) {
	s := job.Study
	if len(s.Axes) > 0 {
		panic("trainer: a job's study has axes: search.Study.At gives it the values of the trial")
	}
	if err := t.Check(s); err != nil {
		return nil, err
	}
	set, err := t.Pictures(ctx, s, job.Seed)
	if err != nil {
		return nil, err
	}
	if s.DataSum != "" && s.DataSum != set.Sum {
		return nil, fmt.Errorf("the pictures of %s are not those that the study began with", set.Name)
	}
	net, err := network(s, job.System, set)
	if err != nil {
		return nil, err
	}
	// The pictures that are left when no full batch remains are not used in this
	// epoch: a normalisation over a few pictures would be inaccurate.
	tr := &training{job: job, set: set, batch: batch(s, set)}
	tr.steps = set.Train.Len() / tr.batch
	recipe := recipe(s, job.Seed)
	d, err := t.take(ctx, job)
	if err != nil {
		return nil, err
	}
	if tr.Engine, err = d.Start(net, tr.batch, set, recipe); err != nil {
		return nil, memory(t.giveBack(d, err))
	}
	tr.end = func(err error) error {
		tr.Close()
		return t.giveBack(d, err)
	}
	tr.Model().Initialise(recipe.Seed)
	if err := tr.Push(); err != nil {
		return nil, tr.end(err)
	}
	return tr, nil
}

// mostFailed is how often a device may fail under a trial before the trial itself is
// taken for the cause. Otherwise one network could take all devices away.
const mostFailed = 3

// blame makes an ordinary error of search.ErrDevice if the device failed that often on
// which the trial was trained.
func (t *Trainer) blame(job search.Job, err error) error {
	if !errors.Is(err, search.ErrDevice) {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	this := trial{job.Study.Name, job.Key}
	t.failed[this]++
	if n := t.failed[this]; n >= mostFailed {
		return fmt.Errorf("devices failed %d times under this trial, so it may be the cause: %v", n, err)
	}
	return err
}

// train runs the steps of epoch m.Number and measures them in m.
func (tr *training) train(ctx context.Context, m *search.Epoch, r search.Reporter) error {
	begin := time.Now()
	m.LearningRate, m.TrainTotal = tr.rate(m.Number, tr.steps-1), tr.steps*tr.batch
	rates := make([]graph.Rates, tr.steps)
	for step := range rates {
		rates[step] = tr.rates(m.Number, step)
	}
	done := 0 // steps
	err := tr.Train(ctx, m.Number, tr.order(m.Number), rates, func(step int, s Score) error {
		if math.IsNaN(s.Loss) || math.IsInf(s.Loss, 0) {
			return search.ErrDiverged
		}
		m.TrainLoss += float64(s.Loss * float64(tr.batch)) // as in cpu.Evaluate
		m.TrainCorrect += s.Correct
		done = step + 1
		r.Step(m.Number, done, tr.steps)
		return nil
	})
	if err != nil {
		return fmt.Errorf("epoch %d, step %d: %w", m.Number, min(done+1, tr.steps), err)
	}
	m.TrainLoss /= float64(m.TrainTotal)
	m.TrainSeconds = time.Since(begin).Seconds()
	return nil
}

// evaluate measures the validation and test pictures in m.
func (tr *training) evaluate(ctx context.Context, m *search.Epoch) error {
	begin := time.Now()
	err := tr.forEvaluation(ctx, func() error {
		validation, err := tr.score(ctx, &tr.set.Validation)
		if err != nil {
			return err
		}
		test, err := tr.score(ctx, &tr.set.Test)
		if err != nil {
			return err
		}
		m.ValidationTotal, m.TestTotal = tr.set.Validation.Len(), tr.set.Test.Len()
		m.ValidationCorrect, m.TestCorrect = validation.Correct, test.Correct
		m.ValidationLoss, m.TestLoss = validation.Loss, test.Loss
		return nil
	})
	m.EvalSeconds = time.Since(begin).Seconds()
	return err
}

// forEvaluation calls do with the weights and statistics that the study
// evaluates. Afterwards the training continues as if there had been no
// evaluation. After an error it cannot continue.
func (tr *training) forEvaluation(ctx context.Context, do func() error) error {
	s := tr.job.Study
	if s.WeightAverage > 0 {
		if err := tr.Exchange(); err != nil {
			return err
		}
	}
	if s.BNStatistics == search.BNPrecise {
		if err := tr.Measure(ctx, tr.measured()); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	if s.WeightAverage > 0 {
		return tr.Exchange()
	}
	return nil
}

// score evaluates a split; it is zero if the split has no pictures. A loss that is
// not a number counts as infinite.
func (tr *training) score(ctx context.Context, split *dataset.Split) (Score, error) {
	if split.Len() == 0 {
		return Score{}, nil
	}
	s, err := tr.Evaluate(ctx, split)
	if math.IsNaN(s.Loss) {
		s.Loss = math.Inf(1)
	}
	return s, err
}
