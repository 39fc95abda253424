// Package trainer trains the network of one trial: schedule, optimiser,
// epochs, evaluation and checkpoint. It implements search.Trainer.
//
// The protocol is the paper's (Section 5.2): SGD with Nesterov momentum, weight
// decay, a learning rate that falls to a tenth at given fractions of the
// training. What the paper leaves open follows its authors' code: decay of every
// parameter, variance 2/fan_in for convolutions, uniform ±sqrt(1/fan_in) for the
// linear layer. A study may choose other schedules, and evaluate averages of the
// weights by precise statistics.
//
// A result is a pure function of the study's settings, the pair, the seed and
// the arithmetic: an instruction set, or a kind of GPU. Every random number
// derives from (seed, what for, epoch, picture); a checkpoint therefore needs to
// say only which epoch is next, and a training that was interrupted ends with
// the same bits.
package trainer

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/gpu"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// Options say where the pictures are and how a training runs.
type Options struct {
	// DataDir holds the files of the data set, as of dataset.Options.Dir; "" if
	// there are none.
	DataDir string
	// Threads of one training on the processor; 0 is 1. The number changes no
	// bit of a result.
	Threads int
	// GPUs are those to train on, of gpu.Devices; none: the processor trains.
	GPUs []gpu.Info
}

// Trainer trains networks. It is safe for concurrent use: trainings share
// nothing but the pictures, which are only read, and the devices. Each takes
// the one with the fewest others.
type Trainer struct {
	dataDir string
	devices []*device
	mu      sync.Mutex
	sets    map[dataset.Options]*dataset.Set
}

var _ search.Trainer = (*Trainer)(nil)

// dataset writes the layout that kernel reads, without importing it.
var _ [kernel.Lanes]struct{} = [dataset.Lanes]struct{}{}

// New returns a Trainer.
func New(o Options) *Trainer {
	return &Trainer{dataDir: o.DataDir, devices: devices(o), sets: map[dataset.Options]*dataset.Set{}}
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
	o := dataset.Options{Name: s.Dataset, Dir: t.dataDir,
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
	engine
	job   search.Job
	set   *dataset.Set
	batch int    // pictures of a step
	steps int    // of an epoch
	end   func() // closes the engine and gives its device back
}

// batch is how many pictures a step has.
func batch(s search.Study, set *dataset.Set) int { return min(s.Batch, set.Train.Len()) }

// network is that of one of a study's systems.
func network(s search.Study, system space.System, set *dataset.Set) (space.Network, error) {
	return system.Network(s.Plan(space.Shape{C: set.C, H: set.H, W: set.W}, len(set.Classes)))
}

// start builds the job's network with fresh parameters on a device.
func (t *Trainer) start(ctx context.Context, job search.Job) (*training, error) {
	s := job.Study
	set, err := t.set(ctx, s)
	if err != nil {
		return nil, err
	}
	if s.DataSum != "" && s.DataSum != set.Sum {
		return nil, fmt.Errorf("the pictures of %s are others than those the study began with", set.Name)
	}
	net, err := network(s, job.System, set)
	if err != nil {
		return nil, err
	}
	// What is left of an epoch when no full batch remains is left out: a
	// normalisation over a few pictures would be a rough one.
	tr := &training{job: job, set: set, batch: batch(s, set)}
	tr.steps = set.Train.Len() / tr.batch
	o := gpu.Options{Seed: uint64(job.Seed), Momentum: float32(s.Momentum), WeightDecay: float32(s.WeightDecay),
		DecayAll: s.WeightDecayOn == search.DecayAll, Average: s.WeightAverage > 0, Precise: s.BNStatistics == search.BNPrecise}
	switch s.Augment {
	case search.AugmentCropMirror:
		o.Augmentation = &dataset.Augmentation{Pad: s.Pad, Mirror: true}
	case search.AugmentScaleCropMirror:
		o.Augmentation = &dataset.Augmentation{ResizeMax: s.ResizeMax, Mirror: true}
	}
	d := t.take(job)
	if tr.engine, err = d.start(net, tr.batch, set, o); err != nil {
		t.giveBack(d)
		return nil, memory(err)
	}
	tr.end = func() {
		tr.engine.Close()
		t.giveBack(d)
	}
	initialise(tr.Model().Params, o.Seed)
	if err := tr.Push(); err != nil {
		tr.end()
		return nil, err
	}
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
			case strings.HasSuffix(p.Name, ".weight"): // a scale
				p.Value[i] = 1
			}
		}
	}
}

// learningRate of a step, counted from 0 over the whole training of so many steps.
func learningRate(s search.Study, step, steps int) float64 {
	warm := s.Warmup * float64(steps)
	if float64(step) < warm {
		return s.LearningRate * min(1, float64(step+1)/warm)
	}
	// The fraction of the way from the end of the warm-up to the end.
	done := (float64(step) - warm) / (float64(steps) - warm)
	switch s.Schedule {
	case search.ScheduleLinear:
		return s.LearningRate * (1 - done)
	case search.ScheduleCosine:
		return s.LearningRate * (1 + math.Cos(math.Pi*done)) / 2
	}
	rate := s.LearningRate
	for _, d := range s.Drops {
		if float64(step) >= d*float64(steps) {
			rate /= 10
		}
	}
	return rate
}

