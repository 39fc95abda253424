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
	// DataDir holds the files of CIFAR-10 or CIFAR-100; "" if there are none.
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
	}, nil
}

func (t *Trainer) set(ctx context.Context, s search.Study) (*dataset.Set, error) {
	o := dataset.Options{Name: s.Dataset, Dir: t.options.DataDir,
		TrainPictures: s.TrainPictures, TestPictures: s.TestPictures, Validation: s.Validation, SplitSeed: s.SplitSeed}
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
	job    search.Job
	set    *dataset.Set
	aug    *dataset.Augmentation
	model  *graph.Model
	batch  int
	steps  int   // of an epoch
	order  []int // of the epoch in progress
	epoch  int   // 1 …
	labels []int32
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
	tr.labels = make([]int32, tr.batch)
	if job.Study.Augment == search.AugmentCropMirror {
		tr.aug = &dataset.Augmentation{Pad: job.Study.Pad, Mirror: true}
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

// feed puts batch number step of the epoch into the model.
func (tr *training) feed(epoch, step int) {
	seed := uint64(tr.job.Seed)
	if epoch != tr.epoch {
		tr.order, tr.epoch = dataset.Order(tr.set.Train.Len(), seed, uint64(epoch)), epoch
	}
	tr.put(&tr.set.Train, tr.order[step*tr.batch:(step+1)*tr.batch], tr.aug, uint64(epoch))
}

func (tr *training) put(split *dataset.Split, pictures []int, aug *dataset.Augmentation, epoch uint64) {
	x, y := tr.model.Batch(len(pictures))
	tr.set.Fill(x, split, pictures, aug, uint64(tr.job.Seed), epoch)
	tr.set.Labels(tr.labels, split, pictures)
	for i := range pictures {
		y[i] = float32(tr.labels[i])
	}
}

// step trains on batch number step of the epoch and returns the mean loss,
// which may be no number, and the learning rate.
func (tr *training) step(epoch, step int) (loss, rate float64, err error) {
	tr.feed(epoch, step)
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
		loss, rate, err := tr.step(epoch, step)
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
	pictures := make([]int, 0, tr.batch)
	for first := 0; first < split.Len(); first += tr.batch {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("evaluation: %w", err)
		}
		pictures = pictures[:0]
		for p := first; p < min(first+tr.batch, split.Len()); p++ {
			pictures = append(pictures, p)
		}
		tr.put(split, pictures, nil, 0)
		if _, err := tr.model.Evaluate(); err != nil {
			return 0, fmt.Errorf("evaluation: %w", err)
		}
		correct += tr.model.Correct(false)
	}
	return correct, nil
}
