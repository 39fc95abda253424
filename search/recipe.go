package search

import (
	"slices"
	"strings"
)

// The values of Study.Schedule: how the learning rate falls from
// Study.LearningRate, after Study.Warmup.
const (
	// ScheduleStep divides by 10 at each of Study.Drops.
	ScheduleStep = "step"
	// ScheduleLinear falls to 0 on a straight line.
	ScheduleLinear = "linear"
	// ScheduleCosine falls to 0 on half a wave of a cosine (Loshchilov and
	// Hutter, arXiv:1608.03983, without restarts).
	ScheduleCosine = "cosine"
)

// The values of Study.WeightDecayOn.
const (
	// DecayAll is every parameter, as in the code of the paper's authors.
	DecayAll = "all"
	// DecayWeights leaves out the biases of linear layers and the shifts of
	// normalisations. Studies that older versions stored have it.
	DecayWeights = "weights"
)

// The values of Study.BNStatistics: by which mean and variance an evaluation
// normalises.
const (
	// BNRunning is the exponential average over the steps of the training.
	BNRunning = "running"
	// BNPrecise recomputes them before each evaluation, with the weights as they
	// are, over Study.BNPictures training pictures (Wu and Johnson,
	// arXiv:2105.07576).
	BNPrecise = "precise"
)

// Recipe are the settings of a study that say how each network is trained and
// evaluated.
type Recipe struct {
	// Epochs is the length of a training.
	Epochs int `toml:"epochs" json:"epochs"`
	// Batch is the number of pictures of one step. What is left of an epoch
	// when no full batch remains is not trained on in that epoch.
	Batch int `toml:"batch" json:"batch"`
	// LearningRate is the first learning rate.
	LearningRate float64 `toml:"learning_rate" json:"learning_rate"`
	// Drops are the fractions of the training, in (0, 1) and rising, after
	// which the learning rate is divided by 10.
	Drops []float64 `toml:"drops" json:"drops"`
	// Momentum is Nesterov's µ, in [0, 1).
	Momentum float64 `toml:"momentum" json:"momentum"`
	// WeightDecay is added as WeightDecay·w to the gradients of the parameters
	// that WeightDecayOn names.
	WeightDecay float64 `toml:"weight_decay" json:"weight_decay"`
	// WeightDecayOn is DecayAll or DecayWeights. Normalize makes DecayWeights "",
	// which is what older versions stored.
	WeightDecayOn string `toml:"weight_decay_on" json:"weight_decay_on,omitempty"`
	// Schedule is ScheduleStep, ScheduleLinear or ScheduleCosine. Normalize makes
	// ScheduleStep "", and clears Drops beside the others.
	Schedule string `toml:"schedule" json:"schedule,omitempty"`
	// Warmup is the fraction of the training, in [0, 1), in which the learning rate
	// rises from 0 on a straight line.
	Warmup float64 `toml:"warmup" json:"warmup,omitempty"`
	// BNStatistics is BNRunning or BNPrecise. Normalize makes BNRunning "".
	BNStatistics string `toml:"bn_statistics" json:"bn_statistics,omitempty"`
	// BNPictures is how many training pictures BNPrecise measures the statistics on,
	// in full batches; Normalize makes it 0 without BNPrecise, else at least one batch.
	BNPictures int `toml:"bn_pictures" json:"bn_pictures,omitempty"`
	// WeightAverage is the horizon of an exponential average of the weights,
	// which is evaluated in place of the weights: below 1 a fraction of the training, from
	// 1 on a number of steps; 0 evaluates the weights themselves.
	WeightAverage float64 `toml:"weight_average" json:"weight_average,omitempty"`
	// EvaluateEvery is how many epochs lie between two evaluations; the last
	// epoch is always evaluated.
	EvaluateEvery int `toml:"evaluate_every" json:"evaluate_every"`
}

// normalize checks how a network is trained and evaluated. A setting that older
// versions did not have is left out where it says what those versions did.
func (r *Recipe) normalize(c *checker) {
	c.check(r.Epochs >= 1, "epochs %d: want 1 or more", r.Epochs)
	c.check(r.Batch >= 1 && r.Batch <= 4096, "batch %d: want 1 to 4096", r.Batch)
	c.check(r.LearningRate > 0 && r.LearningRate <= 1e6, "learning_rate %g: want > 0, at most 1e6", r.LearningRate)
	c.check(r.Momentum >= 0 && r.Momentum < 1, "momentum %g: want [0, 1)", r.Momentum)
	c.check(r.WeightDecay >= 0 && r.WeightDecay <= 1e6, "weight_decay %g: want 0 to 1e6", r.WeightDecay)
	c.check(r.EvaluateEvery >= 1, "evaluate_every %d: want 1 or more", r.EvaluateEvery)
	one := func(key string, value *string, others ...string) {
		old := olden[key]
		if *value == old {
			*value = ""
		}
		c.check(*value == "" || slices.Contains(others, *value), `%s %q: want "%s" or "%s"`, key, *value,
			strings.Join(append([]string{old}, others[:len(others)-1]...), `", "`), others[len(others)-1])
	}
	one("weight_decay_on", &r.WeightDecayOn, DecayAll)
	one("schedule", &r.Schedule, ScheduleLinear, ScheduleCosine)
	one("bn_statistics", &r.BNStatistics, BNPrecise)
	if r.Schedule != "" {
		r.Drops = nil
	}
	for i, d := range r.Drops {
		c.check(d > 0 && d < 1 && (i == 0 || d > r.Drops[i-1]), "drops %v: want rising fractions in (0, 1)", r.Drops)
	}
	r.Drops = slices.Clone(r.Drops)
	c.check(r.Warmup >= 0 && r.Warmup < 1, "warmup %g: want a fraction of the training in [0, 1)", r.Warmup)
	if r.BNStatistics == "" {
		r.BNPictures = 0
	} else {
		c.check(r.BNPictures >= 1, "bn_pictures %d: want 1 or more training pictures, 2048 is usual", r.BNPictures)
		r.BNPictures = max(r.BNPictures, r.Batch)
	}
	c.check(r.WeightAverage >= 0 && r.WeightAverage <= 1e9,
		"weight_average %g: want a fraction of the training below 1, a number of steps from 1 on, or 0 for no average",
		r.WeightAverage)
	c.check(r.WeightAverage == 0 || r.BNStatistics == BNPrecise,
		"weight_average %g: the running statistics are those of the weights themselves, so it needs "+
			`bn_statistics = "precise"`, r.WeightAverage)
}
