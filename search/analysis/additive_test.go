package analysis_test

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"

	"igcsearch/search/analysis"
)

// penicillin returns the yields of four treatments in five blends (Box, Hunter and Hunter,
// "Statistics for Experimenters", section 4.2). Their sums of squares are 70 for the treatments,
// 264 for the blends, and 226 for the residual with 12 degrees of freedom. The means of the
// treatments are 84, 85, 89 and 86.
func penicillin() []analysis.Sample {
	return []analysis.Sample{sample(64, 1, 89, 84, 81, 87, 79), sample(40, 2, 88, 77, 87, 92, 81),
		sample(28, 3, 97, 92, 87, 89, 80), sample(12, 6, 94, 79, 85, 84, 88)}
}

func TestFitAdditive(t *testing.T) {
	t.Parallel()
	t.Run("a complete table from a textbook", func(t *testing.T) {
		f := analysis.FitAdditive(penicillin())
		near(t, "residual", f.Squares, 226, 1e-9)
		if f.Degrees != 12 {
			t.Errorf("%d degrees of freedom, want 12", f.Degrees)
		}
		difference, se, ok := f.Compare(2, 0)
		near(t, "difference", difference, 5, 1e-12)
		near(t, "its standard error", se, math.Sqrt(226./12*2/5), 1e-12)
		if !ok {
			t.Error("it cannot compare")
		}
	})
	t.Run("a table with missing values from a textbook", func(t *testing.T) {
		// Each of four batches has three of four catalysts (Montgomery, "Design and Analysis of
		// Experiments", section 4.4). The residual is 3.25 with 5 degrees of freedom. The adjusted
		// effects are 3·Q/8 with Q = −9/3, −7/3, −4/3, 20/3. A difference has the standard error
		// √(2·3/8 · 0.65).
		f := analysis.FitAdditive([]analysis.Sample{
			sample(4, 1, 73, 74, missing, 71), sample(4, 2, missing, 75, 67, 72), sample(4, 3, 73, 75, 68, missing),
			sample(4, 4, 75, missing, 72, 75),
		})
		near(t, "residual", f.Squares, 3.25, 1e-9)
		if f.Degrees != 5 {
			t.Errorf("%d degrees of freedom, want 5", f.Degrees)
		}
		q := []float64{-9. / 3, -7. / 3, -4. / 3, 20. / 3}
		for i := range q {
			if i == 3 {
				continue
			}
			difference, se, ok := f.Compare(3, i)
			near(t, "difference", difference, 3./8*(q[3]-q[i]), 1e-9)
			near(t, "its standard error", se, math.Sqrt(2*3./8*0.65), 1e-9)
			if !ok {
				t.Error("it cannot compare")
			}
		}
	})
	t.Run("a sample of one seed changes no other, and is compared by the effect of its seed", func(t *testing.T) {
		// Seed 1 adds 4 to two samples. So the third, which has 54 at seed 1, would have 50 at seed
		// 0.
		f := analysis.FitAdditive([]analysis.Sample{sample(4, 1, 60, 64), sample(4, 2, 58, 62),
			sample(4, 3, missing, 54)})
		near(t, "residual", f.Squares, 0, 1e-20)
		difference, _, ok := f.Compare(0, 2)
		near(t, "difference", difference, 10, 1e-9)
		if !ok || f.Degrees != 1 {
			t.Errorf("ok %v, %d degrees of freedom", ok, f.Degrees)
		}
	})
	t.Run("samples that no seed connects are not compared", func(t *testing.T) {
		f := analysis.FitAdditive([]analysis.Sample{
			sample(4, 1, 60, 64, missing, missing), sample(4, 2, 58, 61, missing, missing),
			sample(4, 3, missing, missing, 50, 52), sample(4, 4, missing, missing, 51, 52), sample(4, 5),
		})
		for i, want := range []bool{true, true, false, false, false} {
			if _, _, ok := f.Compare(0, i); ok != want {
				t.Errorf("sample 0 with %d: %v, want %v", i, ok, want)
			}
		}
		if f.Degrees != 2 { // 8 scores, 4 samples, 2 differences of seeds
			t.Errorf("%d degrees of freedom, want 2", f.Degrees)
		}
		if _, se, ok := f.Compare(2, 3); !ok || math.IsNaN(se) {
			t.Errorf("samples 2 and 3: %v, %g", ok, se)
		}
		if !math.IsNaN(f.Effects[4]) {
			t.Errorf("a sample without scores has the effect %g", f.Effects[4])
		}
	})
}

