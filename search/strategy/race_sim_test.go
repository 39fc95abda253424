package strategy_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"igcsearch/search"
	"igcsearch/search/strategy"
	"igcsearch/space"
)

// field describes a synthetic race, from which the accuracies of the networks are drawn.
type field struct {
	name  string
	means []float64 // the true mean accuracies
	sds   []float64 // the standard deviation of a trial of each network, without the effect of its seed
	seed  float64   // the standard deviation of the effect of a seed on all networks
	best  func(network int) bool
	// skewed lowers one in ten trials of the first network by 20 points, and raises the others so
	// that the mean stays the same.
	skewed bool
	// breaks lists the tests of a race that assume that such a field does not happen.
	breaks []string
}

func newField(name string, seed float64, means, sds []float64) field {
	top := math.Inf(-1)
	for _, m := range means {
		top = max(top, m)
	}
	return field{name: name, means: means, sds: sds, seed: seed, best: func(i int) bool { return means[i] == top }}
}

// constant returns n times the value v.
func constant(n int, v float64) []float64 {
	list := make([]float64, n)
	for i := range list {
		list[i] = v
	}
	return list
}

const clearWinner = "9, a clear winner by 4 points"

// fields are the races of the simulation. Their spreads are like those of real studies: 0.4 to 1.8
// points on CIFAR-10 (studies/results).
func fields() []field {
	peak := func(n int) []float64 { // as in the paper's figure: flat at the top, and lower at both ends
		list := make([]float64, n)
		for i := range list {
			d := float64(i) - float64(n)/3
			list[i] = 0.54 - 0.001*d*d
		}
		return list
	}
	clear := constant(9, 0.51)
	clear[4] = 0.55
	few := constant(4, 0.53)
	few[1], few[2], few[3] = 0.525, 0.52, 0.48
	mixed := []float64{0.018, 0.004, 0.012, 0.002, 0.010, 0.005, 0.009, 0.004, 0.004}
	near := constant(9, 0.5299)
	near[0] = 0.53 // it also has the largest spread
	skewed := newField("9 equal, trials of one collapse", 0.005, constant(9, 0.53), constant(9, 0.01))
	skewed.skewed, skewed.breaks = true, []string{search.RacePooled, search.RacePaired}
	wide := newField("9 equal, one of a large spread", 0, constant(9, 0.53), constant(9, 0.003))
	wide.sds[0], wide.breaks = 0.018, []string{search.RacePooled}
	return []field{
		skewed,
		wide,
		newField("2 equal", 0.005, constant(2, 0.53), constant(2, 0.01)),
		newField("9 equal", 0.005, constant(9, 0.53), constant(9, 0.01)),
		newField("9 equal, spreads differ", 0, constant(9, 0.53), mixed),
		newField("9, the best by a hair and of the largest spread", 0, near, mixed),
		newField("30 equal", 0.01, constant(30, 0.53), constant(30, 0.01)),
		newField(clearWinner, 0.005, clear, constant(9, 0.01)),
		newField("9, a curve with a peak", 0.005, peak(9), constant(9, 0.01)),
		newField("4, from near to far", 0.005, few, constant(4, 0.008)),
	}
}

func (f field) system(i int) space.System {
	return space.PairSystem(space.Pair{L: len(f.means) - i, M: i + 1})
}

// draw returns a record of the field in which every trial is done.
func (f field) draw(s search.Study, rng *rand.Rand) []search.TrialState {
	const total = 10000
	trials := make([]search.TrialState, 0, len(f.means)*len(s.Seeds))
	shared := make([]float64, len(s.Seeds))
	for i := range shared {
		shared[i] = f.seed * rng.NormFloat64()
	}
	for i, m := range f.means {
		for _, seed := range s.Seeds {
			a := m + shared[seed] + f.sds[i]*rng.NormFloat64()
			if f.skewed && i == 0 {
				if a += 0.02; rng.IntN(10) == 0 {
					a -= 0.2
				}
			}
			a = min(1, max(0, a))
			e := search.Epoch{Number: s.Epochs, ValidationCorrect: int(math.Round(a * total)), ValidationTotal: total}
			t := search.Trial{Key: search.Key{System: f.system(i), Seed: seed}, Status: search.Done, Epoch: s.Epochs,
				Epochs: s.Epochs, Last: e}
			trials = append(trials, search.TrialState{Trial: t, History: []search.Epoch{e}})
		}
	}
	return trials
}