// averageShare is the share of the weights after a step, counted from 0, in their
// average. With β = 1 − 1/horizon the average of t steps is
// Σ β^(t−i)·w_i / Σ β^(t−i), which does not lean towards the first weights.
func averageShare(s search.Study, step, steps int) float64 {
	horizon := s.WeightAverage
	if horizon < 1 {
		horizon = max(1, horizon*float64(steps))
	}
	beta := 1 - 1/horizon
	return (1 - beta) / (1 - math.Pow(beta, float64(step+1)))
}

// order is that of an epoch's pictures, without the rest that fills no batch.
func (tr *training) order(epoch int) []int {
	return dataset.Order(tr.set.Train.Len(), uint64(tr.job.Seed), uint64(epoch))[:tr.steps*tr.batch]
}

// rate is the learning rate of a step of an epoch.
func (tr *training) rate(epoch, step int) float64 {
	s := tr.job.Study
	return learningRate(s, (epoch-1)*tr.steps+step, s.Epochs*tr.steps)
}

// rates are what the engine wants to know of a step of an epoch.
func (tr *training) rates(epoch, step int) graph.Rates {
	r := graph.Rates{Learning: float32(tr.rate(epoch, step))}
	if s := tr.job.Study; s.WeightAverage > 0 {
		r.Average = float32(averageShare(s, (epoch-1)*tr.steps+step, s.Epochs*tr.steps))
	}
	return r
}

// measured are the training pictures that precise statistics are measured on: the
// same before each evaluation. No epoch has the number 0.
func (tr *training) measured() []int {
	n := min(tr.job.Study.BNPictures, tr.set.Train.Len()) / tr.batch * tr.batch
	return dataset.Order(tr.set.Train.Len(), uint64(tr.job.Seed), 0)[:n]
}

// Train implements search.Trainer.
func (t *Trainer) Train(ctx context.Context, job search.Job, r search.Reporter) (err error) {
	defer func() { err = memory(err) }()
	tr, err := t.start(ctx, job)
	if err != nil {
		return err
	}
	defer tr.end()
	first := 1
	if job.From != nil {
		if err := restore(tr, job, job.From); err != nil {
			return err
		}
		first = job.From.Epoch + 1
	}
	for epoch := first; epoch <= cmp.Or(job.Until, job.Study.Epochs); epoch++ {
		m, err := tr.train(ctx, epoch, r)
		if err != nil {
			return err
		}
		if epoch%job.Study.EvaluateEvery == 0 || epoch == job.Study.Epochs {
			if err := tr.evaluate(ctx, &m); err != nil {
				return err
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

// train runs one epoch.
func (tr *training) train(ctx context.Context, epoch int, r search.Reporter) (search.Epoch, error) {
	m := search.Epoch{Number: epoch, LearningRate: tr.rate(epoch, tr.steps-1), TrainTotal: tr.steps * tr.batch}
	begin := time.Now()
	rates := make([]graph.Rates, tr.steps)
	for step := range rates {
		rates[step] = tr.rates(epoch, step)
	}
	at := 0 // the first step that is not done
	err := tr.Train(ctx, epoch, tr.order(epoch), rates, func(step int, loss float64, correct int) error {
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return search.ErrDiverged
		}
		m.TrainLoss += loss * float64(tr.batch)
		m.TrainCorrect += correct
		at = step + 1
		r.Step(epoch, at, tr.steps)
		return nil
	})
	if err != nil {
		return m, fmt.Errorf("epoch %d, step %d: %w", epoch, min(at+1, tr.steps), err)
	}
	m.TrainLoss /= float64(m.TrainTotal)
	m.TrainSeconds = time.Since(begin).Seconds()
	return m, nil
}

// evaluate fills in how right the network is on validation and test pictures.
func (tr *training) evaluate(ctx context.Context, m *search.Epoch) error {
	begin := time.Now()
	if err := tr.forEvaluation(ctx, func() error {
		validation, err := tr.score(ctx, &tr.set.Validation)
		if err != nil {
			return err
		}
		test, err := tr.score(ctx, &tr.set.Test)
		if err != nil {
			return err
		}
		m.ValidationCorrect, m.ValidationTotal, m.ValidationLoss = validation.Correct, tr.set.Validation.Len(), validation.Loss
		m.TestCorrect, m.TestTotal, m.TestLoss = test.Correct, tr.set.Test.Len(), test.Loss
		return nil
	}); err != nil {
		return fmt.Errorf("evaluation: %w", err)
	}
	m.EvalSeconds = time.Since(begin).Seconds()
	return nil
}

// forEvaluation calls do with the weights and statistics that the study evaluates. The
// training goes on afterwards as if it had not been called. After an error it does not.
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

// score is that of a split, zero if it has no pictures. A loss that is no number
// counts as infinite.
func (tr *training) score(ctx context.Context, split *dataset.Split) (gpu.Score, error) {
	if split.Len() == 0 {
		return gpu.Score{}, nil
	}
	s, err := tr.Evaluate(ctx, split)
	if math.IsNaN(s.Loss) {
		s.Loss = math.Inf(1)
	}
	return s, err
}
