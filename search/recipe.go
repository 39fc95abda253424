package search

import (
	"slices"
	"strings"
)

// These are the values of Study.Schedule. They say how the learning rate falls from
// Study.LearningRate, after Study.Warmup.
const (
	// ScheduleStep divides the learning rate by 10 at each of Study.Drops.
	ScheduleStep = "step"
	// ScheduleLinear lowers the learning rate to 0 on a straight line.
	ScheduleLinear = "linear"
	// ScheduleCosine lowers the learning rate to 0 on half a wave of a cosine (Loshchilov and
	// Hutter, arXiv:1608.03983, without restarts).
	ScheduleCosine = "cosine"
)

// These are the values of Study.WeightDecayOn.
const (
	// DecayAll applies weight decay to every parameter, as the code of the paper's authors does.
	DecayAll = "all"
	// DecayWeights leaves out the biases of linear layers and the shifts of batch norm. Studies
	// from older versions have this value.
	DecayWeights = "weights"
)

// These are the values of Study.BNStatistics. They say which mean and variance batch norm uses in
// an evaluation.
const (
	// BNRunning uses the exponential average over the steps of the training.
	BNRunning = "running"
	// BNPrecise measures mean and variance before each evaluation with the current weights, on
	// Study.BNPictures training pictures (Wu and Johnson, arXiv:2105.07576).
	BNPrecise = "precise"
)

// These are the values of Study.Precision. They say how exact the numbers are that a training
// multiplies. The products are added up in float32, whatever the precision.
const (
	// PrecisionF32 multiplies float32.
	PrecisionF32 = "f32"
	// PrecisionTF32 rounds what the 1×1 convolutions of 16 and more channels multiply to the
	// nearest numbers with ten bits behind the point, for the matrix units of a GPU.
	PrecisionTF32 = "tf32"
	// PrecisionBF16 rounds activations, their gradients and what convolutions multiply to bfloat16,
	// on the processor. The weights and their momentum stay float32.
	PrecisionBF16 = "bf16"
	// PrecisionAMX is PrecisionBF16 with the products of convolutions added in the order of AMX's
	// matrix units.
	PrecisionAMX = "bf16-amx"
)

// Bfloat16 reports whether a precision is one of bfloat16, PrecisionBF16 or PrecisionAMX. These
// train on the processor only, and have the same bits on every processor.
func Bfloat16(precision string) bool { return precision == PrecisionBF16 || precision == PrecisionAMX }

// Recipe holds the settings that say how each network is trained and evaluated.
type Recipe struct {
	// Epochs is the length of a training, at least 1.
	Epochs int `toml:"epochs" json:"epochs"`
	// Batch is the number of pictures in one step, from 1 to 4,096. An epoch leaves out the
	// pictures that remain after its last full batch.
	Batch int `toml:"batch" json:"batch"`
	// LearningRate is the learning rate after Warmup and before the schedule lowers it, > 0.
	LearningRate float64 `toml:"learning_rate" json:"learning_rate"`
	// Drops are the fractions of the training, in (0, 1) and rising, after which ScheduleStep
	// divides the learning rate by 10. Beside another schedule only those of Default pass.
	Drops []float64 `toml:"drops" json:"drops"`
	// Momentum is the µ of Nesterov's method, in [0, 1).
	Momentum float64 `toml:"momentum" json:"momentum"`
	// WeightDecay·w is added to the gradient of each parameter w that WeightDecayOn selects.
	WeightDecay float64 `toml:"weight_decay" json:"weight_decay"`
	// WeightDecayOn is DecayAll or DecayWeights. Normalize changes DecayWeights to "", which is
	// what older versions stored.
	WeightDecayOn string `toml:"weight_decay_on" json:"weight_decay_on,omitempty"`
	// Schedule is ScheduleStep, ScheduleLinear or ScheduleCosine. Normalize changes ScheduleStep to
	// "", and clears Drops for the other two.
	Schedule string `toml:"schedule" json:"schedule,omitempty"`
	// Warmup is the fraction of the training, in [0, 1), during which the learning rate rises from
	// 0 on a straight line.
	Warmup float64 `toml:"warmup" json:"warmup,omitempty"`
	// BNStatistics is BNRunning or BNPrecise. Normalize changes BNRunning to "".
	BNStatistics string `toml:"bn_statistics" json:"bn_statistics,omitempty"`
	// BNPictures is the number of training pictures that BNPrecise measures on, in full batches.
	// Normalize raises it to at least one batch, and clears it without BNPrecise.
	BNPictures int `toml:"bn_pictures" json:"bn_pictures,omitempty"`
	// WeightAverage is the horizon of an exponential average of the weights. Evaluations use this
	// average in place of the weights. A value below 1 is a fraction of the training; a value from
	// 1 on is a number of steps. With 0 there is no average.
	WeightAverage float64 `toml:"weight_average" json:"weight_average,omitempty"`
	// Precision is PrecisionF32, PrecisionTF32, PrecisionBF16 or PrecisionAMX. Normalize changes
	// PrecisionF32 to "".
	Precision string `toml:"precision" json:"precision,omitempty"`
	// EvaluateEvery evaluates every so many epochs, at least 1. The last epoch is always evaluated.
	EvaluateEvery int `toml:"evaluate_every" json:"evaluate_every"`
}

