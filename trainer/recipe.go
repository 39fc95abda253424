package trainer

import (
	"math"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
	"igcsearch/trainer/samebits"
)

// Recipe says how the steps of a training run, apart from their rates.
type Recipe struct {
	Augmentation *dataset.Augmentation // of training pictures; nil: as they are
	Seed         uint64                // of the first weights and the augmentation
	Momentum     float32               // Nesterov's µ
	WeightDecay  float32               // where graph.Param.Decays

	// DecayAll, Average and Precise are those of graph.Options.
	DecayAll, Average, Precise bool
	Precision                  string // search.Recipe.Precision
}

// recipe is that of a study.
func recipe(s search.Study, seed int) Recipe {
	r := Recipe{Seed: uint64(seed), Momentum: float32(s.Momentum), WeightDecay: float32(s.WeightDecay),
		DecayAll: s.WeightDecayOn == search.DecayAll, Average: s.WeightAverage > 0,
		Precise: s.BNStatistics == search.BNPrecise, Precision: s.Precision}
	switch s.Augment {
	case search.AugmentCropMirror:
		r.Augmentation = &dataset.Augmentation{Pad: s.Pad, Mirror: true}
	case search.AugmentScaleCropMirror:
		r.Augmentation = &dataset.Augmentation{ResizeMax: s.ResizeMax, Mirror: true}
	}
	return r
}

// GraphOptions are the options of a model that is trained by the recipe, on one
// thread.
func (r Recipe) GraphOptions() graph.Options {
	o := graph.Options{Threads: 1, DecayAll: r.DecayAll, Average: r.Average, Precise: r.Precise}
	switch r.Precision {
	case search.PrecisionBF16:
		o.Precision = kernel.BF16
	case search.PrecisionAMX:
		o.Precision = kernel.AMX
	}
	return o
}

// batch is how many pictures a step has.
func batch(s search.Study, set *dataset.Set) int { return min(s.Batch, set.Train.Len()) }

// network is one of a study's networks, for the pictures of set.
func network(s search.Study, system space.System, set *dataset.Set) (space.Network, error) {
	return system.Network(s.Plan(space.Shape{C: set.C, H: set.H, W: set.W}, len(set.Classes)))
}

// order is the order of an epoch's pictures, without those that fill no batch.
func (tr *training) order(epoch int) []int {
	return dataset.Order(tr.set.Train.Len(), uint64(tr.job.Seed), uint64(epoch))[:tr.steps*tr.batch]
}

// measured are the training pictures for the precise statistics: the same before
// each evaluation. No epoch has the number 0.
func (tr *training) measured() []int {
	n := min(tr.job.Study.BNPictures, tr.set.Train.Len()) / tr.batch * tr.batch
	return dataset.Order(tr.set.Train.Len(), uint64(tr.job.Seed), 0)[:n]
}

// rate is the learning rate of a step of an epoch.
func (tr *training) rate(epoch, step int) float64 {
	s := tr.job.Study
	return learningRate(s, (epoch-1)*tr.steps+step, s.Epochs*tr.steps)
}

// rates are all rates of a step of an epoch, for the engine.
func (tr *training) rates(epoch, step int) graph.Rates {
	r := graph.Rates{Learning: float32(tr.rate(epoch, step))}
	if s := tr.job.Study; s.WeightAverage > 0 {
		r.Average = float32(averageShare(s, (epoch-1)*tr.steps+step, s.Epochs*tr.steps))
	}
	return r
}

// LearningRate returns the learning rate of the last step of an epoch that has so
// many steps, as a training records it.
func LearningRate(s search.Study, epoch, steps int) float64 {
	return learningRate(s, epoch*steps-1, s.Epochs*steps)
}

// learningRate of a step, counted from 0 over the whole training of so many steps.
func learningRate(s search.Study, step, steps int) float64 {
	warm := float64(s.Warmup * float64(steps)) // the conversion prevents a fused multiply–add
	if step < firstStep(s.Warmup, steps) {
		return s.LearningRate * min(1, float64(step+1)/warm)
	}
	// The fraction of the way from the end of the warm-up to the end.
	done := (float64(step) - warm) / (float64(steps) - warm)
	switch s.Schedule {
	case search.ScheduleLinear:
		return s.LearningRate * (1 - done)
	case search.ScheduleCosine:
		return s.LearningRate * (1 + samebits.Cos(math.Pi*done)) / 2
	}
	rate := s.LearningRate
	for _, d := range s.Drops {
		if step >= firstStep(d, steps) {
			rate /= 10
		}
	}
	return rate
}

// firstStep is the first of so many steps, counted from 0, at or after a fraction of
// them. Floating point puts some products beside the whole number that they are:
// 0.07·100 is 7.000000000000001.
func firstStep(fraction float64, steps int) int {
	exact := float64(fraction * float64(steps))
	if nearest := math.Round(exact); math.Abs(exact-nearest) <= 1e-12*exact {
		return int(nearest)
	}
	return int(math.Ceil(exact))
}

// averageShare is the share of the weights after a step, counted from 0, in their
// average. With β = 1 − 1/horizon the average of t steps is
// Σ β^(t−i)·w_i / Σ β^(t−i), which gives the first weights no larger share.
func averageShare(s search.Study, step, steps int) float64 {
	horizon := s.WeightAverage
	if horizon < 1 {
		horizon = max(1, horizon*float64(steps))
	}
	beta := 1 - 1/horizon
	return (1 - beta) / (1 - samebits.Pow(beta, step+1))
}
