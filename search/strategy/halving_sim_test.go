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
)

// figure3 is a field like the pairs of the paper's Figure 3 (a): a curve over log2 M that is highest
// near M = 2, where it is 0.8 points above M = 1.
func figure3() field {
	var means []float64
	for _, m := range []float64{1, 2, 3, 6, 9, 10, 13, 16, 23} {
		means = append(means, 0.639-0.0062*math.Pow(math.Log2(m)-1.15, 2))
	}
	return newField("9, as in Figure 3", 0.002, means, constant(9, 0.006))
}

// withRung gives the drawn trials of a field an accuracy at an earlier epoch. It is their last one
// less a gap, which differs from network to network by a standard deviation, so that the order of
// the networks is another one. It returns the share of the couples of networks whose true means
// have the opposite order at this epoch.
func (f field) withRung(trials []search.TrialState, epoch int, deviation float64, rng *rand.Rand) (crossed float64) {
	const gap, noise, total = 0.15, 0.005, 10000 // noise is that of a trial, as on CIFAR-10 (testdata/recorded)
	early := make([]float64, len(f.means))
	for i, m := range f.means {
		early[i] = m - gap + deviation*rng.NormFloat64()
		for j := range i {
			if (early[i]-early[j])*(m-f.means[j]) < 0 {
				crossed++
			}
		}
	}
	seeds := len(trials) / len(f.means)
	for k := range trials {
		t, i := &trials[k], k/seeds
		shift := early[i] - f.means[i] + noise*rng.NormFloat64()
		e := search.Epoch{Number: epoch, ValidationTotal: total,
			ValidationCorrect: t.Last.ValidationCorrect + int(math.Round(shift*total))}
		t.History = append([]search.Epoch{e}, t.History...)
	}
	return crossed / float64(len(f.means)*(len(f.means)-1)/2)
}

// TestHalvingCrossings simulates studies of five seeds in which the order of the networks is another
// one at the rung than at the end. It compares halving with grid by the regret in true means, and
// counts how often Crossed warns. IGC_SIMULATE=long runs 5,000 studies of each kind, and -v prints
// the numbers.
func TestHalvingCrossings(t *testing.T) {
	if testing.Short() {
		t.Skip("a simulation runs in one goroutine: the race detector, for which -short is, finds nothing in it")
	}
	t.Parallel()
	studies, deviations := 200, []float64{0, 0.04}
	if os.Getenv("IGC_SIMULATE") == "long" {
		studies, deviations = 5000, []float64{0, 0.005, 0.01, 0.02, 0.03, 0.04}
	}
	s, decides := strategyStudy(t, search.StrategyHalving, func(s *search.Study) {
		s.Epochs, s.Seeds, s.Halving.MinEpochs = 12, search.FirstSeeds(5), 0
	})
	peak := slices.IndexFunc(fields(), func(f field) bool { return f.name == "9, a curve with a peak" })
	for _, f := range []field{figure3(), fields()[peak]} {
		regret := func(a strategy.Answer) float64 {
			return 100 * (slices.Max(f.means) - f.means[a.System.Pair().M-1])
		}
		for _, deviation := range deviations {
			rng := rand.New(rand.NewPCG(uint64(1000*deviation), 8))
			var crossed, epochs, lost, lostByGrid, warned float64 // means
			for range studies {
				drawn := f.draw(s, rng)
				crossed += 100 * f.withRung(drawn, 4, deviation, rng) / float64(studies)
				drawn = strategy.Shuffle(drawn, rng)
				r, err := strategy.Replay(decides, s, drawn, strategy.ReplayOptions{Workers: 5})
				if err != nil {
					t.Fatal(err)
				}
				epochs += 100 * float64(r.Epochs) / float64(len(drawn)*s.Epochs*studies)
				lost += regret(r.Answer) / float64(studies)
				lostByGrid += regret(strategy.FindAnswer(s, drawn)) / float64(studies)
				if len(strategy.Agree(s, r.State).Crossed()) > 0 {
					warned += 100 / float64(studies)
				}
			}
			line := fmt.Sprintf("%s, deviation %.1f points: %.1f %% of couples crossed, %.1f %% of grid's epochs, "+
				"regret %.3f points, of grid %.3f; %.1f %% warned", f.name, 100*deviation, crossed, epochs, lost,
				lostByGrid, warned)
			t.Log(line)
			if deviation == 0 && (lost > 1.2*lostByGrid || warned > 5) {
				t.Errorf("%s: want about grid's regret, and hardly a warning", line)
			}
			if f.name == figure3().name && deviation == 0.04 && (lost < 2.5*lostByGrid || warned < 30) {
				t.Errorf("%s: want much more than grid's regret, and warnings", line)
			}
		}
	}
}
