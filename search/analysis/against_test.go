package analysis_test

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"igcsearch/search/analysis"
)

func TestCompareStudies(t *testing.T) {
	t.Parallel()
	t.Run("has the values of a table worked by hand", func(t *testing.T) {
		s := analysis.CompareStudies(
			[]analysis.Sample{sample(9, 2, 50, 52, 54), sample(3, 4, 60, 61, 62)},
			[]analysis.Sample{sample(9, 2, 53, 54, 58), sample(3, 4, 62, 61, 63)})
		// The differences are 3, 2, 4 and 2, 0, 1. Their squares around the means 3 and 1 are 2 each,
		// with 4 degrees of freedom together, so the spread is 1. The mean 2 has the standard error
		// 1/√6, so t = 2·√6.
		near(t, "difference", s.Mean.Difference, 2, 1e-12)
		near(t, "spread", s.Spread, 1, 1e-12)
		near(t, "half width", s.Mean.Half, 2.776445/math.Sqrt(6), 1e-6)
		near(t, "p", s.Mean.P, twoSidedOf4(2*math.Sqrt(6)), 1e-9)
		if s.Mean.Degrees != 4 || s.Mean.Test != analysis.NetworksTest || s.Mean.Common != 6 {
			t.Errorf("the mean is %+v", s.Mean)
		}
		// The means of the networks are 1 away from 2, so F = 3·(1 + 1)/1, which with one degree of
		// freedom is t².
		near(t, "F", s.Interaction.F, 6, 1e-12)
		near(t, "p of F", s.Interaction.P, twoSidedOf4(math.Sqrt(6)), 1e-9)
		// The second network is ahead by 10, 9, 8 in A and by 9, 7, 5 in B. The residual squares are
		// half of those around the mean, 1 and 4, with 2 degrees of freedom each. F(2, 2) is below x
		// with the probability x/(1 + x): 0.8 for 4, and 0.975 for 39.
		near(t, "ratio of the spreads", s.Ratio, 2, 1e-12)
		near(t, "its p", s.Spreads.P, 0.4, 1e-9)
		near(t, "its lower end", s.Low, 2/math.Sqrt(39), 1e-6)
		near(t, "its upper end", s.High, 2*math.Sqrt(39), 1e-6)
		// The first network: 3 ± t(2)·1/√3, and p of two degrees of freedom is 1 − t/√(2 + t²).
		c := s.Networks[0]
		p := 1 - math.Sqrt(27./29)
		near(t, "a network", c.Difference, 3, 1e-12)
		near(t, "its half width", c.Half, 4.302653/math.Sqrt(3), 1e-6)
		near(t, "its p", c.P, p, 1e-9)
		near(t, "its corrected p", c.Holm, 2*p, 1e-9)
		near(t, "detectable", s.Mean.Detectable, analysis.Detectable(4, analysis.Alpha, analysis.Power)/math.Sqrt(6), 1e-6)
	})
	t.Run("gives each network the same weight", func(t *testing.T) {
		s := analysis.CompareStudies(
			[]analysis.Sample{sample(9, 2, 50, 50, 50, 50), sample(3, 4, 60, 60, missing, missing)},
			[]analysis.Sample{sample(9, 2, 51, 49, 50, 50), sample(3, 4, 63, 61, missing, missing)})
		// The means are 0 and 2, the squares 2 and 2 with 3 and 1 degrees of freedom.
		near(t, "difference", s.Mean.Difference, 1, 1e-12)
		near(t, "half width", s.Mean.Half, 2.776445*math.Sqrt(1./4+1./2)/2, 1e-6)
		// The mean of all six is 2/3: F = 4·(2/3)² + 2·(4/3)².
		near(t, "F", s.Interaction.F, 48./9, 1e-9)
	})
	t.Run("tests nothing with one seed", func(t *testing.T) {
		s := analysis.CompareStudies([]analysis.Sample{sample(9, 2, 50), sample(3, 4, 60)},
			[]analysis.Sample{sample(9, 2, 51), sample(3, 4, 60)})
		near(t, "difference", s.Mean.Difference, 0.5, 1e-12)
		untested(t, s)
	})
	t.Run("tests nothing where the studies have the same scores", func(t *testing.T) {
		same := []analysis.Sample{sample(9, 2, 50, 51, 50.5), sample(3, 4, 60, 58, 61)}
		s := analysis.CompareStudies(same, same)
		if near(t, "difference", s.Mean.Difference, 0, 1e-12); s.Ratio != 1 || math.Abs(s.Spreads.P-1) > 1e-9 {
			t.Errorf("the ratio of the spreads is %g, p = %g", s.Ratio, s.Spreads.P)
		}
		s.Spreads.P = math.NaN()
		untested(t, s)
	})
	t.Run("finds who changes places", func(t *testing.T) {
		s := analysis.CompareStudies(
			[]analysis.Sample{sample(9, 2, 60, 61, 62), sample(3, 4, 63.5, 64, 65), sample(2, 6, 20, 21.5, 22)},
			[]analysis.Sample{sample(9, 2, 63.5, 64, 65), sample(3, 4, 60, 61, 62), sample(2, 6, 20, 21.5, 22)})
		if len(s.Couples) != 3 || s.RankA[1] != 1 || s.RankB[1] != 2 || s.RankB[2] != 3 {
			t.Fatalf("couples %+v, places %v and %v", s.Couples, s.RankA, s.RankB)
		}
		first, second, third := s.Couples[0], s.Couples[1], s.Couples[2]
		if first.X != 1 || first.Y != 0 || !first.Swapped || !first.Neighbours || first.InA.Holm > 0.05 ||
			first.InB.Difference > 0 || first.InB.Holm > 0.05 {
			t.Errorf("the couple that changes places is %+v", first)
		}
		if second.Swapped || second.Neighbours || third.Swapped || !third.Neighbours {
			t.Errorf("the others are %+v and %+v", second, third)
		}
	})
	t.Run("gives equal means the same place", func(t *testing.T) {
		s := analysis.CompareStudies(
			[]analysis.Sample{sample(9, 2, 60.1, 60.2, 60.3), sample(3, 4, 60.3, 60.1, 60.2), sample(2, 6, 20, 21, 22),
				sample(1, 9, 70, 71, 72)},
			[]analysis.Sample{sample(9, 2, 50, 51, 52), sample(3, 4, 60, 61, 62), sample(2, 6, 60, 61, 62),
				sample(1, 9, 60, 61, 62)})
		if want := []int{2, 2, 4, 1}; !slices.Equal(s.RankA, want) {
			t.Errorf("the places are %v, want %v", s.RankA, want)
		}
		if want := []int{4, 1, 1, 1}; !slices.Equal(s.RankB, want) {
			t.Errorf("the places in the other study are %v, want %v", s.RankB, want)
		}
		for _, c := range s.Couples { // 9x2 falls behind 2x6; who is level in a study does not change places
			if want := c.X == 0 && c.Y == 2; c.Swapped != want {
				t.Errorf("the couple %d and %d changes places: %v", c.X, c.Y, c.Swapped)
			}
		}
	})
}

