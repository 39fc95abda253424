package analysis_test

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"igcsearch/search/analysis"
	"igcsearch/space"
)

// sample returns a sample with the scores percents for the seeds 0, 1, … and none where it is
// missing.
func sample(l, m int, percents ...float64) analysis.Sample {
	a := analysis.Sample{Pair: space.Pair{L: l, M: m}}
	for seed, v := range percents {
		if !math.IsNaN(v) {
			a.Scores = append(a.Scores, analysis.Score{Seed: seed, Percent: v})
		}
	}
	return a
}

// missing stands for the score of a seed that a sample does not have.
var missing = math.NaN()

func TestAnalyze(t *testing.T) {
	t.Parallel()
	t.Run("uses the paired test if spreads differ, and corrects for the number of pairs", func(t *testing.T) {
		a := analysis.Analyze([]analysis.Sample{
			sample(64, 1, 62, 60, 64, 58), // worse than L40M2 by 2, 2.5, 2 and 1.5: significant
			sample(40, 2, 64, 62.5, 66, 59.5),
			sample(1, 23, 60, 66, 55, 59), // worse by 4, −3.5, 11 and 0.5: 3 ± 9.8, not significant
		})
		if a.Pooled || a.Spreads.Sample != 2 {
			t.Fatalf("the spreads are %+v", a.Spreads)
		}
		if want := []analysis.Verdict{analysis.Separated, analysis.TheBest, analysis.TooLittle}; a.Best != 1 ||
			!slices.Equal(a.Verdicts, want) {
			t.Fatalf("best %d, verdicts %q", a.Best, a.Verdicts)
		}
		// The differences have the mean 2 and the deviation √(1/6), so t = 2/(√(1/6)/2) = √96. For
		// three degrees of freedom p = 1 − (2/π)(θ + sin θ·cos θ) with θ = atan(t/√3) (Abramowitz
		// and Stegun 26.7.3).
		theta := math.Atan(math.Sqrt(96. / 3))
		p := 1 - 2/math.Pi*(theta+math.Sin(theta)*math.Cos(theta))
		c := a.Against[0]
		near(t, "difference", c.Difference, 2, 1e-12)
		near(t, "p", c.P, p, 1e-9)
		near(t, "corrected p", c.Holm, 2*p, 1e-9) // the smaller one of two
		if c.Test != analysis.PairedTest || c.Common != 4 || c.Degrees != 3 {
			t.Errorf("got %+v", c)
		}
		if len(a.Paper) != 2 || a.Paper[0].A != 1 || a.Paper[0].B != 0 || a.Paper[1].B != 2 {
			t.Errorf("the paper's comparisons are %+v", a.Paper)
		}
		near(t, "M = 2 against L = 1", a.Paper[1].Difference, 3, 1e-12)
	})
	t.Run("pools the spread of pairs if the test allows it", func(t *testing.T) {
		a := analysis.Analyze(penicillin())
		// C is better than A by 5 ± t(12)·√(2/5 · 226/12). So t is 1.822 with 12 degrees of
		// freedom, where the 97.5 % point is 2.178813.
		c := a.Against[0]
		if !a.Pooled || a.Best != 2 || c.Test != analysis.AdditiveTest || c.Degrees != 12 {
			t.Fatalf("best %d, spreads %+v, compared %+v", a.Best, a.Spreads, c)
		}
		near(t, "difference", c.Difference, 5, 1e-12)
		near(t, "half width", c.Half, 2.178813*math.Sqrt(2./5*226/12), 1e-5)
		// R gives this p by pt(-1.8216, 12) * 2.
		near(t, "p", c.P, 0.0935, 5e-4)
		near(t, "corrected p", c.Holm, 3*c.P, 1e-12)
		// The squares within the treatments are 264 for the blends and 226 for the residual, with 4
		// and 12 degrees of freedom. Satterthwaite's formula gives 490²/(264²/4 + 226²/12).
		near(t, "spread", a.Spread, math.Sqrt(490./16), 1e-12)
		near(t, "its degrees of freedom", a.Degrees, 490.*490/(264.*264/4+226.*226/12), 1e-9)
	})
	t.Run("the best leads at common seeds, not because its own seeds were lucky", func(t *testing.T) {
		// Seeds 0 and 1 are good for all samples. So a sample that a race dropped after these two
		// has the higher mean. The differences are 2 and 1.5.
		a := analysis.Analyze([]analysis.Sample{sample(64, 1, 70, 71), sample(40, 2, 72, 72.5, 60, 61, 60)})
		if a.Best != 1 || a.Against[0].Common != 2 || a.Against[0].Test != analysis.PairedTest {
			t.Errorf("best %d, compared %+v", a.Best, a.Against[0])
		}
		near(t, "difference", a.Against[0].Difference, 1.75, 1e-12)
		a = analysis.Analyze([]analysis.Sample{sample(64, 1, 70, 71), sample(40, 2, 72, 72.5, 60, 61, 60),
			sample(28, 3, 71, 72, 59.5, 60, 59.2)})
		if a.Best != 1 || !a.Pooled || a.Against[0].Test != analysis.AdditiveTest {
			t.Errorf("best %d, spreads %+v, compared %+v", a.Best, a.Spreads, a.Against[0])
		}
	})
}

