package analysis_test

import (
	"math"
	"slices"
	"testing"

	"igcsearch/search/analysis"
)

// grid returns samples from scores[network][value][seed]; NaN is a trial that diverged.
func grid(scores [][][]float64) [][]analysis.Sample {
	all := make([][]analysis.Sample, len(scores))
	for i, row := range scores {
		for _, cell := range row {
			var s analysis.Sample
			for seed, x := range cell {
				if math.IsNaN(x) {
					s.Diverged++
				} else {
					s.Scores = append(s.Scores, analysis.Score{Seed: seed, Percent: x})
				}
			}
			all[i] = append(all[i], s)
		}
	}
	return all
}

// oats are yields of three varieties with four amounts of nitrogen in six blocks (Yates, "Complex experiments",
// Supplement to the Journal of the Royal Statistical Society 2, 1935). R prints the sums of squares 322 (6 degrees of
// freedom) of variety × nitrogen, and 6013 (10) and 7969 (45) of the two residuals of the split plots, which are one
// residual with blocks alone: summary(aov(Y ~ N*V + Error(B/V), MASS::oats)).
var oats = [][][]float64{
	{{111, 61, 68, 74, 62, 53}, {130, 91, 64, 89, 90, 74}, {157, 97, 112, 81, 100, 118}, {174, 100, 86, 122, 116, 113}},
	{{117, 70, 60, 64, 80, 89}, {114, 108, 102, 103, 82, 82}, {161, 126, 89, 132, 94, 86},
		{141, 149, 96, 133, 126, 104}},
	{{105, 96, 89, 70, 63, 97}, {140, 124, 129, 89, 70, 99}, {118, 121, 132, 104, 109, 119},
		{156, 144, 124, 117, 99, 121}},
}

func TestInteraction(t *testing.T) {
	t.Parallel()
	samples := grid(oats)
	got := analysis.Tune(samples, analysis.Choose(samples)).Interaction
	want := (321.75 / 6) / ((6013.306 + 7968.750) / 55)
	if got.Test != analysis.AdditiveTest || got.Between != 6 || got.Degrees != 55 || math.Abs(got.F-want) > 1e-5 {
		t.Errorf("got %+v, want F(6, 55) = %.5f", got, want)
	}
	if math.Abs(got.P-0.9720) > 1e-3 {
		t.Errorf("p is %.5f", got.P)
	}

	// Two networks at two values from two seeds, worked by hand. The means of the cells are 50, 54 and 52, 50. The
	// interaction is (54 − 50) − (50 − 52) = 6, so its sum of squares is 2·6²/4 = 18. The seeds differ by 1, 3, 1 and
	// −1 in the cells, 1 on average, so the residuals are 0, ±1, 0, ∓1 and their squares add up to 4, with 3 degrees of
	// freedom: F(1, 3) = 18/(4/3) = 13.5.
	worked := grid([][][]float64{{{49.5, 50.5}, {52.5, 55.5}}, {{51.5, 52.5}, {50.5, 49.5}}})
	tuned := analysis.Tune(worked, analysis.Choose(worked))
	if got := tuned.Interaction; !tuned.Cells.Pooled || math.Abs(got.F-13.5) > 1e-9 || got.Between != 1 ||
		got.Degrees != 3 {
		t.Errorf("got %+v, pooled %v, want F(1, 3) = 13.5", got, tuned.Cells.Pooled)
	}

	// A sample that lacks a seed leaves the test with a degree of freedom less.
	oneLess := grid(oats)
	oneLess[1][2].Scores = slices.Delete(slices.Clone(oneLess[1][2].Scores), 3, 4)
	if got := analysis.Tune(oneLess, analysis.Choose(oneLess)).Interaction; got.Between != 6 || got.Degrees != 54 {
		t.Errorf("without one yield: %+v", got)
	}
	oneLess[1][2].Scores = nil // 66 yields, 11 samples and 6 blocks; 3 varieties and 4 amounts without interaction
	if got := analysis.Tune(oneLess, analysis.Choose(oneLess)).Interaction; got.Between != 5 || got.Degrees != 50 {
		t.Errorf("without a sample: %+v", got)
	}
}

