package analysis_test

import (
	"math/rand/v2"
	"os"
	"testing"

	"igcsearch/search/analysis"
)

// tunedStudy is a kind of simulated studies of networks at several values of a setting.
type tunedStudy struct {
	name   string
	truth  [][]float64 // the true mean of each network at each value, in percent
	spread [][]float64 // of a training at these, in points
	// False says that the differences between networks do not depend on the value, so that a found interaction is an
	// error. A found reversal is an error in all but the last kind.
	false bool
}

// tunedStudies are six networks at three values, in the order of their accuracy at the middle value. Nothing depends on the
// networks but, in some kinds, the last value.
func tunedStudies() []tunedStudy {
	grid := func(of func(i, j int) float64) [][]float64 {
		all := make([][]float64, 6)
		for i := range all {
			for j := range 3 {
				all[i] = append(all[i], of(i, j))
			}
		}
		return all
	}
	value := []float64{-2, 0, -1}
	parallel := grid(func(i, j int) float64 { return 70 - 0.5*float64(i) + value[j] })
	flat := grid(func(int, int) float64 { return 70 })
	equal := grid(func(int, int) float64 { return 0.6 })
	return []tunedStudy{
		{"parallel, equal spreads", parallel, equal, true},
		{"all the same, equal spreads", flat, equal, true},
		{"parallel, spread 1.8 at the last value, else 0.6", parallel, grid(func(_, j int) float64 {
			return []float64{0.6, 0.6, 1.8}[j]
		}), true},
		{"parallel, spreads 0.3 to 1.8 by network", parallel, grid(func(i, _ int) float64 { return 0.3 + 0.3*float64(i) }), true},
		{"differences twice as large at the last value", grid(func(i, j int) float64 {
			return 70 - 0.5*float64(i)*[]float64{1, 1, 2}[j] + value[j]
		}), equal, false},
		{"the order is reversed at the last value", grid(func(i, j int) float64 {
			return 70 - 0.5*float64(i)*[]float64{1, 1, -1}[j] + value[j]
		}), equal, false},
	}
}

// draw returns the scores on the validation and on the test pictures. A training has the same luck on both, and a seed the
// same effect on all networks.
func (s tunedStudy) draw(r *rand.Rand, seeds int) (validation, test [][]analysis.Sample) {
	const seedEffect, pictures = 0.2, 0.3 // standard deviations in points
	effects := make([]float64, seeds)
	for k := range effects {
		effects[k] = seedEffect * r.NormFloat64()
	}
	for i := range s.truth {
		var a, b []analysis.Sample
		for j := range s.truth[i] {
			var x, y analysis.Sample
			for k := range seeds {
				score := s.truth[i][j] + effects[k] + s.spread[i][j]*r.NormFloat64()
				x.Scores = append(x.Scores, analysis.Score{Seed: k, Percent: score + pictures*r.NormFloat64()})
				y.Scores = append(y.Scores, analysis.Score{Seed: k, Percent: score + pictures*r.NormFloat64()})
			}
			a, b = append(a, x), append(b, y)
		}
		validation, test = append(validation, a), append(test, b)
	}
	return validation, test
}

// TestTuningOfSimulatedStudies counts what Tune finds in studies whose truth is known. IGC_SIMULATE=long draws 2,000 studies
// of each kind, and -v prints the shares for docs/analysis.md.
func TestTuningOfSimulatedStudies(t *testing.T) {
	t.Parallel()
	studies, most := 20, 5 // 5 % are one
	if os.Getenv("IGC_SIMULATE") == "long" {
		studies, most = 2000, 2000*9/100
	}
	for n, kind := range tunedStudies() {
		for _, seeds := range []int{3, 5} {
			r := rand.New(rand.NewPCG(uint64(n), uint64(seeds)))
			interactions, reversals, gains, pooled := 0, 0, 0, 0
			bias, differ := 0., 0
			for range studies {
				validation, test := kind.draw(r, seeds)
				tuned := analysis.Tune(test, analysis.Choose(validation))
				if tuned.Cells.Pooled {
					pooled++
				}
				if tuned.Interaction.P <= analysis.Alpha {
					interactions++
				}
				if tuned.Reversed {
					reversals++
				}
				found := false
				for i, g := range tuned.Gains {
					found = found || g.Difference > 0 && g.Holm <= analysis.Alpha
					if tuned.Own[i] != tuned.Common {
						differ++
						bias += g.Difference - kind.truth[i][tuned.Own[i]] + kind.truth[i][tuned.Common]
					}
				}
				if found {
					gains++
				}
			}
			share := func(n int) float64 { return 100 * float64(n) / float64(studies) }
			t.Logf("%s, %d seeds: model %.0f %%, interaction %.1f %%, reversal %.1f %%, a gain %.1f %%; own differs from common in "+
				"%.0f %% of networks, whose gain is %.2f points too high", kind.name, seeds, share(pooled), share(interactions),
				share(reversals), share(gains), share(differ)/float64(len(kind.truth)), bias/float64(max(1, differ)))
			if kind.false && interactions > most {
				t.Errorf("%s, %d seeds: %d of %d studies have an interaction that is none", kind.name, seeds, interactions, studies)
			}
			last := n == len(tunedStudies())-1
			if !last && reversals > most || last && seeds == 5 && reversals < studies/2 {
				t.Errorf("%s, %d seeds: %d of %d studies have a reversal", kind.name, seeds, reversals, studies)
			}
		}
	}
}
