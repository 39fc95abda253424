// Package search is the domain of igcsearch: a Study asks which pair (L, M)
// is best under a parameter budget, or which of some networks is, a Trial trains
// one of them from one seed, and the Runner works through the trials of a study, several
// at once.
//
// The package declares what it needs of the outside as interfaces, Trainer
// and Store. It knows no database, no device and no file format.
package search

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"igcsearch/space"
)

// The values of Study.Curve: the split whose accuracy a figure or table shows.
const (
	SplitTest       = "test"
	SplitValidation = "validation"
)

// The values of Study.Augment.
const (
	AugmentNone = "none"
	// AugmentCropMirror zero-pads by Study.Pad pixels on each side, crops at
	// random to the old size and mirrors half of the pictures (paper,
	// Section 5.1).
	AugmentCropMirror = "crop-mirror"
	// AugmentScaleCropMirror rescales a picture of a folder so that its shorter
	// side has a random length from Study.Resize to Study.ResizeMax, crops at
	// random to Study.Size and mirrors half of the pictures (He et al., Deep
	// Residual Learning for Image Recognition, 2015, Section 3.4).
	AugmentScaleCropMirror = "scale-crop-mirror"
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

// datasets are the values of Study.Dataset.
var datasets = []string{"synthetic", "handsigns", "cifar10", "cifar100", "cifar100-coarse", "svhn", "folder"}

// SVHNValidation is the only number of pictures that Study.Validation holds
// out of SVHN: 400 of each class of its training file and 200 of each class of
// its extra file.
const SVHNValidation = 10 * (400 + 200)

// Study holds the settings of one study. Every field but Title and those from
// Workers on, which say how to run and not what, takes part in Fingerprint: two studies with
// the same fingerprint have the same results, bit for bit, on the same
// instruction set.
type Study struct {
	// Name identifies the study in a database; letters, digits, '-', '_', '.'.
	Name string `toml:"name" json:"name"`
	// Title is one line for people, shown beside the name.
	Title string `toml:"title" json:"title,omitempty"`

	// Dataset is "synthetic", "handsigns", "cifar10", "cifar100",
	// "cifar100-coarse", "svhn" or "folder".
	Dataset string `toml:"dataset" json:"dataset"`
	// TrainPictures bounds the training pictures, class-balanced; 0 is all.
	TrainPictures int `toml:"train_pictures" json:"train_pictures"`
	// TestPictures bounds the test pictures, class-balanced; 0 is all.
	TestPictures int `toml:"test_pictures" json:"test_pictures"`
	// Validation is how many training pictures are held out, class-balanced;
	// of SVHN 0 or SVHNValidation. Of handsigns they are of students whose other
	// pictures are not used.
	Validation int `toml:"validation" json:"validation"`
	// SplitSeed draws the held-out and the bounded pictures; the same for
	// every trial of a study.
	SplitSeed int `toml:"split_seed" json:"split_seed"`
	// Split is the split that figures and tables show: CurveTest or
	// CurveValidation.
	Split string `toml:"curve" json:"curve"`
	// Augment is AugmentNone, AugmentCropMirror or, of a folder,
	// AugmentScaleCropMirror.
	Augment string `toml:"augment" json:"augment"`
	// Pad is the zero padding of AugmentCropMirror in pixels; Normalize clears
	// it for a folder, where it does nothing.
	Pad int `toml:"pad" json:"pad"`
	// Size is the side, in pixels, of the pictures of a folder or of handsigns
	// as the network gets them; of handsigns 32, or 16, which Normalize sets
	// where it is 0. It is 0 for all other data sets, whose pictures have a size.
	Size int `toml:"size" json:"size,omitempty"`
	// Resize is the length in pixels that the shorter side of a picture of a
	// folder is rescaled to before Size is cut out of its centre, and the
	// least of AugmentScaleCropMirror. Normalize makes it 256/224 of Size
	// where it is 0; other data sets have none.
	Resize int `toml:"resize" json:"resize,omitempty"`
	// ResizeMax is the largest length of AugmentScaleCropMirror, 480/224 of
	// Size where it is 0; 0 without that augmentation.
	ResizeMax int `toml:"resize_max" json:"resize_max,omitempty"`

	// Budget is the parameters of one block, T. It, Tolerance and All choose
	// the pairs where none are listed; Normalize clears them beside a list of
	// other pairs, because they do nothing there.
	Budget int `toml:"budget" json:"budget"`
	// Kernel is the number of spatial kernel positions, S; 9 is 3×3.
	Kernel int `toml:"kernel" json:"kernel"`
	// Tolerance is the largest |params/T − 1| of a pair, a fraction.
	Tolerance float64 `toml:"tolerance" json:"tolerance"`
	// All keeps every L within the tolerance, not only the nearest of each M.
	All bool `toml:"all" json:"all"`
	// Pairs lists the pairs, "40x2" is L = 40, M = 2. Normalize fills it from
	// Budget where the study lists none.
	Pairs []string `toml:"pairs" json:"pairs"`
	// Variant of the pairs' blocks; "" is the paper's.
	Variant space.Variant `toml:"variant" json:"variant,omitempty"`
	// Systems lists networks by name, "IGC-L24M2+Ident.", in place of pairs.
	Systems []string `toml:"systems" json:"systems,omitempty"`
	// StageParams or StageMultiplyAdds is a budget of the whole network: it chooses
	// partitions for each of its stages, the StageTop nearest within Tolerance,
	// where no systems are listed.
	StageParams       int   `toml:"stage_params" json:"stage_params,omitempty"`
	StageMultiplyAdds int64 `toml:"stage_multiply_adds" json:"stage_multiply_adds,omitempty"`
	StageTop          int   `toml:"stage_top" json:"stage_top,omitempty"`
	// Layout of the stages; "" is space.Flat, the network of Figure 3.
	Layout space.Layout `toml:"layout" json:"layout,omitempty"`
	// Depths lists the depths D of each network; none is the layout's own, in
	// the flat layout Blocks + 2.
	Depths []int `toml:"depths" json:"depths,omitempty"`
	// Blocks is the number of blocks of a network of the flat layout; Figure 3
	// has 6. Normalize clears it where it does nothing.
	Blocks int `toml:"blocks" json:"blocks"`

	// Seeds is how many trials each pair gets; their seeds are 0 … Seeds−1.
	Seeds int `toml:"seeds" json:"seeds"`
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

	// Strategy is one of Strategies, "" being StrategyGrid; it decides which
	// trials are trained, and how far. Halving and Race are the settings of
	// their strategies; Normalize clears them beside another.
	Strategy string  `toml:"strategy" json:"strategy,omitempty"`
	Halving  Halving `toml:"halving" json:"halving,omitzero"`
	Race     Race    `toml:"race" json:"race,omitzero"`

	// DataSum identifies the pictures themselves; the trainer's data reader
	// gives it, a study file cannot.
	DataSum string `toml:"-" json:"data_sum,omitempty"`
	// Unreadable is how many pictures of a folder were left out because they
	// cannot be read; from the trainer's data reader, like DataSum.
	Unreadable int `toml:"-" json:"unreadable,omitempty"`

	// Workers is how many trials run at once; 0 leaves it to the devices, one
	// for each core of the processor.
	Workers int `toml:"workers" json:"-"`

	// The budgets stop a run at the end of an epoch; a run with a larger one goes
	// on. MaxWallTime, like "2h30m", is of one run; the others count all that is
	// recorded of the study, by any run. "" and 0 are no bound.
	MaxWallTime string `toml:"max_wall_time" json:"-"`
	// MaxTrials is of trials that have begun.
	MaxTrials int `toml:"max_trials" json:"-"`
	MaxEpochs int `toml:"max_epochs" json:"-"`
	// MaxDeviceHours is of the hours of all trainings added up, also where
	// several share a device.
	MaxDeviceHours float64 `toml:"max_device_hours" json:"-"`

	// TrialTimeLimit, like "45m", is how long one attempt at a trial may take;
	// "" is no limit.
	TrialTimeLimit string `toml:"trial_time_limit" json:"-"`
	// How often a trial is tried again after each kind of failure.
	RetryCrashed int `toml:"retry_crashed" json:"-"`
	RetryTimeout int `toml:"retry_timeout" json:"-"`
	RetryMemory  int `toml:"retry_memory" json:"-"`
	// StopAfter is how many failures in a row, all alike, stop the run; 0 is
	// never.
	StopAfter int `toml:"stop_after" json:"-"`

	// KeepCheckpoints keeps the last checkpoint of finished trials, KeepBest also
	// the one of the epoch with the best validation accuracy.
	KeepCheckpoints bool `toml:"keep_checkpoints" json:"-"`
	KeepBest        bool `toml:"keep_best" json:"-"`
	// CheckpointQuota bounds the bytes of all checkpoints of the study; those of
	// finished trials make room. 0 is no bound.
	CheckpointQuota int64 `toml:"checkpoint_quota" json:"-"`
}

// WallTime is MaxWallTime of a normalised study, 0 if there is no bound.
func (s Study) WallTime() time.Duration { return duration(s.MaxWallTime) }

// TimeLimit is TrialTimeLimit of a normalised study, 0 if there is none.
func (s Study) TimeLimit() time.Duration { return duration(s.TrialTimeLimit) }

// Run returns, as JSON with the keys of a study file, how the study is run: the
// settings from Workers on, which Settings leaves out.
func (s Study) Run() json.RawMessage {
	how := map[string]any{}
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if f := v.Type().Field(i); runs(f) && !v.Field(i).IsZero() {
			how[f.Tag.Get("toml")] = v.Field(i).Interface()
		}
	}
	text, err := json.Marshal(how)
	if err != nil {
		panic(err) // numbers, texts and truth values
	}
	return text
}

