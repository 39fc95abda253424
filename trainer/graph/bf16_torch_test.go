package graph_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"

	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// bf16Run is a training of ten steps. Tensors are one after the other, in the order of
// PyTorch's parameters.
type bf16Run struct {
	FirstLogits    []float64 `json:"first_logits"`
	FirstGradients []float64 `json:"first_gradients"`
	Losses         []float64
	LastLogits     []float64 `json:"last_logits"`
	Weights        []float64
}

// bf16Recorded is what testdata/torch_bfloat16.py recorded of a network (PyTorch 1.13.0, CPU).
type bf16Recorded struct {
	L, M      int
	Order     []string
	Distances map[string]struct {
		FirstGradients float64 `json:"first_gradients"`
		Weights        float64
	}
	Runs struct{ Autocast, Rules, Float32 bf16Run }
}

// distance is the length of got − want over that of want.
func distance(got, want []float64) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var d, w float64
	for i := range got {
		d += (got[i] - want[i]) * (got[i] - want[i])
		w += want[i] * want[i]
	}
	return math.Sqrt(d / w)
}

// TestBF16AgreesWithPyTorch compares ten training steps in bfloat16 with PyTorch's.
//
// PyTorch's operations in float64, rounded where docs/bfloat16.md says, give the logits
// and the gradients of the first step to all digits that are recorded: nothing else is
// rounded, and nothing less. A training in float32 is about a hundred times as far away. From
// then on they differ where two sums of another order lie on both sides of a tie, and
// training makes more of that. After ten steps our weights are still nearer to these by
// half, at least, than those of float32.
//
// Autocast also rounds what follows the pool and the gradients of weights. It is as far
// from us, in the first gradients and in the weights after ten steps, as it is from
// itself with sums of another order, within a factor of 1.5, and nearer than its
// training in float32 is. That of the logits is no such measure: it rounds them, which
// moves them by up to 0.4 %.
func TestBF16AgreesWithPyTorch(t *testing.T) {
	const side, batch, classes, blocks = 8, 17, 5, 2
	var recorded struct{ Networks []bf16Recorded }
	text, err := os.ReadFile("testdata/torch_bfloat16.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &recorded); err != nil {
		t.Fatal(err)
	}
	train := func(t *testing.T, n bf16Recorded, p kernel.Precision) (r bf16Run) {
		m := newModel(t, space.Pair{L: n.L, M: n.M}, blocks, side, classes, batch,
			graph.Options{ISA: kernel.Available()[0], Threads: 2, DecayAll: true, Precision: p})
		fill(m, n.Order)
		flat := func(of func(graph.Param) []float32) (all []float64) {
			for _, name := range n.Order {
				at := slices.IndexFunc(m.Params, func(p graph.Param) bool { return p.Name == name })
				all = append(all, wide(of(m.Params[at]))...)
			}
			return all
		}
		for s := range n.Runs.Rules.Losses {
			labels := make([]int, batch)
			for i := range labels {
				labels[i] = (s + i*i) % classes
			}
			feed(m, formula(100+s, batch*3*side*side), labels)
			r.Losses = append(r.Losses, step(t, m))
			r.LastLogits = wide(m.Logits(true))
			if s == 0 {
				r.FirstLogits = r.LastLogits
				r.FirstGradients = flat(func(p graph.Param) []float32 { return p.Grad })
			}
			m.Update(graph.Rates{Learning: 0.05}, 0.9, 0.01)
		}
		r.Weights = flat(func(p graph.Param) []float32 { return p.Value })
		return r
	}
	atMost := func(t *testing.T, what string, got, limit float64) {
		t.Helper()
		t.Logf("%s: %.2g, at most %.2g", what, got, limit)
		if !(got <= limit) {
			t.Errorf("%s: the distance is %.3g, want at most %.3g", what, got, limit)
		}
	}
	for _, n := range recorded.Networks {
		for _, p := range bfloat16s {
			t.Run(fmt.Sprintf("L%dM%d/%v", n.L, n.M, p), func(t *testing.T) {
				got, rules, autocast, float := train(t, n, p), n.Runs.Rules, n.Runs.Autocast, n.Runs.Float32
				atMost(t, "first logits and the rules", distance(got.FirstLogits, rules.FirstLogits), 5e-5)
				atMost(t, "first gradients and the rules", distance(got.FirstGradients, rules.FirstGradients), 5e-5)
				atMost(t, "losses and the rules", distance(got.Losses, rules.Losses), 1e-4)
				atMost(t, "last logits and the rules", distance(got.LastLogits, rules.LastLogits), 1e-2)
				atMost(t, "weights and the rules", distance(got.Weights, rules.Weights), distance(float.Weights, rules.Weights)/2)
				var gradients, weights float64 // PyTorch's distance from itself
				for _, d := range n.Distances {
					gradients, weights = max(gradients, d.FirstGradients), max(weights, d.Weights)
				}
				atMost(t, "first gradients and autocast", distance(got.FirstGradients, autocast.FirstGradients),
					min(1.5*gradients, distance(float.FirstGradients, autocast.FirstGradients)))
				atMost(t, "weights and autocast", distance(got.Weights, autocast.Weights),
					min(1.5*weights, distance(float.Weights, autocast.Weights)))
			})
		}
	}
}

func wide(s []float32) []float64 {
	out := make([]float64, len(s))
	for i, v := range s {
		out[i] = float64(v)
	}
	return out
}
