package posterior_test

import (
	"math"
	"testing"

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

func BenchmarkCurve(b *testing.B) {
	m := posterior.NewCurve(log2(recordedM), posterior.Quick)
	for b.Loop() {
		m.Given(recordedResults())
	}
}