// TestRaceKeepsTheBest simulates races whose true means are known. In at most a share alpha of them
// a truly best network is dropped at any time. IGC_SIMULATE=long runs 5,000 races of each kind, and
// -v prints how much they save.
func TestRaceKeepsTheBest(t *testing.T) {
	if testing.Short() {
		t.Skip("a simulation runs in one goroutine: the race detector, for which -short is, finds nothing in it")
	}
	t.Parallel()
	races, lengths, few := 250, []int{10}, 9 // networks
	tests := []string{search.RacePooled, search.RacePaired}
	if os.Getenv("IGC_SIMULATE") == "long" {
		races, lengths, few = 5000, []int{5, 10, 20}, 30
		tests = search.RaceTests
	}
	for _, test := range tests {
		for _, seeds := range lengths {
			s, _ := strategyStudy(t, search.StrategyRace, func(s *search.Study) {
				s.Seeds, s.Epochs, s.Race.Test = search.FirstSeeds(seeds), 1, test
			})
			for _, f := range fields() {
				if len(f.means) > few {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%d seeds", test, f.name, seeds), func(t *testing.T) {
					rate, line := f.race(s, races, rand.New(rand.NewPCG(uint64(seeds), 6)))
					t.Log(line)
					// Three standard deviations of a binomial share are allowed.
					margin := 3 * math.Sqrt(s.Race.Alpha*(1-s.Race.Alpha)/float64(races))
					if test != search.RaceSignedRank && !slices.Contains(f.breaks, test) && rate > s.Race.Alpha+margin {
						t.Errorf("%s: more than alpha, %g", line, s.Race.Alpha)
					}
				})
			}
		}
	}
}

// race simulates a number of races. It returns the share of those that drop a truly best network,
// and a line that says more.
func (f field) race(s search.Study, races int, rng *rand.Rand) (rate float64, line string) {
	wrong, trials, same := 0, 0, 0
	for range races {
		drawn := f.draw(s, rng)
		rounds := strategy.Rounds(s, drawn)
		last := rounds[len(rounds)-1]
		trials += len(last.Left) * last.Seeds
		for _, r := range rounds {
			trials += len(r.Dropped) * r.Seeds
		}
		if last.Best == strategy.FindAnswer(s, drawn).System {
			same++
		}
		for i := range f.means {
			if f.best(i) && !slices.Contains(last.Left, f.system(i)) {
				wrong++
				break
			}
		}
	}
	rate = float64(wrong) / float64(races)
	return rate, fmt.Sprintf("best dropped %.2f %% of %d, trials %5.1f %% of grid's, grid's answer %5.1f %%",
		100*rate, races, 100*float64(trials)/float64(races*len(f.means)*len(s.Seeds)),
		100*float64(same)/float64(races))
}

// TestPeersOnSimulatedStudies prints, with IGC_SIMULATE=long and -v, what the strategies and the
// rules of public tools cost on the simulated fields, and how far their answers are below the best.
// Each of them finds a clear winner in nine of ten studies.
func TestPeersOnSimulatedStudies(t *testing.T) {
	if testing.Short() {
		t.Skip("a simulation runs in one goroutine: the race detector, for which -short is, finds nothing in it")
	}
	t.Parallel()
	studies, lengths := 20, []int{10}
	if os.Getenv("IGC_SIMULATE") == "long" {
		studies, lengths = 1000, []int{5, 10}
	}
	for _, seeds := range lengths {
		s, race := strategyStudy(t, search.StrategyRace,
			func(s *search.Study) { s.Seeds, s.Epochs = search.FirstSeeds(seeds), 1 })
		for _, f := range fields() {
			if len(f.means) != 9 || f.breaks != nil {
				continue
			}
			top := slices.Max(f.means)
			for _, name := range append([]string{"grid", "race"}, strategy.Peers...) {
				decides := map[string]search.Strategy{"grid": strategy.Grid(), "race": race}[name]
				if decides == nil {
					decides = strategy.Peer(name)
				}
				trials, regret, best := 0, 0., 0
				rng := rand.New(rand.NewPCG(uint64(seeds), 8))
				for range studies {
					drawn := strategy.Shuffle(f.draw(s, rng), rng)
					r, err := strategy.Replay(decides, s, drawn, strategy.ReplayOptions{Workers: len(drawn)})
					if err != nil {
						t.Fatal(err)
					}
					truth := f.means[r.System.Pair().M-1]
					trials += r.Begun
					regret += top - truth
					if truth == top {
						best++
					}
				}
				t.Logf("%d seeds, %s, %s: trials %.1f %% of grid's, the best in %.1f %%, regret %.2f points", seeds,
					f.name, name, 100*float64(trials)/float64(studies*9*seeds), 100*float64(best)/float64(studies),
					100*regret/float64(studies))
				if f.name == clearWinner && best < studies*9/10 {
					t.Errorf("%s finds a clear winner of %d seeds in %d of %d studies", name, seeds, best, studies)
				}
			}
		}
	}
}