func TestSpreads(t *testing.T) {
	t.Parallel()
	t.Run("the share by hand", func(t *testing.T) {
		// The residuals of the samples are ∓1, ∓1 and ±2, and the sums of their squares 2, 2 and 8.
		s := analysis.FitAdditive([]analysis.Sample{sample(4, 1, 50, 50), sample(4, 2, 60, 60),
			sample(4, 3, 70, 76)}).Spreads()
		near(t, "share", s.Share, 8./12, 1e-12)
		if s.Sample != 2 {
			t.Errorf("sample %d has the largest, want 2", s.Sample)
		}
	})
	t.Run("keeps its level, finds a large spread, and has no p for two samples", func(t *testing.T) {
		// If spreads are equal, p is at most the level in this share of the tables.
		const tables = 300
		random := rand.New(rand.NewPCG(5, 5))
		for name, holes := range map[string][]int{"complete": nil, "with holes": {1, 5, 17}} {
			small, found := 0, 0
			for range tables {
				for _, large := range []float64{1, 8} {
					samples := studyOf(random, 4, constant(5, 50), []float64{1, 1, large, 1, 1})
					for _, cell := range slices.Backward(holes) {
						of := &samples[cell/4]
						of.Scores = slices.Delete(of.Scores, cell%4, cell%4+1)
					}
					fit := analysis.FitAdditive(samples)
					p := fit.Spreads().P
					if equal := fit.EqualSpreads(); equal != (p > analysis.SpreadAlpha) {
						t.Fatalf("equal spreads: %v, but p is %g", equal, p)
					}
					if p <= analysis.SpreadAlpha {
						if large == 1 {
							small++
						} else {
							found++
						}
					}
				}
			}
			t.Logf("%s: equal spreads are refused in %d of %d, one of 8 is found in %d", name, small, tables, found)
			const level = analysis.SpreadAlpha
			if share := float64(small) / tables; math.Abs(share-level) > 3.5*math.Sqrt(level*(1-level)/tables) {
				t.Errorf("%s: equal spreads are refused in %.1f %%", name, 100*share)
			}
			if found < 0.8*tables {
				t.Errorf("%s: a spread of 8 among 1 is found in %d of %d", name, found, tables)
			}
		}
		if s := analysis.FitAdditive(studyOf(random, 4, constant(2, 50), []float64{1, 9})).Spreads(); !math.IsNaN(s.P) {
			t.Errorf("of two samples: %+v", s)
		}
	})
}

// spreadChecks are tests of equal spreads. value returns a statistic of the residuals of the
// additive model, one row for each sample; it is large if the spreads are unequal.
var spreadChecks = []struct {
	name  string
	value func(rests [][]float64) float64
}{
	{"Cochran", func(r [][]float64) float64 { v := variances(r); return slices.Max(v) / floats.Sum(v) }},
	{"Bartlett", func(r [][]float64) float64 {
		v := variances(r)
		sum := float64(len(v)) * math.Log(floats.Sum(v))
		for _, x := range v {
			sum -= math.Log(x)
		}
		return sum
	}},
	{"Levene", func(r [][]float64) float64 { return deviations(r, func([]float64) float64 { return 0 }) }},
	{"Brown–Forsythe", func(r [][]float64) float64 {
		return deviations(r, func(v []float64) float64 { v = slices.Sorted(slices.Values(v)); return v[len(v)/2] })
	}},
	{"largest ratio", func(r [][]float64) float64 { v := variances(r); return slices.Max(v) / slices.Min(v) }},
}

// deviations returns the F of a one-way analysis of variance, except for a factor, of the absolute
// differences between the residuals and a centre of their sample.
func deviations(rests [][]float64, center func([]float64) float64) float64 {
	var z [][]float64
	var all []float64
	for _, v := range rests {
		c := center(v)
		var row []float64
		for _, x := range v {
			row = append(row, math.Abs(x-c))
		}
		z, all = append(z, row), append(all, row...)
	}
	between, within := 0., 0.
	for _, row := range z {
		between += float64(len(row)) * math.Pow(stat.Mean(row, nil)-stat.Mean(all, nil), 2)
		within += stat.Variance(row, nil) * float64(len(row)-1)
	}
	return between / within
}

