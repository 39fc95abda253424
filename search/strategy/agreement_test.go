package strategy_test

import (
	"testing"

	"igcsearch/search"
	"igcsearch/search/strategy"
)

func TestAgreement(t *testing.T) {
	t.Parallel()
	// The rungs are 1, 3 and 9, and epoch 3 is evaluated. The order of networks 0 and 1 is another
	// one at epoch 1: by more than the spread of the seeds, or by less.
	table := func(differs float64) func(network, seed, epoch int) float64 {
		return func(network, seed, epoch int) float64 {
			a := 0.3 + 0.01*float64(network) + 0.02*float64(epoch)
			if epoch == 1 && network == 0 {
				a += 0.01 + differs + []float64{-0.01, 0, 0.01}[seed]
			}
			return a
		}
	}
	change := func(s *search.Study) { s.EvaluateEvery = 3 }
	for _, c := range []struct {
		name     string
		networks int
		at       func(network, seed, epoch int) float64
		want     string
		warns    bool
	}{
		// d̄ = 0.009, s = 0.01 and t = 1.56 with 2 degrees of freedom, so p is 0.13. One of 3 couples is more
		// than a quarter, one of 6 is not.
		{"one couple of three has clearly the opposite order", 3, table(0.009), "of the 3 couples of 3 networks, " +
			"2 had the order of the end at epoch 1 (training accuracy), 1 clearly the opposite; " +
			"3 had the order of the end at epoch 3 (validation accuracy)", true},
		{"one couple of six has clearly the opposite order", 4, table(0.009), "of the 6 couples of 4 networks, " +
			"5 had the order of the end at epoch 1 (training accuracy), 1 clearly the opposite; " +
			"6 had the order of the end at epoch 3 (validation accuracy)", false},
		// t = 0.35, and p is 0.38.
		{"less than the spread of the seeds is not clear", 3, table(0.002), "of the 3 couples of 3 networks, " +
			"2 had the order of the end at epoch 1 (training accuracy); " +
			"3 had the order of the end at epoch 3 (validation accuracy)", false},
		{"two networks are too few", 2, table(0.02), "too few networks (2) reached the end to compare their order " +
			"with that at epoch 1 (training accuracy) and epoch 3 (validation accuracy)", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := strategyStudy(t, search.StrategyHalving, change)
			a := strategy.Agree(s, record(s, line(c.networks), c.at))
			if crossed := a.Crossed(); a.String() != c.want || (len(crossed) > 0) != c.warns {
				t.Errorf("%v; crossed at %v, want %s", a, crossed, c.want)
			}
		})
	}
	t.Run("networks without an accuracy at a rung are left out", func(t *testing.T) {
		s, _ := strategyStudy(t, search.StrategyHalving, change)
		trials := record(s, line(4), table(0))
		for i := range trials {
			switch x := &trials[i]; i / 3 {
			case 0:
				x.Status, x.History = search.Failed, nil
			case 1:
				x.History = x.History[8:] // imported without its epochs
			case 2:
				if i == 8 {
					x.Status, x.Epoch, x.History = search.Running, 8, x.History[:8]
				}
			}
		}
		if a := strategy.Agree(s, trials); a.Networks != 1 {
			t.Errorf("%d networks, want the last one: %v", a.Networks, a)
		}
	})
}
