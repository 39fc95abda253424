package search_test

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"igcsearch/search"
	"igcsearch/space"
)

// arm has those percents of the seeds 0, 1, …; NaN is a seed that is missing.
func arm(l, m int, percents ...float64) search.Arm {
	a := search.Arm{Pair: space.Pair{L: l, M: m}}
	for seed, v := range percents {
		if !math.IsNaN(v) {
			a.Scores = append(a.Scores, search.Score{Seed: seed, Percent: v})
		}
	}
	return a
}

func TestAnalyze(t *testing.T) {
	t.Parallel()
	missing := math.NaN()
	t.Run("pairs seeds, corrects for the number of pairs, and keeps who is not worse", func(t *testing.T) {
		a := search.Analyze([]search.Arm{
			arm(64, 1, 62, 60, 64, 58), // 2, 2.5, 2, 1.5 behind L40M2: significant
			arm(40, 2, 64, 62.5, 66, 59.5),
			arm(1, 23, 60, 66, 55, 59), // 4, −3.5, 11, .5 behind: 3 ± 9.8, not significant
		})
		if a.Best != 1 || !slices.Equal(a.AsGood, []bool{false, true, true}) {
			t.Fatalf("best %d, as good %v", a.Best, a.AsGood)
		}
		// Differences of mean 2 and deviation √(1/6): t = 2/(√(1/6)/2) = √96;
		// three degrees of freedom: p = 1 − (2/π)(θ + sin θ·cos θ) with
		// θ = atan(t/√3), Abramowitz and Stegun 26.7.3.
		theta := math.Atan(math.Sqrt(96. / 3))
		p := 1 - 2/math.Pi*(theta+math.Sin(theta)*math.Cos(theta))
		c := a.Against[0]
		near(t, "difference", c.Difference, 2, 1e-12)
		near(t, "p", c.P, p, 1e-9)
		near(t, "corrected p", c.Holm, 2*p, 1e-9) // the smaller of two
		if c.Common != 4 {
			t.Errorf("%d common seeds, want 4", c.Common)
		}
		if len(a.Paper) != 2 || a.Paper[0].A != 1 || a.Paper[0].B != 0 || a.Paper[1].B != 2 {
			t.Errorf("the paper's comparisons are %+v", a.Paper)
		}
		near(t, "M = 2 against L = 1", a.Paper[1].Difference, 3, 1e-12)
	})
	t.Run("the best is ahead on common seeds, not by the luck of its own", func(t *testing.T) {
		// Seeds 0 and 1 are good ones; an arm that a race dropped after them has
		// the higher mean.
		a := search.Analyze([]search.Arm{arm(64, 1, 70, 71), arm(40, 2, 72, 72.5, 60, 61, 60)})
		if a.Best != 1 || a.Against[0].Common != 2 {
			t.Errorf("best %d, compared %+v", a.Best, a.Against[0])
		}
		near(t, "difference", a.Against[0].Difference, 1.75, 1e-12)
	})
	t.Run("seeds that are not common are compared by Welch", func(t *testing.T) {
		a := search.Analyze([]search.Arm{arm(64, 1, 60, 61, missing, missing), arm(40, 2, missing, missing, 63, 64.5)})
		difference, half, p := search.Welch([]float64{63, 64.5}, []float64{60, 61})
		if got := a.Against[0]; got.Common != 0 || got.Difference != difference || got.Half != half || got.P != p {
			t.Errorf("got %+v, want %g ± %g, p = %g", got, difference, half, p)
		}
	})
	t.Run("one seed decides nothing", func(t *testing.T) {
		a := search.Analyze([]search.Arm{arm(64, 1, 60), arm(40, 2, 65), arm(1, 23)})
		if a.Best != 1 || !slices.Equal(a.AsGood, []bool{true, true, false}) || !math.IsNaN(a.Against[0].P) || !math.IsNaN(a.Means[1].Std) {
			t.Errorf("best %d, as good %v, %+v", a.Best, a.AsGood, a.Against)
		}
	})
	t.Run("without scores there is no best", func(t *testing.T) {
		if a := search.Analyze([]search.Arm{arm(64, 1)}); a.Best != -1 || a.Curve != nil || a.Front[0] {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("the front has who is not beaten in all", func(t *testing.T) {
		arms := []search.Arm{arm(64, 1, 60), arm(40, 2, 62), arm(28, 3, 62), arm(1, 23, 50)}
		for i, c := range []search.Costs{
			{Params: 10, MultiplyAdds: 5, Seconds: 1},
			{Params: 20, MultiplyAdds: 9, Seconds: 0}, // not measured: nobody's counts
			{Params: 21, MultiplyAdds: 9, Seconds: 1},
			{Params: 9, MultiplyAdds: 9, Seconds: 1},
		} {
			arms[i].Costs = c
		}
		a := search.Analyze(arms)
		if want := []bool{true, true, false, true}; !slices.Equal(a.Front, want) {
			t.Errorf("got %v, want %v", a.Front, want)
		}
		if params, multiplyAdds, seconds := a.Known(); !params || !multiplyAdds || seconds {
			t.Errorf("known: %v, %v, %v", params, multiplyAdds, seconds)
		}
	})
}

func TestCurve(t *testing.T) {
	t.Parallel()
	// of returns arms at M = 1, 2, 4, 8 with f(log2 M) plus what each seed adds.
	of := func(f func(x float64) float64, seeds ...float64) []search.Arm {
		var arms []search.Arm
		for x := range 4 {
			var v []float64
			for _, s := range seeds {
				v = append(v, f(float64(x))+s)
			}
			arms = append(arms, arm(10, 1<<x, v...))
		}
		return arms
	}
	t.Run("finds the parabola that is there", func(t *testing.T) {
		// 60 + 2x − x² is highest at x = 1, which is M = 2, with 61.
		c := search.Analyze(of(func(x float64) float64 { return 60 + 2*x - x*x }, -1, 0, 1)).Curve
		for i, want := range []float64{60, 2, -1} {
			near(t, "coefficient", c.At[i], want, 1e-9)
		}
		near(t, "peak", c.Peak, 2, 1e-9)
		near(t, "height", c.Height, 61, 1e-9)
		// Seeds that lift all arms alike move no peak.
		near(t, "low", c.Low, 2, 1e-9)
		near(t, "high", c.High, 2, 1e-9)
	})
	t.Run("what bends up becomes the best line, its peak an end", func(t *testing.T) {
		// x² at 0, 1, 2, 3 has the line 3x − 1.
		c := search.Analyze(of(func(x float64) float64 { return x * x }, 0)).Curve
		if !c.Straight || c.At[2] != 0 {
			t.Errorf("got %+v", c)
		}
		near(t, "constant", c.At[0], -1, 1e-9)
		near(t, "slope", c.At[1], 3, 1e-9)
		near(t, "peak", c.Peak, 8, 1e-9)
		if !math.IsNaN(c.Low) || !math.IsNaN(c.High) {
			t.Error("one seed has an interval")
		}
	})
	t.Run("a peak outside is at the end", func(t *testing.T) {
		c := search.Analyze(of(func(x float64) float64 { return 60 - 2*x - x*x }, 0)).Curve
		near(t, "peak", c.Peak, 1, 1e-9)
		near(t, "height", c.Height, 60, 1e-9)
	})
	t.Run("two M have none", func(t *testing.T) {
		if c := search.Analyze([]search.Arm{arm(64, 1, 60), arm(40, 2, 61), arm(39, 2, 60)}).Curve; c != nil {
			t.Errorf("got %+v", c)
		}
	})
	t.Run("the same numbers have the same interval, and it has the peak in it", func(t *testing.T) {
		random := rand.New(rand.NewPCG(7, 7))
		arms := of(func(x float64) float64 { return 60 + 3*x - x*x }, 0, 0, 0, 0, 0)
		for i := range arms {
			for k := range arms[i].Scores {
				arms[i].Scores[k].Percent += random.NormFloat64()
			}
		}
		a, b := search.Analyze(arms).Curve, search.Analyze(arms).Curve
		if !reflect.DeepEqual(a, b) || !(a.Low < a.Peak && a.Peak < a.High) {
			t.Errorf("%+v, then %+v", a, b)
		}
	})
}

// TestTheBestIsKept simulates studies with known means: the arm that is truly
// best must be lost in at most 5 % of them, within the error of the simulation.
func TestTheBestIsKept(t *testing.T) {
	t.Parallel()
	const studies = 2000
	allowed := search.Alpha + 3*math.Sqrt(search.Alpha*(1-search.Alpha)/studies)
	for name, means := range map[string][]float64{
		"all are equal":    {60, 60, 60, 60, 60, 60},
		"one is better":    {61, 60, 60, 60, 60, 60},
		"two are the best": {61, 61, 58, 57, 56, 50},
	} {
		for _, seeds := range []int{3, 5} {
			random := rand.New(rand.NewPCG(uint64(seeds), 11))
			lost, kept := 0, 0
			for range studies {
				arms := make([]search.Arm, len(means))
				for s := range seeds {
					luck := 2 * random.NormFloat64() // of the seed, in all arms
					for i, mean := range means {
						arms[i].Scores = append(arms[i].Scores, search.Score{Seed: s, Percent: mean + luck + random.NormFloat64()})
					}
				}
				a := search.Analyze(arms)
				if !a.AsGood[0] {
					lost++
				}
				for _, good := range a.AsGood {
					if good {
						kept++
					}
				}
			}
			t.Logf("%s, %d seeds: the best is lost in %.1f %%, %.1f of %d are kept", name, seeds, 100*float64(lost)/studies, float64(kept)/studies, len(means))
			if float64(lost) > allowed*studies {
				t.Errorf("%s, %d seeds: the best is lost in %d of %d studies", name, seeds, lost, studies)
			}
		}
	}
}

// TestPeakInterval simulates studies of the pairs of Table 1 (i) with a known
// curve: the interval of the peak must have it about as often as it says.
// docs/analysis.md has the figures of more studies.
func TestPeakInterval(t *testing.T) {
	t.Parallel()
	const studies, seeds = 100, 5
	random := rand.New(rand.NewPCG(1, seeds))
	hits := 0
	for range studies {
		var luck [seeds]float64
		for s := range luck {
			luck[s] = random.NormFloat64()
		}
		var arms []search.Arm
		for _, m := range []int{1, 2, 3, 6, 9, 10, 13, 16, 23} {
			x := math.Log2(float64(m))
			var v []float64
			for s := range seeds {
				v = append(v, 53+1.4*x-0.46*x*x+luck[s]+random.NormFloat64())
			}
			arms = append(arms, arm(1, m, v...))
		}
		if c := search.Analyze(arms).Curve; c.Low <= math.Exp2(1.4/0.92) && math.Exp2(1.4/0.92) <= c.High {
			hits++
		}
	}
	t.Logf("%d of %d intervals have the peak", hits, studies)
	if hits < 85 {
		t.Errorf("only %d of %d intervals have the peak", hits, studies)
	}
}