// SetRun sets what Run returned; what it does not name is zero.
func (s *Study) SetRun(text json.RawMessage) error {
	var how map[string]json.RawMessage
	if err := json.Unmarshal(text, &how); err != nil {
		return fmt.Errorf("how the study is run: %w", err)
	}
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !runs(f) {
			continue
		}
		v.Field(i).SetZero()
		if value := how[f.Tag.Get("toml")]; value != nil {
			if err := json.Unmarshal(value, v.Field(i).Addr().Interface()); err != nil {
				return fmt.Errorf("how the study is run: %s: %w", f.Tag.Get("toml"), err)
			}
		}
	}
	return nil
}

// runs tells a setting of how a study is run from one of what it is.
func runs(f reflect.StructField) bool { return f.Tag.Get("json") == "-" }

func duration(text string) time.Duration {
	d, _ := time.ParseDuration(text) // Normalize has checked it, "" is 0
	return d
}

// Default returns the paper's protocol for CIFAR (Section 5.2) on the network
// of Figure 3; Name, Dataset and Budget or Pairs are left to fill in.
func Default() Study {
	return Study{
		Split: SplitTest, Augment: AugmentCropMirror, Pad: 4,
		Kernel: 9, Tolerance: 0.024, Blocks: 6,
		Seeds: 5, Epochs: 400, Batch: 64,
		LearningRate: 0.1, Drops: []float64{0.5, 0.75, 0.875},
		Momentum: 0.9, WeightDecay: 1e-4, WeightDecayOn: DecayAll, BNPictures: 2048, EvaluateEvery: 1,
		Halving:      Halving{Reduction: 3, Systems: 64},
		Race:         Race{Alpha: 0.05, Systems: 64},
		RetryCrashed: 1, RetryTimeout: 1, RetryMemory: 1, StopAfter: 5,
	}
}

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// Normalize checks the settings and returns them in the one form that is
// stored and hashed: Pairs filled in and in the order of rising M, spelled
// "40x2"; Budget, Tolerance and All zero unless they give those pairs. The
// error lists every setting that is wrong.
func (s Study) Normalize() (Study, error) {
	var errs []error
	check := func(ok bool, format string, a ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	check(nameRE.MatchString(s.Name), "name %q: want 1 to 100 letters, digits, '.', '_' or '-', starting with a letter or digit", s.Name)
	check(slices.Contains(datasets, s.Dataset), "dataset %q: want %s", s.Dataset, strings.Join(datasets, ", "))
	check(s.TrainPictures >= 0, "train_pictures %d: want 0 (all) or more", s.TrainPictures)
	check(s.TestPictures >= 0, "test_pictures %d: want 0 (all) or more", s.TestPictures)
	check(s.Validation >= 0, "validation %d: want 0 or more pictures", s.Validation)
	check(s.Dataset != "svhn" || s.Validation <= 0 || s.Validation == SVHNValidation,
		"validation %d: want 0 (none) or %d of svhn: 400 of each class of its training file and 200 of its extra file", s.Validation, SVHNValidation)
	check(s.Split == SplitTest || s.Split == SplitValidation, `curve %q: want "test" or "validation"`, s.Split)
	check(s.Split != SplitValidation || s.Validation > 0, `curve "validation" needs validation > 0 held-out pictures`)
	check(slices.Contains([]string{AugmentNone, AugmentCropMirror, AugmentScaleCropMirror}, s.Augment), `augment %q: want "none", "crop-mirror" or "scale-crop-mirror"`, s.Augment)
	check(s.Pad >= 0 && s.Pad <= 16, "pad %d: want 0 to 16", s.Pad)
	s.normalizeSizes(check)
	check(s.Kernel == 9, "kernel %d: the trainer has 3×3 kernels only, want 9", s.Kernel)
	check(s.Tolerance >= 0 && s.Tolerance < 1, "tolerance %g: want a fraction in [0, 1), 0.024 is 2.4 %%", s.Tolerance)
	if s.Layout == space.Flat {
		s.Layout = ""
	}
	check(s.Layout == "" || slices.Contains(space.Layouts, s.Layout), `layout %q: want "flat", "stages" or "imagenet"`, s.Layout)
	if s.Layout == "" && len(s.Depths) == 0 {
		check(s.Blocks >= 1 && s.Blocks <= 1000, "blocks %d: want 1 to 1000", s.Blocks)
	} else {
		s.Blocks = 0
	}
	if err := s.Variant.Validate(); err != nil {
		errs = append(errs, err)
	}
	check(s.Seeds >= 1 && s.Seeds <= 10000, "seeds %d: want 1 to 10000", s.Seeds)
	check(s.Epochs >= 1, "epochs %d: want 1 or more", s.Epochs)
	check(s.Batch >= 1 && s.Batch <= 4096, "batch %d: want 1 to 4096", s.Batch)
	check(s.LearningRate > 0 && s.LearningRate <= 1e6, "learning_rate %g: want > 0, at most 1e6", s.LearningRate)
	check(s.Momentum >= 0 && s.Momentum < 1, "momentum %g: want [0, 1)", s.Momentum)
	check(s.WeightDecay >= 0 && s.WeightDecay <= 1e6, "weight_decay %g: want 0 to 1e6", s.WeightDecay)
	check(s.EvaluateEvery >= 1, "evaluate_every %d: want 1 or more", s.EvaluateEvery)
	check(s.Workers >= 0, "workers %d: want 0 (what the devices are fastest with) or more", s.Workers)
	s.normalizeTraining(check)
	s.normalizeStrategy(check)
	s.checkRun(check)
	for i, d := range s.Drops {
		check(d > 0 && d < 1 && (i == 0 || d > s.Drops[i-1]), "drops %v: want rising fractions in (0, 1)", s.Drops)
	}
	check(s.Budget >= 0 && s.Budget <= 1_000_000_000, "budget %d: want 1 to 1000000000 parameters, or 0 beside a list of pairs", s.Budget)
	staged := s.StageParams != 0 || s.StageMultiplyAdds != 0
	check(s.Budget != 0 || len(s.Pairs) > 0 || len(s.Systems) > 0 || staged, "budget 0: want a number of parameters, or a list of pairs or of systems")
	check(len(s.Systems) == 0 || len(s.Pairs) == 0 && s.Budget == 0 && (s.Variant == "" || staged), "systems stand in place of budget, pairs and variant: want one or the other")

	var pairs []space.Pair
	for _, text := range s.Pairs {
		p, err := space.ParsePair(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("pairs: %w", err))
			continue
		}
		check(!slices.Contains(pairs, p), "pairs: %s is listed twice", text)
		pairs = append(pairs, p)
	}
	s.Depths = slices.Clone(s.Depths)
	slices.Sort(s.Depths)
	for i, d := range s.Depths {
		check(i == 0 || d != s.Depths[i-1], "depths: %d is listed twice", d)
		check(d >= 3, "depths: %d: want 3 or more", d)
	}
	systems, err := parseSystems(s.Systems)
	if err != nil {
		errs = append(errs, err)
	}
	for _, system := range systems {
		check(system.Depth == 0 || len(s.Depths) == 0, "depths: %s has one in its name: want one or the other", system)
	}
	check(s.StageTop >= 0 && s.StageTop <= 10_000, "stage_top %d: want 1 to 10000 networks", s.StageTop)
	check(!staged || len(s.Pairs) == 0 && s.Budget == 0, "stage_params and stage_multiply_adds stand in place of budget and pairs: want one or the other")
	var chosen []space.System
	if staged && len(errs) == 0 {
		if chosen, err = s.chooseStages(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return s, errors.Join(errs...)
	}
	s.Drops = slices.Clone(s.Drops)
	if len(systems) == 0 {
		systems = chosen
	}
	if len(systems) > 0 {
		if !slices.Equal(systems, chosen) {
			s.StageParams, s.StageMultiplyAdds, s.StageTop, s.Tolerance, s.Variant = 0, 0, 0, 0, ""
		}
		s.All, s.Pairs, s.Systems = false, nil, nil
		for _, system := range systems {
			s.Systems = append(s.Systems, system.String())
		}
		return s, s.buildable()
	}
	slices.SortFunc(pairs, space.ComparePairs)
	byBudget := s.choose()
	switch {
	case len(pairs) == 0 && len(byBudget) == 0:
		return s, fmt.Errorf("budget %d: no pair lies within %g %%; raise tolerance", s.Budget, 100*s.Tolerance)
	case len(pairs) == 0:
		pairs = byBudget
	case !slices.Equal(pairs, byBudget):
		s.Budget, s.Tolerance, s.All = 0, 0, false
	}
	s.Pairs = nil // a fresh slice: s is a copy, its slices are not
	for _, p := range pairs {
		s.Pairs = append(s.Pairs, fmt.Sprintf("%dx%d", p.L, p.M))
	}
	return s, s.buildable()
}

// checkRun checks what says how to run.
func (s Study) checkRun(check func(ok bool, format string, a ...any)) {
	for _, f := range []struct{ key, value string }{{"max_wall_time", s.MaxWallTime}, {"trial_time_limit", s.TrialTimeLimit}} {
		d, err := time.ParseDuration(f.value)
		check(f.value == "" || err == nil && d > 0, `%s %q: want a time, like "90s", "45m" or "2h30m", or "" for no bound`, f.key, f.value)
	}
	check(s.MaxTrials >= 0, "max_trials %d: want 0 (no bound) or more", s.MaxTrials)
	check(s.MaxEpochs >= 0, "max_epochs %d: want 0 (no bound) or more", s.MaxEpochs)
	check(s.MaxDeviceHours >= 0 && s.MaxDeviceHours < 1e9, "max_device_hours %g: want 0 (no bound) or more", s.MaxDeviceHours)
	for _, f := range []struct {
		key   string
		value int
	}{{"retry_crashed", s.RetryCrashed}, {"retry_timeout", s.RetryTimeout}, {"retry_memory", s.RetryMemory}} {
		check(f.value >= 0 && f.value <= 1000, "%s %d: want 0 to 1000", f.key, f.value)
	}
	check(s.StopAfter >= 0, "stop_after %d: want 0 (never) or more", s.StopAfter)
	check(s.CheckpointQuota >= 0, "checkpoint_quota %d: want bytes, 0 is no bound", s.CheckpointQuota)
	check(!s.KeepBest || s.Validation > 0, "keep_best needs validation > 0 held-out pictures")
}

// chooseStages returns the networks of the budget for all stages.
func (s Study) chooseStages() ([]space.System, error) {
	in, classes := s.Shape()
	if classes == 0 || len(s.Depths) > 1 {
		return nil, errors.New("stage_params: the budget is of one depth, on a data set whose size is known beforehand, not a folder")
	}
	b := space.StageBudget{Params: s.StageParams, MultiplyAdds: s.StageMultiplyAdds, Tolerance: s.Tolerance, Variant: s.Variant,
		Plan: s.Plan(in, classes)}
	if len(s.Depths) == 1 {
		b.Plan.Depth = s.Depths[0]
	}
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("stage_params: %w", err)
	}
	all := b.Systems(context.Background())
	if len(all) == 0 {
		return nil, fmt.Errorf("stage_params: no network lies within %g %%; raise tolerance", 100*s.Tolerance)
	}
	if top := cmp.Or(s.StageTop, defaultStageTop); len(all) > top {
		all = all[:top]
	}
	return all, nil
}

