package search

// Strategy decides what a study trains next. It is a pure function of the study and of what is recorded: any process, now or later, decides the same.
type Strategy interface {
	// Decide returns the trials worth training now, the best first, each up to an epoch. None while trials run means: wait for them. None while none runs means that the study has its answer, or all that can be had; Reason says which.
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

// DecidingSplit is the split that strategies decide by, CurveValidation
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