func TestComparisons(t *testing.T) {
	t.Parallel()
	t.Run("samples without common seeds are compared by Welch's test", func(t *testing.T) {
		a := analysis.Analyze([]analysis.Sample{sample(64, 1, 60, 61, missing, missing),
			sample(40, 2, missing, missing, 63, 64.5)})
		difference, half, p, degrees := analysis.Welch([]float64{63, 64.5}, []float64{60, 61})
		if got := a.Against[0]; got.Test != analysis.WelchTest || got.Common != 0 || got.Difference != difference ||
			got.Half != half || got.P != p || got.Degrees != degrees {
			t.Errorf("got %+v, want %g ± %g, p = %g", got, difference, half, p)
		}
	})
	t.Run("a sample of one seed is not tested", func(t *testing.T) {
		a := analysis.Analyze([]analysis.Sample{sample(64, 1, 60), sample(40, 2, 65), sample(1, 23)})
		want := []analysis.Verdict{analysis.TooLittle, analysis.TheBest, analysis.NoScore}
		if a.Best != 1 || !slices.Equal(a.Verdicts, want) || !math.IsNaN(a.Against[0].P) ||
			!math.IsNaN(a.Summaries[1].Std) {
			t.Errorf("best %d, verdicts %q, %+v", a.Best, a.Verdicts, a.Against)
		}
	})
	t.Run("the verdicts of samples with few scores", func(t *testing.T) {
		samples := []analysis.Sample{
			sample(64, 1, 60.2, 60, 59.8, 60.4, 59.6),
			sample(40, 2, 60, 60.3, 59.7, 59.9, 60.3), // better than L64M1 by 0.04
			sample(28, 3, 48.5),                       // worse by 11.5, with one seed
			sample(12, 6, 59.9, 60.1),                 // three diverged
			sample(6, 9, 51, 50.8),                    // three diverged, and the others are much worse
			sample(5, 10, 66),                         // one lucky seed
		}
		samples[3].Diverged, samples[4].Diverged = 3, 3
		a := analysis.Analyze(samples)
		want := []analysis.Verdict{analysis.NotSeparated, analysis.TheBest, analysis.TooLittle, analysis.TooLittle,
			analysis.Separated, analysis.TooLittle}
		if !a.Pooled || !slices.Equal(a.Verdicts, want) {
			t.Errorf("pooled %v, verdicts %q, want %q", a.Pooled, a.Verdicts, want)
		}
		near(t, "a tenth of the errors of the best", a.Tells, 0.1*(100-60.04), 1e-9)
		if c := a.Against[2]; !math.IsNaN(c.P) || !math.IsNaN(c.Detectable) || math.Abs(c.Difference-11.5) > 0.5 {
			t.Errorf("the sample of one seed: %+v", c)
		}
	})
	t.Run("a test that can find only large differences gives TooLittle", func(t *testing.T) {
		// The means differ by 7 points with a spread of about 9. The test could find 60 points.
		a := analysis.Analyze([]analysis.Sample{sample(64, 1, 56, 81), sample(40, 2, 62, 80), sample(28, 3, 70, 80),
			sample(12, 6, 72, 77)})
		for i, v := range a.Verdicts {
			if i != a.Best && (v != analysis.TooLittle || !(a.Against[i].Detectable > a.Tells)) {
				t.Errorf("sample %d: %q, %+v", i, v, a.Against[i])
			}
		}
	})
	t.Run("without scores there is no best", func(t *testing.T) {
		if a := analysis.Analyze([]analysis.Sample{sample(64, 1)}); a.Best != -1 || a.Front[0] {
			t.Errorf("got %+v", a)
		}
	})
}

