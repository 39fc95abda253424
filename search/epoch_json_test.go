package search_test

import (
	"encoding/json"
	"math"
	"testing"

	"igcsearch/search"
)

// FuzzEpochJSON: an epoch comes back from JSON with every bit.
func FuzzEpochJSON(f *testing.F) {
	for _, bits := range []uint64{0, 1, 1 << 63, math.Float64bits(0.1), math.Float64bits(math.MaxFloat64),
		math.Float64bits(math.Inf(-1)), 0x7ff8000000000001, 0xfff0000000000001} {
		f.Add(bits, 3)
	}
	f.Fuzz(func(t *testing.T, bits uint64, n int) {
		x := math.Float64frombits(bits)
		want := search.Epoch{n, x, -x, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, x / 5, x / 7, x / 2, x * 3}
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got search.Epoch
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		same := func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }
		if !same(got.LearningRate, want.LearningRate) || !same(got.TrainLoss, want.TrainLoss) ||
			!same(got.ValidationLoss, want.ValidationLoss) || !same(got.TestLoss, want.TestLoss) || !same(got.TrainSeconds, want.TrainSeconds) || !same(got.EvalSeconds, want.EvalSeconds) {
			t.Fatalf("%s became %+v", text, got)
		}
		for _, e := range []*search.Epoch{&got, &want} {
			e.LearningRate, e.TrainLoss, e.ValidationLoss, e.TestLoss, e.TrainSeconds, e.EvalSeconds = 0, 0, 0, 0, 0, 0
		}
		if got != want {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}
