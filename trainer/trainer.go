// Package trainer trains the network of one trial: schedule, optimiser,
// epochs, evaluation and checkpoint. It implements search.Trainer.
//
// The protocol is the paper's (Section 5.2): SGD with Nesterov momentum,
// weight decay on convolution and linear weights and normalisation scales, a
// learning rate that falls to a tenth at given fractions of the training. What
// the paper leaves open follows its authors' code: variance 2/fan_in for
// convolutions, uniform ±sqrt(1/fan_in) for the linear layer.
//
// A result is a pure function of the study's settings, the pair, the seed and
// the instruction set. Every random number derives from (seed, what for,
// epoch, picture); a checkpoint therefore needs to say only which epoch is
// next, and a training that was interrupted ends with the same bits.
package trainer

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// Options say where the pictures are and how a training runs.
type Options struct {
	// DataDir holds the files of the data set, as of dataset.Options.Dir; "" if
	// there are none.
	DataDir string
	// Threads of one training; 0 is 1. The number changes no bit of a result.
	Threads int
}

// Trainer trains networks. It is safe for concurrent use: trainings share
// nothing but the pictures, which are only read.
type Trainer struct {
	options Options
	mu      sync.Mutex
	sets    map[dataset.Options]*dataset.Set
}

var _ search.Trainer = (*Trainer)(nil)

// dataset writes the layout that kernel reads, without importing it.
var _ [kernel.Lanes]struct{} = [dataset.Lanes]struct{}{}

// New returns a Trainer.
func New(o Options) *Trainer {
	return &Trainer{options: o, sets: map[dataset.Options]*dataset.Set{}}
}

// Data describes the pictures of a study.
type Data struct {
	Shape                   space.Shape
	Classes                 []string
	Train, Validation, Test int    // pictures
	Sum                     string // identifies the pictures; Study.DataSum
	// Unreadable names the pictures that are left out because they cannot be
	// read; Study.Unreadable is how many.
	Unreadable []string
}

// Load reads the pictures of a study, once.
func (t *Trainer) Load(ctx context.Context, s search.Study) (Data, error) {
	set, err := t.set(ctx, s)
	if err != nil {
		return Data{}, err
	}
	return Data{
		Shape: space.Shape{C: set.C, H: set.H, W: set.W}, Classes: set.Classes,
		Train: set.Train.Len(), Validation: set.Validation.Len(), Test: set.Test.Len(), Sum: set.Sum,
		Unreadable: set.Unreadable,
	}, nil
}

func (t *Trainer) set(ctx context.Context, s search.Study) (*dataset.Set, error) {
	o := dataset.Options{Name: s.Dataset, Dir: t.options.DataDir,
		TrainPictures: s.TrainPictures, TestPictures: s.TestPictures, Validation: s.Validation, SplitSeed: s.SplitSeed,
		Size: s.Size, Resize: s.Resize}
	t.mu.Lock()
	defer t.mu.Unlock()
	if set := t.sets[o]; set != nil {
		return set, nil
	}
	set, err := dataset.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	t.sets[o] = set
	return set, nil
}

// training is one Train or Trace in progress.
type training struct {
	job     search.Job
	set     *dataset.Set
	aug     *dataset.Augmentation
	model   *graph.Model
	batch   int
	steps   int              // of an epoch
	epoch   int              // in progress: 1 …
	batches *dataset.Batches // of it; nil before the first
	labels  []float32        // of the batch in the model
}

// start builds the job's network with fresh parameters.
func (t *Trainer) start(ctx context.Context, job search.Job) (*training, error) {
	set, err := t.set(ctx, job.Study)
	if err != nil {
		return nil, err
	}
	if job.Study.DataSum != "" && job.Study.DataSum != set.Sum {
		return nil, fmt.Errorf("the pictures of %s are others than those the study began with", set.Name)
	}
	isa, err := kernel.Detect()
	if err != nil {
		return nil, err
	}
	// What is left of an epoch when no full batch remains is left out: a
	// normalisation over a few pictures would be a rough one.
	tr := &training{job: job, set: set, batch: min(job.Study.Batch, set.Train.Len())}
	tr.steps = set.Train.Len() / tr.batch
	switch job.Study.Augment {
	case search.AugmentCropMirror:
		tr.aug = &dataset.Augmentation{Pad: job.Study.Pad, Mirror: true}
	case search.AugmentScaleCropMirror:
		tr.aug = &dataset.Augmentation{ResizeMax: job.Study.ResizeMax, Mirror: true}
	}
	net, err := job.System.Network(job.Study.Plan(space.Shape{C: set.C, H: set.H, W: set.W}, len(set.Classes)))
	if err != nil {
		return nil, err
	}
	if tr.model, err = graph.New(net, tr.batch, graph.Options{ISA: isa, Threads: t.options.Threads}); err != nil {
		return nil, err
	}
	initialise(tr.model.Params, uint64(job.Seed))
	return tr, nil
}

// initialise draws the first weights: convolutions normal with variance
// 2/fan_in, the linear layer uniform within ±sqrt(1/fan_in), scales 1, the rest
// 0. Each tensor has random numbers of its own.
func initialise(params []graph.Param, seed uint64) {
	for k, p := range params {
		var pcg rand.PCG
		pcg.Seed(seed, 0x1c5ea4c4<<32|uint64(k))
		// Uniform in (0, 1): 53 bits and a half.
		uniform := func() float64 { return (float64(pcg.Uint64()>>11) + 0.5) / (1 << 53) }
		for i := range p.Value {
			switch {
			case p.FanIn > 0 && len(p.Shape) == 4:
				// Box and Muller, spelled out because rand.NormFloat64
				// promises no algorithm.
				n := math.Sqrt(-2*math.Log(uniform())) * math.Cos(2*math.Pi*uniform())
				p.Value[i] = float32(n * math.Sqrt(2/float64(p.FanIn)))
			case p.FanIn > 0:
				p.Value[i] = float32((2*uniform() - 1) * math.Sqrt(1/float64(p.FanIn)))
			case p.Decays: // a scale; shifts and biases do not decay
				p.Value[i] = 1
			}
		}
	}
}