func TestSummaries(t *testing.T) {
	t.Parallel()
	t.Run("an interval of accuracy stays between 0 and 100", func(t *testing.T) {
		a := analysis.Analyze([]analysis.Sample{sample(64, 1, 56.7, 81.4), sample(40, 2, 99, 100),
			sample(28, 3, 0, 0.5)})
		for i, m := range a.Summaries {
			if !(0 < m.Low && m.Low < m.Mean && m.Mean < m.High && m.High < 100) {
				t.Errorf("sample %d: %+v", i, m)
			}
		}
		// Two samples are not pooled. The standard error of 49 and 51 is 1, and 1/(100·¼) = .04 on
		// the scale of the interval. The 97.5 % point of t with one degree of freedom is 12.706205.
		m := analysis.Analyze([]analysis.Sample{sample(64, 1, 49, 51), sample(40, 2, 10, 10)}).Summaries
		near(t, "low", m[0].Low, 100/(1+math.Exp(12.706205*.04)), 1e-5)
		near(t, "high", m[0].High, 100/(1+math.Exp(-12.706205*.04)), 1e-5)
		if !math.IsNaN(m[1].Low) || !math.IsNaN(m[1].High) {
			t.Errorf("two seeds of the same accuracy have an interval: %+v", m[1])
		}
	})
	t.Run("an interval at 100 % is moved by half a picture", func(t *testing.T) {
		samples := []analysis.Sample{sample(64, 1, 100, 100, 100), sample(40, 2, 99, 98, 99.5),
			sample(28, 3, 99.5, 98.5, 98), sample(12, 6, 97, 98.5, 98)}
		if m := analysis.Analyze(samples).Summaries[0]; !math.IsNaN(m.Low) {
			t.Errorf("of an unknown number of pictures: %+v", m)
		}
		for i := range samples {
			samples[i].Pictures = 1000
		}
		if a := analysis.Analyze(samples); !a.Pooled || a.Summaries[0].High != 100 ||
			!(a.Summaries[0].Low > 0 && a.Summaries[0].Low < 100) {
			t.Errorf("pooled %v, %+v", a.Pooled, a.Summaries[0])
		}
	})
}

func TestFrontOfFindings(t *testing.T) {
	t.Parallel()
	samples := []analysis.Sample{sample(64, 1, 60), sample(40, 2, 62), sample(28, 3, 62), sample(1, 23, 50)}
	for i, c := range []analysis.Costs{
		{Params: 10, MultiplyAdds: 5}, {Params: 20, MultiplyAdds: 9}, {Params: 21, MultiplyAdds: 10},
		{Params: 9, MultiplyAdds: 9},
	} {
		samples[i].Costs = c
	}
	a := analysis.Analyze(samples)
	// The last one has the fewest parameters, which are the budget and not a cost.
	if want := []bool{true, true, false, false}; !slices.Equal(a.Front, want) || !a.KnowsMultiplyAdds() {
		t.Errorf("got %v, want %v", a.Front, want)
	}
	samples[2].Costs.MultiplyAdds = 0
	if a := analysis.Analyze(samples); slices.Contains(a.Front, true) || a.KnowsMultiplyAdds() {
		t.Errorf("with an unknown cost: got %v", a.Front)
	}
}

func TestAnalyzeChosen(t *testing.T) {
	t.Parallel()
	samples := []analysis.Sample{sample(64, 1, 60, 61.5, 62, 61), sample(40, 2, 70, 71, 72, 71),
		sample(28, 3, 80, 81, 82, 81.5), sample(1, 23)}
	a := analysis.AnalyzeChosen(samples, 1)
	want := []analysis.Verdict{analysis.Separated, analysis.TheBest, analysis.Better, analysis.NoScore}
	if a.Best != 1 || !slices.Equal(a.Verdicts, want) {
		t.Errorf("best %d, verdicts %q, want %q", a.Best, a.Verdicts, want)
	}
	near(t, "difference", a.Against[2].Difference, -10.125, 1e-9)
}

// studyOf draws a study from the means and spreads of its samples, with a small effect of each seed
// on all samples. In recorded studies the correlation of two samples was 0.01 to 0.11.
func studyOf(random *rand.Rand, seeds int, means, spreads []float64) []analysis.Sample {
	samples := make([]analysis.Sample, len(means))
	for s := range seeds {
		luck := 0.2 * random.NormFloat64()
		for i, mean := range means {
			samples[i].Scores = append(samples[i].Scores,
				analysis.Score{Seed: s, Percent: mean + luck + spreads[i]*random.NormFloat64()})
		}
	}
	return samples
}

