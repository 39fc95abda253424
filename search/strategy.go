package search

import (
	"slices"
	"strings"
)

// Strategy decides what a study trains next. It is a pure function of the study and of what is
// recorded: any process, now or later, decides the same.
type Strategy interface {
	// Decide returns the trials worth training now, the best first, each up to an epoch. None while
	// trials run means: wait for them. None while none runs means that the study has its answer, or
	// all that can be had; Reason says which.
	Decide(s Study, trials []TrialState) Decision
}

// TrialState is a trial with its recorded epochs, in their order.
type TrialState struct {
	Trial
	History []Epoch
	// ISA is Attempt.ISA of the last epoch, whose checkpoint no other arithmetic
	// goes on with; "" if there is none.
	ISA string
}

// Decision is what a Strategy wants done.
type Decision struct {
	Next   []Step
	Reason string // one line, where Next is empty
}

// Step is one trial to be trained until an epoch, from wherever it stands.
type Step struct {
	Trial int // index into trials
	Until int
}

// The values of Study.Strategy; "" is StrategyGrid.
const (
	StrategyGrid    = "grid"
	StrategyHalving = "halving"
	StrategyRace    = "race"
)

// Strategies lists the values of Study.Strategy.
var Strategies = []string{StrategyGrid, StrategyHalving, StrategyRace}

// Selection are the settings of a study that say which of its trials are
// trained, and how far.
type Selection struct {
	// Strategy is one of Strategies, "" being StrategyGrid; it decides which
	// trials are trained, and how far. Halving and Race are the settings of
	// their strategies; Normalize clears them beside another.
	Strategy string  `toml:"strategy" json:"strategy,omitempty"`
	Halving  Halving `toml:"halving" json:"halving,omitzero"`
	Race     Race    `toml:"race" json:"race,omitzero"`
}

// DecidingSplit is the split that strategies decide by, SplitValidation
// wherever pictures are held out: a test set that has chosen a network no
// longer measures it. Without held-out pictures it is CurveTest.
func (s Study) DecidingSplit() string {
	if s.Validation > 0 {
		return SplitValidation
	}
	return SplitTest
}

// Halving holds the settings of the strategy "halving".
type Halving struct {
	// Reduction is η ≥ 2: of the networks that reach a rung, the best 1/η go on.
	Reduction int `toml:"reduction" json:"reduction"`
	// MinEpochs is the first rung, in epochs; Normalize makes a 0 a third of
	// the training.
	MinEpochs int `toml:"min_epochs" json:"min_epochs"`
	// Systems is how many networks take part at most; of more, the width bound
	// and a model of accuracy choose.
	Systems int `toml:"systems" json:"systems"`
}

// Rungs are the epochs at which networks are compared, rising: MinEpochs·ηᵏ,
// put off to the next evaluation, and last the whole training.
func (h Halving) Rungs(s Study) []int {
	var list []int
	for r := h.MinEpochs; r < s.Epochs && s.EvaluateEvery < s.Epochs; r *= h.Reduction {
		at := (r + s.EvaluateEvery - 1) / s.EvaluateEvery * s.EvaluateEvery
		if at < s.Epochs && (len(list) == 0 || at > list[len(list)-1]) {
			list = append(list, at)
		}
		if r > s.Epochs/h.Reduction {
			break // and never overflow
		}
	}
	return append(list, s.Epochs)
}

// Race holds the settings of the strategy "race".
type Race struct {
	// Alpha is the largest probability, in (0, 1), that the whole race drops any
	// network to which none is truly better.
	Alpha float64 `toml:"alpha" json:"alpha"`
	// MinSeeds is how many seeds every network gets before the first test, ≥ 2;
	// Normalize makes a 0 three, or all seeds if there are fewer.
	MinSeeds int `toml:"min_seeds" json:"min_seeds"`
	// Systems is how many networks take part at most; of more, the width bound
	// and a model of accuracy choose.
	Systems int `toml:"systems" json:"systems"`
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

// normalize checks and fills in the settings of the strategy, and clears those of
// the others. s is the study that they are of.
func (x *Selection) normalize(c *checker, s Study) {
	if x.Strategy == StrategyGrid {
		x.Strategy = ""
	}
	c.check(x.Strategy == "" || slices.Contains(Strategies, x.Strategy), "strategy %q: want %s", x.Strategy,
		strings.Join(Strategies, ", "))
	if x.Strategy != StrategyHalving {
		x.Halving = Halving{}
	}
	if x.Strategy != StrategyRace {
		x.Race = Race{}
	}
	s.Selection = *x
	// A stored study has no settings of other strategies, and may get another.
	if *x = s.WithStrategy(x.Strategy).Selection; x.Strategy == "" {
		return
	}
	const least, most = 10, 1000 // networks; the model is of them all
	systems := func(key string, n int) {
		c.check(n >= least && n <= most, "%s.systems %d: want %d to %d", key, n, least, most)
	}
	switch x.Strategy {
	case StrategyHalving:
		h := &x.Halving
		systems(x.Strategy, h.Systems)
		c.check(h.Reduction >= 2 && h.Reduction <= 100, "halving.reduction %d: want 2 to 100, 3 is usual", h.Reduction)
		c.check(h.MinEpochs >= 0, "halving.min_epochs %d: want 1 or more, or 0 for a third of the epochs", h.MinEpochs)
		if h.MinEpochs == 0 {
			h.MinEpochs = max(1, s.Epochs/3)
		}
		c.check(h.Reduction < 2 || s.EvaluateEvery < 1 || h.MinEpochs < 1 || len(h.Rungs(s)) > 1,
			"halving.min_epochs %d: the first evaluation from there on must come before the last epoch, %d: want "+
				"less, or evaluate_every below %d", h.MinEpochs, s.Epochs, s.EvaluateEvery)
	case StrategyRace:
		systems(x.Strategy, x.Race.Systems)
		c.check(x.Race.Alpha > 0 && x.Race.Alpha < 1, "race.alpha %g: want a probability in (0, 1), 0.05 is usual",
			x.Race.Alpha)
		c.check(s.Seeds >= 2, "strategy race: seeds %d: a race compares networks over 2 seeds or more", s.Seeds)
		if x.Race.MinSeeds == 0 {
			x.Race.MinSeeds = min(3, s.Seeds) // a t test of two seeds separates next to nothing
		}
		c.check(s.Seeds < 2 || x.Race.MinSeeds >= 2 && x.Race.MinSeeds <= s.Seeds,
			"race.min_seeds %d: want 2 to seeds, %d, or 0 for 3", x.Race.MinSeeds, s.Seeds)
	}
}