// Shape returns the shape of the pictures and the number of classes, as far as
// they are known before the pictures are read: of a folder there are 0 classes.
func (s Study) Shape() (in space.Shape, classes int) {
	classes = map[string]int{"synthetic": 10, "handsigns": 10, "cifar10": 10, "cifar100": 100, "cifar100-coarse": 20, "svhn": 10}[s.Dataset]
	side := cmp.Or(s.Size, 32)
	if s.Dataset == "synthetic" {
		side = 16
	}
	return space.Shape{C: 3, H: side, W: side}, classes
}

// defaultStageTop is how many networks a budget for all stages chooses.
const defaultStageTop = 12

func parseSystems(names []string) (systems []space.System, err error) {
	var errs []error
	for _, name := range names {
		system, err := space.ParseSystem(name)
		if err == nil && slices.Contains(systems, system) {
			err = fmt.Errorf("%s is listed twice", name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("systems: %w", err))
		}
		systems = append(systems, system)
	}
	return systems, errors.Join(errs...)
}

// buildable reports every network of the study that there is none of.
func (s Study) buildable() error {
	var errs []error
	key := "pairs"
	if len(s.Systems) > 0 {
		key = "systems"
	}
	for _, system := range s.SystemList() {
		if _, err := system.Network(s.Plan(space.Shape{C: 3, H: 32, W: 32}, 10)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	return errors.Join(errs...)
}

// normalizeTraining checks the schedule, the decay and what an evaluation uses, and
// brings them to their one form: settings that older versions did not have are left
// out where they say what those versions did.
func (s *Study) normalizeTraining(check func(ok bool, format string, a ...any)) {
	one := func(key string, value *string, others ...string) {
		old := olden[key]
		if *value == old {
			*value = ""
		}
		check(*value == "" || slices.Contains(others, *value), `%s %q: want "%s" or "%s"`, key, *value, strings.Join(append([]string{old}, others[:len(others)-1]...), `", "`), others[len(others)-1])
	}
	one("weight_decay_on", &s.WeightDecayOn, DecayAll)
	one("schedule", &s.Schedule, ScheduleLinear, ScheduleCosine)
	one("bn_statistics", &s.BNStatistics, BNPrecise)
	if s.Schedule != "" {
		s.Drops = nil
	}
	check(s.Warmup >= 0 && s.Warmup < 1, "warmup %g: want a fraction of the training in [0, 1)", s.Warmup)
	if s.BNStatistics == "" {
		s.BNPictures = 0
	} else {
		check(s.BNPictures >= 1, "bn_pictures %d: want 1 or more training pictures, 2048 is usual", s.BNPictures)
		s.BNPictures = max(s.BNPictures, s.Batch)
	}
	check(s.WeightAverage >= 0 && s.WeightAverage <= 1e9, "weight_average %g: want a fraction of the training below 1, a number of steps from 1 on, or 0 for no average", s.WeightAverage)
	check(s.WeightAverage == 0 || s.BNStatistics == BNPrecise,
		`weight_average %g: the running statistics are those of the weights themselves, so it needs bn_statistics = "precise"`, s.WeightAverage)
}

// NeedsFiles reports whether the pictures are files that lie somewhere; those of
// the other data sets are part of the program.
func (s Study) NeedsFiles() bool { return s.Dataset != "synthetic" && s.Dataset != "handsigns" }

// normalizeSizes checks and fills in what only a folder and handsigns have: the
// sizes that their pictures are rescaled and cut to.
func (s *Study) normalizeSizes(check func(ok bool, format string, a ...any)) {
	size := s.Size // of a set whose pictures have one size
	if s.Dataset == "handsigns" {
		s.Size, size = cmp.Or(s.Size, 16), 0
		check(s.Size == 16 || s.Size == 32, "size %d: want 16 or 32, the side in pixels of the pictures of handsigns", s.Size)
	}
	if s.Dataset != "folder" {
		check(s.Augment != AugmentScaleCropMirror, `augment "scale-crop-mirror": it is for dataset "folder", want "none" or "crop-mirror"`)
		for _, f := range []struct {
			key   string
			value int
		}{{"size", size}, {"resize", s.Resize}, {"resize_max", s.ResizeMax}} {
			check(f.value == 0, `%s %d: only pictures of dataset "folder" are rescaled, leave it out`, f.key, f.value)
		}
		return
	}
	s.Pad = 0
	check(s.Augment != AugmentCropMirror, `augment "crop-mirror": it is for pictures of one size, want "scale-crop-mirror" or "none" for dataset "folder"`)
	if s.Size < 8 || s.Size > 1024 {
		check(false, `size %d: want 8 to 1024, the side in pixels that the pictures of dataset "folder" get; 224 is usual`, s.Size)
		return
	}
	if s.Resize == 0 {
		s.Resize = (256*s.Size + 112) / 224
	}
	check(s.Resize >= s.Size && s.Resize <= 8192, "resize %d: want size, %d, to 8192 pixels", s.Resize, s.Size)
	if s.Augment != AugmentScaleCropMirror {
		check(s.ResizeMax == 0, `resize_max %d: only augment "scale-crop-mirror" has it, leave it out`, s.ResizeMax)
		return
	}
	if s.ResizeMax == 0 {
		s.ResizeMax = (480*s.Size + 112) / 224
	}
	check(s.ResizeMax >= s.Resize && s.ResizeMax <= 8192, "resize_max %d: want resize, %d, to 8192 pixels", s.ResizeMax, s.Resize)
}

// WithStrategy returns the study with a strategy, and with the default settings
// of it if the study has none.
func (s Study) WithStrategy(name string) Study {
	s.Strategy = name
	if s.Strategy == StrategyHalving && s.Halving == (Halving{}) {
		s.Halving = Default().Halving
	}
	if s.Strategy == StrategyRace && s.Race == (Race{}) {
		s.Race = Default().Race
	}
	return s
}

// normalizeStrategy checks and fills in the settings of the strategy, and clears
// those of the others.
func (s *Study) normalizeStrategy(check func(ok bool, format string, a ...any)) {
	if s.Strategy == StrategyGrid {
		s.Strategy = ""
	}
	check(s.Strategy == "" || slices.Contains(Strategies, s.Strategy), "strategy %q: want %s", s.Strategy, strings.Join(Strategies, ", "))
	if s.Strategy != StrategyHalving {
		s.Halving = Halving{}
	}
	if s.Strategy != StrategyRace {
		s.Race = Race{}
	}
	// A stored study has no settings of other strategies, and may get another.
	if *s = s.WithStrategy(s.Strategy); s.Strategy == "" {
		return
	}
	const least, most = 10, 1000 // networks; the model is of them all
	systems := func(key string, n int) {
		check(n >= least && n <= most, "%s.systems %d: want %d to %d", key, n, least, most)
	}
	switch s.Strategy {
	case StrategyHalving:
		h := &s.Halving
		systems(s.Strategy, h.Systems)
		check(h.Reduction >= 2 && h.Reduction <= 100, "halving.reduction %d: want 2 to 100, 3 is usual", h.Reduction)
		check(h.MinEpochs >= 0, "halving.min_epochs %d: want 1 or more, or 0 for a third of the epochs", h.MinEpochs)
		if h.MinEpochs == 0 {
			h.MinEpochs = max(1, s.Epochs/3)
		}
		check(h.Reduction < 2 || s.EvaluateEvery < 1 || h.MinEpochs < 1 || len(h.Rungs(*s)) > 1,
			"halving.min_epochs %d: the first evaluation from there on must come before the last epoch, %d: want less, or evaluate_every below %d", h.MinEpochs, s.Epochs, s.EvaluateEvery)
	case StrategyRace:
		systems(s.Strategy, s.Race.Systems)
		check(s.Race.Alpha > 0 && s.Race.Alpha < 1, "race.alpha %g: want a probability in (0, 1), 0.05 is usual", s.Race.Alpha)
		check(s.Seeds >= 2, "strategy race: seeds %d: a race compares networks over 2 seeds or more", s.Seeds)
		if s.Race.MinSeeds == 0 {
			s.Race.MinSeeds = min(3, s.Seeds) // a t test of two seeds separates next to nothing
		}
		check(s.Seeds < 2 || s.Race.MinSeeds >= 2 && s.Race.MinSeeds <= s.Seeds, "race.min_seeds %d: want 2 to seeds, %d, or 0 for 3", s.Race.MinSeeds, s.Seeds)
	}
}

// choose returns the pairs of the budget in the order of a normalised study;
// none if there is no budget.
func (s Study) choose() []space.Pair {
	if s.Budget == 0 {
		return nil
	}
	b := space.Budget{Params: s.Budget, Kernel: s.Kernel, Tolerance: s.Tolerance, Variant: s.Variant}
	pairs := b.Nearest()
	if s.All {
		pairs = b.All()
	}
	slices.SortFunc(pairs, space.ComparePairs)
	return pairs
}

// PairList returns Pairs parsed. It panics if s is not normalised.
func (s Study) PairList() []space.Pair {
	pairs := make([]space.Pair, len(s.Pairs))
	for i, text := range s.Pairs {
		p, err := space.ParsePair(text)
		if err != nil {
			panic(err)
		}
		pairs[i] = p
	}
	return pairs
}

// OfPairs reports whether a normalised study compares pairs, by their M; else it
// compares networks, by name.
func (s Study) OfPairs() bool { return len(s.Systems) == 0 && len(s.Depths) <= 1 }

// SystemList returns the networks of a normalised study in the order of its
// figures and tables: those of the pairs by rising M, or Systems as they are
// listed, each with rising depth.
func (s Study) SystemList() []space.System {
	var systems []space.System
	for _, p := range s.PairList() {
		system := space.PairSystem(p)
		system.Variant = s.Variant
		systems = append(systems, system)
	}
	for _, name := range s.Systems {
		system, err := space.ParseSystem(name)
		if err != nil {
			panic(err)
		}
		systems = append(systems, system)
	}
	if len(s.Depths) == 0 {
		return systems
	}
	var deep []space.System
	for _, system := range systems {
		for _, d := range s.Depths {
			system.Depth = d
			deep = append(deep, system)
		}
	}
	return deep
}

// Plan says which network of a system the study trains.
func (s Study) Plan(in space.Shape, classes int) space.Plan {
	p := space.Plan{Layout: s.Layout, In: in, Classes: classes}
	if p.Layout == "" {
		p.Layout = space.Flat
		if s.Blocks > 0 {
			p.Depth = s.Blocks + 2
		}
	}
	return p
}

// Settings is the canonical form of what defines the results of a normalised
// study, as JSON.
func (s Study) Settings() []byte {
	s.Title = "" // text for people; changing it is not another study
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // NaN is refused by Normalize, nothing else can fail
	}
	return b
}

// Fingerprint is the SHA-256 of Settings in hexadecimal.
func (s Study) Fingerprint() string {
	sum := sha256.Sum256(s.Settings())
	return hex.EncodeToString(sum[:])
}

// olden are the values of settings that older versions did not have, and that are
// stored as "".
var olden = map[string]string{"weight_decay_on": DecayWeights, "schedule": ScheduleStep, "bn_statistics": BNRunning}

// Diff lists the settings in which two normalised studies differ, one line
// each, "epochs: 400 there, 20 here"; empty if their fingerprints agree.
func Diff(there, here Study) []string {
	var lines []string
	a, b := reflect.ValueOf(there), reflect.ValueOf(here)
	for i := range a.NumField() {
		f := a.Type().Field(i)
		tag := f.Tag.Get("json")
		if tag == "-" || f.Name == "Title" {
			continue
		}
		key, _, _ := strings.Cut(tag, ",")
		differ := func(key string, x, y any) {
			if a, b := fmt.Sprint(x), fmt.Sprint(y); a != b {
				none := cmp.Or(olden[key], "not set")
				lines = append(lines, fmt.Sprintf("%s: %s there, %s here", key, cmp.Or(a, none), cmp.Or(b, none)))
			}
		}
		if f.Type.Kind() != reflect.Struct {
			differ(key, a.Field(i).Interface(), b.Field(i).Interface())
			continue
		}
		for j := range f.Type.NumField() {
			differ(key+"."+f.Type.Field(j).Tag.Get("json"), a.Field(i).Field(j).Interface(), b.Field(i).Field(j).Interface())
		}
	}
	return lines
}

// Trials returns every (network, seed) of a normalised study as pending trials, one
// seed of all networks after the other, so that what is finished compares them all.
// Those of a seed come longest first by multiply–adds, so that a pool of workers ends
// together.
func (s Study) Trials(in space.Shape, classes int) []Trial {
	var trials []Trial
	order := map[space.System]int{}
	for i, system := range s.SystemList() {
		net, err := system.Network(s.Plan(in, classes))
		if err != nil {
			panic(err) // Normalize has built it
		}
		order[system] = i
		for seed := range s.Seeds {
			trials = append(trials, Trial{Key: Key{System: system, Seed: seed}, Status: Pending, Epochs: s.Epochs, MultiplyAdds: net.MultiplyAdds(), Params: net.Params()})
		}
	}
	slices.SortStableFunc(trials, func(a, b Trial) int {
		return cmp.Or(cmp.Compare(a.Seed, b.Seed), cmp.Compare(b.MultiplyAdds, a.MultiplyAdds), cmp.Compare(order[a.System], order[b.System]))
	})
	return trials
}