// realMeans are the mean accuracies of nine pairs in the recorded study of real pictures
// (studies/results). The last one is that of L = 1.
var realMeans = []float64{53.68, 53.54, 53.25, 52.89, 52.87, 52.40, 51.98, 50.23, 49.92}

// These spreads of nine pairs are unequal. The first pair, which is the best, has the largest one.
var (
	evenSpreads  = spreads(func(i float64) float64 { return 1.8 - 1.5*i/8 })
	ratioSpreads = spreads(func(i float64) float64 { return 1.8 * math.Pow(6, -i/8) })
	oneSpread    = spreads(func(i float64) float64 { return max(0.3, 1.8-10*i) })
)

func spreads(of func(i float64) float64) (list []float64) {
	for i := range 9 {
		list = append(list, of(float64(i)))
	}
	return list
}

// bothTests returns the p of the best sample against each other, corrected by Holm, once by the
// additive model and once by the paired test. All samples have the same seeds.
func bothTests(model analysis.Additive, samples []analysis.Sample, best int) (additive, paired []float64) {
	additive, paired = constant(len(samples), math.NaN()), constant(len(samples), math.NaN())
	for i := range samples {
		if i == best {
			continue
		}
		difference, se, _ := model.Compare(best, i)
		additive[i] = 2 * distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(model.Degrees)}.CDF(-difference/se)
		var d []float64
		for k, s := range samples[best].Scores {
			d = append(d, s.Percent-samples[i].Scores[k].Percent)
		}
		_, _, paired[i] = analysis.PairedT(d)
	}
	return analysis.Holm(additive), analysis.Holm(paired)
}

// levels are values of SpreadAlpha. With 0 the spreads are always pooled, with 1 never.
var levels = []float64{0, 0.05, 0.1, 0.15, 0.2, 0.25, 1}

// TestErrorsOfComparisons simulates studies of nine pairs with known means and spreads, and counts
// two kinds of errors for several values of SpreadAlpha. A pair is lost if it is truly best but is
// called worse; this counts the worst of nine pairs with equal means, and the best of realMeans. A
// pair is missed if it is L = 1, which is 3.8 points worse in realMeans, but is not called worse.
// IGC_SIMULATE=long simulates more, and studies of two seeds, which are only printed. -v prints the
// table of docs/analysis.md.
func TestErrorsOfComparisons(t *testing.T) {
	if testing.Short() {
		t.Skip("a simulation runs in one goroutine: the race detector, for which -short is, finds nothing in it")
	}
	t.Parallel()
	studies, lengths := 100, []int{3, 5} // numbers of seeds
	if os.Getenv("IGC_SIMULATE") == "long" {
		studies, lengths = 3000, []int{2, 3, 5}
	}
	for _, of := range []struct {
		name    string
		spreads []float64
	}{
		{"equal", constant(9, 0.93)}, // as in the recorded study
		{"0.3 to 1.8, even steps", evenSpreads},
		{"0.3 to 1.8, even ratios", ratioSpreads},
		{"one 1.8, others 0.3", oneSpread},
	} {
		for _, seeds := range lengths {
			equal, pooledEqual := timesWorse(t, studies, seeds, constant(9, 53), of.spreads)
			real, pooledReal := timesWorse(t, studies, seeds, realMeans, of.spreads)
			for k, level := range levels {
				share := func(n int) float64 { return float64(n) / float64(studies) }
				lost, missed := share(max(slices.Max(equal[k][:]), real[k][0])), 1-share(real[k][8])
				t.Logf("%-24s %d seeds  level %4.2f: pooled in %5.1f %%, lost %4.1f %%, missed %4.1f %%", of.name,
					seeds, level, 100*share(pooledEqual[k]+pooledReal[k])/2, 100*lost, 100*missed)
				if level != analysis.SpreadAlpha || seeds == 2 {
					continue
				}
				// lost is the largest of nine shares: four standard deviations are allowed.
				if lost > analysis.Alpha+4*math.Sqrt(analysis.Alpha*(1-analysis.Alpha)/float64(studies)) {
					t.Errorf("%s, %d seeds: the best is lost in %.1f %%", of.name, seeds, 100*lost)
				}
				if of.name == "equal" && missed > 0.3 {
					t.Errorf("%d seeds: L = 1 is missed in %.1f %%", seeds, 100*missed)
				}
			}
		}
	}
}

