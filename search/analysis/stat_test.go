package analysis_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"igcsearch/search/analysis"
)

// These are the hours of sleep that ten patients gained with two drugs (Student, "The probable
// error of a mean", 1908; the data set sleep of R). The expected numbers are in R's documentation
// of t.test.
var (
	drug1 = []float64{0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0}
	drug2 = []float64{1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4}
)

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s is %.9g, want %.9g", what, got, want)
	}
}

func TestTInterval(t *testing.T) {
	t.Parallel()
	t.Run("of 1, 2, 3 by hand", func(t *testing.T) {
		// The deviation is 1. The 97.5 % point of t with two degrees of freedom is 4.302653.
		mean, half := analysis.TInterval([]float64{1, 2, 3})
		near(t, "mean", mean, 2, 1e-15)
		near(t, "half width", half, 4.302653/math.Sqrt(3), 1e-6)
	})
	t.Run("one value has a mean but no interval, and no value has no mean", func(t *testing.T) {
		if mean, half := analysis.TInterval([]float64{5}); mean != 5 || !math.IsNaN(half) {
			t.Errorf("%g ± %g", mean, half)
		}
		if mean, half := analysis.TInterval(nil); !math.IsNaN(mean) || !math.IsNaN(half) {
			t.Errorf("%g ± %g", mean, half)
		}
	})
}

func TestPairedT(t *testing.T) {
	t.Parallel()
	t.Run("of Student's sleep data", func(t *testing.T) {
		var d []float64
		for i := range drug1 {
			d = append(d, drug1[i]-drug2[i])
		}
		mean, half, p := analysis.PairedT(d)
		near(t, "mean", mean, -1.58, 1e-12)
		near(t, "low", mean-half, -2.4598858, 5e-8)
		near(t, "high", mean+half, -0.7001142, 5e-8)
		near(t, "p", p, 0.002833, 5e-7)
	})
	t.Run("has no p for one difference, or for equal differences", func(t *testing.T) {
		for _, d := range [][]float64{{1}, {1, 1, 1}, {0, 0}, {50.1 - 49.8, 60.1 - 59.8}} {
			if mean, half, p := analysis.PairedT(d); math.Abs(mean-d[0]) > 1e-9 || !math.IsNaN(half) || !math.IsNaN(p) {
				t.Errorf("%v: %g ± %g, p = %g", d, mean, half, p)
			}
		}
	})
}

func TestWelch(t *testing.T) {
	t.Parallel()
	difference, half, p, _ := analysis.Welch(drug1, drug2)
	near(t, "difference", difference, -1.58, 1e-12)
	near(t, "low", difference-half, -3.3654832, 5e-8)
	near(t, "high", difference+half, 0.2054832, 5e-8)
	near(t, "p", p, 0.07939, 5e-6)
	if _, half, p, _ := analysis.Welch(drug1, drug2[:1]); !math.IsNaN(half) || !math.IsNaN(p) {
		t.Errorf("of one value: ± %g, p = %g", half, p)
	}
}

// TestDetectable compares with documented results of R's power.t.test and of the vignette of
// pwr.t.test: two groups of n values, a difference in standard deviations, and a two-sided test at
// 5 %. The standard error is √(2/n), and the degrees of freedom are 2n − 2.
func TestDetectable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ n, difference, power float64 }{
		{20, 1, 0.8689528},
		{22.02110, 1, 0.9},
		{25.52458, 0.8, 0.8},
	} {
		near(t, "difference", analysis.Detectable(2*c.n-2, 0.05, c.power)*math.Sqrt(2/c.n), c.difference, 1e-3)
	}
	t.Run("agrees with drawn values for two degrees of freedom", func(t *testing.T) {
		// The 97.5 % point is 4.302653, and t is (z + shift)/√(χ²/2).
		shift := analysis.Detectable(2, 0.05, 0.8)
		random := rand.New(rand.NewPCG(8, 8))
		found := 0
		const draws = 200_000
		for range draws {
			x, y := random.NormFloat64(), random.NormFloat64()
			if (random.NormFloat64()+shift)/math.Sqrt((x*x+y*y)/2) > 4.302653 {
				found++
			}
		}
		near(t, "power", float64(found)/draws, 0.8, 0.004)
	})
}

func TestHolm(t *testing.T) {
	t.Parallel()
	t.Run("by hand", func(t *testing.T) {
		// In rising order these are .005·4, .01·3, .03·2, and .04·1, which is raised to .06.
		p := []float64{.01, .04, .03, .005}
		got := analysis.Holm(p)
		for i, want := range []float64{.03, .06, .06, .02} {
			near(t, "p", got[i], want, 1e-15)
		}
		if !slices.Equal(p, []float64{.01, .04, .03, .005}) {
			t.Errorf("it changed its argument: %v", p)
		}
	})
	t.Run("NaN does not count", func(t *testing.T) {
		got := analysis.Holm([]float64{math.NaN(), .02, .6, .7})
		near(t, "p", got[1], .06, 1e-15)
		if !math.IsNaN(got[0]) || got[2] != 1 || got[3] != 1 {
			t.Errorf("got %v", got)
		}
	})
}