// twoSidedOf4 is the two-sided p of t with four degrees of freedom (Abramowitz and Stegun 26.7.4).
func twoSidedOf4(t float64) float64 {
	theta := math.Atan(t / 2)
	return 1 - math.Sin(theta)*(1+math.Cos(theta)*math.Cos(theta)/2)
}

func untested(t *testing.T, s analysis.StudyComparison) {
	t.Helper()
	for _, p := range []float64{s.Mean.P, s.Mean.Half, s.Mean.Detectable, s.Interaction.P, s.Spreads.P, s.Networks[0].P} {
		if !math.IsNaN(p) {
			t.Errorf("there is a test: %+v", s)
			return
		}
	}
	if s.Mean.Test != analysis.Untested || s.Networks[0].Test != analysis.Untested {
		t.Errorf("the tests are %q and %q", s.Mean.Test, s.Networks[0].Test)
	}
}

// TestErrorsOfCompareStudies counts what CompareStudies finds in pairs of simulated studies whose truth is known: of four
// networks from three seeds, where a training has partly the same luck in both. IGC_SIMULATE=long draws 2,000 of each kind,
// and -v prints the shares for docs/analysis.md.
func TestErrorsOfCompareStudies(t *testing.T) {
	if testing.Short() {
		t.Skip("a simulation, without concurrency")
	}
	t.Parallel()
	const networks, seeds, spread, common = 4, 3, 0.6, 0.4 // points; common is the deviation of the luck that both share
	draws, most := 100, 14                                 // more than 14 of 100 are improbable (2e-4) at 5 %
	if os.Getenv("IGC_SIMULATE") == "long" {
		draws, most = 2000, 2000*7/100
	}
	// The difference of a mean over twelve couples that 80 % of studies find, if the spread is known.
	detectable := analysis.Detectable(networks*(seeds-1), analysis.Alpha, analysis.Power) *
		math.Sqrt2 * spread / math.Sqrt(networks*seeds)
	for n, kind := range []struct {
		name   string
		shift  float64           // of all networks
		own    [networks]float64 // of single networks; they add up to 0
		scaled float64           // the spread in B, as a multiple
		false_ struct{ mean, interaction, spreads bool }
	}{
		{name: "no difference", scaled: 1, false_: struct{ mean, interaction, spreads bool }{true, true, true}},
		{name: "networks differ, their mean does not", own: [networks]float64{1, -1, 2, -2}, scaled: 1,
			false_: struct{ mean, interaction, spreads bool }{true, false, true}},
		{name: "a difference of the detectable size", shift: detectable, scaled: 1,
			false_: struct{ mean, interaction, spreads bool }{false, true, true}},
		{name: "three times the spread", scaled: 3, false_: struct{ mean, interaction, spreads bool }{true, true, false}},
	} {
		r := rand.New(rand.NewPCG(uint64(n), 7))
		mean, interaction, spreads, inside := 0, 0, 0, 0
		for range draws {
			a, b := make([]analysis.Sample, networks), make([]analysis.Sample, networks)
			for seed := range seeds {
				effect := 0.3 * r.NormFloat64()
				for i := range networks {
					luck := 60 + float64(i) + effect + common*r.NormFloat64()
					a[i].Scores = append(a[i].Scores, analysis.Score{Seed: seed, Percent: luck + spread*r.NormFloat64()})
					b[i].Scores = append(b[i].Scores, analysis.Score{Seed: seed,
						Percent: luck + kind.shift + kind.own[i] + kind.scaled*spread*r.NormFloat64()})
				}
			}
			s := analysis.CompareStudies(a, b)
			for found, p := range map[*int]float64{&mean: s.Mean.P, &interaction: s.Interaction.P, &spreads: s.Spreads.P} {
				if p <= analysis.Alpha {
					*found++
				}
			}
			if math.Abs(s.Mean.Difference-kind.shift) <= s.Mean.Half {
				inside++
			}
		}
		share := func(n int) float64 { return 100 * float64(n) / float64(draws) }
		t.Logf("%s: mean difference %.1f %%, by network %.1f %%, spreads %.1f %%; %.1f %% of intervals have the true mean",
			kind.name, share(mean), share(interaction), share(spreads), share(inside))
		if kind.false_.mean && mean > most || kind.false_.interaction && interaction > most ||
			kind.false_.spreads && spreads > most || inside < draws-most {
			t.Errorf("%s: of %d draws %d have a mean difference, %d one that depends on the network, %d other spreads, and %d "+
				"intervals have the true mean", kind.name, draws, mean, interaction, spreads, inside)
		}
		if kind.shift > 0 && math.Abs(share(mean)-100*analysis.Power) > 15 {
			t.Errorf("%s: %d of %d draws find it, want 80 %%", kind.name, mean, draws)
		}
		if kind.own[0] != 0 && interaction < draws/2 {
			t.Errorf("%s: only %d of %d draws find that", kind.name, interaction, draws)
		}
	}
}
