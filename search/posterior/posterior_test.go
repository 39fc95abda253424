package posterior_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat/distuv"

	"igcsearch/search/posterior"
)

// The record of real pictures in cmd/igcsearch/testdata/recorded: nine pairs, three seeds, correct
// of 10,000 pictures.
var (
	recordedM = []int{1, 2, 3, 6, 9, 10, 13, 16, 23}
	recorded  = [][]float64{{5353, 5087, 5426}, {5347, 5358, 5271}, {5499, 5281, 5324}, {5352, 5367, 5344},
		{5180, 5179, 5362}, {5226, 5312, 5322}, {5150, 5302, 5142}, {4980, 5043, 5046}, {4950, 5032, 4994}}
)

func log2(ms []int) []float64 {
	var x []float64
	for _, m := range ms {
		x = append(x, math.Log2(float64(m)))
	}
	return x
}

func recordedResults() (list []posterior.Result) {
	for i, row := range recorded {
		for seed, correct := range row {
			list = append(list, posterior.Result{Network: i, Seed: seed, Score: correct / 100})
		}
	}
	return list
}

// The values are of an independent program: the simulator from which this model was taken, with
// other shapes and draws. Its and our shares are of 2,048 draws.
func TestRecordedStudy(t *testing.T) {
	p := posterior.NewCurve(log2(recordedM), posterior.Fine).Given(recordedResults())
	best, mean := p.Best(nil), p.Mean()
	for i, want := range []struct{ best, mean float64 }{{7.6, 52.99}, {27.6, 53.46}, {51.6, 53.55}, {13.0, 53.27},
		{0, 52.58}, {0.1, 52.44}, {0, 51.72}, {0, 50.97}, {0, 49.86}} {
		if got := 100 * best[i]; math.Abs(got-want.best) > 3 {
			t.Errorf("M = %d is the best with %.1f %%, want %.1f %%", recordedM[i], got, want.best)
		}
		if math.Abs(mean[i]-want.mean) > 0.05 {
			t.Errorf("M = %d has an expected mean of %.2f %%, want %.2f %%", recordedM[i], mean[i], want.mean)
		}
	}
	if math.Abs(p.Concave-0.83) > 0.03 {
		t.Errorf("the concave curves have a weight of %.2f, want 0.83", p.Concave)
	}
}

// models are models of four networks, two of which have the same x, and of fewer.
func models() map[string]posterior.Model {
	points := [][]float64{{0, 1}, {1, 1}, {1, 1}, {3, 0}}
	return map[string]posterior.Model{
		"curve":   posterior.NewCurve([]float64{0, 1, 1, 3}, posterior.Quick),
		"field":   posterior.NewField(points, posterior.Quick),
		"free":    posterior.NewFree(4, posterior.Quick),
		"surface": posterior.NewSurface(points),
	}
}

// finite checks that every number of a posterior is one.
func finite(t *testing.T, p *posterior.Posterior) {
	t.Helper()
	check := func(what string, v ...float64) {
		for _, x := range v {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				t.Errorf("%s: %v", what, v)
				return
			}
		}
	}
	for _, draw := range p.Draws {
		check("a draw", draw...)
	}
	check("Sigma", p.Sigma)
	if !math.IsNaN(p.Concave) {
		check("Concave", p.Concave)
	}
	check("Mean", p.Mean()...)
	check("Improvement", p.Improvement(0)...)
	for _, may := range [][]bool{nil, append([]bool{true}, make([]bool, len(p.Draws[0])-1)...)} {
		best := p.Best(may)
		if math.Abs(floats.Sum(best)-1) > 1e-9 {
			t.Errorf("the probabilities of the best sum to %g", floats.Sum(best))
		}
		for i, v := range best {
			if may != nil && !may[i] && v > 0 {
				t.Errorf("network %d may not be the best, but is so with probability %g", i, v)
			}
		}
		within := p.Within(0.3, may)
		for i, v := range within {
			if v > 1+1e-9 || v < best[i]-1e-9 {
				t.Errorf("network %d is within the margin with probability %g and the best with %g", i, v, best[i])
			}
		}
		expected, bound := p.Regret(0, may, 0.05)
		check("Regret", expected, bound)
	}
	pointwise, simultaneous := p.Bands(0.9)
	for i := range pointwise {
		check("Bands", pointwise[i].Low, pointwise[i].High, simultaneous[i].Low, simultaneous[i].High)
	}
}

