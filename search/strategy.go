package search

import (
	"slices"
	"strings"
)

// Strategy decides which trials a study trains next. Its decision depends only on the study and on
// what is recorded, so every process decides the same at any time.
type Strategy interface {
	// Decide returns the trials that should be trained now, the most important first. If there are
	// none while trials run, the study waits for these. If there are none and no trial runs, the
	// study has ended, and Reason says with which answer or why without one.
	Decide(s Study, trials []TrialState) Decision
}

// TrialState is a trial with its recorded epochs, in rising order.
type TrialState struct {
	Trial
	History []Epoch
	// ISA is the Attempt.ISA of the last epoch, or "" if there is none. Only the same arithmetic
	// can continue from its checkpoint.
	ISA string
}

// Decision is the answer of a Strategy.
type Decision struct {
	Next   []Step
	Reason string // one line; set if Next is empty
}

// Step wants one trial to be trained up to the epoch Until.
type Step struct {
	Trial int // an index into the trials that Decide received
	Until int
}

// These are the values of Study.Strategy. "" means StrategyGrid.
const (
	StrategyGrid    = "grid"
	StrategyHalving = "halving"
	StrategyRace    = "race"
)

// Strategies lists the values of Study.Strategy.
var Strategies = []string{StrategyGrid, StrategyHalving, StrategyRace}

// Selection holds the settings that say which trials of a study are trained, and up to which epoch.
type Selection struct {
	// Strategy is one of Strategies, or "" for StrategyGrid.
	Strategy string `toml:"strategy" json:"strategy,omitempty"`
	// Halving and Race are the settings of the strategies with these names. Normalize clears the
	// settings of other strategies.
	Halving Halving `toml:"halving" json:"halving,omitzero"`
	Race    Race    `toml:"race" json:"race,omitzero"`
}

// DecidingSplit returns the split whose accuracy a strategy uses. It is SplitValidation if pictures
// are held out, so that the test accuracy of the chosen network is not too high. Without held-out
// pictures it is SplitTest.
func (s Study) DecidingSplit() string {
	if s.Validation > 0 {
		return SplitValidation
	}
	return SplitTest
}

// Halving holds the settings of the strategy "halving".
type Halving struct {
	// Reduction is η, from 2 to 100. Of the networks that reach a rung, the best 1/η are trained
	// further.
	Reduction int `toml:"reduction" json:"reduction"`
	// MinEpochs is the epoch of the first rung. Normalize changes 0 to a third of the training.
	MinEpochs int `toml:"min_epochs" json:"min_epochs"`
	// Systems is the largest number of networks that take part, from 10 to 1,000. If the study has
	// more, the strategy chooses them by their width and by a model of the accuracy.
	Systems int `toml:"systems" json:"systems"`
}

// Rungs returns the epochs at which networks are compared, in rising order: MinEpochs·ηᵏ, each
// delayed to the next evaluation, and the last epoch of the training.
func (h Halving) Rungs(s Study) []int {
	var list []int
	for r := h.MinEpochs; r < s.Epochs && s.EvaluateEvery < s.Epochs; r *= h.Reduction {
		at := (r + s.EvaluateEvery - 1) / s.EvaluateEvery * s.EvaluateEvery
		if at < s.Epochs && (len(list) == 0 || at > list[len(list)-1]) {
			list = append(list, at)
		}
		if r > s.Epochs/h.Reduction {
			break // the product would be above s.Epochs, and could overflow
		}
	}
	return append(list, s.Epochs)
}

// Race holds the settings of the strategy "race".
type Race struct {
	// Test is one of RaceTests, or "" for RacePooled.
	Test string `toml:"test" json:"test,omitempty"`
	// Alpha is the largest probability, in (0, 1), that the whole race drops a network although no
	// other network is truly better. RaceSignedRank does not use it.
	Alpha float64 `toml:"alpha" json:"alpha"`
	// MinSeeds is the number of seeds that every network gets before the first test, at least 2.
	// Normalize changes 0 to the smallest number of seeds with which Test finds anything, or to
	// Seeds if there are fewer.
	MinSeeds int `toml:"min_seeds" json:"min_seeds"`
	// Systems is the largest number of networks that take part, from 10 to 1,000. If the study has
	// more, the strategy chooses them by their width and by a model of the accuracy.
	Systems int `toml:"systems" json:"systems"`
}

// These are the values of Race.Test.
const (
	RacePooled     = "pooled"      // t tests with one spread for all networks
	RacePaired     = "paired"      // t tests of two networks each, over common seeds
	RaceSignedRank = "signed-rank" // quick: no bound on the error
)

// RaceTests lists the values of Race.Test.
var RaceTests = []string{RacePooled, RacePaired, RaceSignedRank}

// WithStrategy returns the study with another strategy. If the study has no settings for it, they
// are those of Default.
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

// normalize checks the settings of the strategy of the study s, fills in their defaults, and clears
// the settings of other strategies.
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
	// A stored study that gets another strategy has no settings for it.
	if *x = s.WithStrategy(x.Strategy).Selection; x.Strategy == "" {
		return
	}
	const least, most = 10, 1000 // the model of the accuracy takes time for each network
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
			"halving.min_epochs %d: the first evaluation at or after it must come before the last epoch, %d: want "+
				"less, or evaluate_every below %d", h.MinEpochs, s.Epochs, s.EvaluateEvery)
	case StrategyRace:
		systems(x.Strategy, x.Race.Systems)
		x.Race.normalize(c, len(s.Seeds))
	}
}

// normalize does its part of Selection.normalize for a study of some seeds.
func (r *Race) normalize(c *checker, seeds int) {
	c.check(r.Alpha > 0 && r.Alpha < 1, "race.alpha %g: want a probability in (0, 1), 0.05 is usual", r.Alpha)
	c.check(seeds >= 2, "strategy race: seeds %d: want 2 or more, since a race compares networks over them", seeds)
	c.check(r.Test == "" || slices.Contains(RaceTests, r.Test), "race.test %q: want %s", r.Test,
		strings.Join(RaceTests, ", "))
	least := 2
	switch r.Test {
	case RacePooled:
		r.Test = "" // as in studies that were stored before there was a choice
	case RacePaired:
		least = 3 // with one degree of freedom it finds almost no difference
	case RaceSignedRank:
		least = 4 // the smallest p of n seeds is 1/2ⁿ
	}
	if r.MinSeeds == 0 {
		r.MinSeeds = min(least, seeds)
	}
	c.check(seeds < 2 || r.MinSeeds >= 2 && r.MinSeeds <= seeds,
		"race.min_seeds %d: want 2 to seeds, %d, or 0 for the default", r.MinSeeds, seeds)
}