// If the spreads are clearly unequal, the interaction is tested by contrasts over common seeds.
func TestInteractionOfUnequalSpreads(t *testing.T) {
	t.Parallel()
	samples := grid([][][]float64{
		{{60, 80, 50, 90, 70}, {80.1, 80.2, 80.0, 80.3, 80.1}},
		{{70.1, 70.0, 70.2, 70.1, 70.0}, {70.0, 70.1, 70.3, 70.2, 70.1}},
		{{75.1, 75.0, 75.2, 75.1, 75.0}, {60.2, 60.0, 60.3, 60.1, 60.2}},
	})
	tuned := analysis.Tune(samples, analysis.Choose(samples))
	got := tuned.Interaction
	if tuned.Cells.Pooled || got.Test != analysis.PairedTest || got.Contrasts != 3 {
		t.Fatalf("pooled %v: %+v", tuned.Cells.Pooled, got)
	}
	// The lead of the second network over the third changes by 15 points, nearly the same for each seed.
	if !(got.P < 1e-6) {
		t.Errorf("p is %g", got.P)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	choice := analysis.Choose(grid([][][]float64{
		{{50, 52}, {60, 62}, {nan, 99}}, // most of the last one's trials diverged
		{{70, 70}, {69, 69}, {71, 71}},
		{{80}, {80}, {}}, // of equal means the first
		{{}, {}, {}},
	}))
	if !slices.Equal(choice.Own, []int{1, 2, 0, -1}) {
		t.Errorf("own values %v", choice.Own)
	}
	if choice.Common != 1 { // 61 + 69 + 80 > 51 + 70 + 80; at the last value two networks have no usable score
		t.Errorf("common value %d", choice.Common)
	}
	if choice := analysis.Choose(grid([][][]float64{{{}, {}}})); choice.Common != -1 || choice.Own[0] != -1 {
		t.Errorf("without scores: %+v", choice)
	}
}

func TestTune(t *testing.T) {
	t.Parallel()
	// The first network is 4 points ahead at the first value, and 4 behind at the second.
	samples := grid([][][]float64{
		{{74.1, 74.0, 73.9, 74.2}, {68.0, 68.1, 67.9, 68.2}},
		{{70.0, 70.2, 69.9, 70.1}, {72.1, 71.9, 72.0, 72.2}},
	})
	tuned := analysis.Tune(samples, analysis.Choose(samples))
	if tuned.Common != 0 || !slices.Equal(tuned.Own, []int{0, 1}) {
		t.Fatalf("chosen: %+v", tuned.Choice)
	}
	if g := tuned.Gains[0]; g.Test != analysis.Untested || g.A != g.B {
		t.Errorf("the gain of the network whose own value is the common one: %+v", g)
	}
	if g := tuned.Gains[1]; math.Abs(g.Difference-2) > 1e-9 || !(g.P < 1e-3) {
		t.Errorf("the gain of the second network: %+v", g)
	}
	r := tuned.Reversal
	if !tuned.Reversed || r.Places != 1 || r.Tested != 2 || r.A != 1 || r.B != 0 || r.Ahead != 1 || r.Behind != 0 {
		t.Errorf("the networks change places: %+v", r)
	}

	// Parallel curves change no places, and nothing is shown.
	samples = grid([][][]float64{
		{{74.1, 74.0, 73.9, 74.2}, {72.0, 72.1, 71.9, 72.2}},
		{{70.0, 70.2, 69.9, 70.1}, {68.1, 67.9, 68.0, 68.2}},
	})
	tuned = analysis.Tune(samples, analysis.Choose(samples))
	if r := tuned.Reversal; tuned.Reversed || r.Places != 0 || !math.IsNaN(r.P) {
		t.Errorf("parallel curves: %+v", r)
	}
	if p := tuned.Interaction.P; !(p > 0.05) {
		t.Errorf("parallel curves: p of the interaction is %g", p)
	}

	if tuned := analysis.Tune(grid([][][]float64{{{}, {}}}), analysis.Choice{Own: []int{-1}, Common: -1}); tuned.Cells.Best != -1 {
		t.Errorf("without scores: %+v", tuned)
	}
}