func TestFewResults(t *testing.T) {
	t.Parallel()
	for name, results := range map[string][]posterior.Result{
		"one result":             {{Network: 2, Seed: 5, Score: 60}},
		"equal scores":           {{Seed: 0, Score: 60}, {Seed: 1, Score: 60}, {Network: 1, Score: 60}, {Network: 3, Score: 60}},
		"scores of 0 and 100":    {{Score: 0}, {Network: 1, Score: 100}, {Network: 2, Score: 0}, {Network: 3, Score: 100}},
		"many seeds of one":      {{Seed: 0, Score: 1}, {Seed: 1, Score: 2}, {Seed: 2, Score: 3}, {Seed: 3, Score: 4}},
		"the same trial twice":   {{Score: 50}, {Score: 51}, {Network: 1, Score: 52}},
		"far above 100":          {{Score: 1e6}, {Network: 1, Score: -1e6}, {Network: 1, Seed: 1, Score: 1e6}},
		"almost the same scores": {{Score: 50}, {Network: 1, Score: 50 + 1e-12}, {Network: 3, Score: 50}},
	} {
		for model, m := range models() {
			t.Run(name+"/"+model, func(t *testing.T) { finite(t, m.Given(results)) })
		}
	}
	t.Run("one network", func(t *testing.T) {
		one := []posterior.Result{{Score: 60}, {Seed: 1, Score: 61}}
		for _, m := range []posterior.Model{posterior.NewFree(1, posterior.Quick),
			posterior.NewField([][]float64{{7}}, posterior.Quick), posterior.NewSurface([][]float64{{7}})} {
			p := m.Given(one)
			finite(t, p)
			if best := p.Best(nil)[0]; math.Abs(best-1) > 1e-9 {
				t.Errorf("the only network is the best with probability %g", best)
			}
		}
	})
	t.Run("two networks", func(t *testing.T) {
		finite(t, posterior.NewCurve([]float64{0, 3}, posterior.Quick).Given([]posterior.Result{{Score: 60},
			{Network: 1, Score: 58}}))
	})
	t.Run("no result", func(t *testing.T) {
		for name, m := range models() {
			if p := m.Given(nil); p != nil {
				t.Errorf("%s: %v", name, p)
			}
		}
	})
}

// TestOrder checks that the order of the results changes the draws by no more than the rounding of
// sums. The draws of a surface depend on the order, within their error.
func TestOrder(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(2, 0))
	results := recordedResults()[:20]
	other := slices.Clone(results)
	for _, m := range []posterior.Model{posterior.NewCurve(log2(recordedM), posterior.Quick),
		posterior.NewFree(9, posterior.Quick)} {
		want := m.Given(results)
		for range 20 {
			random.Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
			got, moved := m.Given(other), 0
			for x := range want.Draws {
				if floats.Distance(got.Draws[x], want.Draws[x], math.Inf(1)) > 1e-6 {
					moved++ // the draw lies between two parts of the mixture
				}
			}
			if moved > 1 {
				t.Errorf("%d draws differ", moved)
			}
		}
	}
}

