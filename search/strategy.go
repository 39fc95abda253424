package search

import (
	"cmp"
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
	// Until is the epoch up to which the trial is trained now, or 0 if it is not running.
	Until int
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
	StrategyPeak    = "peak"
)

// Strategies lists the values of Study.Strategy.
var Strategies = []string{StrategyGrid, StrategyHalving, StrategyRace, StrategyPeak}

// Selection holds the settings that say which trials of a study are trained, and up to which epoch.
type Selection struct {
	// Strategy is one of Strategies, or "" for StrategyGrid.
	Strategy string `toml:"strategy" json:"strategy,omitempty"`
	// Halving, Race and Peak are the settings of the strategies with these names. Normalize clears
	// the settings of other strategies.
	Halving Halving `toml:"halving" json:"halving,omitzero"`
	Race    Race    `toml:"race" json:"race,omitzero"`
	Peak    Peak    `toml:"peak" json:"peak,omitzero"`
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

// DecidingSplitAt returns the split whose accuracy a strategy uses after an epoch: DecidingSplit, or
// SplitTrain if the epoch is not evaluated.
func (s Study) DecidingSplitAt(epoch int) string {
	if s.Evaluates(epoch) {
		return s.DecidingSplit()
	}
	return SplitTrain
}

// Halving holds the settings of the strategy "halving".
type Halving struct {
	// Reduction is η, from 2 to 100. Of the networks that reach a rung, the best 1/η are trained
	// further.
	Reduction int `toml:"reduction" json:"reduction"`
	// MinEpochs is the epoch before which there is no rung, at most two thirds of Epochs. Normalize
	// changes 0 to a third of the training.
	MinEpochs int `toml:"min_epochs" json:"min_epochs"`
	// Systems is the largest number of networks that take part, from 10 to 1,000. If the study has
	// more, the strategy chooses them by their width and by a model of the accuracy.
	Systems int `toml:"systems" json:"systems"`
}

// Rungs returns the epochs at which networks are compared, in rising order. The last one is the end
// of the training, and the others are counted from there: Epochs/η, Epochs/η², … in whole epochs,
// and MinEpochs in place of the first one below it. Each is moved to the next epoch that is
// evaluated, unless that lies too close to the rung above. A rung that lies too close to it anyway
// is left out: every rung drops networks, so there must be enough training in between to tell them
// apart. A rung has at least one and a half times the epochs of the rung before it.
func (h Halving) Rungs(s Study) []int {
	rungs := []int{s.Epochs} // in falling order
	for part := h.Reduction; ; part *= h.Reduction {
		rung := max(h.MinEpochs, (2*s.Epochs+part)/(2*part)) // the whole number nearest to Epochs/part
		evaluated := (rung + s.EvaluateEvery - 1) / s.EvaluateEvery * s.EvaluateEvery
		for _, at := range []int{evaluated, rung} {
			if 3*at <= 2*rungs[len(rungs)-1] {
				rungs = append(rungs, at)
				break
			}
		}
		if rung == h.MinEpochs {
			slices.Reverse(rungs)
			return rungs
		}
	}
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

// PeakSeeds is the smallest number of seeds of the answer of the strategy "peak".
const PeakSeeds = 3

// Peak holds the settings of the strategy "peak".
type Peak struct {
	// Margin is a difference of accuracy in points, above 0: a network that is so much below the
	// best is good enough.
	Margin float64 `toml:"margin" json:"margin"`
	// Confidence is the probability, in (0.5, 1), that the answer is within Margin of the best. The
	// search ends when the model gives this probability to a network.
	Confidence float64 `toml:"confidence" json:"confidence"`
	// Structure says whether the model expects networks that are alike to have a similar accuracy,
	// and the pairs of one budget to have a curve with one peak.
	Structure bool `toml:"structure" json:"structure"`
	// AtOnce is the number of trials that are chosen together, from 1 to 1,000. 0 means 2, or 4 in a
	// study with more networks than Systems.
	AtOnce int `toml:"at_once" json:"at_once"`
	// Systems is the largest number of networks, from 10 to 200, that are all trained. If the study
	// has more, a model chooses those that are trained, and Trainings is the largest number of
	// trials, from 20 to 500.
	Systems   int `toml:"systems" json:"systems"`
	Trainings int `toml:"trainings" json:"trainings"`
}

// Round returns the number of trials that are chosen together in a study with a number of networks.
func (p Peak) Round(networks int) int {
	if networks > p.Systems {
		return cmp.Or(p.AtOnce, 4)
	}
	return cmp.Or(p.AtOnce, 2)
}

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
	if s.Strategy == StrategyPeak && s.Peak == (Peak{}) {
		s.Peak = Default().Peak
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
	if x.Strategy != StrategyPeak {
		x.Peak = Peak{}
	}
	s.Selection = *x
	// A stored study that gets another strategy has no settings for it.
	if *x = s.WithStrategy(x.Strategy).Selection; x.Strategy == "" {
		return
	}
	const least, most = 10, 1000 // the model of the accuracy takes time for each network
	systems := func(key string, n, most int) {
		c.check(n >= least && n <= most, "%s.systems %d: want %d to %d", key, n, least, most)
	}
	switch x.Strategy {
	case StrategyHalving:
		h := &x.Halving
		systems(x.Strategy, h.Systems, most)
		c.check(h.Reduction >= 2 && h.Reduction <= 100, "halving.reduction %d: want 2 to 100, 3 is usual", h.Reduction)
		c.check(h.MinEpochs >= 0, "halving.min_epochs %d: want 1 or more, or 0 for a third of the epochs", h.MinEpochs)
		if h.MinEpochs == 0 {
			h.MinEpochs = max(1, (s.Epochs+1)/3) // rounded
		}
		c.check(s.Epochs != 1, "strategy halving: epochs 1: want 2 or more, since it compares networks before the last")
		c.check(s.Epochs < 2 || 3*h.MinEpochs <= 2*s.Epochs,
			"halving.min_epochs %d: want at most %d, two thirds of the epochs", h.MinEpochs, 2*s.Epochs/3)
	case StrategyRace:
		systems(x.Strategy, x.Race.Systems, most)
		x.Race.normalize(c, len(s.Seeds))
	case StrategyPeak:
		p := x.Peak
		systems(x.Strategy, p.Systems, 200) // the time of a decision grows with the third power
		c.check(p.Margin > 0 && p.Margin <= 100, "peak.margin %g: want points of accuracy above 0, 0.3 is usual", p.Margin)
		c.check(p.Confidence > 0.5 && p.Confidence < 1, "peak.confidence %g: want a probability above 0.5 and below 1,"+
			" 0.95 is usual", p.Confidence)
		c.check(p.AtOnce >= 0 && p.AtOnce <= most, "peak.at_once %d: want 1 to %d, or 0 for 2", p.AtOnce, most)
		c.check(p.Trainings >= 2*least && p.Trainings <= most/2, "peak.trainings %d: want %d to %d, 120 is usual", p.Trainings,
			2*least, most/2) // the model takes 0.4 s for 400
		n := len(s.Seeds)
		c.check(n >= PeakSeeds, "strategy peak: seeds %d: want %d or more, since its answer has so many", n, PeakSeeds)
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
	// The level of the pooled test is a quantile of 9,999 drawn races.
	c.check(r.Test != "" || r.Alpha <= 0 || r.Alpha >= 0.001, "race.alpha %g: want 0.001 or more, or test = %q", r.Alpha,
		RacePaired)
	if r.MinSeeds == 0 {
		r.MinSeeds = min(least, seeds)
	}
	c.check(seeds < 2 || r.MinSeeds >= 2 && r.MinSeeds <= seeds,
		"race.min_seeds %d: want 2 to seeds, %d, or 0 for the default", r.MinSeeds, seeds)
}