// Evaluates reports whether the networks are evaluated after an epoch.
func (r Recipe) Evaluates(epoch int) bool { return epoch%r.EvaluateEvery == 0 || epoch == r.Epochs }

// Arithmetic names the arithmetic of trainings by the recipe: an Attempt.ISA like "cuda sm_90 tf32".
// The argument names that of the same devices with PrecisionF32, of several separated by ", ".
// PrecisionBF16 and PrecisionAMX have one name each, because they have the same bits on every processor.
func (r Recipe) Arithmetic(isa string) string {
	switch {
	case r.Precision == "" || isa == "":
		return isa
	case Bfloat16(r.Precision):
		return r.Precision
	}
	ending := " " + r.Precision
	return strings.ReplaceAll(isa, ", ", ending+", ") + ending
}

// normalize checks how a network is trained and evaluated, and brings it into the stored form.
func (r *Recipe) normalize(c *checker) {
	c.check(r.Epochs >= 1, "epochs %d: want 1 or more", r.Epochs)
	c.check(r.Batch >= 1 && r.Batch <= 4096, "batch %d: want 1 to 4096", r.Batch)
	c.check(r.LearningRate > 0 && r.LearningRate <= 1e6, "learning_rate %g: want > 0, at most 1e6", r.LearningRate)
	c.check(r.Momentum >= 0 && r.Momentum < 1, "momentum %g: want [0, 1)", r.Momentum)
	c.check(r.WeightDecay >= 0 && r.WeightDecay <= 1e6, "weight_decay %g: want 0 to 1e6", r.WeightDecay)
	c.check(r.EvaluateEvery >= 1, "evaluate_every %d: want 1 or more", r.EvaluateEvery)
	oneOf := func(key string, value *string, others ...string) {
		old := storedEmpty[key]
		if *value == old {
			*value = ""
		}
		c.check(*value == "" || slices.Contains(others, *value), `%s %q: want "%s" or "%s"`, key, *value,
			strings.Join(append([]string{old}, others[:len(others)-1]...), `", "`), others[len(others)-1])
	}
	oneOf("weight_decay_on", &r.WeightDecayOn, DecayAll)
	oneOf("schedule", &r.Schedule, ScheduleLinear, ScheduleCosine)
	oneOf("bn_statistics", &r.BNStatistics, BNPrecise)
	oneOf("precision", &r.Precision, PrecisionTF32, PrecisionBF16, PrecisionAMX)
	if r.Schedule != "" {
		isDefault := slices.Equal(r.Drops, Default().Drops) // of a study that does not name them
		c.check(len(r.Drops) == 0 || isDefault,
			`drops %v: only schedule "step" has them: set it too, or leave them out`, r.Drops)
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
		`weight_average %g: the running statistics belong to the weights before averaging, so set `+
			`bn_statistics = "precise"`, r.WeightAverage)
}