// TestShares compares what a Posterior says with its draws.
func TestShares(t *testing.T) {
	t.Parallel()
	p := posterior.Posterior{Draws: [][]float64{{1, 2, 0}, {4, 1, 0}, {1, 3, 3.2}, {2, 1, 0}}}
	for _, c := range []struct {
		what      string
		got, want []float64
	}{
		{"Mean", p.Mean(), []float64{2, 1.75, 0.8}},
		{"Best", p.Best(nil), []float64{0.5, 0.25, 0.25}},
		{"Best without the first", p.Best([]bool{false, true, true}), []float64{0, 0.75, 0.25}},
		{"Within 0.5", p.Within(0.5, nil), []float64{0.5, 0.5, 0.25}},
		{"Within 1", p.Within(1, nil), []float64{0.75, 0.75, 0.25}},
		{"Improvement", p.Improvement(0), []float64{0, 0.75, 0.55}},
	} {
		if !floats.EqualApprox(c.got, c.want, 1e-12) {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
	expected, bound := p.Regret(0, nil, 0.05)
	if math.Abs(expected-(1+2.2)/4) > 1e-12 || math.Abs(bound-2.2) > 1e-12 {
		t.Errorf("the first loses %g, at most %g", expected, bound)
	}
	if _, bound := p.Regret(0, nil, 0.25); math.Abs(bound-1) > 1e-12 {
		t.Errorf("the first loses at most %g in three of four draws", bound)
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	best := []float64{0.1, 0.5, 0, 0.3, 0.1}
	for _, c := range []struct {
		confidence float64
		want       []int
	}{{0.5, []int{1}}, {0.51, []int{1, 3}}, {0.8, []int{1, 3}}, {0.9, []int{1, 3, 0}}, {1, []int{1, 3, 0, 4}}} {
		if got := posterior.Set(best, c.confidence); !slices.Equal(got, c.want) {
			t.Errorf("the set for %g is %v, want %v", c.confidence, got, c.want)
		}
	}
}

// TestBands draws from a known distribution: independent normal means. The simultaneous band is then
// as wide as the quantile of the largest of k normal numbers: 2Φ(z) − 1 = 0.95^(1/k).
func TestBands(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 0))
	const k = 9
	p := posterior.Posterior{}
	for range 40000 {
		draw := make([]float64, k)
		for i := range draw {
			draw[i] = 50 + float64(i)*random.NormFloat64()
		}
		p.Draws = append(p.Draws, draw)
	}
	pointwise, simultaneous := p.Bands(0.95)
	z := distuv.UnitNormal.Quantile((1 + math.Pow(0.95, 1./(k-1))) / 2) // one of the nine is always 50
	for i := range k {
		sd := float64(i)
		for _, c := range []struct{ got, want float64 }{{pointwise[i].Low, 50 - 1.96*sd}, {pointwise[i].High, 50 + 1.96*sd},
			{simultaneous[i].Low, 50 - z*sd}, {simultaneous[i].High, 50 + z*sd}} {
			if math.Abs(c.got-c.want) > 0.04*sd+1e-9 {
				t.Errorf("network %d ends at %.3f, want %.3f", i, c.got, c.want)
			}
		}
	}
}

// FuzzGiven gives models results of four networks: three bytes for each one.
func FuzzGiven(f *testing.F) {
	f.Add([]byte{0, 0, 60})
	f.Add([]byte{0, 0, 60, 1, 0, 60, 2, 0, 60, 3, 0, 60})
	f.Add([]byte{0, 0, 0, 3, 0, 255, 0, 1, 0, 3, 1, 255})
	f.Add([]byte{1, 9, 7, 1, 9, 7, 1, 9, 8, 2, 9, 7})
	f.Add([]byte{0, 1, 50, 1, 2, 51, 2, 3, 52, 3, 4, 47, 0, 5, 51, 1, 6, 50})
	all := models()
	f.Fuzz(func(t *testing.T, text []byte) {
		var results []posterior.Result
		for ; len(text) >= 3 && len(results) < 40; text = text[3:] {
			score := float64(text[2]) * 100 / 255
			results = append(results, posterior.Result{Network: int(text[0] % 4), Seed: int(text[1]), Score: score})
		}
		for _, m := range all {
			if p := m.Given(results); p != nil {
				finite(t, p)
			}
		}
	})
}

func BenchmarkCurve(b *testing.B) {
	m := posterior.NewCurve(log2(recordedM), posterior.Quick)
	for b.Loop() {
		m.Given(recordedResults())
	}
}