// timesWorse simulates studies and returns, for each of levels, how often each sample is called
// worse than the best, and in how many studies the spreads are pooled.
func timesWorse(t *testing.T, studies, seeds int, means, spreads []float64) (worse [][9]int, pooled []int) {
	random := rand.New(rand.NewPCG(uint64(seeds), 11))
	worse, pooled = make([][9]int, len(levels)), make([]int, len(levels))
	for range studies {
		a := analysis.Analyze(studyOf(random, seeds, means, spreads))
		additive, paired := bothTests(a.Model, a.Samples, a.Best)
		for k, level := range levels {
			p := paired
			if level < 1 && a.Spreads.P > level {
				p = additive
				pooled[k]++
			}
			for i := range p {
				called := p[i] <= analysis.Alpha
				if called {
					worse[k][i]++
				}
				if level == analysis.SpreadAlpha && called != (a.Verdicts[i] == analysis.Separated) {
					t.Fatalf("sample %d is %q, p = %g, spreads %+v", i, a.Verdicts[i], p[i], a.Spreads)
				}
			}
		}
	}
	return worse, pooled
}

// TestIntervalsOfAccuracies simulates studies of nine pairs and counts how often the 95 % interval
// of a pair contains its true mean. IGC_SIMULATE=long simulates more, and -v prints the numbers of
// docs/analysis.md.
func TestIntervalsOfAccuracies(t *testing.T) {
	t.Parallel()
	studies := 60
	if os.Getenv("IGC_SIMULATE") == "long" {
		studies = 1000
	}
	for _, of := range []struct {
		name    string
		mean    float64
		spreads []float64
		seed    float64 // the standard deviation of the effect of a seed
	}{
		{"53 %, spread 0.93", 53, constant(9, 0.93), 0.2},
		{"53 %, spread 0.93, seeds add 2", 53, constant(9, 0.93), 2},
		{"53 %, spreads 0.3 to 1.8", 53, evenSpreads, 0.2},
		{"97 %, spread 0.93", 97, constant(9, 0.93), 0},
		{"75 %, spread 9", 75, constant(9, 9), 0},
	} {
		for _, seeds := range []int{3, 5} {
			random := rand.New(rand.NewPCG(uint64(seeds), 21))
			hits, all := 0, 0
			for range studies {
				samples := studyOf(random, seeds, constant(9, of.mean), of.spreads)
				for s := range seeds {
					luck := 0.
					if of.seed > 0.2 {
						luck = of.seed * random.NormFloat64()
					}
					for i := range samples {
						samples[i].Scores[s].Percent = min(100, max(0, samples[i].Scores[s].Percent+luck))
					}
				}
				for _, m := range analysis.Analyze(samples).Summaries {
					if all++; m.Low <= of.mean && of.mean <= m.High {
						hits++
					}
					if m.Low < 0 || m.High > 100 {
						t.Fatalf("an interval is %g to %g", m.Low, m.High)
					}
				}
			}
			share := float64(hits) / float64(all)
			t.Logf("%-30s %d seeds: %.1f %% of %d intervals have the mean", of.name, seeds, 100*share, all)
			// All pairs of a study share its seeds, so a study counts as one interval.
			if share < 0.95-3.5*math.Sqrt(0.95*0.05/float64(studies)) {
				t.Errorf("%s, %d seeds: only %.1f %% of the intervals have the mean", of.name, seeds, 100*share)
			}
		}
	}
}

// TestSummarize summarizes scores with the mean 3 and the deviation 1. A table of Student's t has
// t(0.975, 2) = 4.303.
func TestSummarize(t *testing.T) {
	t.Parallel()
	s := analysis.Summarize([]float64{2, 3, 4})
	half := 4.30265 / math.Sqrt(3)
	if s.N != 3 || s.Mean != 3 || s.Std != 1 || math.Abs(s.Low-3+half) > 1e-5 || math.Abs(s.High-3-half) > 1e-5 {
		t.Errorf("%+v", s)
	}
	for n := range 2 {
		s := analysis.Summarize(make([]float64, n))
		if s.N != n || !math.IsNaN(s.Std) || !math.IsNaN(s.Low) || n == 0 != math.IsNaN(s.Mean) {
			t.Errorf("of %d: %+v", n, s)
		}
	}
}

func TestFront(t *testing.T) {
	t.Parallel()
	t.Run("a sample with the same cost or accuracy as a better one is not on the front", func(t *testing.T) {
		values := [][]float64{{-50, 1}, {-51, 1}, {-51, 2}, {-52, 2}, {-40, 9}, nil}
		want := []bool{false, true, false, true, false, false}
		if got := analysis.Front(values); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}