// learningRate of a step, counted from 0 over the whole training.
func learningRate(s search.Study, step, steps int) float64 {
	rate := s.LearningRate
	for _, d := range s.Drops {
		if float64(step) >= d*float64(steps) {
			rate /= 10
		}
	}
	return rate
}

// feed puts the next batch of the epoch into the model.
func (tr *training) feed(ctx context.Context, epoch int) error {
	if epoch != tr.epoch {
		tr.stopFeeding()
		seed := uint64(tr.job.Seed)
		order := dataset.Order(tr.set.Train.Len(), seed, uint64(epoch))[:tr.steps*tr.batch]
		tr.batches = tr.set.Batches(ctx, &tr.set.Train, order, tr.batch, tr.aug, seed, uint64(epoch))
		tr.epoch = epoch
	}
	return tr.put(tr.batches, tr.batch)
}

// put puts the next n pictures into the model.
func (tr *training) put(from *dataset.Batches, n int) error {
	x, y := tr.model.Batch(n)
	tr.labels = y[:n]
	_, err := from.Next(x, y)
	return err
}

// stopFeeding ends what reads the pictures of the epoch in progress.
func (tr *training) stopFeeding() {
	if tr.batches != nil {
		tr.batches.Close()
	}
}

// step trains on batch number step of the epoch, which follows the one of the
// last call, and returns the mean loss, which may be no number, and the
// learning rate.
func (tr *training) step(ctx context.Context, epoch, step int) (loss, rate float64, err error) {
	if err := tr.feed(ctx, epoch); err != nil {
		return 0, 0, err
	}
	if loss, err = tr.model.Step(); err != nil {
		return 0, 0, err
	}
	s := tr.job.Study
	rate = learningRate(s, (epoch-1)*tr.steps+step, s.Epochs*tr.steps)
	tr.model.Update(float32(rate), float32(s.Momentum), float32(s.WeightDecay))
	return loss, rate, nil
}

// Train implements search.Trainer.
func (t *Trainer) Train(ctx context.Context, job search.Job, r search.Reporter) error {
	tr, err := t.start(ctx, job)
	if err != nil {
		return err
	}
	defer tr.model.Close()
	defer tr.stopFeeding()
	first := 1
	if job.From != nil {
		if err := restore(tr.model, job, job.From); err != nil {
			return err
		}
		first = job.From.Epoch + 1
	}
	for epoch := first; epoch <= job.Study.Epochs; epoch++ {
		m, err := tr.train(ctx, epoch, r)
		if err != nil {
			return err
		}
		if epoch%job.Study.EvaluateEvery == 0 || epoch == job.Study.Epochs {
			begin := time.Now()
			if m.ValidationCorrect, err = tr.evaluate(ctx, &tr.set.Validation); err != nil {
				return err
			}
			if m.TestCorrect, err = tr.evaluate(ctx, &tr.set.Test); err != nil {
				return err
			}
			m.ValidationTotal, m.TestTotal = tr.set.Validation.Len(), tr.set.Test.Len()
			m.EvalSeconds = time.Since(begin).Seconds()
		}
		if err := r.Epoch(m, search.Checkpoint{Epoch: epoch, State: state(tr.model, job, epoch)}); err != nil {
			return err
		}
	}
	return nil
}

// train runs one epoch.
func (tr *training) train(ctx context.Context, epoch int, r search.Reporter) (search.Epoch, error) {
	m := search.Epoch{Number: epoch}
	begin := time.Now()
	for step := range tr.steps {
		if err := ctx.Err(); err != nil {
			return m, fmt.Errorf("epoch %d, step %d: %w", epoch, step+1, err)
		}
		loss, rate, err := tr.step(ctx, epoch, step)
		if err != nil {
			return m, fmt.Errorf("epoch %d, step %d: %w", epoch, step+1, err)
		}
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return m, fmt.Errorf("epoch %d, step %d: %w", epoch, step+1, search.ErrDiverged)
		}
		m.LearningRate = rate
		m.TrainLoss += loss * float64(tr.batch)
		m.TrainCorrect += tr.model.Correct(true)
		m.TrainTotal += tr.batch
		r.Step(epoch, step+1, tr.steps)
	}
	m.TrainLoss /= float64(m.TrainTotal)
	m.TrainSeconds = time.Since(begin).Seconds()
	return m, nil
}

// evaluate counts the pictures of a split that the network gets right, as they
// are and by the running statistics.
func (tr *training) evaluate(ctx context.Context, split *dataset.Split) (correct int, err error) {
	batches := tr.set.Batches(ctx, split, nil, tr.batch, nil, uint64(tr.job.Seed), 0)
	defer batches.Close()
	for first := 0; first < split.Len(); first += tr.batch {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("evaluation: %w", err)
		}
		if err := tr.put(batches, min(tr.batch, split.Len()-first)); err != nil {
			return 0, fmt.Errorf("evaluation: %w", err)
		}
		if _, err := tr.model.Evaluate(); err != nil {
			return 0, fmt.Errorf("evaluation: %w", err)
		}
		correct += tr.model.Correct(false)
	}
	return correct, nil
}