// variances returns the sum of the squares of each row.
func variances(rests [][]float64) (v []float64) {
	for _, row := range rests {
		v = append(v, floats.Dot(row, row))
	}
	return v
}

// residuals returns the residuals of the additive model. All samples have the same seeds, so these
// are the scores without the means of the samples and of the seeds.
func residuals(samples []analysis.Sample) (rests [][]float64) {
	columns := make([]float64, len(samples[0].Scores))
	for _, a := range samples {
		for s := range columns {
			columns[s] += a.Scores[s].Percent / float64(len(samples))
		}
	}
	for _, a := range samples {
		row := make([]float64, len(columns))
		for s := range row {
			row[s] = a.Scores[s].Percent - columns[s]
		}
		floats.AddConst(-stat.Mean(row, nil), row)
		rests = append(rests, row)
	}
	return rests
}

// criticalValues draws 4,000 studies of equal spreads, and returns the value that each of
// spreadChecks exceeds in a share of SpreadAlpha of them.
func criticalValues(random *rand.Rand, seeds int) []float64 {
	drawn := make([][]float64, len(spreadChecks))
	for range 4000 {
		rests := residuals(studyOf(random, seeds, constant(9, 0), constant(9, 1)))
		for k, c := range spreadChecks {
			drawn[k] = append(drawn[k], c.value(rests))
		}
	}
	critical := make([]float64, len(spreadChecks))
	for k := range spreadChecks {
		slices.Sort(drawn[k])
		critical[k] = stat.Quantile(1-analysis.SpreadAlpha, stat.Empirical, drawn[k], nil)
	}
	return critical
}

// TestWhichSpreadCheck compares Cochran's test with other tests of equal spreads at the same level.
// If a test accepts equal spreads, the additive model compares the pairs, and otherwise the paired
// test does. The best pair, which has the largest spread, is lost if all means are equal but it is
// called worse. L = 1 is missed if the means are realMeans but it is not called worse.
// IGC_SIMULATE=long simulates more, and -v prints the numbers of docs/analysis.md.
func TestWhichSpreadCheck(t *testing.T) {
	if testing.Short() {
		t.Skip("a simulation runs in one goroutine: the race detector, for which -short is, finds nothing in it")
	}
	t.Parallel()
	studies, seeds := 500, []int{3}
	if os.Getenv("IGC_SIMULATE") == "long" {
		studies, seeds = 10_000, []int{3, 5}
	}
	for _, n := range seeds {
		random := rand.New(rand.NewPCG(uint64(n), 31))
		critical := criticalValues(random, n)
		for _, of := range []struct {
			name    string
			spreads []float64
		}{{"0.3 to 1.8, even steps", evenSpreads}, {"one 1.8, others 0.3", oneSpread}} {
			lost, missed := make([]float64, len(critical)), make([]float64, len(critical))
			for _, means := range [][]float64{constant(9, 53), realMeans} {
				for range studies {
					samples := studyOf(random, n, means, of.spreads)
					f := analysis.FitAdditive(samples)
					additive, paired := bothTests(f, samples, floats.MaxIdx(f.Effects))
					rests := residuals(samples)
					for k, c := range spreadChecks {
						p := additive
						if c.value(rests) >= critical[k] {
							p = paired
						}
						if means[0] == means[8] && p[0] <= analysis.Alpha {
							lost[k] += 100 / float64(studies)
						}
						if means[0] != means[8] && !(p[8] <= analysis.Alpha) {
							missed[k] += 100 / float64(studies)
						}
					}
				}
			}
			for k, c := range spreadChecks {
				t.Logf("%d seeds, %-24s %-16s lost %4.1f %%, missed %4.1f %%", n, of.name, c.name, lost[k], missed[k])
				if lost[k] < lost[0]-2 {
					t.Errorf("%d seeds, %s: by %s the best is lost in %.1f %%, by Cochran's test in %.1f %%", n,
						of.name, c.name, lost[k], lost[0])
				}
			}
		}
	}
}

// constant returns n times the value v.
func constant(n int, v float64) []float64 {
	list := make([]float64, n)
	for i := range list {
		list[i] = v
	}
	return list
}
