package graph

import (
	"math"
	"slices"
	"strings"
	"testing"

	"igcsearch/space"
)

func TestInitialise(t *testing.T) {
	m, err := New(space.Figure3(space.Pair{L: 40, M: 2}, 1, space.Shape{C: 3, H: 2, W: 2}, 100), 1, Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Initialise(5)
	// Standard deviations by the protocol: sqrt(2/fan_in), fan_in of one
	// partition; the linear layer's is that of a uniform, bound/sqrt(3).
	for name, want := range map[string]float64{
		"conv0.weight":            math.Sqrt(2. / (3 * 9)),
		"block1.primary.weight":   math.Sqrt(2. / (2 * 9)),
		"block1.secondary.weight": math.Sqrt(2. / 40),
		"fc.weight":               math.Sqrt(1./80) / math.Sqrt(3),
	} {
		i := slices.IndexFunc(m.Params, func(p Param) bool { return p.Name == name })
		var sum, sq float64
		for _, v := range m.Params[i].Value {
			sum += float64(v)
			sq += float64(v) * float64(v)
		}
		n := float64(len(m.Params[i].Value))
		if std := math.Sqrt(sq/n - sum*sum/n/n); math.Abs(std/want-1) > 4/math.Sqrt(2*n) {
			t.Errorf("%s: standard deviation %.4f, want %.4f", name, std, want)
		}
		if math.Abs(sum/n) > 4*want/math.Sqrt(n) {
			t.Errorf("%s: mean %.4f", name, sum/n)
		}
	}
	for _, p := range m.Params {
		if len(p.Shape) != 1 {
			continue
		}
		want := float32(0)
		if strings.HasSuffix(p.Name, ".weight") {
			want = 1
		}
		if slices.ContainsFunc(p.Value, func(v float32) bool { return v != want }) {
			t.Errorf("%s: want all %g", p.Name, want)
		}
	}
}
